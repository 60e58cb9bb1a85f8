"""The same functions as operators of torch's library: what a compiled graph holds in the place of Python.

An operator has no derivative in forward mode and knows no transform of torch.func; torch would give the one a tangent
of 0 without a word. So only code that is being compiled comes here, and an operator that meets a tangent says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.objective import checked
from softnll.torch import autograd, compute, formulas, normalise
from softnll.torch.compute import Loss
from softnll.torch.errors import raise_as_torch
from softnll.torch.function import refuse_tangents

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax"]

_LOSS = "Tensor input, Tensor target, Tensor? weight, Tensor? sample_weight, Tensor? temperature"
_OPTIONS = (
    "float label_smoothing, float z_loss, float? softcap, float temperature_number, int ignore_index, "
    "str reduction, int dim, bool? check"
)


def _what(
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    temperature: float,
    ignore_index: int,
    reduction: str,
    dim: int,
    check: bool | None,
) -> Loss:
    """Return checked options."""
    objective, _ = checked(label_smoothing, z_loss, softcap, temperature, ignore_index, reduction)  # type: ignore[arg-type]
    return Loss(objective, dim, check)


def _row_shape(x: Tensor, dim: int) -> list[Any]:
    """Return the shape without a dimension."""
    return [*x.shape[:dim], *x.shape[dim + 1 :]]


@torch.library.custom_op("softnll::softmax", mutates_args=(), schema="(Tensor input, int dim) -> Tensor")
def softmax(input: Tensor, dim: int) -> Tensor:  # noqa: A002 - torch's name
    """Return p."""
    refuse_tangents(input)
    return compute.softmax(input, dim)


@torch.library.custom_op("softnll::log_softmax", mutates_args=(), schema="(Tensor input, int dim) -> Tensor")
def log_softmax(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    """Return log p."""
    refuse_tangents(input)
    return compute.log_softmax(input, dim)


@torch.library.custom_op("softnll::logsumexp", mutates_args=(), schema="(Tensor input, int dim) -> Tensor")
def logsumexp(input: Tensor, dim: int) -> Tensor:  # noqa: A002
    """Return lse."""
    refuse_tangents(input)
    return compute.logsumexp(input, dim)


softmax.register_fake(lambda input, dim: torch.empty_like(input))  # noqa: A006, ARG005
log_softmax.register_fake(lambda input, dim: torch.empty_like(input))  # noqa: A006, ARG005
logsumexp.register_fake(lambda input, dim: input.new_empty(_row_shape(input, dim)))  # noqa: A006


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    """Keep the logits."""
    x, ctx.dim = inputs
    ctx.save_for_backward(x)


def _softmax_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    p = softmax(normalise.wide(x), ctx.dim)
    return normalise.softmax_product(p, normalise.wide(grad), ctx.dim).to(x.dtype), None


def _log_softmax_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    log_p = log_softmax(normalise.wide(x), ctx.dim)
    return normalise.log_softmax_product(log_p, normalise.wide(grad), ctx.dim).to(x.dtype), None


def _logsumexp_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    p = softmax(normalise.wide(x), ctx.dim) if x.shape[ctx.dim] else normalise.wide(x)
    return (p * normalise.wide(grad).unsqueeze(ctx.dim)).to(x.dtype), None


softmax.register_autograd(_softmax_backward, setup_context=_keep_input)
log_softmax.register_autograd(_log_softmax_backward, setup_context=_keep_input)
logsumexp.register_autograd(_logsumexp_backward, setup_context=_keep_input)


@torch.library.custom_op(
    "softnll::cross_entropy", mutates_args=(), schema=f"({_LOSS}, {_OPTIONS}) -> (Tensor, Tensor, Tensor)"
)
def cross_entropy(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    temperature: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, m and r."""
    refuse_tangents(input, target, weight, sample_weight, temperature)
    try:
        return compute.forward(input, target, weight, sample_weight, temperature, _what(*options))
    except (TypeError, ValueError) as error:
        raise_as_torch(error)


@torch.library.custom_op(
    "softnll::cross_entropy_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, Tensor m, Tensor r, {_LOSS}, {_OPTIONS}) -> Tensor",
)
def cross_entropy_backward(
    upstream: Tensor,
    m: Tensor,
    r: Tensor,
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    temperature: Tensor | None,
    *options: Any,
) -> Tensor:
    """Return the gradient."""
    return compute.backward(upstream, m, r, input, target, weight, sample_weight, temperature, _what(*options))


@torch.library.custom_op(
    "softnll::cross_entropy_target_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {_LOSS}, {_OPTIONS}) -> Tensor",
)
def cross_entropy_target_backward(
    upstream: Tensor,
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    temperature: Tensor | None,
    *options: Any,
) -> Tensor:
    """Return the gradient with respect to soft targets."""
    given = (input, target, weight, sample_weight, temperature)
    return formulas.target_gradient(upstream, *given, _what(*options)).contiguous()


@torch.library.custom_op(
    "softnll::nll_loss",
    mutates_args=(),
    schema="(Tensor input, Tensor target, Tensor? weight, Tensor? sample_weight, int ignore_index, str reduction, "
    "int dim) -> Tensor",
)
def nll_loss(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    dim: int,
) -> Tensor:
    """Return the loss of log-probabilities."""
    refuse_tangents(input, weight, sample_weight)
    what = _what(0.0, 0.0, None, 1.0, ignore_index, reduction, dim, None)
    try:
        return compute.pick(input, target, weight, sample_weight, what)
    except (TypeError, ValueError) as error:
        raise_as_torch(error)


def _empty_loss(input: Tensor, reduction: str, dim: int) -> Tensor:  # noqa: A002
    """Return what has the shape and type of a loss."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    return input.new_empty(_row_shape(input, dim) if reduction == "none" else [], dtype=dtype)


@cross_entropy.register_fake
def _(input: Tensor, target: Any, weight: Any, sample_weight: Any, temperature: Any, *options: Any) -> Any:  # noqa: A002, ARG001
    what = _what(*options)
    m, r = (input.new_empty(_row_shape(input, what.dim), dtype=torch.float64) for _ in range(2))
    return _empty_loss(input, what.objective.reduction, what.dim), m, r


@cross_entropy_backward.register_fake
def _(upstream: Any, m: Any, r: Any, input: Tensor, *others: Any) -> Tensor:  # noqa: A002, ARG001
    return torch.empty_like(input)


@cross_entropy_target_backward.register_fake
def _(upstream: Any, input: Any, target: Tensor, *others: Any) -> Tensor:  # noqa: A002, ARG001
    return torch.empty_like(target, memory_format=torch.contiguous_format)


@nll_loss.register_fake
def _(
    input: Tensor,  # noqa: A002
    target: Any,  # noqa: ARG001
    weight: Any,  # noqa: ARG001
    sample_weight: Any,  # noqa: ARG001
    ignore_index: Any,  # noqa: ARG001
    reduction: str,
    dim: int,
) -> Tensor:
    return _empty_loss(input, reduction, dim)


def _keep_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep what the backward reads."""
    autograd.refuse_constants(ctx.needs_input_grad[2:5])
    ctx.options = inputs[5:]
    ctx.save_for_backward(*inputs[:5], *output[1:])


def _cross_entropy_backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    *given, m, r = ctx.saved_tensors
    to_x = cross_entropy_backward(grad, m, r, *given, *ctx.options) if ctx.needs_input_grad[0] else None
    to_target = cross_entropy_target_backward(grad, *given, *ctx.options) if ctx.needs_input_grad[1] else None
    return to_x, to_target, *[None] * 11


def _keep_log_likelihood(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    """Keep what the backward reads."""
    autograd.refuse_constants(ctx.needs_input_grad[2:4])
    ctx.what = _what(0.0, 0.0, None, 1.0, inputs[4], inputs[5], inputs[6], None)
    ctx.save_for_backward(*inputs[:4])


def _nll_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, target, weight, s = ctx.saved_tensors
    return autograd.nll_gradient(grad, x, target, weight, s, ctx.what), *[None] * 6


cross_entropy.register_autograd(_cross_entropy_backward, setup_context=_keep_loss)
nll_loss.register_autograd(_nll_backward, setup_context=_keep_log_likelihood)
