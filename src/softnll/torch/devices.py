"""Where tensors lie, and which module computes there."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

__all__ = ["capturing", "cuda", "on_cuda"]


def on_cuda(x: Tensor) -> bool:
    """Whether the Triton kernels serve a tensor."""
    return x.is_cuda


@cache
def cuda(name: str = "compute") -> Any:
    """Return what computes on CUDA devices; Triton is imported now, not before a tensor lies there."""
    try:
        return import_module(f"softnll.torch.cuda_{name}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ImportError(
            "CUDA tensors need Triton, which comes with torch's CUDA packages: pip install triton"
        ) from error


def capturing() -> bool:
    """Whether a CUDA graph is being captured, in which nothing may wait for the device."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
