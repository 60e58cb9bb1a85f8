"""The losses as functions that autograd, forward mode and vmap know, to any order.

Values and gradients are the kernels'; every further derivative is one of ``formulas``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from softnll.torch import compute, formulas
from softnll.torch.compute import Loss
from softnll.torch.function import Rule, batched, immediate, records, refuse_nested
from softnll.torch.uncompiled import uncompiled

__all__ = [
    "CrossEntropyFunction",
    "GradientFunction",
    "NLLFunction",
    "nll_gradient",
    "one_by_one",
    "refuse_constants",
]

_CONSTANTS = ("weight", "sample_weight", "temperature")


def refuse(name: str) -> NoReturn:
    """Say that there is no derivative with respect to a parameter, rather than let it be silently 0."""
    raise NotImplementedError(
        f"the derivative with respect to {name} is not implemented; pass {name}.detach(), or apply {name} outside: "
        "to the losses of reduction='none', or to the logits"
    )


def refuse_constants(needed: tuple[Any, ...]) -> None:
    """Raise if a derivative with respect to weights or temperatures is asked for."""
    for name, each in zip(_CONSTANTS, needed, strict=False):
        if each is not None and each is not False:
            refuse(name)


Dims = tuple[int | None, ...]


def one_by_one(info: Any, in_dims: Dims, inputs: tuple[Any, ...], function: Callable[..., Any]) -> Any:
    """Apply a function to each of a batch: for what a kernel has one of, such as class weights."""
    results = [
        function(*(each if at is None else each.select(at, i) for each, at in zip(inputs, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(each) for each in zip(*results, strict=True)), (0,) * len(results[0])
    return torch.stack(results), 0


def _in_front(info: Any, in_dims: Dims, inputs: tuple[Any, ...]) -> list[Any]:
    """Return tensors with the dimension mapped over in front, where it is that of more rows."""
    return [
        each if each is None else batched(each, at, info.batch_size) for each, at in zip(inputs, in_dims, strict=True)
    ]


def _as_rows(what: Loss) -> Loss:
    """Return the loss of a batch of rows each for itself."""
    return Loss(compute.unreduced(what.objective), what.dim + 1, what.check)


def _reduced(rows: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, what: Loss) -> Tensor:
    """Reduce the losses of a batch, each member for itself."""
    if what.objective.reduction == "none":
        return rows
    value = rows.sum(tuple(range(1, rows.dim())), dtype=torch.float64) if rows.dim() > 1 else rows.double()
    if what.objective.reduction == "mean":
        _, D = formulas.row_weights(target, weight, sample_weight, replace(what, dim=what.dim + 1), 1)
        value = torch.where(D > 0, value / D, torch.nan)
    return value.to(rows.dtype)


class _CrossEntropy(Function):
    """The derivatives of the loss of ``(x, target, weight, sample_weight, temperature, Loss)``."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Return the loss's derivative along tangents of logits and soft targets."""
        refuse_constants(tangents[2:5])
        x, target, weight, s, tau = ctx.saved_tensors[:5]
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return _along(lambda x, q: formulas.loss(x, q, weight, s, tau, ctx.what), (x, target), tangents).to(dtype)


class EagerCrossEntropy(_CrossEntropy):
    """The loss, for where no transform of torch.func is at work: what the backward needs goes past torch.

    m and r as outputs, and everything checked again in the backward, take 20 µs. The gradient of a reduced loss is made
    while the logits are read anyway, and waits for its upstream gradient; torch's log-probabilities do so, too.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Return the loss."""
        if True in ctx.needs_input_grad[2:5]:
            refuse_constants(ctx.needs_input_grad[2:5])
        ctx.what = inputs[5]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:5])
        if forward_ad._current_level >= 0:  # noqa: SLF001
            ctx.save_for_forward(*inputs[:5])
        ctx.held = None
        if ctx.needs_input_grad[0] and ctx.what.objective.reduction != "none" and immediate():
            value, ctx.notes, ctx.held = compute.with_gradient(*inputs)
        else:
            value, ctx.notes = compute.noted(*inputs)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to the logits and to soft targets."""
        if grad is None:
            return (None,) * 6
        x, target, weight, s, tau = ctx.saved_tensors
        to_x = to_target = None
        if ctx.needs_input_grad[0]:
            if torch._C._functorch.is_legacy_batchedtensor(grad):  # noqa: SLF001 - is_grads_batched=True
                to_x = formulas.gradient(grad, x, target, weight, s, tau, ctx.what).to(x.dtype)
            elif records():
                m, r = compute.notes_as_tensors(ctx.notes)
                to_x = GradientFunction.apply(grad, m, r, x, target, weight, s, tau, ctx.what)
            else:
                held, ctx.held = ctx.held, None  # the caller's from now on: a second backward makes its own
                given = (grad, x, target, ctx.notes)
                to_x = compute.gradient(*given) if held is None else compute.handed_out(held, *given)
        if ctx.needs_input_grad[1]:
            to_target = formulas.target_gradient(grad, x, target, weight, s, tau, ctx.what)
        return to_x, to_target, None, None, None, None


class CrossEntropyFunction(_CrossEntropy):
    """The loss, and m and r for its backward, under transforms of torch.func."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, m and r."""
        return compute.forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep the inputs, m and r: nothing of the logits' size that the caller does not have."""
        refuse_constants(ctx.needs_input_grad[2:5])
        _, m, r = outputs
        ctx.what = inputs[5]
        ctx.mark_non_differentiable(m, r)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:5], m, r)
        ctx.save_for_forward(*inputs[:5], m, r)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
        """Return the gradients with respect to the logits and to soft targets."""
        if grad is None:
            return (None,) * 6
        x, target, weight, s, tau, m, r = ctx.saved_tensors
        to_x = to_target = None
        if ctx.needs_input_grad[0]:
            to_x = GradientFunction.apply(grad, m, r, x, target, weight, s, tau, ctx.what)
        if ctx.needs_input_grad[1]:
            to_target = formulas.target_gradient(grad, x, target, weight, s, tau, ctx.what)
        return to_x, to_target, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None, None]:
        """Return the loss's derivative along tangents; m and r have none."""
        return _CrossEntropy.jvp(ctx, *tangents), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> Any:
        """Return the losses of a batch."""
        if in_dims[2] is not None:
            return one_by_one(info, in_dims, inputs, CrossEntropyFunction.apply)
        weight, what = inputs[2], inputs[5]
        at = (*in_dims[:2], *in_dims[3:5])
        x, target, s, tau = _in_front(info, at, (*inputs[:2], *inputs[3:5]))
        rows, m, r = CrossEntropyFunction.apply(x, target, weight, s, tau, _as_rows(what))
        return (_reduced(rows, target, weight, s, what), m, r), (0, 0, 0)


@uncompiled
def cross_entropy(*inputs: Any) -> Any:
    """Return the loss of ``(x, target, weight, sample_weight, temperature, Loss)``, differentiable."""
    if torch._C._are_functorch_transforms_active():  # noqa: SLF001
        refuse_nested()
        return CrossEntropyFunction.apply(*inputs)[0]
    return EagerCrossEntropy.apply(*inputs)


class GradientFunction(Rule):
    """``(upstream, m, r, x, target, weight, sample_weight, temperature, Loss)`` to the gradient with respect to x."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        """Return the gradient."""
        return compute.backward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - made anew from x
        """Keep the inputs; m and r are functions of the logits."""
        refuse_constants(ctx.needs_input_grad[5:8])
        ctx.what = inputs[8]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], *inputs[3:8])
        ctx.save_for_forward(inputs[0], *inputs[3:8])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        """Return the gradient's gradients with respect to the upstream gradient, the logits and soft targets."""
        if grad is None:
            return (None,) * 9
        upstream, x, target, weight, s, tau = ctx.saved_tensors
        at = [upstream, x, target]
        wanted = [i for i, needed in enumerate((ctx.needs_input_grad[0], *ctx.needs_input_grad[3:5])) if needed]

        def gradient(*given: Tensor) -> Tensor:
            full = [given[wanted.index(i)] if i in wanted else each for i, each in enumerate(at)]
            return formulas.gradient(*full, weight, s, tau, ctx.what)

        pulled = formulas.pullback(gradient, *(at[i] for i in wanted))(grad.double())
        to_upstream, to_x, to_target = (pulled[wanted.index(i)] if i in wanted else None for i in range(3))
        return to_upstream, None, None, to_x, to_target, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the gradient's derivative along tangents."""
        refuse_constants(tangents[5:8])
        upstream, x, target, weight, s, tau = ctx.saved_tensors
        given = (tangents[0], *tangents[3:5])
        value = _along(lambda *at: formulas.gradient(*at, weight, s, tau, ctx.what), (upstream, x, target), given)
        return value.to(x.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[Tensor, int]:
        """Return the gradients of a batch."""
        if in_dims[5] is not None:
            return one_by_one(info, in_dims, inputs, GradientFunction.apply)
        weight, what = inputs[5], inputs[8]
        at = (*in_dims[:5], *in_dims[6:8])
        upstream, m, r, x, target, s, tau = _in_front(info, at, (*inputs[:5], *inputs[6:8]))
        if what.objective.reduction != "none":
            upstream = upstream.double()
            if what.objective.reduction == "mean":
                _, D = formulas.row_weights(target, weight, s, replace(what, dim=what.dim + 1), 1)
                upstream = torch.where(D > 0, upstream / D, 0.0)
            upstream = upstream.reshape(-1, *[1] * (m.dim() - 1)).expand(m.shape)
        return GradientFunction.apply(upstream, m, r, x, target, weight, s, tau, _as_rows(what)), 0


def _along(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Tensor:
    """Return a function's derivative along those tangents that are there; hard targets have none."""
    moved = [i for i in range(len(inputs)) if tangents[i] is not None]

    def partial(*given: Tensor) -> Tensor:
        return function(*(given[moved.index(i)] if i in moved else each for i, each in enumerate(inputs)))

    return formulas.push(partial, tuple(inputs[i] for i in moved), tuple(tangents[i] for i in moved))


def nll_gradient(
    upstream: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, what: Loss
) -> Tensor:
    """Return the gradient of ``NLLFunction``, which is linear in x: an expression of the upstream gradient."""
    s, D = formulas.row_weights(target, weight, sample_weight, what)
    valid = s != 0  # the others are in range: that was checked
    at = torch.where(valid, target, 0).long()
    factor = s if weight is None else s * weight.double()[at]
    if what.objective.reduction == "mean":
        factor = torch.where(D > 0, factor / D, 0.0)
    entries = torch.where(valid, -factor * upstream, 0.0).to(x.dtype)
    return torch.zeros_like(x).scatter(what.dim, at.unsqueeze(what.dim), entries.unsqueeze(what.dim))


class NLLFunction(Rule):
    """``(log-probabilities, target, weight, sample_weight, Loss)`` to the loss."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        """Return the loss."""
        return compute.pick(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - linear
        """Keep the inputs."""
        refuse_constants(ctx.needs_input_grad[2:4])
        ctx.what = inputs[4]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        """Return the gradient with respect to the log-probabilities."""
        if grad is None:
            return (None,) * 5
        x, target, weight, s = ctx.saved_tensors
        return nll_gradient(grad, x, target, weight, s, ctx.what), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the loss of the tangent: it is linear."""
        refuse_constants(tangents[2:4])
        _, target, weight, s = ctx.saved_tensors
        return NLLFunction.apply(tangents[0], target, weight, s, ctx.what)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> Any:
        """Return the losses of a batch."""
        if in_dims[2] is not None:
            return one_by_one(info, in_dims, inputs, NLLFunction.apply)
        weight, what = inputs[2], inputs[4]
        x, target, s = _in_front(info, (*in_dims[:2], in_dims[3]), (*inputs[:2], inputs[3]))
        rows = NLLFunction.apply(x, target, weight, s, _as_rows(what))
        return _reduced(rows, target, weight, s, what), 0
