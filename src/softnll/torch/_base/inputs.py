"""Argument checks, and detection of autograd, torch.func and torch.compile."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from softnll.torch._base.errors import InputTypeError, InputValueError

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def as_logits(input: Any) -> Tensor:  # noqa: A002
    """Return the input as floating-point numbers: integers in torch's default type."""
    check_tensor("input", input)
    if input.dtype in FLOATS:
        return input
    if input.dtype is torch.bool or input.is_complex() or input.is_floating_point():
        raise InputTypeError(f"input has dtype {input.dtype}; allowed: {', '.join(map(str, FLOATS))} and integers")
    return input.to(torch.get_default_dtype())


def check_tensor(name: str, tensor: Any) -> None:
    """Raise unless this is a dense tensor on one device."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; allowed: a tensor")
    if tensor.is_nested:
        _refuse(f"{name} is a nested tensor", f"a padded one, such as {name}.to_padded_tensor(0.0)")
    if tensor.layout is not torch.strided:
        _refuse(f"{name} has the layout {tensor.layout}", f"a dense tensor, such as {name}.to_dense()")
    if tensor.is_quantized:
        _refuse(f"{name} is quantised", f"a tensor of floats, such as {name}.dequantize()")
    if type(tensor) is not Tensor and _wraps(tensor):
        kind = type(tensor).__name__
        such = f", such as {name}.full_tensor()" if kind == "DTensor" else ""
        _refuse(f"{name} is a {kind}", f"a plain tensor{such}")


def _wraps(tensor: Any) -> bool:
    """Return whether a tensor is of a class that keeps its values in other tensors."""
    return is_traceable_wrapper_subclass(tensor)


def _refuse(what: str, allowed: str) -> NoReturn:
    """Raise for a kind of tensor that the kernels do not read."""
    raise NotImplementedError(f"{what}; allowed: {allowed}")


_NARROW = (torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def class_indices(target: Tensor) -> Tensor:
    """Return hard targets as int64, and any other tensor itself.

    torch converts a number to the type of the tensor that it is compared with: of uint8 targets, ``target == -100`` is
    true for class 156, and ``target < 256`` is false for all.
    """
    return target.to(torch.int64) if target.dtype in _NARROW else target


def refuse_deprecated(size_average: Any, reduce: Any) -> None:
    """Raise for the parameters that torch has replaced by ``reduction``."""
    if size_average is not None or reduce is not None:
        raise TypeError("size_average and reduce are not accepted; say reduction='mean', 'sum' or 'none'")


def check_devices(names: tuple[str, ...], tensors: tuple[Any, ...]) -> None:
    """Raise unless all tensors are on the device of the first one."""
    device = tensors[0].device
    for name, each in zip(names, tensors, strict=True):
        if each is not None and each.device != device:
            raise InputValueError(f"{name} is on {each.device}, {names[0]} on {device}; allowed: one device")


def autocasts(device_type: str) -> bool:
    """Return whether autocast is on for a type of device; some types, such as meta, have no autocast."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def compiling() -> bool:
    """Return whether to call an operator, for the graph of torch.compile, torch.export, make_fx or fake tensors.

    Under torch.jit.trace, which the older ONNX exporter uses, it is True as well: a kernel's result would be a constant
    of the graph, and an operator calls its expression instead. Operators have no rules for torch.func and forward mode.
    Under those the result is False: the graph ends, the rest runs uncompiled, and with fullgraph=True torch raises an
    error that names the reason.
    """
    if not torch.compiler.is_compiling():
        return tracing() or (torch._C._len_torch_dispatch_stack() > 0 and _traced())  # noqa: SLF001
    if transformed():
        torch._dynamo.graph_break()  # noqa: SLF001
        return False
    return True


def tracing() -> bool:
    """Return whether torch.jit.trace records the operations."""
    return torch._C._get_tracing_state() is not None  # noqa: SLF001 - torch.jit.is_tracing, which is not in its type hints


def lacks_classes(x: Tensor, dim: int) -> bool:
    """Return whether a dimension has size 0; a trace, which has sizes as tensors, is not asked."""
    return not tracing() and not x.shape[dim]


def _traced() -> bool:
    """Return whether a tracer's proxies or fake tensors are active: a kernel's result would become a constant."""
    keys = torch._C._TorchDispatchModeKey  # noqa: SLF001
    if all(torch._C._get_dispatch_mode(key) is None for key in (keys.PROXY, keys.FAKE)):  # noqa: SLF001
        return False
    if transformed():
        raise NotImplementedError("softnll's functions cannot be traced under torch.func or forward mode")
    return True


def transformed() -> bool:
    """Return whether a transform of torch.func or forward mode is active."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()  # noqa: SLF001


def tracked(*tensors: Tensor | None) -> bool:
    """Return whether autograd records an operation on these tensors, or a transform of torch.func is active."""
    if torch.is_grad_enabled():
        for each in tensors:
            if each is not None and each.requires_grad:
                return True
    return transformed()
