"""Which calls are plain: of dense CPU tensors of torch's own class, outside transforms, traces and modes."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.planes import LEAST
from softnll.torch._base import backend
from softnll.torch._base.autograd_base import immediate, of_transform

WIDE = (torch.float32, torch.float64)
TYPES = {each: str(each).removeprefix("torch.") for each in (*WIDE, torch.bfloat16, torch.float16)}


class Form(NamedTuple):
    """How plain logits lie in memory: as rows in one piece after each other, or as planes of rows side by side."""

    n_rows: int
    n_classes: int
    planes: bool
    sizes: tuple[int, ...]  # ``(N, C)`` or, of planes, ``(A, C, B)``
    row_shape: tuple[int, ...]  # the logits' shape without classes
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dim: int  # of the classes


@lru_cache(maxsize=256)
def form_of(shape: tuple[int, ...], strides: tuple[int, ...], dim: int) -> Form | None:
    """Return the form of logits with these classes, from 0; None if they have no entries or another form."""
    beside, n_classes = shape[dim + 1 :], shape[dim]
    row_shape = (*shape[:dim], *beside)
    n_rows, inner = math.prod(row_shape), math.prod(beside)
    if n_rows * n_classes == 0:
        return None
    if _in_one_piece((*row_shape, n_classes), (*strides[:dim], *strides[dim + 1 :], strides[dim])):
        return Form(n_rows, n_classes, False, (n_rows, n_classes), row_shape, shape, strides, dim)
    if inner >= LEAST and _in_one_piece(shape, strides):
        return Form(n_rows, n_classes, True, (n_rows // inner, n_classes, inner), row_shape, shape, strides, dim)
    return None


def _in_one_piece(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return whether entries lie one after another in the order of these dimensions."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def loss_form(
    x: Any,
    target: Any,
    weight: Any,
    temperature: Any = 1.0,
    ignore_index: Any = -100,
    sample_weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
) -> Form | None:
    """Return the form of a loss's logits if the arguments are plain, the last three None, and only autograd records."""
    if sample_weight is not None or size_average is not None or reduce is not None or isinstance(temperature, Tensor):
        return None
    if not plain_call(x) or x.dim() < 2:
        return None
    form = form_of(x.shape, x.stride(), 1)
    return form if form is not None and fits(target, weight, form, x.dtype, ignore_index) else None


def fits(target: Any, weight: Any, form: Form, dtype: Any, ignore_index: Any) -> bool:
    """Return whether these are plain targets of logits of a form and type, and constant class weights or None."""
    if not is_plain(target):
        return False
    if target.dtype is torch.int64:
        matches = target.shape == form.row_shape
    else:
        constant = not target.requires_grad and type(ignore_index) is int and ignore_index < 0
        matches = target.dtype is dtype and target.shape == form.shape and constant and target.stride() == form.strides
    return matches and (weight is None or _plain_weight(weight, (form.n_classes,), dtype))


def normalised_form(x: Any, dim: Any, dtype: Any) -> Form | None:
    """Return the form of plain logits that keep their type; None of others."""
    if type(dim) is not int or dtype is not None or not plain_call(x):
        return None
    axes = x.dim()
    return form_of(x.shape, x.stride(), dim % axes) if -axes <= dim < axes else None


def plain_call(x: Any) -> bool:
    """Return whether logits are plain, and only autograd records the call."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None  # noqa: SLF001
        and is_plain(x)
        and x.dtype in TYPES
        and backend.kind_of(x) == "cpu"
        and torch._C._len_torch_dispatch_stack() == 0  # noqa: SLF001
        and not torch._C._are_functorch_transforms_active()  # noqa: SLF001
        and immediate()
    )


def is_plain(x: Any) -> bool:
    """Return whether this is a dense tensor in the CPU's memory, of torch's own class, and not one of torch.func's."""
    return (
        type(x) is Tensor
        and x.is_cpu
        and x.layout is torch.strided
        and not (x.is_nested or x.is_neg() or of_transform(x))
    )


def _plain_weight(weight: Any, shape: tuple[int], dtype: Any) -> bool:
    """Return whether class weights are constants of the logits' type."""
    return is_plain(weight) and not weight.requires_grad and weight.dtype is dtype and weight.shape == shape
