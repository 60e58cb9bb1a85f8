"""Arrays of other libraries as NumPy's, without importing those libraries: who passes a tensor has loaded its own."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["as_numpy"]


def as_numpy(value: Any) -> Any:
    """Return a torch tensor as a NumPy array of its type, and everything else as it is.

    A tensor may require a gradient, be on a GPU, or be bfloat16 (a NumPy type where ml_dtypes is installed, else
    widened to float32, which has all its values). JAX arrays need no help: ``np.asarray`` takes them.

    Parameters
    ----------
    value
        Anything.

    Returns
    -------
    ndarray or object
        What ``np.asarray`` understands.

    Examples
    --------
    >>> import torch
    >>> as_numpy(torch.tensor([5.0, 4.0, 2.0], requires_grad=True))
    array([5., 4., 2.], dtype=float32)
    >>> as_numpy([5.0, 4.0, 2.0])
    [5.0, 4.0, 2.0]
    """
    if isinstance(value, list | tuple):  # rows, or one number a row, that are tensors themselves
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
    """Return whether a value is a tensor of the torch that is loaded."""
    torch: Any = sys.modules.get("torch")
    return hasattr(torch, "Tensor") and isinstance(value, torch.Tensor)
