"""The loss of a linear layer with derivatives of any order, in reverse and forward mode, and vmap.

Outside torch.func the forward also computes the gradients, chunk by chunk from the logits of the chunk, and the first
backward returns them. A second backward computes them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
)
from softnll.torch._base.backend import backend_of
from softnll.torch._base.inputs import tracked
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._linear import compute, examples, formulas
from softnll.torch._linear.pieces import OF_ROWS


@dataclass(slots=True)  # not a tuple, which torch.func would flatten
class _Wanted:
    """The gradients to compute."""

    names: tuple[str, ...]  # of their inputs
    kept: dict[str, Tensor]  # those that the forward has computed for an upstream gradient of 1, by name


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


def _given(values: Any) -> dict[str, Any]:
    """Return by name what is given of the differentiable inputs: tangents that are not None, or flags that are True."""
    named = {name: getattr(values, name) for name in formulas.DIFFERENTIABLE}
    return {name: each for name, each in named.items() if each is not None and each is not False}


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


class LinearFunction(Rule):
    """The loss of ``(*LinearInputs, LinearSettings)``; under torch.func, the backward computes the gradients."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        """Return the loss."""
        *tensors, settings = arguments
        return compute.losses(LinearInputs(*tensors), settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004 - computed anew
        """Save the inputs."""
        refuse_constants(take(LinearInputs, ctx.needs_input_grad))
        *tensors, ctx.settings = inputs
        ctx.kept = None
        keep(ctx, *tensors)

    @staticmethod
    def eager(ctx: Any, *arguments: Any) -> Tensor:
        """Return the loss; if a backward is likely, also compute and keep its gradients, or its logits."""
        LinearFunction.setup_context(ctx, arguments, None)
        ctx.kept, ctx.logits = {}, None
        *tensors, settings = arguments
        inputs, needed = LinearInputs(*tensors), take(LinearInputs, ctx.needs_input_grad)
        wanted = Wanted(needed.input, needed.linear_weight, needed.linear_bias)
        if not (any(wanted) and immediate()):
            return compute.losses(inputs, settings)
        if settings.loss.objective.reduction == "none":
            value, ctx.logits = compute.losses_and_logits(wanted, inputs, settings)
            return value
        value, found = compute.with_gradients(wanted, inputs, settings)
        ctx.kept = {name: each for name, each in found._asdict().items() if each is not None}
        ctx.types = {name: getattr(inputs, name).dtype for name in ctx.kept}
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to features, weight, bias and soft targets."""
        names = tuple(_given(take(LinearInputs, ctx.needs_input_grad)))
        if upstream is None or not names:
            return gradients(LinearInputs)
        if in_batch(upstream):
            inputs = LinearInputs(*ctx.saved_tensors)
            found = formulas.pull(formulas.LOSS, inputs, ctx.settings, (upstream,), names)
        elif ctx.kept is None or records():
            found = LinearGradient.apply(upstream, *ctx.saved_tensors, ctx.settings, _Wanted(names, ctx.kept or {}))
        else:
            return gradients(LinearInputs, **_unrecorded_gradients(ctx, upstream, names))
        return gradients(LinearInputs, **dict(zip(names, found, strict=True)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the derivative of the loss along tangents of features, weight, bias and soft targets."""
        inputs, along = LinearInputs(*ctx.saved_tensors), take(LinearInputs, tangents)
        refuse_constants(along)
        (value,) = formulas.push(formulas.LOSS, inputs, ctx.settings, _given(along))
        return value.to(inputs.loss_type)

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
    """Return the loss, which autograd and torch.func can differentiate; an input is tracked."""
    return LinearFunction.apply(*inputs, settings)


class LinearGradient(Rule):
    """Gradients of the loss, as an autograd function of ``(upstream, *LinearInputs, LinearSettings, _Wanted)``."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        """Return the gradients that ``wanted`` names, in its order, times the upstream gradient."""
        upstream, *tensors, settings, wanted = arguments
        inputs = LinearInputs(*tensors)
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
        _, *needed = ctx.needs_input_grad
        refuse_constants(take(LinearInputs, needed))
        *tensors, ctx.settings, wanted = inputs
        ctx.names = wanted.names
        keep(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients of the gradients with respect to the upstream gradient and the inputs."""
        along = {name: each for name, each in zip(ctx.names, cotangents, strict=True) if each is not None}
        if not along:
            return None, *gradients(LinearInputs), None
        upstream, *tensors = ctx.saved_tensors
        _, *needed = ctx.needs_input_grad
        names = tuple(_given(take(LinearInputs, needed)))
        (moved,), found = formulas.second(
            formulas.LOSS, LinearInputs(*tensors), ctx.settings, (upstream,), along, names
        )
        return moved.to(upstream.dtype), *gradients(LinearInputs, **dict(zip(names, found, strict=True))), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        """Return the derivatives of the gradients along tangents."""
        moving, *rest = tangents
        along = take(LinearInputs, rest)
        refuse_constants(along)
        upstream, *tensors = ctx.saved_tensors
        moved = () if moving is None else (moving,)
        inputs = LinearInputs(*tensors)
        _, found = formulas.second(formulas.LOSS, inputs, ctx.settings, (upstream,), _given(along), ctx.names, moved)
        return found

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the gradients of each example of torch.vmap, stacked, and their batch dimensions."""
        upstream, *tensors, settings, wanted = inputs
        at, *dims = in_dims
        each = examples.in_front(LinearInputs(*tensors), take(LinearInputs, dims), info.batch_size)
        if each is None or info.batch_size == 0 or wanted.kept or tracked(upstream, *tensors):
            return one_by_one(info, in_dims, inputs, LinearGradient.apply)
        upstream = examples.upstream_of_rows(batched(upstream, at, info.batch_size), each, settings)
        of_rows = [name for name in wanted.names if name in OF_ROWS]
        of_layer = [name for name in wanted.names if name not in OF_ROWS]
        settings = examples.by_example(settings)
        found = _named_gradients(upstream, each, settings, of_rows) if of_rows else {}
        if of_layer:
            found |= examples.layer_gradients(upstream, each, settings, of_layer)
        return tuple(found[name] for name in wanted.names), (0,) * len(wanted.names)
