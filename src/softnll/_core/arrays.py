"""Convert arrays of other libraries to NumPy arrays, without importing those libraries."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def as_numpy(value: Any) -> Any:
    """Return a torch tensor as a NumPy array of the same type, and every other value unchanged.

    A tensor may require a gradient or be on a GPU. A bfloat16 tensor stays bfloat16 if ml_dtypes is installed; else it
    becomes float32, which has all its values. JAX arrays stay as they are: ``np.asarray`` converts them.

    Examples
    --------
    >>> import torch
    >>> as_numpy(torch.tensor([5.0, 4.0, 2.0], requires_grad=True))
    array([5., 4., 2.], dtype=float32)
    >>> as_numpy([5.0, 4.0, 2.0])
    [5.0, 4.0, 2.0]
    """
    if isinstance(value, list | tuple):  # a list of rows or of numbers that are tensors
        return [as_numpy(item) for item in value] if any(_is_tensor(item) for item in value) else value
    if not _is_tensor(value):
        return value
    torch: Any = sys.modules["torch"]
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype is torch.bfloat16:
        try:
            import ml_dtypes  # noqa: PLC0415 - only bfloat16 needs it
        except ImportError:
            return tensor.float().numpy()
        return tensor.contiguous().view(torch.int16).numpy().view(np.dtype(ml_dtypes.bfloat16))
    return tensor.numpy()


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a torch tensor, without importing torch: a caller who has one has imported it."""
    torch: Any = sys.modules.get("torch")
    return hasattr(torch, "Tensor") and isinstance(value, torch.Tensor)
