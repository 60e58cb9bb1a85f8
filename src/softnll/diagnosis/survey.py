"""One pass over all rows: what the findings need of each row and each class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.diagnosis.alignment import NONE
from softnll.diagnosis.kinds import Kind
from softnll.functional import cross_entropy, softmax
from softnll.score_rows import Rows, real

__all__ = ["Survey", "conventional_zeros", "survey", "usable_rows"]

NEAR_ZERO = 1e-6  # an exact loss above this one is not 0 in float32, whoever computes it


@dataclass(eq=False)
class Survey:
    """What one pass over ``N`` rows of ``C`` classes saw.

    Attributes
    ----------
    usable
        ``(N,)`` whether the row has a softmax: no NaN, no +inf, not all −inf.
    prediction, confidence
        ``(N,)`` likeliest class, and its probability.
    nll
        ``(N,)`` loss at the label in nats; NaN where there is none.
    loss_zero, grad_zero
        ``(N,)`` whether a conventional float32 loss, and its gradient at the label, are 0 though the true ones are not.
    mass
        ``(C,)`` sum of each class's probabilities.
    low, high
        ``(C,)`` smallest and largest score of each column.
    digest
        ``(N,)`` a hash of each row's bytes.
    bad
        Counts of NaN, +inf and −inf, and where the first of each is.
    """

    usable: NDArray[np.bool_]
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]
    nll: NDArray[np.float64]
    loss_zero: NDArray[np.bool_]
    grad_zero: NDArray[np.bool_]
    mass: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    digest: NDArray[np.uint64]
    bad: dict[str, tuple[int, int, int]] = field(default_factory=dict)


def survey(scores: Rows, kind: Kind, y: NDArray[np.int64], watch: Callable[[int, int], None]) -> Survey:
    """Look at all rows, in blocks; ``watch(rows done, rows)`` hears of each."""
    N, C = scores.shape
    seen = Survey(
        usable=np.zeros(N, bool),
        prediction=np.zeros(N, np.int64),
        confidence=np.full(N, np.nan),
        nll=np.full(N, np.nan),
        loss_zero=np.zeros(N, bool),
        grad_zero=np.zeros(N, bool),
        mass=np.zeros(C),
        low=np.full(C, np.inf),
        high=np.full(C, -np.inf),
        digest=np.zeros(N, np.uint64),
    )
    for rows, block in scores.blocks():
        _look(seen, rows, np.ascontiguousarray(block), kind, y[rows])
        watch(rows.stop, N)
    return seen


def usable_rows(block: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have a softmax."""
    highest = block.max(axis=1)  # NaN where there is one
    return np.asarray(np.isfinite(highest))


def _look(seen: Survey, rows: slice, block: NDArray[Any], kind: Kind, y: NDArray[np.int64]) -> None:
    """Look at one block."""
    raw = block.reshape(len(block), -1).view(np.uint8)
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in raw)
    seen.digest[rows] = np.frombuffer(digests, np.uint64)
    scores = real(block)
    _count_bad(seen, rows, scores)
    logits = kind.logits(scores)
    usable = usable_rows(logits)
    seen.usable[rows] = usable
    at = np.arange(rows.start, rows.stop)
    if not usable.all():
        scores, logits, y, at = scores[usable], logits[usable], y[usable], at[usable]
    if len(scores) == 0:
        return
    seen.low = np.minimum(seen.low, scores.min(axis=0))
    seen.high = np.maximum(seen.high, scores.max(axis=0))
    p = softmax(logits)
    best = logits.argmax(axis=1)
    seen.prediction[at] = best
    seen.confidence[at] = np.take_along_axis(p, best[:, None], axis=1)[:, 0]
    seen.mass += p.sum(axis=0, dtype=np.float64)
    labelled = y != NONE
    if not labelled.all():
        logits, y, at = logits[labelled], y[labelled], at[labelled]
    if len(y) == 0:
        return
    nll = cross_entropy(logits, y, reduction="none")
    seen.nll[at] = nll
    near = (nll > 0) & (nll < NEAR_ZERO)
    if near.any():
        seen.loss_zero[at[near]], seen.grad_zero[at[near]] = conventional_zeros(logits[near], y[near])


def _count_bad(seen: Survey, rows: slice, scores: NDArray[Any]) -> None:
    """Count what is not finite."""
    if np.isfinite(scores).all():
        return
    for name, bad in (("NaN", np.isnan(scores)), ("+inf", np.isposinf(scores)), ("-inf", np.isneginf(scores))):
        if bad.any():
            count, row, column = seen.bad.get(name, (0, *_first(bad, rows.start)))
            seen.bad[name] = (count + int(bad.sum()), row, column)


def _first(bad: NDArray[np.bool_], start: int) -> tuple[int, int]:
    """Return row and column of the first one."""
    row, column = np.unravel_index(int(bad.argmax()), bad.shape)
    return start + int(row), int(column)


def conventional_zeros(logits: NDArray[Any], y: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where the usual float32 formulas give a loss of 0, and a gradient of 0 at the target.

    ``log p = (x − max) − log Σ exp(x − max)``, loss ``−log p_y``, gradient ``exp(log p_y) − 1``, each step rounded to
    float32: what frameworks compute. This is a simulation of them, not how losses are computed here.

    Examples
    --------
    >>> loss, gradient = conventional_zeros(np.array([[16.0, 0.0], [18.0, 0.0]]), np.array([0, 0]))
    >>> loss.tolist(), gradient.tolist()
    ([False, True], [False, True])
    """
    x = logits.astype(np.float32)
    shifted = x - x.max(axis=1, keepdims=True)
    with np.errstate(under="ignore"):
        total = np.exp(shifted).sum(axis=1, dtype=np.float32)
    log_p = np.take_along_axis(shifted, y[:, None], axis=1)[:, 0] - np.log(total)
    return -log_p == 0, np.exp(log_p) - np.float32(1) == 0
