"""The loss of a linear layer as operators of torch's library: what a compiled graph holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.plan import Wanted
from softnll.torch import devices, linear_compute, linear_formulas
from softnll.torch.autograd import refuse_constants
from softnll.torch.errors import raise_as_torch
from softnll.torch.function import refuse_tangents
from softnll.torch.linear_compute import LinearLoss
from softnll.torch.linear_inputs import NAMES, Inputs, Options

__all__ = ["linear_cross_entropy"]

_TENSORS = (
    "Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target, Tensor? weight, Tensor? sample_weight, "
    "Tensor? temperature, Tensor? indices"
)
_OPTIONS = (
    "float label_smoothing, float z_loss, float? softcap, float temperature_number, int ignore_index, "
    "str reduction, bool? check, int? max_bytes, int? at_most, bool? compact"
)
_WANTED = "bool to_input, bool to_weight, bool to_bias"


def linear_cross_entropy(inputs: Inputs, options: Options) -> Tensor:
    """Return the loss, as an operator in a graph; it makes the gradients of what requires one."""
    ahead = torch.is_grad_enabled() and options[5] != "none"
    if options[-1] is None and devices.on_cuda(inputs[0]):
        options = (*options[:-1], False)  # a compiled graph may become a CUDA graph, which cannot wait
    wanted = [ahead and each is not None and each.requires_grad for each in inputs[:3]]
    loss: Tensor = _linear_cross_entropy(*inputs, *options, *wanted)[0]
    return loss


@torch.library.custom_op(
    "softnll::linear_cross_entropy",
    mutates_args=(),
    schema=f"({_TENSORS}, {_OPTIONS}, {_WANTED}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _linear_cross_entropy(
    *arguments: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss, and the gradients that are wanted for an upstream gradient of 1; else empty tensors."""
    given, what, wanted = arguments[:8], LinearLoss.of(*arguments[8:-3]), Wanted(*arguments[-3:])
    refuse_tangents(*given)
    try:
        if any(wanted):
            loss, made = linear_compute.with_gradients(wanted, *given, what)
        else:
            loss, made = linear_compute.losses(*given, what), linear_compute.Gradients(None, None, None)
    except (TypeError, ValueError) as error:
        raise_as_torch(error, NAMES)
    first, second, third = (arguments[0].new_empty(0) if each is None else each for each in made)
    return loss, first, second, third


@torch.library.custom_op(
    "softnll::linear_cross_entropy_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {_TENSORS}, {_OPTIONS}, {_WANTED}) -> (Tensor, Tensor, Tensor)",
)
def _backward(
    upstream: Tensor,
    *arguments: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients that are wanted; else empty tensors."""
    what, wanted = LinearLoss.of(*arguments[8:-3]), Wanted(*arguments[-3:])
    made = linear_compute.gradients(wanted, upstream, *arguments[:8], what)
    first, second, third = (arguments[0].new_empty(0) if each is None else each for each in made)
    return first, second, third


@torch.library.custom_op(
    "softnll::linear_cross_entropy_target_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {_TENSORS}, {_OPTIONS}) -> Tensor",
)
def _target_backward(
    upstream: Tensor,
    *arguments: Any,
) -> Tensor:
    """Return the gradient with respect to soft targets."""
    given = (*arguments[:8], LinearLoss.of(*arguments[8:]))
    return linear_formulas.gradient(upstream, given, (3,))[0].contiguous()


@torch.library.custom_op(
    "softnll::linear_cross_entropy_scale",
    mutates_args=(),
    schema="(Tensor upstream, Tensor gradient, Tensor input) -> Tensor",
)
def _scale(upstream: Tensor, gradient: Tensor, input: Tensor) -> Tensor:  # noqa: A002
    """Return a gradient that the forward has made, times the upstream gradient, in its input's type.

    It takes the input so that a graph that is compiled saves that: only then does torch notice a second derivative.
    """
    lifted = upstream * gradient
    return lifted.masked_fill_(gradient == 0, 0.0).to(input.dtype)  # 0·∞ is not for rows that take no part


@_scale.register_fake
def _(upstream: Any, gradient: Tensor, input: Tensor) -> Tensor:  # noqa: A002, ARG001
    return torch.empty_like(gradient, dtype=input.dtype)


def _no_second_derivative(*_: Any) -> Any:
    raise NotImplementedError(
        "compiled code has no second derivative of softnll's linear_cross_entropy; call it uncompiled"
    )


_scale.register_autograd(_no_second_derivative)


def _made(each: Tensor | None, asked: bool, other: Tensor, held: bool) -> Tensor:
    """Return what has the shape and type of a gradient."""
    if not asked or each is None:
        return other.new_empty(0)
    dtype = torch.float32 if held and each.dtype == torch.float16 else each.dtype
    return each.new_empty(each.shape, dtype=dtype)


@_linear_cross_entropy.register_fake
def _(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, *others: Any) -> Any:  # noqa: A002
    inputs = (input, linear_weight, linear_bias)
    wide = any(each is not None and each.dtype == torch.float64 for each in inputs)
    what, wanted = LinearLoss.of(*others[5:-3]), others[-3:]
    shape = input.shape[:-1] if what.loss.objective.reduction == "none" else ()
    loss = input.new_empty(shape, dtype=torch.float64 if wide else torch.float32)
    return loss, *(_made(each, asked, input, True) for each, asked in zip(inputs, wanted, strict=True))


@_backward.register_fake
def _(upstream: Any, input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, *others: Any) -> Any:  # noqa: A002, ARG001
    inputs = (input, linear_weight, linear_bias)
    return tuple(_made(each, asked, input, False) for each, asked in zip(inputs, others[-3:], strict=True))


@_target_backward.register_fake
def _(upstream: Any, input: Any, linear_weight: Any, linear_bias: Any, target: Tensor, *others: Any) -> Tensor:  # noqa: A002, ARG001
    return torch.empty_like(target, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward reads."""
    refuse_constants(ctx.needs_input_grad[4:7])
    ctx.options, ctx.made = inputs[8:-3], inputs[-3:]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:8], *output[1:])


def _gradients(ctx: Any, grad: Tensor | None, *others: Any) -> tuple[Any, ...]:
    if any(each is not None for each in others):
        _no_second_derivative()
    if grad is None:
        return (None,) * 21
    *given, d_input, d_weight, d_bias = ctx.saved_tensors
    needed = ctx.needs_input_grad
    made = [
        _scale(grad, each, like) if here and asked else None
        for each, here, asked, like in zip((d_input, d_weight, d_bias), ctx.made, needed[:3], given[:3], strict=True)
    ]
    rest = [asked and not here for asked, here in zip(needed[:3], ctx.made, strict=True)]
    if any(rest):
        again = _backward(grad, *given, *ctx.options, *rest)
        made = [new if asked else each for new, asked, each in zip(again, rest, made, strict=True)]
    to_target = _target_backward(grad, *given, *ctx.options) if needed[3] else None
    return *made, to_target, *[None] * 17


_linear_cross_entropy.register_autograd(_gradients, setup_context=_keep)
