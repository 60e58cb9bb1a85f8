"""The statistics of tokens with derivatives of any order, in reverse and forward mode, and vmap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.kept import KeptLogits
from softnll._core.plan import NO_GRADIENTS, Wanted
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossSettings, gradients, take
from softnll.torch._base.autograd_base import (
    Rule,
    immediate,
    in_batch,
    keep,
    one_by_one,
    records,
    refuse_constants,
)
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._linear import formulas
from softnll.torch._linear.derivatives import RowFunction
from softnll.torch._losses.formulas import effective
from softnll.torch._losses.normalise import LogSoftmax, LogSumExp
from softnll.torch._tokens import compute
from softnll.torch._tokens.gradients import Cotangents
from softnll.torch._tokens.gradients import gradients as compute_gradients

LAYER = ("input", "linear_weight", "linear_bias")


def _rows(z: Tensor, inputs: LinearInputs, settings: LossSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return log_prob, entropy and lse of some rows as an expression of their logits."""
    target, s = inputs.target, inputs.sample_weight
    assert s is not None  # noqa: S101 - pieces have row weights, 0 where a row is ignored
    without_part = s == 0
    tau = None if inputs.temperatures is None else inputs.temperatures.unsqueeze(1)
    u = effective(torch.where(without_part.unsqueeze(1), 0.0, z.to(s.dtype)), settings.objective, tau)
    log_p = LogSoftmax.apply(u, 1)
    p = torch.exp(log_p)
    inside = (target >= 0) & (target < z.shape[1])
    picked = log_p.gather(1, torch.where(inside, target, 0).unsqueeze(1)).squeeze(1)
    log_prob = torch.where(inside, picked, torch.nan)
    entropy = -(torch.where(p > 0, log_p, 0.0) * p).sum(1)
    each = (log_prob, entropy, LogSumExp.apply(u, 1))
    return tuple(torch.where(without_part, 0.0, value) for value in each)  # type: ignore[return-value]


_STATISTICS = RowFunction(_rows, 3)


@dataclass(slots=True)  # not a tuple, which torch.func would flatten
class _Names:
    """The names of the inputs whose gradients are computed."""

    names: tuple[str, ...]


class TokenGradientInputs(NamedTuple):
    """The tensors that the gradients depend on: the upstream gradients and those of the statistics."""

    to_log_prob: Tensor | None
    to_entropy: Tensor | None
    to_lse: Tensor | None
    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    weight: Tensor | None
    sample_weight: Tensor | None
    temperatures: Tensor | None
    indices: Tensor | None

    @property
    def upstream(self) -> Cotangents:
        """The upstream gradients."""
        return take(Cotangents, self)

    @property
    def inputs(self) -> LinearInputs:
        """The tensor arguments of the statistics."""
        _, _, _, *tensors = self
        return LinearInputs(*tensors)  # type: ignore[arg-type]


def _named_gradients(
    upstream: Cotangents,
    inputs: LinearInputs,
    settings: LinearSettings,
    names: Sequence[str],
    logits: KeptLogits | None = None,
) -> tuple[Tensor, ...]:
    """Return the gradients of the named inputs."""
    wanted = Wanted(*(name in names for name in LAYER))
    found = compute_gradients(wanted, upstream, inputs, settings, logits)
    return tuple(getattr(found, name) for name in names)


class TokenGradient(Rule):
    """The gradients of the statistics, of ``(*TokenGradientInputs, LinearSettings, _Names)``."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        """Return the gradients of the named inputs."""
        *tensors, settings, wanted = arguments
        given = TokenGradientInputs(*tensors)
        return _named_gradients(given.upstream, given.inputs, settings, wanted.names)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004 - computed anew
        """Save the inputs."""
        refuse_constants(take(TokenGradientInputs, ctx.needs_input_grad))
        *tensors, ctx.settings, wanted = inputs
        ctx.names = wanted.names
        keep(ctx, *tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients of the gradients with respect to the upstream gradients and the layer."""
        along = {name: each for name, each in zip(ctx.names, upstream, strict=True) if each is not None}
        if not along:
            return *gradients(TokenGradientInputs), None
        given, needed = TokenGradientInputs(*ctx.saved_tensors), take(TokenGradientInputs, ctx.needs_input_grad)
        names = [name for name in LAYER if getattr(needed, name)]
        moved, found = formulas.second(_STATISTICS, given.inputs, ctx.settings, given.upstream, along, names)
        values: dict[str, Any] = dict(zip(names, found, strict=True))
        for name, up, each in zip(Cotangents._fields, given.upstream, moved, strict=True):
            values[name] = None if up is None else each.to(up.dtype)
        return *gradients(TokenGradientInputs, **values), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        """Return the derivatives of the gradients along tangents."""
        along = take(TokenGradientInputs, tangents)
        refuse_constants(along)
        given = TokenGradientInputs(*ctx.saved_tensors)
        present = {name: getattr(along, name) for name in LAYER if getattr(along, name) is not None}
        _, found = formulas.second(
            _STATISTICS, given.inputs, ctx.settings, given.upstream, present, ctx.names, take(Cotangents, along)
        )
        return found

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the gradients of each example of torch.vmap, stacked, and their batch dimensions."""
        return one_by_one(info, in_dims, inputs, TokenGradient.apply)


def pullback(
    inputs: LinearInputs,
    settings: LinearSettings,
    upstream: Cotangents,
    names: Sequence[str],
    logits: KeptLogits | None = None,
) -> tuple[Tensor, ...]:
    """Return the gradients of inputs by name, from the upstream gradients of log_prob, entropy and lse.

    Known logits, which become gradients, are for a backward that autograd does not record.
    """
    if any(each is not None and in_batch(each) for each in upstream):
        return formulas.pull(_STATISTICS, inputs, settings, upstream, names)
    if logits is not None:
        return _named_gradients(upstream, inputs, settings, names, logits)
    return TokenGradient.apply(*upstream, *inputs, settings, _Names(tuple(names)))


class TokenStatsFunction(Rule):
    """The statistics of ``(*LinearInputs, LinearSettings)``; outside torch.func, the forward keeps logits."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        """Return the four tensors of ``TokenStats``, each in the shape of the targets."""
        *tensors, settings = arguments
        return tuple(compute.token_stats(LinearInputs(*tensors), settings))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the inputs."""
        refuse_constants(take(LinearInputs, ctx.needs_input_grad))
        *tensors, ctx.settings = inputs
        ctx.logits = None
        ctx.mark_non_differentiable(compute.TokenStats(*output).argmax)
        keep(ctx, *tensors)

    @staticmethod
    def eager(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        """Return the four tensors; if a backward is likely, keep the logits for it."""
        *tensors, settings = arguments
        needed = take(LinearInputs, ctx.needs_input_grad)
        wanted = Wanted(*(getattr(needed, name) for name in LAYER)) if immediate() else NO_GRADIENTS
        stats, logits = compute.stats_and_logits(wanted, LinearInputs(*tensors), settings)
        TokenStatsFunction.setup_context(ctx, arguments, stats)
        ctx.logits = logits
        return tuple(stats)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to features, weight and bias.

        A backward that autograd does not record takes the logits that were kept.
        """
        to, needed = compute.TokenStats(*upstream), take(LinearInputs, ctx.needs_input_grad)  # type: ignore[arg-type]
        names = [name for name in LAYER if getattr(needed, name)]
        cotangents = Cotangents(to.log_prob, to.entropy, to.lse)
        if not names or all(each is None for each in cotangents):
            return gradients(LinearInputs)
        inputs, logits = LinearInputs(*ctx.saved_tensors), None
        if not records():
            logits, ctx.logits = ctx.logits, None
        found = pullback(inputs, ctx.settings, cotangents, names, logits)
        return gradients(LinearInputs, **dict(zip(names, found, strict=True)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
        """Return the derivatives of the statistics along tangents; the argmax has none."""
        along = take(LinearInputs, tangents)
        refuse_constants(along)
        inputs = LinearInputs(*ctx.saved_tensors)
        present = {name: getattr(along, name) for name in LAYER if getattr(along, name) is not None}
        moved = formulas.push(_STATISTICS, inputs, ctx.settings, present)
        log_prob, entropy, lse = (each.to(inputs.loss_type) for each in moved)
        return log_prob, entropy, None, lse

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the statistics of each example of torch.vmap, stacked, and their batch dimensions."""
        return one_by_one(info, in_dims, inputs, TokenStatsFunction.apply)


@uncompiled
def token_stats(inputs: LinearInputs, settings: LinearSettings) -> tuple[Tensor, ...]:
    """Return the statistics, which autograd and torch.func can differentiate."""
    return TokenStatsFunction.apply(*inputs, settings)
