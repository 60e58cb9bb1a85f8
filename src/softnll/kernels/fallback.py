"""The kernels' interface served by the equation itself: for machines without a compiler, and as the tests' twin.

The same functions as in ``softnll.kernels.cpu``. Rows go through the equation in blocks, so that its intermediates stay
a few MiB however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll import equation
from softnll.problem import Problem
from softnll.targets import blocks

__all__ = ["backward", "forward", "forward_backward", "log_softmax", "logsumexp", "losses", "pick", "softmax", "total"]


def _parts(problem: Problem) -> Iterator[tuple[slice, Problem, equation.Rows]]:
    """Yield blocks of rows with their intermediates."""
    for rows in blocks(problem.x.shape, 1 << 16):
        part = problem.take(rows, problem.x[rows, ...])
        yield rows, part, equation.normalise(part)


def _store(out: NDArray[Any], rows: slice, value: Any) -> None:
    """Round the values once, to the type of the output."""
    with np.errstate(all="ignore"):
        out[rows] = np.asarray(value)


def softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write p."""
    for rows, _, parts in _parts(problem):
        _store(out, rows, equation.probabilities(parts))


def log_softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write log p."""
    for rows, _, parts in _parts(problem):
        _store(out, rows, equation.log_probabilities(parts))


def logsumexp(problem: Problem) -> NDArray[np.float64]:
    """Return lse of each row."""
    lse = np.full(problem.x.shape[0], -np.inf)
    if problem.x.shape[1] == 0:  # the array API has no maximum of nothing
        return lse
    for rows, _, parts in _parts(problem):
        lse[rows] = np.asarray(equation.normalisers(parts))[:, 0]
    return lse


def forward(
    problem: Problem, out: NDArray[Any] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return each row's loss (row weight applied, not yet divided by the mean's denominator), m and r.

    With ``out``, the gradient is written there as well; it may be the logits.
    """
    loss, m, r = np.empty((3, problem.x.shape[0]))
    for rows, part, parts in _parts(problem):
        loss[rows] = np.asarray(equation.losses(part, parts))
        m[rows], r[rows] = np.asarray(parts.m)[:, 0], np.asarray(parts.r)[:, 0]
        if out is not None:
            _store(out, rows, equation.gradient(part, parts))
    return loss, m, r


def losses(problem: Problem) -> NDArray[np.float64]:
    """Return each row's loss alone."""
    return forward(problem)[0]


def backward(problem: Problem, m: NDArray[np.float64], r: NDArray[np.float64], out: NDArray[Any]) -> None:  # noqa: ARG001
    """Write the gradient of the reduced loss. The equation finds (m, r) again: they are the same."""
    for rows, part, parts in _parts(problem):
        _store(out, rows, equation.gradient(part, parts))


def forward_backward(problem: Problem, out: NDArray[Any]) -> NDArray[np.float64]:
    """Return each row's loss and write the gradient; ``out`` may be the logits."""
    return forward(problem, out)[0]


def pick(problem: Problem) -> NDArray[np.float64]:
    """Return −s·⟨t, x⟩ of each row: the loss of log-probabilities."""
    loss = np.empty(problem.x.shape[0])
    for rows in blocks(problem.x.shape, 1 << 16):
        loss[rows] = np.asarray(equation.picked(problem.take(rows, problem.x[rows, ...])))
    return loss


def total(values: NDArray[np.float64]) -> float:
    """Return the sum, pairwise."""
    with np.errstate(all="ignore"):
        return float(values.sum())
