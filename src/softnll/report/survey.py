"""One pass over scores and labels: what a report needs of each row, and the few rows it shows whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.calibration import Reliability, fit_temperature, reliability
from softnll.functional import cross_entropy, softmax
from softnll.score_rows import Rows, real

__all__ = ["SAMPLE", "Kept", "Survey", "survey"]

SAMPLE = 50_000  # rows that the temperature is fitted on
SHOWN = 24  # rows shown as worst, and as happiest
CANDIDATES = 400  # rows that may turn out to have suspicious labels
Vector = NDArray[Any]


@dataclass
class Kept:
    """The rows with the largest values so far, with their scores.

    Attributes
    ----------
    most
        How many.
    values, rows, logits
        Their values, numbers and ``(k, C)`` scores, the largest first.
    """

    most: int
    values: Vector = field(default_factory=lambda: np.empty(0))
    rows: Vector = field(default_factory=lambda: np.empty(0, np.int64))
    logits: Vector = field(default_factory=lambda: np.empty((0, 0)))

    def offer(self, values: Vector, start: int, logits: Vector) -> None:
        """Take in the rows of a block; of equal ones the first stay."""
        best = np.argsort(-values, kind="stable")[: self.most]
        if len(self.rows) == self.most:
            best = best[values[best] > self.values[-1]]
        if not best.size:
            return
        rows = np.concatenate([self.rows, start + best])
        merged = np.concatenate([self.values, values[best]])
        whole = np.concatenate([self.logits.reshape(len(self.rows), logits.shape[1]), logits[best]])
        order = np.lexsort((rows, -merged))[: self.most]
        self.values, self.rows, self.logits = merged[order], rows[order], whole[order]


@dataclass(frozen=True, eq=False)
class Survey:
    """What a pass over ``(N, C)`` scores has found.

    Attributes
    ----------
    classes
        C.
    y, prediction
        ``(N,)`` true and predicted classes.
    nll
        ``(N,)`` losses in nats.
    confidence, self_confidence
        ``(N,)`` probability of the predicted and of the true class.
    margin
        ``(N,)`` normalised margin: probability of the true class less that of the likeliest other one.
    brier
        The mean of ``Σ_c (p_c − [c = y])²``.
    worst, happiest, doubtful
        The rows with the largest and smallest loss, and with the smallest margin, with their scores.
    temperature
        The one that calibrates, or None where none is best.
    sampled
        Rows that it was fitted on.
    gain
        By how much it lowers the mean loss of those rows.
    """

    classes: int
    y: Vector
    prediction: Vector
    nll: Vector
    confidence: Vector
    self_confidence: Vector
    margin: Vector
    brier: float
    worst: Kept
    happiest: Kept
    doubtful: Kept
    temperature: float | None
    sampled: int
    gain: float

    @cached_property
    def right(self) -> Vector:
        """Whether each prediction is the true class."""
        right: Vector = self.prediction == self.y
        return right

    @cached_property
    def mean(self) -> float:
        """The mean loss."""
        return float(self.nll.mean())

    @cached_property
    def support(self) -> Vector:
        """How many rows each class has."""
        return np.bincount(self.y, minlength=self.classes)

    @cached_property
    def prior_nll(self) -> float:
        """The loss of always giving each class its share: the entropy of the labels."""
        share = self.support[self.support > 0] / len(self.y)
        return float(-(share * np.log(share)).sum())

    @cached_property
    def reliability(self) -> Reliability:
        """Confidence beside accuracy."""
        return reliability(np.minimum(self.confidence, 1), self.right)

    @cached_property
    def worst_share(self) -> float:
        """The share of the whole loss that the worst hundredth of the rows carry."""
        total = float(self.nll.sum())
        if not 0 < total < math.inf:
            return math.nan
        count = max(1, len(self.nll) // 100)
        return float(np.partition(self.nll, len(self.nll) - count)[-count:].sum() / total)

    def per_class(self, values: Vector) -> Vector:
        """Return the mean of one value a row over the rows of each true class; NaN where there are none."""
        with np.errstate(invalid="ignore"):
            return np.bincount(self.y, weights=values, minlength=self.classes) / self.support

    def confusions(self) -> tuple[Vector, Vector, Vector]:
        """Return true class, predicted class and count of each kind of mistake, the most frequent first."""
        wrong = ~self.right
        keys, counts = np.unique(self.y[wrong] * self.classes + self.prediction[wrong], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return keys[order] // self.classes, keys[order] % self.classes, counts[order]


def survey(rows: Rows, y: Vector, watch: Callable[[int, int], None] | None = None, *, seed: int = 0) -> Survey:
    """Look at all scores once.

    Parameters
    ----------
    rows
        ``(N, C)`` scores.
    y
        ``(N,)`` true classes in [0, C).
    watch
        Is told how many rows are done, of how many.
    seed
        Chooses the rows that the temperature is fitted on.

    Raises
    ------
    ValueError
        For a row that has no softmax: NaN, only −∞, or +∞ more than once.

    Examples
    --------
    >>> from softnll.score_rows import as_rows
    >>> found = survey(as_rows([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]]), np.array([0, 2, 1]))
    >>> round(found.mean, 6), found.worst.rows.tolist()
    (0.362443, [2, 0, 1])
    """
    N, C = rows.shape
    nll, confidence, own, margin = np.empty((4, N))
    prediction = np.empty(N, np.int64)
    brier = 0.0
    kept = Kept(SHOWN), Kept(SHOWN), Kept(CANDIDATES)
    chosen = np.sort(np.random.default_rng(seed).choice(N, min(N, SAMPLE), replace=False))
    sample: list[Vector] = []
    for here, block in rows.blocks():
        x, labels = real(block), y[here]
        p = softmax(x).astype(np.float64, copy=False)
        lost = np.isnan(p).any(axis=1)
        if lost.any():
            row = here.start + int(lost.argmax())
            raise ValueError(
                f"row {row} of the scores has no softmax: it holds NaN, only -inf, or +inf more than once; "
                "softnll diagnose tells more"
            )
        at = np.arange(len(x)), labels
        nll[here] = cross_entropy(x, labels, reduction="none")
        prediction[here] = x.argmax(axis=1)
        confidence[here], own[here] = p.max(axis=1), p[at]
        brier += float((p * p).sum() + (1 - 2 * p[at]).sum())
        p[at] = -1
        margin[here] = own[here] - (p.max(axis=1) if C > 1 else 0)
        for each, values in zip(kept, (nll, -nll, -margin), strict=True):
            each.offer(values[here], here.start, x)
        first, last = np.searchsorted(chosen, (here.start, here.stop))
        sample.append(x[chosen[first:last] - here.start])
        if watch is not None:
            watch(here.stop, N)
    scores = np.concatenate(sample)
    tau, gain = _temperature(scores, y[chosen])
    return Survey(C, y, prediction, nll, confidence, own, margin, brier / N, *kept, tau, len(chosen), gain)


def _temperature(scores: Vector, y: Vector) -> tuple[float | None, float]:
    """Return the temperature that fits best, and what it gains; None where none does."""
    try:
        tau = fit_temperature(scores, y)
    except ValueError:
        return None, 0.0
    return tau, float(cross_entropy(scores, y)) - float(cross_entropy(scores, y, temperature=tau))
