"""Which calls are plain: of dense CPU tensors of torch's own class, outside transforms, traces and modes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.torch._base import backend
from softnll.torch._base.autograd_base import immediate, of_transform

WIDE = (torch.float32, torch.float64)
TYPES = {each: str(each).removeprefix("torch.") for each in (*WIDE, torch.bfloat16, torch.float16)}


def serves(
    x: Any,
    target: Any,
    weight: Any,
    temperature: Any = 1.0,
    ignore_index: Any = -100,
    sample_weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
) -> bool:
    """Return whether the arguments are plain, the last three None, and only autograd records the call."""
    return (
        sample_weight is None
        and size_average is None
        and reduce is None
        and not isinstance(temperature, Tensor)
        and plain_call(x)
        and x.dim() == 2
        and fits(target, weight, x.shape, x.dtype, ignore_index)
    )


def fits(target: Any, weight: Any, shape: Any, dtype: Any, ignore_index: Any) -> bool:
    """Return whether these are plain targets of logits of shape (N, C) and of a type, and constant weights or None."""
    n_rows, n_classes = shape
    if not (n_classes and is_plain(target)):
        return False
    if target.dtype is torch.int64:
        matches = target.shape == (n_rows,)
    else:
        constant = not target.requires_grad and type(ignore_index) is int and ignore_index < 0
        matches = target.dtype is dtype and target.shape == (n_rows, n_classes) and constant and target.is_contiguous()
    return matches and (weight is None or _plain_weight(weight, (n_classes,), dtype))


def normalises(x: Any, dim: Any, dtype: Any) -> bool:
    """Return whether these logits are plain, of classes in the last dimension, and keep their type."""
    if type(dim) is not int or dtype is not None or not plain_call(x):
        return False
    axes = x.dim()
    return dim in (-1, axes - 1) and axes > 0 and x.numel() > 0


def plain_call(x: Any) -> bool:
    """Return whether logits are plain, and only autograd records the call."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None  # noqa: SLF001
        and is_plain(x)
        and x.dtype in TYPES
        and x.is_contiguous()
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
