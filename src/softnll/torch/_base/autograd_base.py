"""The base class of the autograd functions, and the helpers that they share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from softnll.torch._base.inputs import transformed
from softnll.torch._base.uncompiled import uncompiled

# Arguments for which no derivative is implemented, and their names in messages.
_CONSTANTS = {"weight": "weight", "sample_weight": "sample_weight", "temperatures": "temperature"}


# torch 2.6 and 2.7 do not have this function: there, checkpoints keep gradients that they compute again later.
_hooks_on_saved_tensors: Callable[[bool], Any] = getattr(
    torch._C._autograd,  # noqa: SLF001
    "_top_saved_tensors_default_hooks",
    lambda _: None,
)


class Rule(Function):
    """An autograd function with ``setup_context``, as torch.func requires, without its cost outside torch.func.

    torch binds the arguments to the signature of such a function at each call, which takes 50 µs: as long as the whole
    loss of a small batch. Outside torch.func, a copy of the class whose forward takes ctx avoids that.
    """

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        """Return the result of the function, which autograd and torch.func can differentiate."""
        if not torch._C._are_functorch_transforms_active():  # noqa: SLF001 - as Function.apply itself does
            return _eager(cls).apply(*inputs)
        refuse_nested()
        return super().apply(*inputs)

    @classmethod
    def eager(cls, ctx: Any, *inputs: Any) -> Any:
        """Return the result outside torch.func, and save what the derivatives need."""
        output = cls.forward(*inputs)
        cls.setup_context(ctx, inputs, output)
        return output


def applied(function: type[Function]) -> Callable[..., Any]:
    """Return what calls an autograd function outside torch.func: ``apply`` without its first steps, which take 2 µs."""
    base: Any = super(Function, function)
    call: Callable[..., Any] = base.apply
    return call


@uncompiled
def apply(rule: type[Rule], *inputs: Any) -> Any:
    """Return the result of a function; torch.compile does not trace into it."""
    return rule.apply(*inputs)


def refuse_nested() -> None:
    """Raise in forward mode within forward mode, where torch gives custom functions a second tangent of 0."""
    functorch = torch._C._functorch  # noqa: SLF001
    stack = functorch.get_interpreter_stack() or []
    if sum(each.key() == functorch.TransformType.Jvp for each in stack) > 1:
        raise NotImplementedError(
            "forward mode within forward mode has no derivative of softnll's functions; take one of them in reverse "
            "mode (torch.func.hessian does)"
        )


@cache
def _eager(rule: type[Rule]) -> type[Function]:
    """Return the same function as a class whose forward takes ctx."""
    methods = {"forward": rule.eager, "backward": rule.backward, "jvp": rule.jvp}
    return type(rule.__name__, (Function,), {name: staticmethod(method) for name, method in methods.items()})


def records() -> bool:
    """Return whether the operations of this moment may be differentiated later."""
    return torch.is_grad_enabled() or transformed()


def in_batch(tensor: Any) -> bool:
    """Return whether a tensor stands for each of several upstream gradients (``is_grads_batched=True``)."""
    return bool(torch._C._functorch.is_legacy_batchedtensor(tensor))  # noqa: SLF001 - torch has no public name for it


# Whether a tensor is one that torch.func gave to a function: kept beyond it, it has no memory of its own.
of_transform: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor  # noqa: SLF001 - nothing public


def immediate() -> bool:
    """Return whether a backward is likely to follow, so that the forward should compute and keep the gradients.

    It is not in forward mode, nor where hooks on saved tensors are set: a checkpoint drops what the forward keeps and
    runs the forward again.
    """
    return forward_ad._current_level < 0 and _hooks_on_saved_tensors(True) is None  # noqa: SLF001


def refuse_tangents(*tensors: Any) -> None:
    """Raise if a tensor has a tangent, whose derivative an operator would lose."""
    if forward_ad._current_level < 0:  # noqa: SLF001 - the only check that costs nothing
        return
    for each in tensors:
        if isinstance(each, Tensor) and forward_ad.unpack_dual(each).tangent is not None:
            raise NotImplementedError(
                "compiled code has no forward-mode derivative of softnll's losses; call them uncompiled"
            )


def keep(ctx: Any, *tensors: Tensor | None) -> None:
    """Save tensors for the backward and, where it is active, for forward mode; an upstream gradient of 0 is None."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    if transformed():
        ctx.save_for_forward(*tensors)


def batched(x: Tensor, at: int | None, size: int) -> Tensor:
    """Return a tensor with the dimension that vmap maps over in front; a tensor without it is repeated."""
    return x.movedim(at, 0) if at is not None else x.expand(size, *x.shape)


def refuse_constants(needed: Any) -> None:
    """Raise if a derivative with respect to weights or temperatures is needed, rather than return 0.

    ``needed`` is a named tuple of flags or of tangents, by the names of the inputs.
    """
    for name, shown in _CONSTANTS.items():
        each = getattr(needed, name, None)
        if each is not None and each is not False:
            raise NotImplementedError(
                f"the derivative with respect to {shown} is not implemented; pass {shown}.detach(), or apply {shown} "
                "outside: to the losses of reduction='none', or to the logits"
            )


def one_by_one(info: Any, in_dims: Any, inputs: tuple[Any, ...], function: Callable[..., Any]) -> Any:
    """Return the stacked results of one call per example of torch.vmap, and their batch dimensions."""
    results = [
        function(*(each if at is None else each.select(at, i) for each, at in zip(inputs, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(each) for each in zip(*results, strict=True)), (0,) * len(results[0])
    return torch.stack(results), 0
