"""What tensors the functions are given, and who is watching: autograd, torch.func, a compiler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from softnll.torch.errors import InputTypeError, InputValueError

__all__ = ["FLOATS", "as_logits", "check_devices", "check_tensor", "compiling", "tracked"]

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def as_logits(input: Any) -> Tensor:  # noqa: A002
    """Return input as floating-point numbers."""
    check_tensor("input", input)
    if input.dtype in FLOATS:
        return input
    if input.dtype is torch.bool or input.is_complex() or input.is_floating_point():
        raise InputTypeError(f"input has dtype {input.dtype}; allowed: {', '.join(map(str, FLOATS))} and integers")
    return input.to(torch.get_default_dtype())


def check_tensor(name: str, tensor: Any) -> None:
    """Raise unless this is a tensor on the CPU or a CUDA device."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; allowed: a tensor")
    if not (tensor.is_cpu or tensor.is_cuda):
        raise NotImplementedError(f"{name} is on {tensor.device}; allowed: cpu, cuda")


def check_devices(names: tuple[str, ...], tensors: tuple[Any, ...]) -> None:
    """Raise unless all tensors lie where the first one does."""
    device = tensors[0].device
    for name, each in zip(names, tensors, strict=True):
        if each is not None and each.device != device:
            raise InputValueError(f"{name} is on {each.device}, {names[0]} on {device}; allowed: one device")


def compiling() -> bool:
    """Whether an operator is to go into a graph: of torch.compile, torch.export, make_fx, or of fake tensors.

    Not under torch.func and forward mode, of which operators know nothing: there the graph ends, what follows runs
    uncompiled, and with fullgraph=True torch says why it cannot.
    """
    if not torch.compiler.is_compiling():
        return torch._C._len_torch_dispatch_stack() > 0 and _traced()  # noqa: SLF001
    if _transformed():
        torch._dynamo.graph_break()  # noqa: SLF001
        return False
    return True


def _traced() -> bool:
    """Whether tensors are stand-ins, of which kernels would make constants."""
    keys = torch._C._TorchDispatchModeKey  # noqa: SLF001
    if all(torch._C._get_dispatch_mode(key) is None for key in (keys.PROXY, keys.FAKE)):  # noqa: SLF001
        return False
    if _transformed():
        raise NotImplementedError("softnll's functions cannot be traced under torch.func or forward mode")
    return True


def _transformed() -> bool:
    """Whether a transform of torch.func or forward mode is at work."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()  # noqa: SLF001


def tracked(*tensors: Tensor | None) -> bool:
    """Whether somebody may ask for a derivative, or maps over a dimension that is not to be seen."""
    if torch.is_grad_enabled():
        for each in tensors:
            if each is not None and each.requires_grad:
                return True
    return _transformed()
