"""Calibration: the best temperature, and accuracy by confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.problem import Problem, loss_problem
from softnll._core.targets import blocks, first_bad, rows_without_part
from softnll._kernels.select import kernels

_MOST_BINS = 1 << 20
_STEPS = 680.0  # of log β: beyond, exp overflows


def fit_temperature(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    where: ArrayLike | None = None,
    check: bool | None = None,
) -> float:
    """Return the temperature τ > 0 that minimises the mean cross-entropy of ``logits / τ``.

    The loss is convex in β = 1/τ, and its derivative ``mean_n ⟨p_n(β) − t_n, x_n⟩`` increases: τ is at its zero.
    A class at −inf, or masked by ``where``, has a probability of 0 at every temperature, and counts as if the row had
    one class less. A row of weight 0, or with an ignored target, may hold anything.

    Parameters
    ----------
    logits
        Scores of held-out examples, ``(N, C)`` or with C classes on ``axis``; finite or −inf.
    targets, axis, class_weight, sample_weight, ignore_index, where, check
        As in :func:`softnll.cross_entropy`: integers ``(N,)``, or distributions ``(N, C)``.

    Returns
    -------
    float
        τ; above 1 the classifier is overconfident, below 1 underconfident.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.cross_entropy`, for logits that are NaN or +inf, for targets whose score is −inf (the loss
        is infinite at every temperature), and where no temperature is best: every target has its row's largest score
        (τ → 0), or the scores do not predict the targets (τ → ∞).

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
    problem, layout = loss_problem(
        logits,
        targets,
        axis=axis,
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        where=where,
        check=check,
    )
    if problem.x.shape[0] == 0 or not problem.divisor > 0:
        raise ValueError(f"logits has shape {np.shape(logits)}; allowed: at least one row, not all of them ignored")
    scale, certain = _spread(problem, layout.row_shape)
    if scale == 0:
        raise ValueError("each row's scores are all equal: every temperature gives the same loss")
    if certain:
        raise ValueError("no temperature is best: the loss keeps falling towards 0; every target has the largest score")
    if _slope(problem, scale, np.inf) >= 0:
        raise ValueError(
            "no temperature is best: the loss keeps falling as it grows; the scores do not fit the targets"
        )
    from scipy.optimize import brentq  # noqa: PLC0415 - takes half a second to import

    # In units of the scale, β grows and shrinks until the derivative has changed its sign.
    low = high = 0.0
    while _slope(problem, scale, np.exp(-high)) <= 0 and high < _STEPS:
        high += 4.0
    while _slope(problem, scale, np.exp(-low)) >= 0 and low > -_STEPS:
        low -= 4.0
    if _slope(problem, scale, np.exp(-high)) <= 0:
        raise ValueError("no temperature is best that float64 holds: the targets' scores are too close to the largest")
    log_beta = brentq(lambda at: _slope(problem, scale, np.exp(-at)), low, high, xtol=1e-13, rtol=1e-14)
    return float(np.exp(-log_beta) * scale)


def _part(problem: Problem, rows: slice) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores ``(n, C)``, masked classes at −inf, zeros in rows without a part; and which rows have one."""
    x = problem.x[rows].astype(np.float64)
    if problem.where is not None:
        x = np.where(problem.where[rows], x, -np.inf)
    part = problem.take(rows, x)
    absent = rows_without_part(np, part.y, part.w, part.s, None, 0.0)
    taking_part = np.ones(len(x), bool) if absent is None else ~absent
    return np.where(taking_part[:, None], x, 0.0), taking_part


def _spread(problem: Problem, shape: tuple[int, ...]) -> tuple[float, bool]:
    """Return the largest spread of a row's scores, and whether every target has its row's largest."""
    scale, certain = 0.0, True
    for rows in blocks(problem.x.shape):
        x, taking_part = _part(problem, rows)
        largest = x.max(axis=1, keepdims=True)  # NaN in a row that holds one
        if not np.isfinite(largest).all():
            row = _named(rows.start + int(np.argmax(~np.isfinite(largest[:, 0]))), shape)
            raise ValueError(f"logits{row} holds NaN, +inf or nothing but -inf; allowed: finite scores, and -inf")
        with np.errstate(over="ignore"):
            spread = float((largest - np.where(np.isneginf(x), largest, x).min(axis=1, keepdims=True)).max())
        if not spread < 1e300:
            raise ValueError(f"the scores of a row lie {spread} apart; allowed: less than 1e300")
        scale = max(scale, spread)
        part, best = problem.take(rows, x), largest[:, 0]
        if part.y is None:
            mass = (part.q if part.w is None else part.q * part.w) > 0
            at_target = np.where(mass & taking_part[:, None], x, largest).min(axis=1)
        else:
            y = np.where(taking_part, part.y, 0)
            at_target = np.where(taking_part, np.take_along_axis(x, y[:, None], axis=1)[:, 0], best)
        if (lost := np.isneginf(at_target)).any():
            row = _named(rows.start + int(lost.argmax()), shape)
            raise ValueError(f"logits{row} has -inf at its target: the loss is infinite at every temperature")
        certain &= bool((at_target == best).all())
    return scale, certain


def _named(row: int, shape: tuple[int, ...]) -> str:
    """Return a row's index in the caller's shape as text."""
    return first_bad(np.arange(math.prod(shape)) == row, shape)


def _slope(problem: Problem, scale: float, tau: float) -> float:
    """Return d(mean loss)/dβ at β = 1/τ of the scores / scale: mean ⟨T·p − t, x⟩, x relative to its row's largest."""
    total = 0.0
    for rows in blocks(problem.x.shape):
        x, _ = _part(problem, rows)
        x = (x - x.max(axis=1, keepdims=True)) / scale
        ruled_out = np.isneginf(x)
        at, apart = (x, tau) if np.isfinite(tau) else (np.where(ruled_out, x, 0.0), 1.0)  # τ = ∞: p is uniform
        objective = replace(problem.objective, temperature=float(apart), reduction="sum")
        part = replace(problem.take(rows, at), objective=objective, divisor=1.0, where=None)
        grad = np.empty_like(x)
        kernels().forward_backward(part, grad)
        total += float(((grad * apart) * np.where(ruled_out, 0.0, x)).sum())  # p = t = 0 at -inf
    return total / float(problem.divisor)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Mean confidence and accuracy in bins of confidence.

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
    """Return the accuracy of predictions in bins of their confidence.

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
    if not 1 <= bins <= _MOST_BINS:
        raise ValueError(f"bins is not in 1 to {_MOST_BINS}")
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(which, weights=p, minlength=bins) / counts
        accuracy = np.bincount(which, weights=right, minlength=bins) / counts
    filled = counts > 0
    gap = np.abs(accuracy[filled] - mean_confidence[filled])
    return Reliability(edges, counts, mean_confidence, accuracy, float((gap * counts[filled]).sum() / p.size))
