"""The loss of a linear layer as operators of torch's library, for compiled graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.options import NAMES
from softnll._core.plan import Wanted
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LinearValues, Upstream, take
from softnll.torch._base.backend import captures
from softnll.torch._base.errors import LINEAR_NAMES
from softnll.torch._base.inputs import tracing
from softnll.torch._base.operators import operator
from softnll.torch._linear import compute, expressions, formulas


class Flags(NamedTuple):
    """Which gradients an operator computes."""

    to_input: bool
    to_linear_weight: bool
    to_linear_bias: bool


class KeptGradient(NamedTuple):
    """The upstream gradient, a gradient that the forward has computed, and the input it belongs to.

    The input is an argument so that a compiled graph saves it: only then does torch detect a second derivative.
    """

    upstream: Tensor
    gradient: Tensor
    like: Tensor


# torch 2.6 does not have this function: there, an exported loss keeps the gradients that it computes.
_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


def linear_cross_entropy(inputs: LinearInputs, values: LinearValues) -> Tensor:
    """Return the loss from an operator, which also computes the gradients of the layer's tensors that require one."""
    recording = torch.is_grad_enabled() and values.reduction != "none" and not (tracing() or _exporting())
    layer = (inputs.input, inputs.linear_weight, inputs.linear_bias)  # torch 2.6 compiles no properties of named tuples
    flags = Flags(*(recording and each is not None and each.requires_grad for each in layer))
    if values.compact is None and captures(inputs.input):
        values = values._replace(compact=False)  # a compiled graph may become a CUDA graph, which cannot synchronise
    loss, *_ = _linear_cross_entropy(inputs, values, flags)
    return loss


@operator(
    "linear_cross_entropy",
    LinearInputs,
    LinearSettings,
    Flags,
    returns="(Tensor, Tensor, Tensor, Tensor)",
    names=LINEAR_NAMES,
)
def _linear_cross_entropy(inputs: LinearInputs, settings: LinearSettings, flags: Flags) -> tuple[Tensor, ...]:
    """Return the loss, and the wanted gradients for an upstream gradient of 1; empty tensors for the others."""
    if any(flags):
        loss, found = compute.with_gradients(Wanted(*flags), inputs, settings)
    else:
        loss, found = compute.losses(inputs, settings), compute.Gradients()
    return loss, *_or_empty(found, inputs)


def _or_empty(found: compute.Gradients, inputs: LinearInputs) -> tuple[Tensor, ...]:
    """Return gradients, with an empty tensor in place of each None, which an operator cannot return."""
    return tuple(inputs.input.new_empty(0) if each is None else each for each in found)


@operator(
    "linear_cross_entropy_backward", Upstream, LinearInputs, LinearSettings, Flags, returns="(Tensor, Tensor, Tensor)"
)
def _backward(given: Upstream, inputs: LinearInputs, settings: LinearSettings, flags: Flags) -> tuple[Tensor, ...]:
    """Return the wanted gradients; empty tensors for the others."""
    return _or_empty(compute.gradients(Wanted(*flags), given.upstream, inputs, settings), inputs)


@_linear_cross_entropy.decompose
def _(inputs: LinearInputs, settings: LinearSettings, flags: Flags) -> tuple[Tensor, ...]:
    value = expressions.cross_entropy(inputs, settings.loss)
    if not any(flags):
        return value, *_or_empty(compute.Gradients(), inputs)
    scalars = (getattr(settings.loss.objective, name) for name in NAMES)
    values = LinearValues(*scalars, settings.loss.check, settings.max_bytes, settings.at_most, settings.compact)
    found = _backward(Upstream(torch.ones_like(value)), inputs, values, flags)
    return value, *(each.to(compute.kept_type(each.dtype, kept=True)) for each in found)


@operator("linear_cross_entropy_target_backward", Upstream, LinearInputs, LinearSettings)
def _target_backward(given: Upstream, inputs: LinearInputs, settings: LinearSettings) -> Tensor:
    """Return the gradient with respect to soft targets."""
    (gradient,) = formulas.pull(formulas.LOSS, inputs, settings, (given.upstream,), ("target",))
    return gradient.contiguous()


@operator("linear_cross_entropy_scale", KeptGradient)
def _scale(kept: KeptGradient) -> Tensor:
    """Return a gradient that the forward has computed, times the upstream gradient, in its input's type."""
    scaled = kept.upstream * kept.gradient
    # Rows that take no part keep gradient 0, where 0·∞ would be NaN.
    return scaled.masked_fill_(kept.gradient == 0, 0.0).to(kept.like.dtype)


@_scale.fake
def _(kept: KeptGradient) -> Tensor:
    return torch.empty_like(kept.gradient, dtype=kept.like.dtype)


def _no_second_derivative(*_: Any) -> Any:
    raise NotImplementedError(
        "compiled code has no second derivative of softnll's linear_cross_entropy; call it uncompiled"
    )


_scale.library.register_autograd(_no_second_derivative)


def empty_gradients(inputs: LinearInputs, flags: Flags, *, kept: bool) -> tuple[Tensor, ...]:
    """Return uninitialised tensors with the shapes and types of the wanted gradients; empty tensors for the others."""
    return tuple(
        each.new_empty(each.shape, dtype=compute.kept_type(each.dtype, kept))
        if asked and each is not None
        else inputs.input.new_empty(0)
        for each, asked in zip(inputs.layer, flags, strict=True)
    )


@_linear_cross_entropy.fake
def _(inputs: LinearInputs, settings: LinearSettings, flags: Flags) -> Any:
    shape = inputs.input.shape[:-1] if settings.loss.objective.reduction == "none" else ()
    loss = inputs.input.new_empty(shape, dtype=inputs.loss_type)
    return loss, *empty_gradients(inputs, flags, kept=True)


@_backward.fake
def _(_: Upstream, inputs: LinearInputs, __: LinearSettings, flags: Flags) -> Any:
    return empty_gradients(inputs, flags, kept=False)


@_target_backward.fake
def _(_: Upstream, inputs: LinearInputs, __: LinearSettings) -> Tensor:
    return torch.empty_like(inputs.target, memory_format=torch.contiguous_format)


def _gradients(ctx: Any, upstream: Tensor, *others: Any) -> dict[str, Any]:
    if any(each is not None for each in others):
        _no_second_derivative()
    *tensors, d_input, d_weight, d_bias = ctx.saved_tensors
    inputs, needed = LinearInputs(*tensors), take(LinearInputs, ctx.needs_input_grad)
    names, (options, flags) = compute.Gradients._fields, ctx.groups
    computed = dict(zip(names, flags, strict=True))
    found: dict[str, Any] = {
        name: _scale(KeptGradient(upstream, each, getattr(inputs, name)))
        for name, each in zip(names, (d_input, d_weight, d_bias), strict=True)
        if computed[name] and getattr(needed, name)
    }
    rest = Flags(*(getattr(needed, name) and not computed[name] for name in names))
    if any(rest):
        again = _backward(Upstream(upstream), inputs, options, rest)
        found |= {name: each for name, each, asked in zip(names, again, rest, strict=True) if asked}
    if needed.target:
        found["target"] = _target_backward(Upstream(upstream), inputs, options)
    return found


_linear_cross_entropy.differentiate(_gradients, results=3)
