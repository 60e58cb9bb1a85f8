"""The losses and softmax as operators of torch's library, for compiled graphs.

An operator has no derivative in forward mode and no rule for torch.func: torch would assume a tangent of 0. So only
code that is being compiled calls operators, and an operator raises if an input has a tangent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll.torch._base.arguments import LossInputs, LossSettings, Upstream, take
from softnll.torch._base.autograd_base import refuse_tangents
from softnll.torch._base.errors import NAMES
from softnll.torch._base.inputs import tracing
from softnll.torch._base.operators import decompose, fake, operator
from softnll.torch._losses import autograd, compute, expressions, formulas, normalise

Function = Callable[..., Any]


class GradientInputs(NamedTuple):
    """The upstream gradient of a loss, and m and r from its forward."""

    upstream: Tensor
    m: Tensor
    r: Tensor


def _row_shape(x: Tensor, dim: int) -> list[Any]:
    """Return the shape without a dimension."""
    return [*x.shape[:dim], *x.shape[dim + 1 :]]


def _along_dim(name: str, empty: Function, product: Function) -> Any:
    """Return the operator of a function of logits and a class dimension; under torch.jit.trace, its expression.

    ``empty`` returns an empty tensor with the shape and the type of the result, ``product`` the vector-Jacobian product
    of logits and an upstream gradient, both in float32 or wider.
    """
    function, expression = getattr(compute, name), getattr(expressions, name)

    def implementation(input: Tensor, dim: int) -> Tensor:  # noqa: A002 - torch's name
        refuse_tangents(input)
        return function(input, dim)

    def keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
        x, ctx.dim = inputs
        ctx.save_for_backward(x)

    def gradient(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return product(normalise.wide(x), normalise.wide(upstream), ctx.dim).to(x.dtype), None

    schema = "(Tensor input, int dim) -> Tensor"
    op = torch.library.custom_op(f"softnll::{name}", implementation, mutates_args=(), schema=schema)
    fake(op, empty)
    op.register_autograd(gradient, setup_context=keep_input)
    decompose(op, expression)
    return lambda x, dim: expression(x, dim) if tracing() else op(x, dim)


softmax: Any = _along_dim(
    "softmax",
    lambda x, _: torch.empty_like(x),
    lambda x, v, dim: normalise.softmax_product(softmax(x, dim), v, dim),
)
log_softmax: Any = _along_dim(
    "log_softmax",
    lambda x, _: torch.empty_like(x),
    lambda x, v, dim: normalise.log_softmax_product(log_softmax(x, dim), v, dim),
)
logsumexp: Any = _along_dim(
    "logsumexp",
    lambda x, dim: x.new_empty(_row_shape(x, dim)),
    lambda x, v, dim: (softmax(x, dim) if x.shape[dim] else x) * v.unsqueeze(dim),
)


@operator("cross_entropy", LossInputs, LossSettings, returns="(Tensor, Tensor, Tensor)", names=NAMES)
def cross_entropy(inputs: LossInputs, settings: LossSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, m and r."""
    value, kept = compute.forward(inputs, settings)
    return value, *kept.tensors(inputs.input)


@cross_entropy.decompose
def _(inputs: LossInputs, settings: LossSettings) -> tuple[Tensor, Tensor, Tensor]:
    m, r = expressions.largest_and_rest(inputs.input, settings.dim)
    return expressions.cross_entropy(inputs, settings), m, r


@operator("cross_entropy_backward", GradientInputs, LossInputs, LossSettings)
def cross_entropy_backward(given: GradientInputs, inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the gradient with respect to the logits."""
    return compute.backward(given.upstream, given.m, given.r, inputs, settings)


@operator("cross_entropy_target_backward", Upstream, LossInputs, LossSettings)
def cross_entropy_target_backward(given: Upstream, inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the gradient with respect to soft targets."""
    return formulas.target_gradient(given.upstream, inputs, settings).contiguous()


@operator("nll_loss", LossInputs, LossSettings, names=NAMES)
def nll_loss(inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the loss of log-probabilities."""
    return compute.pick(inputs, settings)


nll_loss.decompose(expressions.nll_loss)


@nll_loss.fake
def _empty_loss(inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return an empty tensor with the shape and the type of a loss."""
    x, reduction = inputs.input, settings.objective.reduction
    return x.new_empty(_row_shape(x, settings.dim) if reduction == "none" else [], dtype=inputs.loss_type)


@cross_entropy.fake
def _(inputs: LossInputs, settings: LossSettings) -> Any:
    shape = _row_shape(inputs.input, settings.dim)
    m, r = (inputs.input.new_empty(shape, dtype=torch.float64) for _ in range(2))
    return _empty_loss(inputs, settings), m, r


@cross_entropy_backward.fake
def _(_: GradientInputs, inputs: LossInputs, __: LossSettings) -> Tensor:
    return torch.empty_like(inputs.input)


@cross_entropy_target_backward.fake
def _(_: Upstream, inputs: LossInputs, __: LossSettings) -> Tensor:
    return torch.empty_like(inputs.target, memory_format=torch.contiguous_format)


def _cross_entropy_gradients(ctx: Any, upstream: Tensor, *_: None) -> dict[str, Any]:
    *tensors, m, r = ctx.saved_tensors
    inputs, needed, (options,) = LossInputs(*tensors), take(LossInputs, ctx.needs_input_grad), ctx.groups
    found = {}
    if needed.input:
        found["input"] = cross_entropy_backward(GradientInputs(upstream, m, r), inputs, options)
    if needed.target:
        found["target"] = cross_entropy_target_backward(Upstream(upstream), inputs, options)
    return found


def _nll_gradients(ctx: Any, upstream: Tensor) -> dict[str, Any]:
    (options,) = ctx.groups
    return {"input": autograd.nll_gradient(upstream, LossInputs(*ctx.saved_tensors), LossSettings.of(*options))}


cross_entropy.differentiate(_cross_entropy_gradients, results=2)
nll_loss.differentiate(_nll_gradients)
