"""What every autograd function here is made from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from softnll.torch.uncompiled import uncompiled

__all__ = ["Rule", "apply", "batched", "immediate", "records", "refuse_nested", "refuse_tangents"]

# torch 2.6 and 2.7 cannot tell: there, checkpoints keep gradients that they will make again
_hooks_on_saved_tensors: Callable[[bool], Any] = getattr(
    torch._C._autograd,  # noqa: SLF001
    "_top_saved_tensors_default_hooks",
    lambda _: None,
)


class Rule(Function):
    """An autograd function with ``setup_context``, as torch.func wants it, that costs little where that is not at work.

    torch binds the arguments to the signature of such a function at each call, which takes 50 µs: as long as the whole
    loss of a small batch. A forward that takes ctx is spared that.
    """

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        """Apply the function, for whoever is to differentiate it."""
        if not torch._C._are_functorch_transforms_active():  # noqa: SLF001 - what Function.apply itself asks
            return _eager(cls).apply(*inputs)
        refuse_nested()
        return super().apply(*inputs)


@uncompiled
def apply(rule: type[Rule], *inputs: Any) -> Any:
    """Apply a function, out of sight of torch.compile."""
    return rule.apply(*inputs)


def refuse_nested() -> None:
    """Raise in a forward mode within another: torch gives custom functions a second tangent of 0 without a word."""
    functorch = torch._C._functorch  # noqa: SLF001
    stack = functorch.get_interpreter_stack() or []
    if sum(each.key() == functorch.TransformType.Jvp for each in stack) > 1:
        raise NotImplementedError(
            "forward mode within forward mode has no derivative of softnll's functions; take one of them in reverse "
            "mode (torch.func.hessian does)"
        )


@cache
def _eager(rule: type[Rule]) -> type[Function]:
    """Return the same function with a forward that takes ctx."""

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = rule.forward(*inputs)
        rule.setup_context(ctx, inputs, output)
        return output

    methods = {"forward": forward, "backward": rule.backward, "jvp": rule.jvp}
    return type(rule.__name__, (Function,), {name: staticmethod(method) for name, method in methods.items()})


def records() -> bool:
    """Whether what is done now may be differentiated later."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()  # noqa: SLF001


def immediate() -> bool:
    """Whether a backward is likely to follow at once, so that gradients are worth keeping.

    Not in forward mode, nor where somebody takes what is saved for the backward elsewhere, as checkpoints do: they drop
    it and compute it again.
    """
    return forward_ad._current_level < 0 and _hooks_on_saved_tensors(True) is None  # noqa: SLF001


def refuse_tangents(*tensors: Any) -> None:
    """Raise where a derivative in forward mode would be lost."""
    if forward_ad._current_level < 0:  # noqa: SLF001 - the only way to know without a cost
        return
    for each in tensors:
        if isinstance(each, Tensor) and forward_ad.unpack_dual(each).tangent is not None:
            raise NotImplementedError(
                "compiled code has no forward-mode derivative of softnll's losses; call them uncompiled"
            )


def batched(x: Tensor, at: int | None, size: int) -> Tensor:
    """Return a tensor with the dimension that is mapped over in front, repeated if it has none."""
    return x.movedim(at, 0) if at is not None else x.expand(size, *x.shape)
