"""The functions of softnll.torch over classes that are divided among the ranks of a process group.

Each rank has the logits, or the rows of a head's weight, of some of the classes; rows, targets and options are the
same on all ranks. A call exchanges three to six float64 numbers a row in one gather, and a header of 2 KiB in
another; the ranks merge them in rank order, so that results have the same bits on every rank. docs/parallel.md says
how to run it.
"""

from __future__ import annotations

from softnll.torch._parallel.api import (
    cross_entropy,
    linear_cross_entropy,
    log_softmax,
    logsumexp,
    nll_loss,
    softmax,
    token_stats,
)

__all__ = ["cross_entropy", "linear_cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax", "token_stats"]
