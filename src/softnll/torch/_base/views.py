"""Convert CPU tensors to NumPy arrays and back, without a copy, and give results torch's strides."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_OF_DLPACK = (torch.float32, torch.float64, torch.float16)
_LARGE = 1 << 22  # bytes from which NumPy asks for large pages


@cache
def _bfloat16() -> np.dtype[Any]:
    """Return NumPy's bfloat16 type, which the package ml_dtypes provides."""
    try:
        import ml_dtypes  # noqa: PLC0415 - only bfloat16 needs it
    except ImportError:
        raise ImportError("bfloat16 tensors need ml_dtypes: pip install 'softnll[torch]'") from None
    return np.dtype(ml_dtypes.bfloat16)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return an array that shares a tensor's memory.

    ``Tensor.numpy`` makes the memory one that cannot be resized; FSDP frees that of a parameter by resizing it, so that
    parameters take DLPack's way, which takes 5 µs more.
    """
    parameter = isinstance(tensor, torch.nn.Parameter)
    if tensor.requires_grad:
        tensor = tensor.detach()
    if parameter and tensor.dtype in _OF_DLPACK:
        return np.from_dlpack(tensor)
    if tensor.is_neg():  # a lazily negated view, which NumPy does not have
        tensor = tensor.resolve_neg()
    if tensor.dtype is torch.bfloat16:
        bits = tensor.view(torch.int16)
        return (np.from_dlpack(bits) if parameter else bits.numpy()).view(_bfloat16())
    return tensor.numpy()


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares an array's memory."""
    if array.dtype.kind == "V":  # only bfloat16 of the types of logits; its name would take 3 µs
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def empty_like(x: Tensor) -> Tensor:
    """Return ``torch.empty_like(x)``, a large one in NumPy's memory: large pages, which are there in half the time."""
    if x.nbytes >= _LARGE:
        strides = x.stride()
        order = sorted(range(x.dim()), key=lambda each: -strides[each])
        found = as_tensor(np.empty([x.shape[each] for each in order], as_array(x).dtype).transpose(np.argsort(order)))
        if found.stride() == x.stride():
            return found
    return torch.empty_like(x)


def laid_out_like(x: Tensor, array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor with the strides of ``torch.empty_like(x)``; a copy if its strides differ."""
    return strided_like(x, as_tensor(array))


def strided_like(x: Tensor, result: Tensor) -> Tensor:
    """Return a tensor with the strides of ``torch.empty_like(x)``: the tensor itself if it has them, else a copy."""
    if x.is_contiguous():
        return result.contiguous()
    like = torch.empty_like(x)
    return result if result.stride() == like.stride() else like.copy_(result)
