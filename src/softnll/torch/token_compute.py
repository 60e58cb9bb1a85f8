"""What the distribution of each token is like, of plain CPU tensors: one pass over chunks of logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softnll.kernels.choose import kernels
from softnll.layout import loss_dtype
from softnll.problem import Problem
from softnll.targets import blocks
from softnll.torch import devices
from softnll.torch.linear_compute import head_of
from softnll.torch.uncompiled import uncompiled

__all__ = ["TokenStats", "token_stats"]


class TokenStats(NamedTuple):
    """What each row's distribution is like, in the shape of the targets.

    Attributes
    ----------
    log_prob
        ``log p_y``, of the target.
    entropy
        ``−Σ p·log p``, in nats.
    argmax
        The class with the largest score, the first of several: int64.
    lse
        ``log Σ exp(u)``, of the effective logits.
    """

    log_prob: Tensor
    entropy: Tensor
    argmax: Tensor
    lse: Tensor


@uncompiled
@np.errstate(all="ignore")  # logits that overflow are inf
def token_stats(*given: Any) -> TokenStats:
    """Return the stats of ``(f, W, b, target, None, None, temperature, None, LinearLoss)``."""
    if devices.on_cuda(given[0]):
        return TokenStats(*devices.cuda("tokens").token_stats(*given))
    head, what = head_of(*given), given[-1]
    N = head.problem_rows
    stats = np.zeros((3, N))
    largest = np.full(N, -1, np.int64)
    plan = head.plan(what.max_bytes, at_most=what.at_most, blockwise=True)
    for rows, part, _ in head.chunks(plan):
        losses, _, r = kernels().forward(part)
        largest[rows] = at = torch.from_numpy(part.x).argmax(1).numpy()
        m = _effective(part, torch.from_numpy(part.x[np.arange(len(at)), at, None]).double(), slice(None)).numpy()
        stats[:, rows] = -losses, np.log1p(r) + _mean_gap(part) / (1 + r), m[:, 0] + np.log1p(r)
    shape = head.layout.row_shape
    dtype = loss_dtype(head.dtype)
    log_prob, entropy, lse = (torch.from_numpy(each.astype(dtype).reshape(shape)) for each in stats)
    return TokenStats(log_prob, entropy, torch.from_numpy(largest.reshape(shape)), lse)


def _effective(part: Problem, x: Tensor, rows: slice) -> Tensor:
    """Return effective logits of some logits in these rows."""
    softcap, tau = part.objective.softcap, part.objective.temperature
    u = x if softcap is None else softcap * torch.tanh(x / softcap)
    return u / (tau if part.tau is None else torch.from_numpy(part.tau[rows, None]).to(u.dtype))


def _mean_gap(part: Problem) -> NDArray[np.float64]:
    """Return Σ exp(−d)·d of each row, of the distances d ≥ 0 from its largest effective logit.

    With that, the entropy is ``log1p(r) + Σ exp(−d)·d / (1 + r)``: no terms of two signs.
    """
    total = np.empty(len(part.x))
    for rows in blocks(part.x.shape, 1 << 14):
        u = _effective(part, torch.from_numpy(part.x[rows]), rows)
        gap = u.amax(1, keepdim=True) - u
        gap = (torch.exp(-gap) * gap).nan_to_num_(0.0)  # of impossible classes; a row of NaN has it from r
        total[rows] = gap.sum(1, dtype=torch.float64).numpy()
    return total
