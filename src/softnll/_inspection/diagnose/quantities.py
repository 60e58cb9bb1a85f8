"""The quantities that `diagnose` collects in its pass over all rows, besides those of a `Block`."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.survey import Block, Quantity, Vector

CLIP = 1e-7  # Keras' epsilon
NEAR_ZERO = 1e-6  # a float32 loss is never 0 where the exact loss is larger than this


def usable_rows(logits: Vector) -> NDArray[np.bool_]:
    """Return which rows have a softmax and no +inf."""
    return np.asarray(np.isfinite(logits.max(axis=1)))  # NaN is the maximum of a row that holds one


def _digest(block: Block) -> NDArray[np.uint64]:
    """Return a hash of each row's scores."""
    raw = np.ascontiguousarray(block.scores)
    return np.frombuffer(b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in raw), np.uint64)


def _binary(block: Block) -> Vector:
    """Return Σ_c ln(1 + exp(x_c)) − x_y: the binary cross-entropies of sigmoids, summed over the classes."""
    with np.errstate(invalid="ignore"):
        total = np.logaddexp(0, block.logits).sum(axis=1, dtype=np.float64)
        return np.asarray(total - block.at_label(block.logits))


def _binary_of_softmax(block: Block) -> Vector:
    """Return −ln p_y − Σ_{c≠y} ln(1 − p_c): the binary cross-entropies of the softmax, summed over the classes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.log1p(-np.minimum(block.probabilities.astype(np.float64), 1))
        np.put_along_axis(rest, np.asarray(block.y)[:, None], 0.0, axis=1)
        return np.asarray(block.nll - rest.sum(axis=1))


def _divided(block: Block) -> Vector:
    """Return −ln of the label's score divided by the sum of the scores, clipped: as if scores were probabilities."""
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = block.scores.astype(np.float64)
        return np.asarray(-np.log(np.clip(block.at_label(wide / wide.sum(axis=1, keepdims=True)), CLIP, 1 - CLIP)))


def _clipped(block: Block) -> Vector:
    """Return −ln of the label's clipped score divided by the sum of the clipped scores."""
    wide = np.clip(block.scores.astype(np.float64), CLIP, 1 - CLIP)
    return np.asarray(-np.log(block.at_label(wide / wide.sum(axis=1, keepdims=True))))


ROWS: tuple[Quantity, ...] = ("usable", "prediction", "confidence", ("digest", _digest))
LABELLED: tuple[Quantity, ...] = ("nll",)
LOSSES: tuple[Quantity, ...] = (
    "p_true",
    "square",
    ("mean_nll", lambda block: block.loss(label_smoothing=1.0)),  # the mean over all classes, which smoothing mixes in
    ("given", lambda block: block.at_label(block.scores)),  # the label's score, not converted to a logit
    ("binary", _binary),
    ("binary_softmax", _binary_of_softmax),
    ("divided", _divided),
    ("clipped", _clipped),
    ("twice", lambda block: block.loss(block.probabilities)),  # softmax applied once more
    ("as_given", lambda block: block.nll if block.scores is block.logits else block.loss(block.scores)),  # as logits
    ("below", lambda block: block.loss(y=(block.y - 1) % block.logits.shape[1])),  # at the class before the label,
    ("above", lambda block: block.loss(y=(block.y + 1) % block.logits.shape[1])),  # and after it, the ends joined
)


class Columns:
    """Quantities of each column of the scores, and the scores that are not finite.

    Attributes
    ----------
    low, high
        ``(C,)`` smallest and largest score in the usable rows.
    mass
        ``(C,)`` sum of the probabilities in the usable rows.
    bad
        By ``"NaN"``, ``"+inf"`` and ``"-inf"``: how many there are, and row and column of the first.
    """

    def __init__(self, C: int) -> None:
        self.low, self.high, self.mass = np.full(C, np.inf), np.full(C, -np.inf), np.zeros(C)
        self.bad: dict[str, tuple[int, int, int]] = {}

    def add(self, start: int, block: Block) -> None:
        """Update the quantities with a block of rows."""
        scores, p, usable = block.scores, block.probabilities, block.usable
        if not np.isfinite(scores).all():
            self._count_bad(start, scores)
        if usable is not None and not usable.all():
            scores, p = scores[usable], p[usable]
        self.low = np.minimum(self.low, scores.min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, scores.max(axis=0, initial=-np.inf))
        self.mass += p.sum(axis=0, dtype=np.float64)

    def _count_bad(self, start: int, scores: Vector) -> None:
        """Count the scores that are not finite."""
        for name, bad in (("NaN", np.isnan(scores)), ("+inf", np.isposinf(scores)), ("-inf", np.isneginf(scores))):
            if bad.any():
                row, column = map(int, np.unravel_index(int(bad.argmax()), bad.shape))
                count, *first = self.bad.get(name, (0, start + row, column))
                self.bad[name] = (count + int(bad.sum()), first[0], first[1])


class RoundedToZero:
    """Counts of rows whose conventional float32 loss, and gradient, are 0 although the exact ones are not."""

    def __init__(self) -> None:
        self.loss = self.gradient = 0

    def add(self, start: int, block: Block) -> None:  # noqa: ARG002 - the rows are counted, not located
        """Count the rows of a block."""
        near = (block.nll > 0) & (block.nll < NEAR_ZERO)
        if near.any():
            loss, gradient = conventional_zeros(block.logits[near], np.asarray(block.y)[near])
            self.loss += int(loss.sum())
            self.gradient += int(gradient.sum())


def conventional_zeros(logits: Vector, y: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
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
