"""A softmax that was taken over the rows instead of the classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.diagnose.score_kind import ScoreKind
from softnll.data.rows import Rows, real

ACCIDENT = 1e-6  # how probable it may be that columns sum to the same whole number without a softmax
BELOW = 1e-3  # by how much rounding may put a probability below 0, or above 1


def along_rows(scores: Rows, sampled: NDArray[Any]) -> ScoreKind | None:
    """Return the kind of scores whose columns each sum to 1, or to the number of batches; None for all others.

    ``softmax(x, axis=0)`` gives columns that sum to 1; done batch by batch, each column sums to the number of batches.
    All rows are read once more, but only where the sample's entries could be such probabilities.

    Examples
    --------
    >>> from softnll.data.rows import as_rows
    >>> x = np.exp(np.random.default_rng(0).normal(size=(30, 4)))
    >>> along_rows(as_rows(x / x.sum(axis=0)), x / x.sum(axis=0)).code
    'along-rows'
    """
    N, C = scores.shape
    if N < 3 or C < 2 or not len(sampled) or bool((sampled == sampled[0]).all()):
        return None
    if sampled.min() >= -BELOW and sampled.max() <= 1 + BELOW:
        code = "along-rows"
    elif sampled.max() <= BELOW:
        code = "log-along-rows"
    else:
        return None
    total = np.zeros(C)
    for _, block in scores.blocks():
        x = real(block).astype(np.float64)
        if not (x.max() <= 1 + BELOW):  # NaN as well
            return None
        total += (np.exp(x) if code == "log-along-rows" else x).sum(axis=0)
    batches = int(np.rint(total.mean())) if np.isfinite(total).all() else 0
    close = max(1e-4 if scores.dtype.itemsize >= 4 else 5e-3, 1e-6 * batches)
    if not 1 <= batches <= N / 2 or bool((np.abs(total - batches) > close).any()):
        return None
    return ScoreKind(code, scale=float(batches)) if C * math.log(2 * close) <= math.log(ACCIDENT) else None
