"""The loss of a linear layer with derivatives of any order, in reverse and forward mode, and vmap.

Outside torch.func the forward also computes the gradients, chunk by chunk from the logits of the chunk, and the first
backward returns them. A second backward computes them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from softnll._core.kept import KeptLogits
from softnll._core.plan import Wanted
from softnll.torch._base.arguments import LinearInputs, LinearSettings, gradients, take
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
from softnll.torch._base.backend import backend_of
from softnll.torch._base.inputs import tracked
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._linear import compute, examples, formulas
from softnll.torch._linear.pieces import OF_ROWS

__all__ = ["LinearFunction", "LinearGradient", "linear_cross_entropy"]


@dataclass(slots=True)  # not a tuple, which torch.func would flatten
class _Wanted:
    """The gradients to compute.

    Attributes
    ----------
    names
        The names of their inputs.
    kept
        Gradients by name that the forward has computed for an upstream gradient of 1; may be empty.
    """

    names: tuple[str, ...]
    kept: dict[str, Tensor]


class LinearGradientInputs(NamedTuple):
    """The tensors that a gradient depends on: the upstream gradient and those of the loss."""

    upstream: Tensor
    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    weight: Tensor | None
    sample_weight: Tensor | None
    temperatures: Tensor | None
    indices: Tensor | None

    @property
    def loss(self) -> LinearInputs:
        """The tensor arguments of the loss."""
        _, *tensors = self
        return LinearInputs(*tensors)  # type: ignore[arg-type]


def _named_gradients(
    upstream: Tensor,
    inputs: LinearInputs,
    settings: LinearSettings,
    names: Sequence[str],
    logits: KeptLogits | None = None,
) -> dict[str, Tensor]:
    """Return gradients by name: the kernels compute those of the layer, ``formulas`` that of the target."""
    layer = [name for name in names if name != "target"]
    values: dict[str, Any] = {}
    if layer:
        wanted = Wanted(*(name in layer for name in compute.Gradients._fields))
        found = compute.gradients(wanted, upstream, inputs, settings, logits)
        values = {name: getattr(found, name) for name in layer}
    if "target" in names:
        (values["target"],) = formulas.pull(formulas.LOSS, inputs, settings, (upstream,), ("target",))
    return values


def _names(needed: Any) -> tuple[str, ...]:
    """Return the names of the inputs that need a gradient."""
    return tuple(name for name in formulas.DIFFERENTIABLE if getattr(needed, name))


def _present(tangents: Any) -> dict[str, Tensor]:
    """Return the tangents that are not None, by name."""
    return {name: getattr(tangents, name) for name in formulas.DIFFERENTIABLE if getattr(tangents, name) is not None}


def _loss_push(ctx: Any, tangents: LinearInputs) -> Tensor:
    """Return the derivative of the loss along tangents of features, weight, bias and soft targets."""
    refuse_constants(tangents)
    inputs = LinearInputs(*ctx.saved_tensors)
    (value,) = formulas.push(formulas.LOSS, inputs, ctx.settings, _present(tangents))
    return value.to(inputs.loss_type)


class EagerLinear(Function):
    """The loss of ``(*LinearInputs, LinearSettings)`` outside transforms of torch.func; the forward computes gradients.

    The first argument is whether autograd records the call.
    """

    @staticmethod
    def forward(ctx: Any, recording: bool, *arguments: Any) -> Tensor:
        """Return the loss; where autograd records, also compute and keep the gradients for the backward."""
        *tensors, ctx.settings = arguments
        inputs = LinearInputs(*tensors)
        _, *flags = ctx.needs_input_grad
        needed = take(LinearInputs, flags)
        refuse_constants(needed)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        if forward_ad._current_level >= 0:  # noqa: SLF001
            ctx.save_for_forward(*inputs)
        ctx.kept, ctx.logits = {}, None
        wanted = Wanted(needed.input, needed.linear_weight, needed.linear_bias)
        if not (recording and any(wanted) and immediate()):
            return compute.losses(inputs, ctx.settings)
        if ctx.settings.loss.objective.reduction == "none":
            value, ctx.logits = compute.losses_and_logits(wanted, inputs, ctx.settings)
            return value
        value, found = compute.with_gradients(wanted, inputs, ctx.settings)
        ctx.kept = {name: each for name, each in found._asdict().items() if each is not None}
        ctx.types = {name: getattr(inputs, name).dtype for name in ctx.kept}
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to features, weight, bias and soft targets."""
        _, *flags = ctx.needs_input_grad
        names = _names(take(LinearInputs, flags))
        if upstream is None or not names:
            return None, *gradients(LinearInputs)
        if in_batch(upstream):
            inputs = LinearInputs(*ctx.saved_tensors)
            found = formulas.pull(formulas.LOSS, inputs, ctx.settings, (upstream,), names)
            values = dict(zip(names, found, strict=True))
        elif records():
            found = LinearGradient.apply(upstream, *ctx.saved_tensors, ctx.settings, _Wanted(names, ctx.kept))
            values = dict(zip(names, found, strict=True))
        else:
            values = _unrecorded_gradients(ctx, upstream, names)
        return None, *gradients(LinearInputs, **values)

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Tensor:
        """Return the derivative of the loss along tangents."""
        return _loss_push(ctx, take(LinearInputs, tangents))


def _unrecorded_gradients(ctx: Any, upstream: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the gradients of a backward that autograd does not record.

    Kept gradients are multiplied in place and returned, so that they are no longer kept; kept logits become gradients.
    The saved inputs are read, and checked by autograd for changes, only if a gradient is computed again.
    """
    kept = {name: ctx.kept[name] for name in names if name in ctx.kept}
    values: dict[str, Tensor] = {}
    if kept and backend_of(next(iter(kept.values()))).scale_kept(kept, upstream):
        for name, each in kept.items():
            del ctx.kept[name]
            values[name] = each.to(ctx.types[name])
    rest = [name for name in names if name not in values]
    if not rest:
        return values
    inputs = LinearInputs(*ctx.saved_tensors)
    logits, ctx.logits = ctx.logits, None
    return values | _named_gradients(upstream, inputs, ctx.settings, rest, logits)


class LinearFunction(Function):
    """The loss of ``(*LinearInputs, LinearSettings)`` under torch.func; the backward computes the gradients."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        """Return the loss."""
        *tensors, settings = arguments
        return compute.losses(LinearInputs(*tensors), settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - computed anew
        """Save the inputs."""
        refuse_constants(take(LinearInputs, ctx.needs_input_grad))
        *tensors, ctx.settings = inputs
        keep(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to features, weight, bias and soft targets."""
        names = _names(take(LinearInputs, ctx.needs_input_grad))
        if upstream is None or not names:
            return gradients(LinearInputs)
        found = LinearGradient.apply(upstream, *ctx.saved_tensors, ctx.settings, _Wanted(names, {}))
        return gradients(LinearInputs, **dict(zip(names, found, strict=True)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the derivative of the loss along tangents."""
        return _loss_push(ctx, take(LinearInputs, tangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the losses of each example of torch.vmap, stacked, and the batch dimension."""
        *tensors, settings = inputs
        each = examples.in_front(LinearInputs(*tensors), take(LinearInputs, in_dims), info.batch_size)
        if each is None or info.batch_size == 0:
            return one_by_one(info, in_dims, inputs, LinearFunction.apply)
        rows = LinearFunction.apply(*each, examples.by_example(settings))
        return examples.reduced(rows, each, settings), 0


@uncompiled
def linear_cross_entropy(inputs: LinearInputs, settings: LinearSettings) -> Any:
    """Return the loss, which autograd and torch.func can differentiate."""
    if torch._C._are_functorch_transforms_active():  # noqa: SLF001
        refuse_nested()
        return LinearFunction.apply(*inputs, settings)
    return EagerLinear.apply(torch.is_grad_enabled(), *inputs, settings)


class LinearGradient(Rule):
    """Gradients of the loss, as an autograd function of ``(*LinearGradientInputs, LinearSettings, _Wanted)``."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        """Return the gradients that ``wanted`` names, in its order, times the upstream gradient."""
        *tensors, settings, wanted = arguments
        given = LinearGradientInputs(*tensors)
        upstream, inputs = given.upstream, given.loss
        kept = {name: each for name, each in wanted.kept.items() if name in wanted.names}
        if kept and not backend_of(inputs.input).finite(upstream):
            kept = {}
        values = {  # rows that take no part keep gradient 0, where 0·∞ would be NaN
            name: torch.where(each == 0, each, each * upstream).to(getattr(inputs, name).dtype)
            for name, each in kept.items()
        }
        rest = [name for name in wanted.names if name not in values]
        if rest:
            values |= _named_gradients(upstream, inputs, settings, rest)
        return tuple(values[name] for name in wanted.names)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004 - computed anew
        """Save the inputs."""
        refuse_constants(take(LinearGradientInputs, ctx.needs_input_grad))
        *tensors, ctx.settings, wanted = inputs
        ctx.names = wanted.names
        keep(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients of the gradients with respect to the upstream gradient and the inputs."""
        if all(each is None for each in upstream):
            return *gradients(LinearGradientInputs), None
        given = LinearGradientInputs(*ctx.saved_tensors)
        cotangents = {name: each for name, each in zip(ctx.names, upstream, strict=True) if each is not None}
        names = _names(take(LinearGradientInputs, ctx.needs_input_grad))
        (moved,), found = formulas.second(formulas.LOSS, given.loss, ctx.settings, (given.upstream,), cotangents, names)
        named = dict(zip(names, found, strict=True))
        return *gradients(LinearGradientInputs, upstream=moved.to(given.upstream.dtype), **named), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        """Return the derivatives of the gradients along tangents."""
        along = take(LinearGradientInputs, tangents)
        refuse_constants(along)
        given = LinearGradientInputs(*ctx.saved_tensors)
        moving = () if along.upstream is None else (along.upstream,)
        _, found = formulas.second(
            formulas.LOSS, given.loss, ctx.settings, (given.upstream,), _present(along), ctx.names, moving
        )
        return found

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the gradients of each example of torch.vmap, stacked, and their batch dimensions."""
        *tensors, settings, wanted = inputs
        given, dims = LinearGradientInputs(*tensors), take(LinearGradientInputs, in_dims)
        each = examples.in_front(given.loss, dims.loss, info.batch_size)
        if each is None or info.batch_size == 0 or wanted.kept or tracked(*tensors):
            return one_by_one(info, in_dims, inputs, LinearGradient.apply)
        upstream = batched(given.upstream, dims.upstream, info.batch_size)
        upstream = examples.upstream_of_rows(upstream, each, settings)
        of_rows = [name for name in wanted.names if name in OF_ROWS]
        of_layer = [name for name in wanted.names if name not in OF_ROWS]
        settings = examples.by_example(settings)
        found = _named_gradients(upstream, each, settings, of_rows) if of_rows else {}
        if of_layer:
            found |= examples.layer_gradients(upstream, each, settings, of_layer)
        return tuple(found[name] for name in wanted.names), (0,) * len(wanted.names)
