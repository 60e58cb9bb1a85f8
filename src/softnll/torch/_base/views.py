"""CPU tensors as NumPy arrays and back, without a copy."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["as_array", "as_tensor", "laid_out_like"]


@cache
def _bfloat16() -> np.dtype[Any]:
    """Return NumPy's name for bfloat16, which is a package of its own."""
    try:
        import ml_dtypes  # noqa: PLC0415 - only bfloat16 needs it
    except ImportError:
        raise ImportError("bfloat16 tensors need ml_dtypes: pip install 'softnll[torch]'") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return an array that shares a tensor's memory."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(_bfloat16())
    if tensor.is_neg():  # a view that says "minus this", which NumPy has not
        tensor = tensor.resolve_neg()
    return tensor.numpy()


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares an array's memory."""
    if array.dtype.kind == "V":  # bfloat16, of all types that logits have; its name takes 3 µs
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def laid_out_like(x: Tensor, array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor with the strides that torch's own functions would give the result."""
    tensor = as_tensor(array)
    if x.is_contiguous():
        return tensor.contiguous()
    like = torch.empty_like(x)
    return tensor if tensor.stride() == like.stride() else like.copy_(tensor)
