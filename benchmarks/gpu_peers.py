"""The losses of other libraries on CUDA tensors, each at its best way; or why one cannot run here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

import softnll.torch as snt

__all__ = ["LINEAR", "LOGITS", "OURS", "Missing"]

OURS = "softnll"
Loss = Callable[..., torch.Tensor]


class Missing(Exception):  # noqa: N818 - what is missing is no error of ours
    """A library that cannot run here; the message says why."""


def _import(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:  # whatever it raises on import, it cannot run
        raise Missing(f"{package}: {type(error).__name__}: {error}"[:160]) from error


def _liger() -> Loss:
    module = _import("liger_kernel.ops.cross_entropy", "liger-kernel")

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return module.LigerCrossEntropyFunction.apply(x, y, None, -100, 0.0, 0.0, "mean", None, False)[0]

    return loss


def _quack() -> Loss:
    module = _import("quack.cross_entropy", "quack-kernels")
    return lambda x, y: module.cross_entropy(x, y, reduction="mean")


def _liger_linear() -> Loss:
    module = _import("liger_kernel.ops.fused_linear_cross_entropy", "liger-kernel")
    return lambda f, W, y: module.LigerFusedLinearCrossEntropyFunction.apply(f, W, y)[0]


def _cut() -> Loss:
    module = _import("cut_cross_entropy", "cut-cross-entropy")
    return module.linear_cross_entropy


def _quack_linear() -> Loss:
    module = _import("quack.linear_cross_entropy", "quack-kernels")
    return module.chunked_linear_cross_entropy


def _torch_linear() -> Loss:
    if not hasattr(F, "linear_cross_entropy"):
        raise Missing(f"torch {torch.__version__} has no linear_cross_entropy (2.13 has)")
    options = torch.nn.LinearCrossEntropyOptions(chunking_method="auto")
    return lambda f, W, y: F.linear_cross_entropy(f, W, y, options=options)


def _unfused(f: torch.Tensor, W: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy((f @ W.t()).float(), y)


def _compiled(loss: Loss) -> Loss:
    torch.compiler.reset()  # it compiles a function for eight shapes, and then no more
    return torch.compile(loss, dynamic=False)


LOGITS: dict[str, Callable[[], Loss]] = {
    OURS: lambda: snt.cross_entropy,
    "torch": lambda: F.cross_entropy,
    "torch.compile": lambda: _compiled(F.cross_entropy),
    "Liger": _liger,
    "QuACK": _quack,
}
LINEAR: dict[str, Callable[[], Loss]] = {
    OURS: lambda: snt.linear_cross_entropy,
    "torch, unfused": lambda: _unfused,
    "torch.compile, unfused": lambda: _compiled(_unfused),
    "torch, chunked": _torch_linear,
    "Liger": _liger_linear,
    "cut-cross-entropy": _cut,
    "QuACK": _quack_linear,
}
