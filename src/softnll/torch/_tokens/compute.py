"""Statistics of each token's distribution, outside autograd, in one pass over chunks of logits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from softnll._core.chunked import LinearLoss
from softnll._core.kept import KeptLogits
from softnll._core.options import CrossEntropy
from softnll._core.plan import NO_GRADIENTS, Plan, Wanted
from softnll._core.targets import blocks
from softnll.torch._base.arguments import LinearInputs, LinearSettings
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._linear.compute import forward_bytes, linear_loss
from softnll.torch._losses.formulas import effective

_LOG2_E = math.log2(math.e)
_ENTRY_BYTES = 40  # of a block of logits: five arrays of float64
_LEAST_SCRATCH = 1 << 19
_MOST_SCRATCH = {"cpu": 1 << 20}  # by device type: torch runs blocks of this size on one thread, in its cache
_DEVICE_SCRATCH = 256 << 20  # on other devices


class TokenStats(NamedTuple):
    """Statistics of each row's distribution, in the shape of the targets.

    Attributes
    ----------
    log_prob
        The log-probability of the target, ``log p_y``.
    entropy
        The entropy ``−Σ p·log p``, in nats.
    argmax
        The class with the largest score, the first of several: int64.
    lse
        The logsumexp of the effective logits, ``log Σ exp(u)``.
    """

    log_prob: Tensor
    entropy: Tensor
    argmax: Tensor
    lse: Tensor


def plan(loss: LinearLoss, like: Tensor, allowed: int, at_most: int | None, wanted: Wanted) -> tuple[Plan, int]:
    """Return how the rows are cut into chunks, and how many logits of a chunk form a block; ``like`` is the weight."""
    most = _MOST_SCRATCH.get(like.device.type, _DEVICE_SCRATCH)
    scratch = max(_LEAST_SCRATCH, _ENTRY_BYTES * like.shape[0], min(allowed // 8, most))
    found = loss.plan(allowed, wanted, at_most=at_most, weight_itemsize=like.dtype.itemsize, further=scratch)
    return found, scratch // _ENTRY_BYTES


@uncompiled
def token_stats(inputs: LinearInputs, settings: LinearSettings) -> TokenStats:
    """Return the statistics of each row."""
    return stats_and_logits(NO_GRADIENTS, inputs, settings)[0]


@uncompiled
@np.errstate(all="ignore")  # logits that overflow are inf
def stats_and_logits(
    wanted: Wanted, inputs: LinearInputs, settings: LinearSettings
) -> tuple[TokenStats, KeptLogits | None]:
    """Return the statistics, and the logits for a backward of the wanted gradients if all fit in ``max_bytes``."""
    loss = linear_loss(inputs, settings)
    backend, N = loss.backend, loss.layout.n_rows
    as_tensor = backend.tensor  # type: ignore[attr-defined]
    device = inputs.linear_weight.device
    # Separate tensors: outputs of an autograd function must not be views of one tensor.
    log_prob, entropy, lse = (
        as_tensor(backend.zeros(N, backend.wide(loss.weight), loss.weight)) for _ in TokenStats._fields[1:]
    )
    largest = torch.full((N,), -1, dtype=torch.int64, device=device)
    allowed = forward_bytes(loss, inputs, settings)
    chunks, block = plan(loss, inputs.linear_weight, allowed, settings.at_most, NO_GRADIENTS)
    kept = None
    if any(wanted):
        kept = loss.room_for_logits(chunks, plan(loss, inputs.linear_weight, allowed, settings.at_most, wanted)[0])
    for rows, part, _ in loss.chunks(chunks, kept):
        losses, _, rest = backend.forward(part)
        losses, r, log_r = (as_tensor(each) for each in (losses, rest, backend.xp.log1p(rest)))
        x, at_rows = as_tensor(part.x), index(rows)
        tau = None if part.tau is None else as_tensor(part.tau)[:, None]
        at = as_tensor(part.x.argmax(1))[:, None]  # of an array, NumPy's: six times as fast as torch's
        m = effective(x.gather(1, at).to(losses.dtype), part.objective, tau)[:, 0]
        largest[at_rows] = at[:, 0]
        log_prob[at_rows] = -losses
        entropy[at_rows] = log_r + _mean_gap(x, part.objective, tau, losses.dtype, block) / (1 + r)
        lse[at_rows] = m + log_r
    shape = loss.layout.row_shape
    log_prob, entropy, lse = (each.to(inputs.loss_type).reshape(shape) for each in (log_prob, entropy, lse))
    return TokenStats(log_prob, entropy, largest.reshape(shape), lse), kept


def decayed(gap: Tensor) -> Tensor:
    """Return exp(−gap) as a power of two: torch's exp starts MKL's threads, which take longer than a block."""
    return (gap * -_LOG2_E).exp2_()


def index(rows: Any) -> Any:
    """Return the rows of a chunk as an index of tensors."""
    return rows if isinstance(rows, slice | Tensor) else torch.from_numpy(rows)


def _mean_gap(x: Tensor, objective: CrossEntropy, tau: Tensor | None, wide: torch.dtype, block: int) -> Tensor:
    """Return Σ exp(−d)·d of each row, with the distances d ≥ 0 from the largest effective logit.

    The entropy is ``log1p(r) + Σ exp(−d)·d / (1 + r)``: all terms are ≥ 0, so that none cancel.
    """
    total = torch.empty(len(x), dtype=wide, device=x.device)
    for rows in blocks(tuple(x.shape), block):
        part = x[rows]
        part = part if part.dtype == torch.float64 else part.float()
        if objective.softcap is not None or objective.temperature != 1 or tau is not None:
            part = effective(part, objective, None if tau is None else tau[rows])
        gap = part.amax(1, keepdim=True) - part
        gap.mul_(decayed(gap)).nan_to_num_(0.0)  # NaN at classes of logit −∞; a row that is NaN becomes NaN by r
        total[rows] = gap.sum(1)  # torch sums pairwise
    return total
