"""Validate the arguments of softmax and of the losses of logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.torch._base.checks import has_values
from softnll.torch._base.errors import InputIndexError, InputValueError
from softnll.torch._base.inputs import as_logits, check_devices, check_tensor, class_indices, refuse_deprecated


def class_dim(x: Tensor, dim: int) -> int:
    """Return the class dimension counted from the front; raise if it is out of range."""
    n = max(x.dim(), 1)
    if not -n <= dim < n:
        raise InputIndexError(f"dim is {dim}; allowed: from {-n} to {n - 1}, for input of shape {tuple(x.shape)}")
    return dim % n


def one_class_dim(x: Tensor, dims: list[int]) -> tuple[Tensor, int]:
    """Return the tensor with the dimensions, in ascending order, as one, and that one."""
    if x.dim() == 0:
        return x.reshape(1), 0
    if len(dims) == 1:
        return x, dims[0]
    others = [each for each in range(x.dim()) if each not in dims]
    return x.permute(*others, *dims).flatten(len(others)), len(others)


def loss_input(tensors: tuple[Any, ...], size_average: Any, reduce: Any) -> tuple[Tensor, Tensor, int]:
    """Return logits, targets and the class dimension, after checking the types and devices of the arguments."""
    refuse_deprecated(size_average, reduce)
    x, target, weight, sample_weight = tensors
    x = as_logits(x)
    check_tensor("target", target)
    if weight is not None:
        check_tensor("weight", weight)
    if sample_weight is not None:
        check_tensor("sample_weight", sample_weight)
    check_devices(("input", "target", "weight", "sample_weight"), (x, target, weight, sample_weight))
    if x.dim() == 0:
        raise InputValueError("input has no dimensions; allowed: (C,), (N, C) or (N, C, d1, ...)")
    return x, class_indices(target), 1 if x.dim() > 1 else 0


def row_temperatures(temperature: Tensor, x: Tensor, dim: int) -> Tensor:
    """Return per-row temperatures, expanded from a single one if need be."""
    check_tensor("temperature", temperature)
    check_devices(("input", "temperature"), (x, temperature))
    return temperature.expand([*x.shape[:dim], *x.shape[dim + 1 :]]) if temperature.dim() == 0 else temperature


def loss_without_classes(x: Tensor, target: Tensor, dim: int, ignore_index: int, reduction: str) -> Tensor:
    """Return the loss of logits without classes as torch does: 0 a row, the mean is NaN; no hard target fits."""
    if not target.is_floating_point() and has_values(target):
        bad = target != ignore_index
        if bool(bad.any()):
            at, shape = bad.nonzero()[0].tolist(), tuple(x.shape)
            raise InputIndexError(f"target{at} is {target[tuple(at)].item()}; input of shape {shape} has no classes")
    rows = x.sum(dim, dtype=torch.promote_types(x.dtype, torch.float32))
    return rows if reduction == "none" else rows.sum() if reduction == "sum" else rows.sum() * torch.nan
