"""The gradients of token statistics, outside autograd, from logits that the forward kept or that are computed again."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.kept import KeptLogits
from softnll._core.options import CrossEntropy
from softnll._core.plan import Wanted
from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll.torch._base.arguments import LinearInputs, LinearSettings
from softnll.torch._base.checks import wide_type
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._linear import compute
from softnll.torch._linear.compute import Gradients, linear_loss, pulled
from softnll.torch._losses.formulas import effective
from softnll.torch._tokens.compute import decayed, index, plan


class Cotangents(NamedTuple):
    """The upstream gradients of the statistics; None means 0."""

    to_log_prob: Tensor | None
    to_entropy: Tensor | None
    to_lse: Tensor | None


@uncompiled
def gradients(
    wanted: Wanted,
    cotangents: Cotangents,
    inputs: LinearInputs,
    settings: LinearSettings,
    logits: KeptLogits | None = None,
) -> Gradients:
    """Return the gradients of the layer from the upstream gradients of the statistics, and from the logits if known."""
    settings, rows = settings.unchecked(), inputs.input.shape[:-1]
    to_log_prob, to_entropy, to_lse = cotangents
    if to_log_prob is not None and to_entropy is None and to_lse is None:  # minus the gradient of the cross-entropy
        return compute.gradients(wanted, -to_log_prob, inputs, settings, logits)
    zeros = torch.zeros(rows, dtype=wide_type(inputs.input), device=inputs.input.device)
    upstream = [
        (zeros if each is None else each.detach().to(zeros.dtype)).expand(rows).reshape(-1) for each in cotangents
    ]
    loss = linear_loss(inputs, settings)
    allowed = loss.default_bytes(wanted) if settings.max_bytes is None else settings.max_bytes
    chunks, block = plan(loss, inputs.linear_weight, allowed, settings.at_most, wanted)
    backend: Any = loss.backend
    scale = None
    if backend.scales(loss.dtype):  # no entry is larger than this bound, up to the temperature
        g, e, h = (each.abs() for each in upstream)
        bound = g + (1 + math.log(loss.weight.shape[0])) * e + h
        scale = backend.gradient_scale(loss.problem, bound, loss.dtype, loss.weight)

    def differentiate(rows: Any, part: Problem) -> None:
        _, _, rest = backend.forward(part)
        x, r = backend.tensor(part.x), backend.tensor(rest)
        each = [up[index(rows)] if scale is None else up[index(rows)] * scale for up in upstream]
        y, tau = backend.tensor(part.y), None if part.tau is None else backend.tensor(part.tau)
        for cut in blocks(tuple(x.shape), block):
            at = None if tau is None else tau[cut]
            x[cut] = _logit_gradient(x[cut], y[cut], r[cut], part.objective, at, [up[cut] for up in each])
        if loss.blank is not None:
            x.masked_fill_(backend.tensor(loss.blank[rows]).unsqueeze(1), 0.0)

    return pulled(loss, chunks, inputs, wanted, differentiate, scale, logits)


def _logit_gradient(
    x: Tensor, y: Tensor, r: Tensor, objective: CrossEntropy, tau: Tensor | None, upstream: list[Tensor]
) -> Tensor:
    """Return ``( g·(1[k = y] − p) + p·(e·(d − ⟨p, d⟩) + h) ) ⊙ du/dz`` of some rows, in float64.

    g, e and h are the upstream gradients of log_prob, entropy and lse, d ≥ 0 the distances from the largest logit.
    """
    g, e, h = (each.unsqueeze(1) for each in upstream)
    tau = None if tau is None else tau.unsqueeze(1)
    one_more = (1 + r).unsqueeze(1)
    z = x.to(r.dtype)
    gap = effective(z, objective, tau)
    gap = (gap.amax(1, keepdim=True) - gap).nan_to_num_(0.0, torch.inf)  # ∞ − ∞; a row that is NaN becomes NaN by r
    inside = (y >= 0) & (y < x.shape[1])
    y = torch.where(inside, y, 0).unsqueeze(1)
    to_target = gap.gather(1, y)
    p = decayed(to_target) / one_more
    rest = torch.where(to_target == 0, r.unsqueeze(1) / one_more, 1 - p)  # 1 − p has no digits where p rounds to 1
    du = decayed(gap)
    gap.mul_(du).nan_to_num_(0.0)  # NaN at classes of logit −∞
    mean = gap.sum(1, keepdim=True) / one_more
    of_target = g * rest + p * (h - e * mean) + e * gap.gather(1, y) / one_more
    du.mul_(h - g - e * mean).addcmul_(gap, e).div_(one_more)
    du.scatter_(1, y, torch.where(inside.unsqueeze(1), of_target, torch.nan))
    if objective.softcap is not None:
        du.div_(z.div_(objective.softcap).cosh_().square_())
    return du.div_(objective.temperature if tau is None else tau)
