"""Calibration: the temperature that fits best, and how far confidence and accuracy agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from softnll.kernels.choose import kernels
from softnll.objective import CrossEntropy
from softnll.options import loss_problem
from softnll.problem import Problem
from softnll.targets import blocks

__all__ = ["Reliability", "fit_temperature", "reliability"]

_LOWEST, _HIGHEST = 1e-9, 1e6  # temperatures beyond which the best one counts as 0 or ∞, times the logits' scale


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """Return the temperature τ > 0 that minimises the mean cross-entropy of ``logits / τ``.

    The loss is convex in β = 1/τ, and its derivative ``mean_n ⟨p_n(β) − t_n, x_n⟩`` is increasing: its zero is found.

    Parameters
    ----------
    logits
        ``(N, C)`` scores of held-out examples.
    targets
        ``(N,)`` integers, or ``(N, C)`` distributions.

    Returns
    -------
    float
        τ; above 1 the classifier was overconfident, below 1 too modest.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.cross_entropy`, for logits that are not finite, and where no temperature is best: every
        target has its row's largest score (τ → 0), or the scores say nothing of the targets, or the opposite (τ → ∞).

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[8.0, 0.0], [8.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    >>> round(fit_temperature(logits, [0, 0, 1, 1]), 6)  # 3 of 4 are right: ln 3 ahead is the best
    7.281914

    Notes
    -----
    Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks".
    """
    problem, _ = loss_problem(logits, targets)
    x = problem.x
    if x.shape[0] == 0:
        raise ValueError(f"logits has shape {np.shape(logits)}; allowed: at least one row of classes")
    scale = 0.0
    for rows in blocks(x.shape):
        block = x[rows].astype(np.float64)
        if not np.isfinite(block).all():
            row = rows.start + int(np.argmax(~np.isfinite(block).all(axis=1)))
            raise ValueError(f"logits[{row}] holds a value that is not finite; allowed: finite scores")
        scale = max(scale, float((block.max(axis=1) - block.min(axis=1)).max()))
    if scale == 0:
        raise ValueError("each row's scores are all equal: every temperature gives the same loss")

    def derivative(log_beta: float) -> float:
        """Return the derivative with respect to β; the search runs on log β."""
        return _derivative(problem, float(np.exp(-log_beta)))

    low, high = -np.log(_HIGHEST * scale), -np.log(_LOWEST * scale / max(1.0, np.log(x.shape[1])))
    if derivative(low) >= 0:
        raise ValueError(
            "no temperature is best: the loss keeps falling as it grows; the scores do not fit the targets"
        )
    if derivative(high) <= 0:
        raise ValueError("no temperature is best: the loss keeps falling towards 0; every target has the largest score")
    return float(np.exp(-brentq(derivative, low, high, xtol=1e-12, rtol=1e-14)))


def _derivative(problem: Problem, tau: float) -> float:
    """Return d(mean loss)/dβ at β = 1/τ: mean ⟨p − t, x⟩, with x relative to its row's largest."""
    total = 0.0
    for rows in blocks(problem.x.shape):
        x = problem.x[rows].astype(np.float64)
        objective = CrossEntropy(temperature=tau, reduction="sum")
        part = replace(problem.take(rows, x), objective=objective, divisor=1.0)
        grad = np.empty_like(x)
        kernels().forward_backward(part, grad)
        total += float(((grad * tau) * (x - x.max(axis=1, keepdims=True))).sum())
    return total / problem.divisor


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence beside accuracy, in bins of confidence.

    Attributes
    ----------
    edges
        ``(bins + 1,)`` bin edges in [0, 1].
    counts
        ``(bins,)`` examples a bin.
    confidence, accuracy
        ``(bins,)`` their means in the bin; NaN where it is empty.
    ece
        Expected calibration error: the gap between the two, averaged over the examples.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float


def reliability(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> Reliability:
    """Return how often predictions of a given confidence are right.

    ``ECE = Σ_b (n_b / N)·|accuracy_b − confidence_b|`` over equal-width bins; a bin holds its upper edge.

    Parameters
    ----------
    confidence
        ``(N,)`` probabilities of the predicted classes.
    correct
        ``(N,)`` bool: whether the prediction was right.
    bins
        How many bins of equal width.

    Returns
    -------
    Reliability
        The bins and the expected calibration error.

    Raises
    ------
    ValueError
        If the shapes differ, nothing is given, or a confidence is outside [0, 1].

    Examples
    --------
    >>> round(reliability([0.9, 0.9, 0.6, 0.6], [True, True, True, False], bins=10).ece, 3)
    0.1

    Notes
    -----
    Naeini, Cooper, Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian binning".
    """
    p = np.asarray(confidence, dtype=np.float64)
    right: Any = np.asarray(correct, dtype=np.bool_)
    if p.ndim != 1 or p.shape != right.shape or p.size == 0:
        raise ValueError(f"confidence has shape {p.shape}, correct {right.shape}; allowed: the same (N,), N > 0")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("confidence holds values outside [0, 1]")
    if bins < 1:
        raise ValueError(f"bins is {bins}; allowed: at least 1")
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(which, weights=p, minlength=bins) / counts
        accuracy = np.bincount(which, weights=right, minlength=bins) / counts
    filled = counts > 0
    gap = np.abs(accuracy[filled] - mean_confidence[filled])
    return Reliability(edges, counts, mean_confidence, accuracy, float((gap * counts[filled]).sum() / p.size))
