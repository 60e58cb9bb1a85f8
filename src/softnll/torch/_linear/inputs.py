"""Validate the arguments of the linear losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LinearInputs, LinearValues
from softnll.torch._base.errors import InputTypeError, InputValueError
from softnll.torch._base.inputs import FLOATS, check_devices, check_tensor, class_indices
from softnll.torch._base.sparse import SparseTargets
from softnll.torch._losses.inputs import row_temperatures


def _floating(name: str, tensor: Any) -> None:
    """Raise unless this is a tensor of a floating-point type."""
    check_tensor(name, tensor)
    if tensor.dtype not in FLOATS:
        raise InputTypeError(f"{name} has dtype {tensor.dtype}; allowed: {', '.join(map(str, FLOATS))}")


def check_layer(input: Any, linear_weight: Any, linear_bias: Any) -> None:  # noqa: A002 - torch's name
    """Raise unless input, weight and bias are tensors of floating-point types."""
    _floating("input", input)
    _floating("linear_weight", linear_weight)
    if linear_bias is not None:
        _floating("linear_bias", linear_bias)


def prepare(
    input: Any,  # noqa: A002
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: Any = None,
    temperature: Any = 1.0,
    options: Any = None,
    max_bytes: Any = None,
    compact: Any = None,
    check: Any = None,
    **scalars: Any,
) -> tuple[LinearInputs, LinearValues]:
    """Return the tensors of a linear loss, with checked types and devices, and the unchecked values of its settings."""
    check_layer(input, linear_weight, linear_bias)
    indices = None
    if isinstance(target, SparseTargets):
        indices, target = target
        check_tensor("target.indices", indices)
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise InputTypeError(f"target.indices has dtype {indices.dtype}; allowed: integers")
        indices = class_indices(indices)
        _floating("target.probabilities", target)
    check_tensor("target", target)
    for name, each in (("weight", weight), ("sample_weight", sample_weight)):
        if each is not None:
            check_tensor(name, each)
    names = ("input", "linear_weight", "linear_bias", "target", "weight", "sample_weight", "target.indices")
    check_devices(names, (input, linear_weight, linear_bias, target, weight, sample_weight, indices))
    if ignore_index is not None and target.is_floating_point():
        raise InputValueError(f"ignore_index is {ignore_index}; allowed: None with soft targets")
    tau = None
    if isinstance(temperature, Tensor):
        tau, temperature = row_temperatures(temperature, input, input.dim() - 1), 1.0
    at_most = None if options is None else _most_rows(options, input, linear_weight)
    if compact is not None and not isinstance(compact, bool):
        raise InputTypeError(f"compact is {compact!r}; allowed: True, False or None")
    ignored = -100 if ignore_index is None else ignore_index
    target = class_indices(target)
    inputs = LinearInputs(input, linear_weight, linear_bias, target, weight, sample_weight, tau, indices)
    numbers = with_defaults(temperature=temperature, ignore_index=ignored, **scalars)
    return inputs, LinearValues(*numbers, check, max_bytes, at_most, compact)


def _most_rows(options: Any, input: Tensor, linear_weight: Tensor) -> int | None:  # noqa: A002
    """Return the chunk size that torch's options set, by torch's rules; None where they leave it open."""
    if not hasattr(options, "batch_chunk_size") or not hasattr(options, "chunking_method"):
        raise TypeError(f"options is a {type(options).__name__}; allowed: torch.nn.LinearCrossEntropyOptions, or None")
    if options.acc_dtype is torch.float64 and torch.float64 not in (input.dtype, linear_weight.dtype):
        raise NotImplementedError(
            "options.acc_dtype is torch.float64; allowed here: with float64 input or linear_weight"
        )
    size: int | None = options.batch_chunk_size
    method = options.chunking_method
    if method is None or method == "auto":
        return size
    rows = max(1, input.shape[:-1].numel())
    factor = int(method.partition(":")[2] or 1)
    share = -(-rows // max(1, -(-linear_weight.shape[0] // max(1, linear_weight.shape[-1]))))
    asked = max(1, min((1 << (share - 1).bit_length()) // factor, rows))
    if size is not None and min(size, rows) != asked:
        raise InputValueError(
            f"options.batch_chunk_size is {size} and options.chunking_method is {method!r}, which is {asked} rows; "
            "allowed: one of the two"
        )
    return asked
