"""What may be done to logits that are not there yet: shapes, types, scaling and capping, as a change of their recipe.

Each function here takes a recipe and the arguments of torch's function of that name; it returns the recipe of the
result, or None where the result has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["KEPT", "Effective"]

NARROW = (torch.float32, torch.bfloat16, torch.float16)  # between these, a cast loses nothing that the loss would have
Index = Any


@dataclass(frozen=True, slots=True, eq=False)
class Effective:
    """Logits ``u = softcap·tanh(x/softcap)/temperature`` of ``x = features @ weight.T + bias``.

    Attributes
    ----------
    features
        Of the logits' shape, but H instead of C along ``axis``.
    classes
        C.
    axis
        Of the classes, from the front.
    dtype
        Of the logits.
    softcap, temperature
        None: no cap. The temperature is above 0.
    """

    features: Tensor
    classes: int
    axis: int
    dtype: torch.dtype
    softcap: float | None = None
    temperature: float = 1.0

    @property
    def shape(self) -> torch.Size:
        """Of the logits."""
        sizes = list(self.features.shape)
        sizes[self.axis] = self.classes
        return torch.Size(sizes)


Kept = Effective | None


def _view(of: Effective, *sizes: Any) -> Kept:
    """Keep what leaves the classes last and whole."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    if not sizes or not all(isinstance(each, int) for each in sizes) or sizes.count(-1) > 1:
        return None
    if of.axis != len(of.shape) - 1:
        return of if tuple(sizes) == tuple(of.shape) else None
    rows = of.shape[:-1].numel()
    if -1 in sizes:
        others = -math.prod(sizes)
        if others == 0 or rows * of.classes % others:
            return None
        sizes = tuple(rows * of.classes // others if each == -1 else each for each in sizes)
    if sizes[-1] != of.classes or math.prod(sizes[:-1]) != rows:
        return None
    return replace(of, features=of.features.reshape(*sizes[:-1], of.features.shape[-1]), axis=len(sizes) - 1)


def _flatten(of: Effective, start_dim: int = 0, end_dim: int = -1) -> Kept:
    start, end = range(len(of.shape))[start_dim], range(len(of.shape))[end_dim]
    if start > end:
        return None
    return _view(of, *of.shape[:start], of.shape[start : end + 1].numel(), *of.shape[end + 1 :])


def _permute(of: Effective, *dims: Any) -> Kept:
    if len(dims) == 1 and isinstance(dims[0], (tuple, list)):
        dims = tuple(dims[0])
    features = of.features.permute(*dims)  # which knows what dims may be
    return replace(of, features=features, axis=[each % len(of.shape) for each in dims].index(of.axis))


def _transpose(of: Effective, dim0: int, dim1: int) -> Kept:
    order = list(range(len(of.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(of, *order)


def _getitem(of: Effective, index: Index) -> Kept:
    """Keep what takes rows and leaves the classes whole."""
    items = index if isinstance(index, tuple) else (index,)
    if sum(isinstance(each, Tensor) for each in items) > 1 or not all(map(_plain, items)):
        return None
    taken = [0 if each is None or each is Ellipsis else _dims(each) for each in items]
    missing = len(of.shape) - sum(taken)
    if missing < 0:
        return None
    if not any(each is Ellipsis for each in items):
        items, taken = (*items, Ellipsis), [*taken, 0]
    at = axis = 0
    for each, dims in zip(items, taken, strict=True):
        dims = missing if each is Ellipsis else dims  # noqa: PLW2901
        if at <= of.axis < at + dims:
            if each is not Ellipsis and not (isinstance(each, slice) and each == slice(None)):
                return None
            axis += of.axis - at
            break
        axis += dims if each is Ellipsis else _left(each)
        at += dims
    return replace(of, features=of.features[items], axis=axis)


def _plain(item: Index) -> bool:
    """Whether an index is of a kind that keeps the other dimensions in their order."""
    if isinstance(item, Tensor):
        return type(item) is Tensor and item.dtype in (torch.bool, torch.int64) and item.dim() > 0
    return item is None or item is Ellipsis or (isinstance(item, (int, slice)) and not isinstance(item, bool))


def _dims(item: Index) -> int:
    """Return how many dimensions an index speaks of."""
    return item.dim() if isinstance(item, Tensor) and item.dtype == torch.bool else 1


def _left(item: Index) -> int:
    """Return how many dimensions an index leaves in their place."""
    if isinstance(item, Tensor):
        return 1 if item.dtype == torch.bool else item.dim()
    return 0 if isinstance(item, int) else 1


def _unsqueeze(of: Effective, dim: int) -> Kept:
    at = range(len(of.shape) + 1)[dim]
    return replace(of, features=of.features.unsqueeze(at), axis=of.axis + (at <= of.axis))


def _squeeze(of: Effective, dim: int) -> Kept:
    at = range(len(of.shape))[dim]
    if at == of.axis or of.shape[at] != 1:
        return None
    return replace(of, features=of.features.squeeze(at), axis=of.axis - (at < of.axis))


def _to(of: Effective, *args: Any, **options: Any) -> Kept:
    """Keep types of at most 32 bits and the device."""
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
    if device is not None and torch.device(device) != of.features.device:
        return None
    return of if dtype is None else _cast(of, dtype)


def _cast(of: Effective, dtype: Any) -> Kept:
    if dtype == of.dtype:
        return of
    return replace(of, dtype=dtype) if dtype in NARROW and of.dtype in NARROW else None


def _type(of: Effective, dtype: Any = None, *_: Any) -> Kept:
    return _cast(of, dtype) if isinstance(dtype, torch.dtype) else None


def _scale(of: Effective, factor: Any, *, divide: bool) -> Kept:
    """Keep a positive number times the logits, or divided by one."""
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        return None
    temperature = of.temperature * factor if divide else of.temperature / factor
    return replace(of, temperature=temperature) if 0 < temperature < math.inf else None


def _times(of: Effective, factor: Any) -> Kept:
    return _scale(of, factor, divide=False)


def _over(of: Effective, factor: Any) -> Kept:
    return _scale(of, factor, divide=True)


def _tanh(of: Effective) -> Kept:
    """Keep the tanh of what has no cap: ``tanh(x/t) = cap·tanh(x/cap)/cap`` with ``cap = t``."""
    return replace(of, softcap=of.temperature) if of.softcap is None else None


def _same(of: Effective, **options: Any) -> Kept:
    return None if options else of


KEPT: dict[Any, Callable[..., Kept]] = {
    Tensor.view: _view,
    Tensor.reshape: _view,
    torch.reshape: _view,
    Tensor.flatten: _flatten,
    torch.flatten: _flatten,
    Tensor.permute: _permute,
    torch.permute: _permute,
    Tensor.transpose: _transpose,
    torch.transpose: _transpose,
    Tensor.__getitem__: _getitem,
    Tensor.unsqueeze: _unsqueeze,
    torch.unsqueeze: _unsqueeze,
    Tensor.squeeze: _squeeze,
    torch.squeeze: _squeeze,
    Tensor.contiguous: _same,
    Tensor.detach: _same,
    Tensor.cpu: _same,
    Tensor.to: _to,
    Tensor.type: _type,
    Tensor.float: lambda of: _cast(of, torch.float32),
    Tensor.half: lambda of: _cast(of, torch.float16),
    Tensor.bfloat16: lambda of: _cast(of, torch.bfloat16),
    Tensor.mul: _times,
    torch.mul: _times,
    Tensor.__mul__: _times,
    Tensor.__rmul__: _times,
    Tensor.div: _over,
    torch.div: _over,
    Tensor.__truediv__: _over,
    Tensor.tanh: _tanh,
    torch.tanh: _tanh,
}
