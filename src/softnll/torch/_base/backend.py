"""Select the backend of a tensor; no other module branches on the device."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def backend_of(x: Tensor) -> Any:
    """Return the backend of a tensor's device: ``CpuBackend`` or a ``DeviceBackend``."""
    return _backend(kind_of(x))


def kind_of(x: Tensor) -> str:
    """Return ``"cpu"`` for the compiled kernels, ``"triton"``, or ``"reference"`` for every other device.

    Triton serves CUDA and ROCm devices. Fake tensors have no memory, whatever device they name.
    """
    if type(x) is not Tensor and isinstance(x, torch._subclasses.FakeTensor):  # noqa: SLF001 - its public name
        return "reference"
    return "cpu" if x.is_cpu else "triton" if x.is_cuda else "reference"


def captures(x: Tensor) -> bool:
    """Return whether compiled code on the device of this tensor may become a CUDA graph."""
    return x.is_cuda


def waits(x: Tensor) -> bool:
    """Return whether reading a value of this tensor waits for its device."""
    return not x.is_cpu


@cache
def _backend(kind: str) -> Any:
    """Return the backend of a kind. Triton is imported with the first CUDA tensor, not before."""
    if kind == "cpu":
        return import_module("softnll.torch._base.cpu_backend").CpuBackend()
    device = import_module("softnll.torch._base.device_backend").DeviceBackend
    if kind == "reference":
        return device(import_module("softnll._kernels.reference"))
    try:
        return device(import_module("softnll._kernels.cuda.interface"))
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ImportError(
            "CUDA tensors need Triton, which comes with torch's CUDA packages: pip install triton"
        ) from error
