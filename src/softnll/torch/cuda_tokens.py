"""What the distribution of each token is like, on CUDA devices: one pass over chunks of logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.kernels import cuda
from softnll.problem import Problem
from softnll.torch.cuda_linear import Head, head_of

__all__ = ["token_stats"]

_ENTRIES = 1 << 22  # logits that are looked at together beyond the kernels


def token_stats(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the stats of ``(f, W, b, target, None, None, temperature, None, LinearLoss)``."""
    head: Head = head_of(*given)
    what, N = given[-1], head.rows.n_rows
    device = head.weight.device
    stats = torch.zeros(3, N, dtype=torch.float64, device=device)
    largest = torch.full((N,), -1, dtype=torch.int64, device=device)
    plan = head.plan(what.max_bytes, at_most=what.at_most, blockwise=True)
    for rows, part, _ in head.chunks(plan):
        losses, _, r = cuda.forward(part)
        at = part.x.argmax(1)
        top = _effective(part, part.x.gather(1, at[:, None]).double(), slice(None))[:, 0]
        log_r = torch.log1p(r)
        largest[rows] = at
        stats[0, rows] = -losses
        stats[1, rows] = log_r + _mean_gap(part) / (1 + r)
        stats[2, rows] = top + log_r
    dtype = torch.float64 if head.dtype == torch.float64 else torch.float32
    shape = head.rows.row_shape
    log_prob, entropy, lse = (each.to(dtype).reshape(shape) for each in stats)
    return log_prob, entropy, largest.reshape(shape), lse


def _effective(part: Problem, x: Tensor, rows: slice) -> Tensor:
    """Return effective logits of some logits in these rows."""
    softcap, tau = part.objective.softcap, part.objective.temperature
    u = x if softcap is None else softcap * torch.tanh(x / softcap)
    return u / (tau if part.tau is None else part.tau[rows, None].to(u.dtype))


def _mean_gap(part: Problem) -> Tensor:
    """Return Σ exp(−d)·d of each row, of the distances d ≥ 0 from its largest effective logit."""
    N, C = part.x.shape
    total = torch.empty(N, dtype=torch.float64, device=part.x.device)
    step = max(1, _ENTRIES // max(1, C))
    for start in range(0, N, step):
        rows = slice(start, start + step)
        x = part.x[rows]
        u = _effective(part, x if x.dtype == torch.float64 else x.float(), rows)
        gap = u.amax(1, keepdim=True) - u
        gap = (torch.exp(-gap) * gap).nan_to_num_(0.0)  # of impossible classes; a row of NaN has it from r
        total[rows] = gap.sum(1, dtype=torch.float64)
    return total
