"""What the functions of a linear layer are given, told apart and check_tensor before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.torch.errors import NAMES as OTHERS
from softnll.torch.errors import InputTypeError, InputValueError
from softnll.torch.inputs import FLOATS, check_devices, check_tensor
from softnll.torch.sparse import SparseTargets

__all__ = ["NAMES", "Inputs", "Options", "layer", "prepare"]

NAMES = OTHERS | {"features": "input", "weight": "linear_weight", "bias": "linear_bias"}
Inputs = tuple[Any, ...]  # input, linear_weight, linear_bias, target, weight, sample_weight, temperature, indices
Options = tuple[Any, ...]  # those of LinearLoss.of; checked there, as torch.compile cannot look into that


def _floating(name: str, tensor: Any) -> None:
    """Raise unless this is a tensor of floating-point numbers on the CPU."""
    check_tensor(name, tensor)
    if tensor.dtype not in FLOATS:
        raise InputTypeError(f"{name} has dtype {tensor.dtype}; allowed: {', '.join(map(str, FLOATS))}")


def _integers(indices: Any) -> None:
    """Raise unless these may be classes."""
    check_tensor("target.indices", indices)
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise InputTypeError(f"target.indices has dtype {indices.dtype}; allowed: integers")


def layer(input: Any, linear_weight: Any, linear_bias: Any) -> None:  # noqa: A002 - torch's name
    """Raise unless these are the tensors of a linear layer, with shapes that fit."""
    _floating("input", input)
    _floating("linear_weight", linear_weight)
    if linear_bias is not None:
        _floating("linear_bias", linear_bias)
    if linear_weight.dim() > 2:
        raise NotImplementedError(
            f"linear_weight has shape {tuple(linear_weight.shape)}; allowed: (C, H). For a loss of several dimensions "
            "call it once for each, with linear_weight[:, i]"
        )


def prepare(
    input: Any,  # noqa: A002
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    weight: Any,
    reduction: Any,
    ignore_index: Any,
    label_smoothing: Any,
    options: Any,
    sample_weight: Any,
    z_loss: Any,
    softcap: Any,
    temperature: Any,
    max_bytes: Any,
    compact: Any,
    check: Any,
) -> tuple[Inputs, Options]:
    """Return the tensors and the options in the order in which everything here takes them."""
    layer(input, linear_weight, linear_bias)
    indices = None
    if isinstance(target, SparseTargets):
        indices, target = target
        _integers(indices)
        _floating("target.probabilities", target)
    check_tensor("target", target)
    for name, each in (("weight", weight), ("sample_weight", sample_weight)):
        if each is not None:
            check_tensor(name, each)
    names = ("input", "linear_weight", "linear_bias", "target", "weight", "sample_weight", "target.indices")
    check_devices(names, (input, linear_weight, linear_bias, target, weight, sample_weight, indices))
    if ignore_index is not None and target.is_floating_point():
        raise InputValueError(f"ignore_index is {ignore_index}; allowed: None with soft targets")
    tau, number = temperatures(temperature, input)
    at_most = None if options is None else _most_rows(options, input, linear_weight)
    if compact is not None and not isinstance(compact, bool):
        raise InputTypeError(f"compact is {compact!r}; allowed: True, False or None")
    ignored = -100 if ignore_index is None else ignore_index
    scalars = (label_smoothing, z_loss, softcap, number, ignored, reduction)
    settings = (check, max_bytes, at_most, compact)
    return (input, linear_weight, linear_bias, target, weight, sample_weight, tau, indices), (*scalars, *settings)


def temperatures(temperature: Any, input: Tensor) -> tuple[Tensor | None, Any]:  # noqa: A002
    """Return one temperature a row or None, and the one for all."""
    if not isinstance(temperature, Tensor):
        return None, temperature
    check_tensor("temperature", temperature)
    check_devices(("input", "temperature"), (input, temperature))
    return (temperature.expand(input.shape[:-1]) if temperature.dim() == 0 else temperature), 1.0


def _most_rows(options: Any, input: Tensor, linear_weight: Tensor) -> int | None:  # noqa: A002
    """Return the chunk size that torch's options ask for, None where they leave it to the callee."""
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
