"""The losses of logits with derivatives of any order, in reverse and forward mode, and vmap.

The kernels compute values and gradients; ``formulas`` computes every other derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from softnll._core.targets import picked
from softnll.torch._base.arguments import LossInputs, LossSettings, gradients, take
from softnll.torch._base.autograd_base import (
    Rule,
    batched,
    immediate,
    in_batch,
    keep,
    one_by_one,
    records,
    refuse_constants,
    refuse_nested,
)
from softnll.torch._base.checks import wide_type
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._losses import compute, expressions, formulas


class LossGradientInputs(NamedTuple):
    """The tensors that a gradient depends on: the upstream gradient, m and r of the forward, and those of the loss."""

    upstream: Tensor
    m: Tensor
    r: Tensor
    input: Tensor
    target: Tensor
    weight: Tensor | None
    sample_weight: Tensor | None
    temperatures: Tensor | None

    @property
    def loss(self) -> LossInputs:
        """The tensor arguments of the loss."""
        return LossInputs(self.input, self.target, self.weight, self.sample_weight, self.temperatures)


def _in_front(group: Any, info: Any, in_dims: Any, arguments: Any) -> tuple[Any, LossSettings]:
    """Return tensors with vmap's batch dimension first, which kernels treat as more rows, and the settings.

    The tensors are None if vmap maps over class weights, which a kernel takes once.
    """
    *tensors, settings = arguments
    inputs, dims = group(*tensors), take(group, in_dims)
    if dims.weight is not None:
        return None, settings
    moved = {
        name: batched(each, getattr(dims, name), info.batch_size)
        for name, each in zip(inputs._fields, inputs, strict=True)
        if each is not None and name != "weight"
    }
    return inputs._replace(**moved), settings


def _reduced(rows: Tensor, inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the reduced loss of each member of a batch; ``settings`` are those of a member."""
    reduction = settings.objective.reduction
    if reduction == "none":
        return rows
    wide = wide_type(rows)
    value = rows.sum(tuple(range(1, rows.dim())), dtype=wide) if rows.dim() > 1 else rows.to(wide)
    if reduction == "mean":
        _, D = formulas.row_weights(inputs, settings.for_each_row(), 1)
        value = formulas.mean(value, D)
    return value.to(rows.dtype)


def _loss_push(inputs: LossInputs, settings: LossSettings, tangents: LossInputs) -> Tensor:
    """Return the derivative of the loss along tangents of logits and soft targets."""
    refuse_constants(tangents)
    moved = {name: getattr(tangents, name) for name in ("input", "target") if getattr(tangents, name) is not None}

    def along(*values: Tensor) -> Tensor:
        return formulas.loss(inputs._replace(**dict(zip(moved, values, strict=True))), settings)

    at = tuple(getattr(inputs, name) for name in moved)
    return formulas.push(along, at, tuple(moved.values())).to(inputs.loss_type)


def _unwritten(ctx: Any) -> LossInputs | None:
    """Return the inputs of a loss, or None if they have been written to in place since the forward, or freed."""
    try:
        return LossInputs(*ctx.saved_tensors)
    except RuntimeError:
        return None


def loss_gradients(
    ctx: Any, upstream: Tensor | None, *, for_input: bool, for_target: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients by logits and soft targets that are asked for, from what ``EagerCrossEntropy`` has saved."""
    if upstream is None:
        return None, None
    if ctx.gradient is not None and not (for_target or in_batch(upstream) or records()):
        gradient, ctx.gradient = ctx.gradient, None  # returned to the caller: a second backward computes anew
        return compute.rescaled(gradient, upstream, lambda: _unwritten(ctx), ctx.kept), None
    inputs, to_input, to_target = LossInputs(*ctx.saved_tensors), None, None
    if for_input and in_batch(upstream):
        to_input = formulas.gradient(upstream, inputs, ctx.settings).to(inputs.input.dtype)
    elif for_input and records():
        m, r = ctx.kept.tensors(inputs.input)
        to_input = LossGradient.apply(upstream, m, r, *inputs, ctx.settings)
    elif for_input:
        to_input = compute.gradient(upstream, inputs, ctx.kept)
    if for_target:
        to_target = formulas.target_gradient(upstream, inputs, ctx.settings)
    return to_input, to_target


class EagerCrossEntropy(Function):
    """The loss of ``(*LossInputs, LossSettings)`` outside transforms of torch.func.

    m and r stay on ctx: as outputs, with checks repeated in the backward, they would take 20 µs more. The gradient is
    computed in the forward, in the same pass over the logits, and kept for the backward, as torch keeps
    log-probabilities. So the first backward is right also if the logits have been written to since.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Return the loss."""
        *tensors, settings = arguments
        inputs, (for_input, _, *for_constants) = LossInputs(*tensors), ctx.needs_input_grad
        if any(for_constants):
            refuse_constants(take(LossInputs, ctx.needs_input_grad))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        if forward_ad._current_level >= 0:  # noqa: SLF001
            ctx.save_for_forward(*tensors)
        ctx.settings = settings
        keeps = for_input and immediate() and compute.keeps_gradient(inputs, settings)
        value, ctx.kept, ctx.gradient = compute.recorded(inputs, settings, keeps=keeps)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to the logits and to soft targets."""
        for_input, for_target, *_ = ctx.needs_input_grad
        to_input, to_target = loss_gradients(ctx, upstream, for_input=for_input, for_target=for_target)
        return to_input, to_target, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the derivative of the loss along tangents."""
        return _loss_push(LossInputs(*ctx.saved_tensors), ctx.settings, take(LossInputs, tangents))


class CrossEntropyFunction(Function):
    """The loss of ``(*LossInputs, LossSettings)``, with m and r as outputs, under transforms of torch.func."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, m and r."""
        *tensors, settings = arguments
        inputs = LossInputs(*tensors)
        value, kept = compute.forward(inputs, settings)
        return value, *kept.tensors(inputs.input)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Save the inputs, m and r: no tensor of the logits' size besides the inputs."""
        refuse_constants(take(LossInputs, ctx.needs_input_grad))
        *tensors, ctx.settings = inputs
        _, m, r = output
        ctx.mark_non_differentiable(m, r)
        keep(ctx, m, r, *tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Any, ...]:
        """Return the gradients with respect to the logits and to soft targets."""
        if upstream is None:
            return gradients(LossInputs)
        given, needed = LossGradientInputs(upstream, *ctx.saved_tensors), take(LossInputs, ctx.needs_input_grad)
        to_input = LossGradient.apply(*given, ctx.settings) if needed.input else None
        to_target = formulas.target_gradient(upstream, given.loss, ctx.settings) if needed.target else None
        return gradients(LossInputs, input=to_input, target=to_target)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None, None]:
        """Return the derivative of the loss along tangents; m and r have none."""
        _, _, *inputs = ctx.saved_tensors
        return _loss_push(LossInputs(*inputs), ctx.settings, take(LossInputs, tangents)), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Return the losses of each example of torch.vmap, stacked, with m and r, and their batch dimensions."""
        inputs, settings = _in_front(LossInputs, info, in_dims, arguments)
        if inputs is None:
            return one_by_one(info, in_dims, arguments, CrossEntropyFunction.apply)
        rows, m, r = CrossEntropyFunction.apply(*inputs, settings.for_each_row())
        return (_reduced(rows, inputs, settings), m, r), (0, 0, 0)


@uncompiled
def cross_entropy(inputs: LossInputs, settings: LossSettings) -> Any:
    """Return the loss, which autograd and torch.func can differentiate."""
    if torch._C._are_functorch_transforms_active():  # noqa: SLF001
        refuse_nested()
        value, _, _ = CrossEntropyFunction.apply(*inputs, settings)
        return value
    return EagerCrossEntropy.apply(*inputs, settings)


class LossGradient(Rule):
    """The gradient with respect to the logits, of ``(*LossGradientInputs, LossSettings)``."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        """Return the gradient of the loss with respect to the logits, times the upstream gradient."""
        *tensors, settings = arguments
        given = LossGradientInputs(*tensors)
        return compute.backward(given.upstream, given.m, given.r, given.loss, settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - computed anew
        """Save the inputs but m and r, which are functions of the logits."""
        refuse_constants(take(LossGradientInputs, ctx.needs_input_grad))
        *tensors, ctx.settings = inputs
        given = LossGradientInputs(*tensors)
        keep(ctx, given.upstream, *given.loss)

    @staticmethod
    def _of(ctx: Any, names: list[str]) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """Return the gradient as a function of some of upstream, input and target, and their values."""
        upstream, *tensors = ctx.saved_tensors
        inputs = LossInputs(*tensors)
        values = {"upstream": upstream, "input": inputs.input, "target": inputs.target}

        def gradient(*given: Tensor) -> Tensor:
            at = values | dict(zip(names, given, strict=True))
            here = inputs._replace(input=at["input"], target=at["target"])
            return formulas.gradient(at["upstream"], here, ctx.settings)

        return gradient, tuple(values[name] for name in names)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients of the gradient with respect to the upstream gradient, the logits and soft targets."""
        if upstream is None:
            return gradients(LossGradientInputs)
        needed = take(LossGradientInputs, ctx.needs_input_grad)
        names = [name for name in ("upstream", "input", "target") if getattr(needed, name)]
        function, at = LossGradient._of(ctx, names)
        pulled = formulas.pullback(function, *at)(upstream.to(wide_type(upstream)))
        return gradients(LossGradientInputs, **dict(zip(names, pulled, strict=True)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the derivative of the gradient along tangents."""
        along = take(LossGradientInputs, tangents)
        refuse_constants(along)
        names = [name for name in ("upstream", "input", "target") if getattr(along, name) is not None]
        function, at = LossGradient._of(ctx, names)
        _, x, *_ = ctx.saved_tensors
        return formulas.push(function, at, tuple(getattr(along, name) for name in names)).to(x.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Tensor, int]:
        """Return the gradients of each example of torch.vmap, stacked, and the batch dimension."""
        given, settings = _in_front(LossGradientInputs, info, in_dims, arguments)
        if given is None:
            return one_by_one(info, in_dims, arguments, LossGradient.apply)
        reduction, upstream = settings.objective.reduction, given.upstream
        if reduction != "none":
            upstream = upstream.to(wide_type(upstream))
            if reduction == "mean":
                _, D = formulas.row_weights(given.loss, settings.for_each_row(), 1)
                upstream = formulas.share(upstream, D)
            upstream = upstream.reshape(-1, *[1] * (given.m.dim() - 1)).expand(given.m.shape)
        return LossGradient.apply(*given._replace(upstream=upstream), settings.for_each_row()), 0


def nll_gradient(upstream: Tensor, inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the gradient of ``NLLFunction`` with respect to the log-probabilities, times the upstream gradient.

    It consists of torch operations, so that autograd can differentiate it with respect to ``upstream``.
    """
    x, target, dim = inputs.input, inputs.target, settings.dim
    s, D = formulas.row_weights(inputs, settings)
    valid = s != 0  # targets of these rows are in range: the forward has checked that
    at = torch.where(valid, target, 0)
    factor = s if inputs.weight is None else s * picked(inputs.weight.to(s.dtype), at)
    if settings.objective.reduction == "mean":
        factor = formulas.share(factor, D)
    entries = torch.where(valid, -factor * upstream, 0.0).to(x.dtype)
    return torch.zeros_like(x).scatter(dim, at.unsqueeze(dim), entries.unsqueeze(dim))


class NLLFunction(Rule):
    """The loss of log-probabilities, of ``(*LossInputs, LossSettings)``."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        """Return the loss."""
        *tensors, settings = arguments
        return compute.pick(LossInputs(*tensors), settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - linear
        """Save the inputs."""
        refuse_constants(take(LossInputs, ctx.needs_input_grad))
        *tensors, ctx.settings = inputs
        keep(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradient with respect to the log-probabilities."""
        if upstream is None:
            return gradients(LossInputs)
        return gradients(LossInputs, input=nll_gradient(upstream, LossInputs(*ctx.saved_tensors), ctx.settings))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the derivative of the loss along a tangent: the loss of the tangent itself, as the loss is linear."""
        along = take(LossInputs, tangents)
        refuse_constants(along)
        return expressions.nll_loss(LossInputs(*ctx.saved_tensors)._replace(input=along.input), ctx.settings)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Return the losses of each example of torch.vmap, stacked, and the batch dimension."""
        inputs, settings = _in_front(LossInputs, info, in_dims, arguments)
        if inputs is None:
            return one_by_one(info, in_dims, arguments, NLLFunction.apply)
        rows = NLLFunction.apply(*inputs, settings.for_each_row())
        return _reduced(rows, inputs, settings), 0


@uncompiled
def nll_loss(inputs: LossInputs, settings: LossSettings) -> Any:
    """Return the loss of log-probabilities, which autograd and torch.func can differentiate."""
    return NLLFunction.apply(*inputs, settings)
