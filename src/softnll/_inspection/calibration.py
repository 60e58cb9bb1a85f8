"""Calibration: the temperature that fits best, and how far confidence and accuracy agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from softnll.kernels.choose import kernels
from softnll.options import loss_problem
from softnll.problem import Problem
from softnll.targets import blocks

__all__ = ["Reliability", "fit_temperature", "reliability"]

_STEPS = 680.0  # of log β: as far as exp goes


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
    if problem.x.shape[0] == 0 or not problem.divisor > 0:
        raise ValueError(f"logits has shape {np.shape(logits)}; allowed: at least one row, not all of them ignored")
    scale, certain = _survey(problem)
    if scale == 0:
        raise ValueError("each row's scores are all equal: every temperature gives the same loss")
    if certain:
        raise ValueError("no temperature is best: the loss keeps falling towards 0; every target has the largest score")
    if _slope(problem, scale, np.inf) >= 0:
        raise ValueError(
            "no temperature is best: the loss keeps falling as it grows; the scores do not fit the targets"
        )
    # In units of the scale, β is tried upwards and downwards until the derivative changes its sign: it must.
    low = high = 0.0
    while _slope(problem, scale, np.exp(-high)) <= 0 and high < _STEPS:
        high += 4.0
    while _slope(problem, scale, np.exp(-low)) >= 0 and low > -_STEPS:
        low -= 4.0
    if _slope(problem, scale, np.exp(-high)) <= 0:
        raise ValueError("no temperature is best that float64 holds: the targets' scores are too close to the largest")
    log_beta = brentq(lambda at: _slope(problem, scale, np.exp(-at)), low, high, xtol=1e-13, rtol=1e-14)
    return float(np.exp(-log_beta) * scale)


def _survey(problem: Problem) -> tuple[float, bool]:
    """Return the largest spread of a row's scores, and whether every target has its row's largest."""
    scale, certain = 0.0, True
    for rows in blocks(problem.x.shape):
        x = problem.x[rows].astype(np.float64)
        if not np.isfinite(x).all():
            row = rows.start + int(np.argmax(~np.isfinite(x).all(axis=1)))
            raise ValueError(f"logits[{row}] holds a value that is not finite; allowed: finite scores")
        largest = x.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            spread = float((largest - x.min(axis=1, keepdims=True)).max())
        if not spread < 1e300:
            raise ValueError(f"the scores of a row lie {spread} apart; allowed: less than 1e300")
        scale = max(scale, spread)
        part = problem.take(rows, x)
        if part.y is None:
            certain &= bool((x == largest)[part.q > 0].all())
        else:
            taking_part = part.y != part.objective.ignore_index
            y = np.where(taking_part, part.y, 0)
            certain &= bool((np.take_along_axis(x, y[:, None], axis=1) == largest)[taking_part].all())
    return scale, certain


def _slope(problem: Problem, scale: float, tau: float) -> float:
    """Return d(mean loss)/dβ at β = 1/τ of the scores / scale: mean ⟨p − t, x⟩, x relative to its row's largest."""
    total = 0.0
    for rows in blocks(problem.x.shape):
        x = problem.x[rows].astype(np.float64)
        x = (x - x.max(axis=1, keepdims=True)) / scale
        at, apart = (x, tau) if np.isfinite(tau) else (np.zeros_like(x), 1.0)  # τ = ∞: p is uniform
        objective = replace(problem.objective, temperature=float(apart), reduction="sum")
        part = replace(problem.take(rows, at), objective=objective, divisor=1.0)
        grad = np.empty_like(x)
        kernels().forward_backward(part, grad)
        total += float(((grad * apart) * x).sum())
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
