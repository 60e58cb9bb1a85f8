"""The tokens' stats as a function that autograd, forward mode and vmap know, to any order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.torch import linear_formulas, token_compute
from softnll.torch.autograd import one_by_one, refuse_constants
from softnll.torch.function import Rule
from softnll.torch.normalise import LogSoftmax, LogSumExp

__all__ = ["TokenStatsFunction", "pullback"]


def _rows(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the stats of some rows but the argmax, as an expression of features, weight and bias."""
    f, W, b, target, _, s, temperature, _, what = given
    silent = s == 0
    z = linear_formulas.logits(torch.where(silent.unsqueeze(1), 0.0, f), W, b).double()
    softcap = what.objective.softcap
    u = z if softcap is None else softcap * torch.tanh(z / softcap)
    u = u / (what.objective.temperature if temperature is None else temperature.double().unsqueeze(1))
    log_p = LogSoftmax.apply(u, 1)
    p = torch.exp(log_p)
    inside = (target >= 0) & (target < W.shape[0])
    picked = log_p.gather(1, torch.where(inside, target, 0).long().unsqueeze(1)).squeeze(1)
    log_prob = torch.where(inside, picked, torch.nan)
    entropy = -(torch.where(p > 0, log_p, 0.0) * p).sum(1)
    each = (log_prob, entropy, LogSumExp.apply(u, 1))
    return tuple(torch.where(silent, 0.0, value) for value in each)  # type: ignore[return-value]


def pullback(given: tuple[Any, ...], cotangents: tuple[Tensor | None, ...], at: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return the gradients with respect to the inputs in these places, from those of log_prob, entropy and lse."""
    return linear_formulas.pull_rows(_rows, given, cotangents, at)


class TokenStatsFunction(Rule):
    """``(f, W, b, target, None, None, temperature, None, LinearLoss)`` to the stats."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        """Return the stats."""
        return tuple(token_compute.token_stats(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs."""
        refuse_constants((None, None, ctx.needs_input_grad[6]))
        ctx.what = inputs[8]
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:8])
        ctx.save_for_forward(*inputs[:8])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients with respect to features, weight and bias."""
        at = tuple(i for i in range(3) if ctx.needs_input_grad[i])
        cotangents = (grads[0], grads[1], grads[3])
        placed: list[Any] = [None] * 9
        if at and any(each is not None for each in cotangents):
            for i, value in zip(at, pullback((*ctx.saved_tensors, ctx.what), cotangents, at), strict=True):
                placed[i] = value
        return tuple(placed)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
        """Return the stats' derivatives along tangents; the argmax has none."""
        refuse_constants((None, None, tangents[6]))
        given = (*ctx.saved_tensors, ctx.what)
        wide = any(each is not None and each.dtype == torch.float64 for each in given[:3])
        moved = linear_formulas.push_rows(_rows, given, tangents[:3])
        log_prob, entropy, lse = (each.to(torch.float64 if wide else torch.float32) for each in moved)
        return log_prob, entropy, None, lse

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Return the stats of a batch."""
        return one_by_one(info, in_dims, inputs, TokenStatsFunction.apply)
