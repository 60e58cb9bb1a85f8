"""The loss of a linear layer as functions that autograd, forward mode and vmap know, to any order.

Without torch.func, the gradients are made chunk by chunk in the forward, where each chunk's logits are at hand, and the
first backward hands them out. Whoever asks a second time, for another upstream gradient, has them made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from softnll.plan import Wanted
from softnll.torch import devices, linear_compute, linear_formulas
from softnll.torch.autograd import one_by_one, refuse_constants
from softnll.torch.function import Rule, immediate, records, refuse_nested
from softnll.torch.uncompiled import uncompiled

__all__ = ["LinearFunction", "linear_cross_entropy"]


@dataclass(slots=True)  # no tuple, which torch.func would take apart
class _Derivative:
    """Which gradients are meant.

    Attributes
    ----------
    at
        Places among features, weight, bias and target.
    held
        Gradients that the forward has made, for an upstream gradient of 1; or none.
    """

    at: tuple[int, ...]
    held: dict[int, Tensor]


def _wanted(at: tuple[int, ...]) -> Wanted:
    """Return which gradients the kernels make; the target's is an expression."""
    return Wanted(0 in at, 1 in at, 2 in at)


def _made(upstream: Tensor, given: tuple[Any, ...], at: tuple[int, ...]) -> list[Tensor]:
    """Return gradients, made from the inputs."""
    wanted = _wanted(at)
    made: list[Any] = [*(linear_compute.gradients(wanted, upstream, *given) if any(wanted) else (None,) * 3), None]
    if 3 in at:
        (made[3],) = linear_formulas.gradient(upstream, given, (3,))
    return [made[i] for i in at]


def _places(needed: tuple[Any, ...]) -> tuple[int, ...]:
    """Return which of the inputs need a gradient."""
    return tuple(i for i, each in enumerate(needed) if each)


def _spread(at: tuple[int, ...], values: Any, n: int) -> tuple[Any, ...]:
    """Return values in their places, and None elsewhere."""
    placed: list[Any] = [None] * n
    for i, value in zip(at, values, strict=True):
        placed[i] = value
    return tuple(placed)


class _Linear(Function):
    """The derivatives of the loss of ``(f, W, b, target, weight, sample_weight, temperature, indices, LinearLoss)``."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the loss's derivative along tangents of features, weight, bias and soft targets."""
        refuse_constants(tangents[4:7])
        given = ctx.saved_tensors
        value = linear_formulas.loss_push((*given, ctx.what), tangents[:4])
        wide = any(each is not None and each.dtype == torch.float64 for each in given[:3])
        return value.to(torch.float64 if wide else torch.float32)


class EagerLinear(_Linear):
    """The loss, and with it its gradients, for where no transform of torch.func is at work."""

    @staticmethod
    def forward(ctx: Any, ahead: bool, *inputs: Any) -> Tensor:
        """Return the loss; ``ahead``: and make the gradients that the backward will want."""
        needed = ctx.needs_input_grad[1:]
        refuse_constants(needed[4:7])
        ctx.what = inputs[8]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:8])
        if forward_ad._current_level >= 0:  # noqa: SLF001
            ctx.save_for_forward(*inputs[:8])
        ctx.held = {}
        wanted = Wanted(*needed[:3])
        if not (ahead and any(wanted) and ctx.what.loss.objective.reduction != "none" and immediate()):
            return linear_compute.losses(*inputs)
        value, made = linear_compute.with_gradients(wanted, *inputs)
        ctx.held = {i: each for i, each in enumerate(made) if each is not None}
        ctx.types = tuple(None if each is None else each.dtype for each in inputs[:3])
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to features, weight, bias and soft targets."""
        at = _places(ctx.needs_input_grad[1:5])
        if grad is None or not at:
            return (None,) * 10
        if torch._C._functorch.is_legacy_batchedtensor(grad):  # noqa: SLF001 - is_grads_batched=True
            values: Any = linear_formulas.gradient(grad, (*ctx.saved_tensors, ctx.what), at)
        elif records():
            values = GradientFunction.apply(grad, *ctx.saved_tensors, ctx.what, _Derivative(at, ctx.held))
        else:
            values = _handed_out(ctx, grad, at)
        return (None, *_spread(at, values, 9))

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Tensor:
        """Return the loss's derivative along tangents."""
        return _Linear.jvp(ctx, *tangents)


def _handed_out(ctx: Any, upstream: Tensor, at: tuple[int, ...]) -> list[Tensor]:
    """Return the gradients; those that the forward made are changed in place, and are the caller's from then on."""
    if ctx.held and devices.on_cuda(upstream):
        return _lifted_there(ctx, upstream, at)
    factor = upstream.item() if ctx.held else math.nan
    here = [i for i in at if i in ctx.held] if math.isfinite(factor) else []  # 0·∞ is not for rows that take no part
    values: dict[int, Tensor] = {}
    for i in here:
        each = ctx.held.pop(i)
        if factor != 1:
            each.mul_(factor)
        values[i] = each.to(ctx.types[i])
    rest = tuple(i for i in at if i not in values)
    if rest:
        values |= zip(rest, _made(upstream, (*ctx.saved_tensors, ctx.what), rest), strict=True)
    return [values[i] for i in at]


def _lifted_there(ctx: Any, upstream: Tensor, at: tuple[int, ...]) -> list[Tensor]:
    """Return the gradients as ``_handed_out`` does, on a CUDA device: nobody waits to hear the factor."""
    values: dict[int, Tensor] = {}
    for i in at:
        if i in ctx.held:
            each = ctx.held.pop(i)
            devices.cuda("compute").lift(each, upstream)
            values[i] = each.to(ctx.types[i])
    rest = tuple(i for i in at if i not in values)
    if rest:
        values |= zip(rest, _made(upstream, (*ctx.saved_tensors, ctx.what), rest), strict=True)
    return [values[i] for i in at]


class LinearFunction(_Linear):
    """The loss under transforms of torch.func, where nobody can tell which gradients will be wanted."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        """Return the loss."""
        return linear_compute.losses(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - made anew
        """Keep the inputs."""
        refuse_constants(ctx.needs_input_grad[4:7])
        ctx.what = inputs[8]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:8])
        ctx.save_for_forward(*inputs[:8])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to features, weight, bias and soft targets."""
        at = _places(ctx.needs_input_grad[:4])
        if grad is None or not at:
            return (None,) * 9
        return _spread(at, GradientFunction.apply(grad, *ctx.saved_tensors, ctx.what, _Derivative(at, {})), 9)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the losses of a batch."""
        return one_by_one(info, in_dims, inputs, LinearFunction.apply)


@uncompiled
def linear_cross_entropy(*inputs: Any) -> Tensor:
    """Return the loss of what ``EagerLinear`` takes, differentiable."""
    if torch._C._are_functorch_transforms_active():  # noqa: SLF001
        refuse_nested()
        return LinearFunction.apply(*inputs)
    return EagerLinear.apply(torch.is_grad_enabled(), *inputs)


class GradientFunction(Rule):
    """The gradients of the loss, themselves differentiable.

    The upstream gradient, ``(f, W, b, target, weight, sample_weight, temperature, indices, LinearLoss)`` and a
    ``_Derivative`` to a tuple of those that are meant.
    """

    @staticmethod
    def forward(upstream: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        """Return the gradients."""
        *given, derivative = inputs
        held = {i: each for i, each in derivative.held.items() if i in derivative.at}
        if not held or not (devices.on_cuda(upstream) or math.isfinite(upstream.item())):
            return tuple(_made(upstream, tuple(given), derivative.at))
        values = {  # 0·∞ is not for rows that take no part
            i: torch.where(each == 0, each, each * upstream).to(given[i].dtype) for i, each in held.items()
        }
        rest = tuple(i for i in derivative.at if i not in held)
        if rest:
            values |= zip(rest, _made(upstream, tuple(given), rest), strict=True)
        return tuple(values[i] for i in derivative.at)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004 - made anew
        """Keep the inputs."""
        refuse_constants(ctx.needs_input_grad[5:8])
        ctx.what, ctx.at = inputs[9], inputs[10].at
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:9])
        ctx.save_for_forward(*inputs[:9])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients' gradients with respect to the upstream gradient and the layer's inputs."""
        if all(each is None for each in grads):
            return (None,) * 11
        upstream, *given = ctx.saved_tensors
        pairs = zip(grads, ctx.at, strict=True)
        cotangents = [torch.zeros_like(given[i]) if each is None else each for each, i in pairs]
        wanted = _places(ctx.needs_input_grad[1:5])
        inputs = (*given, ctx.what)
        to_upstream, values = linear_formulas.gradient_pullback(cotangents, upstream, inputs, ctx.at, wanted)
        return (to_upstream, *_spread(wanted, values, 10))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        """Return the gradients' derivatives along tangents."""
        refuse_constants(tangents[5:8])
        upstream, *given = ctx.saved_tensors
        return linear_formulas.gradient_push(upstream, tangents[0], (*given, ctx.what), tangents[1:5], ctx.at)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the gradients of a batch."""
        return one_by_one(info, in_dims, inputs, GradientFunction.apply)
