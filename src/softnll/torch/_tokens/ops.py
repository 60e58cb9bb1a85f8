"""The statistics of tokens as operators of torch's library, for compiled graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.torch._base.arguments import LinearInputs, LinearSettings, take
from softnll.torch._base.errors import LINEAR_NAMES
from softnll.torch._base.operators import operator
from softnll.torch._linear import expressions
from softnll.torch._linear.ops import Flags, empty_gradients
from softnll.torch._tokens import autograd, compute
from softnll.torch._tokens.gradients import Cotangents


@operator("token_stats", LinearInputs, LinearSettings, returns="(Tensor, Tensor, Tensor, Tensor)", names=LINEAR_NAMES)
def token_stats(inputs: LinearInputs, settings: LinearSettings) -> tuple[Tensor, ...]:
    """Return the four tensors of ``TokenStats``, each in the shape of the targets."""
    return tuple(compute.token_stats(inputs, settings))


@token_stats.decompose
def _(inputs: LinearInputs, settings: LinearSettings) -> tuple[Tensor, ...]:
    return expressions.token_stats(inputs, settings.loss.objective)


@operator("token_stats_backward", Cotangents, LinearInputs, LinearSettings, Flags, returns="(Tensor, Tensor, Tensor)")
def _backward(
    cotangents: Cotangents, inputs: LinearInputs, settings: LinearSettings, flags: Flags
) -> tuple[Tensor, ...]:
    """Return the wanted gradients; empty tensors for the others."""
    names = [name for name, asked in zip(autograd.LAYER, flags, strict=True) if asked]
    found = iter(autograd.pullback(inputs, settings, cotangents, names))
    return tuple(next(found).contiguous() if asked else inputs.input.new_empty(0) for asked in flags)


@token_stats.fake
def _(inputs: LinearInputs, _: LinearSettings) -> tuple[Tensor, ...]:
    shape = inputs.input.shape[:-1]
    empty = {name: inputs.input.new_empty(shape, dtype=inputs.loss_type) for name in compute.TokenStats._fields}
    return tuple(compute.TokenStats(**empty | {"argmax": inputs.input.new_empty(shape, dtype=torch.int64)}))


@_backward.fake
def _(_: Cotangents, inputs: LinearInputs, __: LinearSettings, flags: Flags) -> tuple[Tensor, ...]:
    return empty_gradients(inputs, flags, kept=False)


def _gradients(ctx: Any, *upstream: Any) -> dict[str, Any]:
    to, needed = compute.TokenStats(*upstream), take(LinearInputs, ctx.needs_input_grad)
    flags = Flags(*(getattr(needed, name) for name in autograd.LAYER))
    cotangents = Cotangents(to.log_prob, to.entropy, to.lse)
    if not any(flags) or all(each is None for each in cotangents):
        return {}
    (options,) = ctx.groups
    found = _backward(cotangents, LinearInputs(*ctx.saved_tensors), options, flags)
    return {name: each for name, each, asked in zip(autograd.LAYER, found, flags, strict=True) if asked}


token_stats.differentiate(_gradients)
