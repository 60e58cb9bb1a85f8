"""The recipe of lazy logits, and the rules by which torch's functions change it instead of computing the logits.

A rule takes a recipe and the arguments of the torch functions that it serves. It returns the recipe of the result, or
None where the result has no recipe, so that the logits must be computed. ``RULES`` has the rule of each function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

# The loss is computed from features and weight, so that a cast between these types loses none of its digits.
NARROW = (torch.float32, torch.bfloat16, torch.float16)
Index = Any


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How to compute lazy logits: ``u = softcap·tanh(x/softcap)/temperature`` with ``x = features @ weight.T + bias``.

    Weight and bias are those of the head's call, which all lazy logits of that call share; a shift may be added to the
    bias.

    Attributes
    ----------
    features
        The features in the shape of the logits, with H instead of C along ``axis``.
    classes
        The number of classes, C.
    axis
        The class dimension of the logits, counted from the front.
    dtype
        The type of the logits.
    softcap
        The soft cap, or None.
    temperature
        The temperature, above 0.
    shift
        One number a class that is added to the head's bias, or None.
    """

    features: Tensor
    classes: int
    axis: int
    dtype: torch.dtype
    softcap: float | None = None
    temperature: float = 1.0
    shift: Tensor | None = None

    def bias(self, bias: Tensor | None) -> Tensor | None:
        """Return the bias of the logits, from that of the head."""
        if self.shift is None:
            return bias
        return self.shift.float() if bias is None else bias.float() + self.shift.float()  # not rounded to a half type

    @property
    def shape(self) -> torch.Size:
        """The shape of the logits."""
        sizes = list(self.features.shape)
        sizes[self.axis] = self.classes
        return torch.Size(sizes)


Changed = Recipe | None


def _view(recipe: Recipe, *sizes: Any) -> Changed:
    """Serve ``view`` and ``reshape`` that leave the classes whole, as the last dimension."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    if not sizes or not all(isinstance(each, int) for each in sizes) or sizes.count(-1) > 1:
        return None
    if recipe.axis != len(recipe.shape) - 1:
        return recipe if tuple(sizes) == tuple(recipe.shape) else None
    rows = recipe.shape[:-1].numel()
    if -1 in sizes:
        others = -math.prod(sizes)
        if others == 0 or rows * recipe.classes % others:
            return None
        sizes = tuple(rows * recipe.classes // others if each == -1 else each for each in sizes)
    if sizes[-1] != recipe.classes or math.prod(sizes[:-1]) != rows:
        return None
    features = recipe.features.reshape(*sizes[:-1], recipe.features.shape[-1])
    return replace(recipe, features=features, axis=len(sizes) - 1)


def _flatten(recipe: Recipe, start_dim: int = 0, end_dim: int = -1) -> Changed:
    start, end = range(len(recipe.shape))[start_dim], range(len(recipe.shape))[end_dim]
    if start > end:
        return None
    return _view(recipe, *recipe.shape[:start], recipe.shape[start : end + 1].numel(), *recipe.shape[end + 1 :])


def _permute(recipe: Recipe, *dims: Any) -> Changed:
    if len(dims) == 1 and isinstance(dims[0], (tuple, list)):
        dims = tuple(dims[0])
    features = recipe.features.permute(*dims)  # raises for dims that torch does not accept
    return replace(recipe, features=features, axis=[each % len(recipe.shape) for each in dims].index(recipe.axis))


def _transpose(recipe: Recipe, dim0: int, dim1: int) -> Changed:
    order = list(range(len(recipe.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(recipe, *order)


def _getitem(recipe: Recipe, index: Index) -> Changed:
    """Serve indexing that selects rows and keeps all classes."""
    items = index if isinstance(index, tuple) else (index,)
    if sum(isinstance(each, Tensor) for each in items) > 1 or not all(map(_plain, items)):
        return None
    taken = [0 if each is None or each is Ellipsis else _dims(each) for each in items]
    missing = len(recipe.shape) - sum(taken)
    if missing < 0:
        return None
    if not any(each is Ellipsis for each in items):
        items, taken = (*items, Ellipsis), [*taken, 0]
    at = axis = 0
    for each, dims in zip(items, taken, strict=True):
        dims = missing if each is Ellipsis else dims  # noqa: PLW2901
        if at <= recipe.axis < at + dims:
            if each is not Ellipsis and not (isinstance(each, slice) and each == slice(None)):
                return None
            axis += recipe.axis - at
            break
        axis += dims if each is Ellipsis else _left(each)
        at += dims
    return replace(recipe, features=recipe.features[items], axis=axis)


def _plain(item: Index) -> bool:
    """Return whether an index leaves the other dimensions in their order."""
    if isinstance(item, Tensor):
        return type(item) is Tensor and item.dtype in (torch.bool, torch.int64) and item.dim() > 0
    return item is None or item is Ellipsis or (isinstance(item, (int, slice)) and not isinstance(item, bool))


def _dims(item: Index) -> int:
    """Return how many dimensions of the logits an index replaces."""
    return item.dim() if isinstance(item, Tensor) and item.dtype == torch.bool else 1


def _left(item: Index) -> int:
    """Return how many dimensions the result has in place of those that an index replaces."""
    if isinstance(item, Tensor):
        return 1 if item.dtype == torch.bool else item.dim()
    return 0 if isinstance(item, int) else 1


def _unsqueeze(recipe: Recipe, dim: int) -> Changed:
    at = range(len(recipe.shape) + 1)[dim]
    return replace(recipe, features=recipe.features.unsqueeze(at), axis=recipe.axis + (at <= recipe.axis))


def _squeeze(recipe: Recipe, dim: int) -> Changed:
    at = range(len(recipe.shape))[dim]
    if at == recipe.axis or recipe.shape[at] != 1:
        return None
    return replace(recipe, features=recipe.features.squeeze(at), axis=recipe.axis - (at < recipe.axis))


def _to(recipe: Recipe, *args: Any, **options: Any) -> Changed:
    """Serve casts between types of at most 32 bits, on the same device."""
    options = {name: each for name, each in options.items() if name not in ("non_blocking", "copy")}
    dtype, device = options.pop("dtype", None), options.pop("device", None)
    if options:
        return None
    for each in args:
        if isinstance(each, torch.dtype):
            dtype = each
        elif isinstance(each, (torch.device, str)):
            device = each
        elif isinstance(each, Tensor):
            dtype, device = each.dtype, each.device
        elif not isinstance(each, bool):
            return None
    if device is not None and torch.device(device) != recipe.features.device:
        return None
    return recipe if dtype is None else _cast(recipe, dtype)


def _cast(recipe: Recipe, dtype: Any) -> Changed:
    if dtype == recipe.dtype:
        return recipe
    return replace(recipe, dtype=dtype) if dtype in NARROW and recipe.dtype in NARROW else None


def _type(recipe: Recipe, dtype: Any = None, *_: Any) -> Changed:
    return _cast(recipe, dtype) if isinstance(dtype, torch.dtype) else None


def _scale(recipe: Recipe, factor: Any, *, divide: bool) -> Changed:
    """Serve multiplication and division by a positive number."""
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        return None
    temperature = recipe.temperature * factor if divide else recipe.temperature / factor
    return replace(recipe, temperature=temperature) if 0 < temperature < math.inf else None


def _add(recipe: Recipe, other: Any, **options: Any) -> Changed:
    """Serve the addition of a constant per class, such as ``final_logits_bias``, before scales and a soft cap."""
    if options or recipe.softcap is not None or recipe.temperature != 1 or type(other) is not Tensor:
        return None
    shape = (recipe.classes,) + (1,) * (len(recipe.shape) - 1 - recipe.axis)
    narrow = other.dtype in NARROW and torch.promote_types(other.dtype, recipe.dtype) == recipe.dtype
    if other.requires_grad or not narrow or other.device != recipe.features.device:
        return None
    if other.numel() != recipe.classes or tuple(other.shape)[-len(shape) :] != shape:
        return None
    if other.dim() > len(recipe.shape):
        return None
    constant = other.reshape(-1).clone()
    return replace(recipe, shift=constant if recipe.shift is None else recipe.shift + constant)


def _tanh(recipe: Recipe) -> Changed:
    """Serve tanh of logits without a soft cap: ``tanh(x/t) = cap·tanh(x/cap)/cap`` with ``cap = t``."""
    return replace(recipe, softcap=recipe.temperature) if recipe.softcap is None else None


def _same(recipe: Recipe, **options: Any) -> Changed:
    return None if options else recipe


_RULES: tuple[tuple[Callable[..., Changed], tuple[Any, ...]], ...] = (
    (_view, (Tensor.view, Tensor.reshape, torch.reshape)),
    (_flatten, (Tensor.flatten, torch.flatten)),
    (_permute, (Tensor.permute, torch.permute)),
    (_transpose, (Tensor.transpose, torch.transpose)),
    (_getitem, (Tensor.__getitem__,)),
    (_unsqueeze, (Tensor.unsqueeze, torch.unsqueeze)),
    (_squeeze, (Tensor.squeeze, torch.squeeze)),
    (_same, (Tensor.contiguous, Tensor.detach)),
    (lambda recipe: _to(recipe, device="cpu"), (Tensor.cpu,)),
    (_to, (Tensor.to,)),
    (_type, (Tensor.type,)),
    (lambda recipe: _cast(recipe, torch.float32), (Tensor.float,)),
    (lambda recipe: _cast(recipe, torch.float16), (Tensor.half,)),
    (lambda recipe: _cast(recipe, torch.bfloat16), (Tensor.bfloat16,)),
    (partial(_scale, divide=False), (Tensor.mul, torch.mul, Tensor.__mul__, Tensor.__rmul__)),
    (partial(_scale, divide=True), (Tensor.div, torch.div, Tensor.__truediv__)),
    (_tanh, (Tensor.tanh, torch.tanh)),
    (_add, (Tensor.add, torch.add, Tensor.__add__, Tensor.__radd__)),
)
RULES = {function: rule for rule, functions in _RULES for function in functions}
