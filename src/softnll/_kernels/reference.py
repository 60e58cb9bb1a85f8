"""The reference backend: the kernels' interface, computed by the equation on any array library and device.

It computes NumPy arrays without Numba, tensors on every device that is neither a CPU nor CUDA, and references in tests.
The functions are those of ``softnll._kernels.cuda.interface``. They return values in the widest type of the device,
float64 or float32: tensors for tensors, else NumPy arrays.

The equation is applied to blocks of rows, so that its intermediate results take a few MiB for any number of rows. The
blocks depend on shapes alone, and nothing synchronises with the device. Meta and fake tensors are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from softnll._core import equation
from softnll._core.arithmetic import arithmetic_of, is_tensor
from softnll._core.problem import Problem
from softnll._core.targets import blocks

_CACHED = 1 << 16  # entries of a block on a CPU: an intermediate is 512 KiB
_LAUNCHED = 1 << 20  # entries of a block on another device: fewer take less time than the launch


def softmax(problem: Problem, out: Any) -> None:
    """Write the probabilities to ``out``."""
    for rows, part in _parts(problem):
        _store(out, rows, equation.probabilities(equation.normalise(part)))


def log_softmax(problem: Problem, out: Any) -> None:
    """Write the log-probabilities to ``out``."""
    for rows, part in _parts(problem):
        _store(out, rows, equation.log_probabilities(equation.normalise(part)))


def logsumexp(problem: Problem) -> Any:
    """Return logsumexp of each row."""
    lse = _vector(problem.x, -np.inf)
    for rows, part in _parts(problem):
        _store(lse, rows, equation.normalisers(equation.normalise(part))[:, 0])
    return lse


def forward(problem: Problem, out: Any = None, upstream: Any = None) -> tuple[Any, Any, Any]:
    """Return each row's loss (times its row weight, not divided by the mean's denominator), m and r.

    With ``out``, also write the gradient of the reduced loss there, times ``upstream``; it may be the logits.
    """
    found = _vector(problem.x, np.nan), _vector(problem.x, -np.inf), _vector(problem.x, -1.0)
    for rows, part in _parts(problem):
        parts = equation.normalise(part)
        values = equation.losses(part, parts), parts.m[:, 0], parts.r[:, 0]
        for vector, value in zip(found, values, strict=True):
            _store(vector, rows, value)
        if out is not None:
            weighted = _weighted(part, upstream if upstream is None or upstream.ndim == 0 else upstream[rows])
            _store(out, rows, equation.gradient(weighted, parts))
    return found


def losses(problem: Problem) -> Any:
    """Return each row's loss."""
    return forward(problem)[0]


def forward_backward(problem: Problem, out: Any, upstream: Any = None) -> Any:
    """Return each row's loss and write the gradient of the reduced loss; ``out`` may be the logits.

    The gradient is multiplied by ``upstream``: one number (an array without dimensions), or one a row.
    """
    return forward(problem, out, upstream)[0]


def backward(problem: Problem, m: Any, r: Any, out: Any, upstream: Any = None, *, filled: bool = False) -> None:  # noqa: ARG001
    """Write the gradient, times ``upstream``, from the forward's m and r, as ``forward_backward`` does.

    It is computed also where ``out`` is ``filled`` with that for an upstream gradient of 1: to read whether this one
    is 1 would synchronise with the device.
    """
    for rows, part in _parts(_weighted(problem, upstream)):
        _store(out, rows, equation.gradient(part, equation.normalise(part, m[rows], r[rows])))


def pick(problem: Problem) -> Any:
    """Return each row's loss of log-probabilities: −s·⟨t, x⟩."""
    loss = _vector(problem.x, 0.0)
    for rows, part in _parts(problem):
        _store(loss, rows, equation.picked(part))
    return loss


def total(values: Any) -> Any:
    """Return the sum of values: a float for an array, a tensor without dimensions for a tensor."""
    if is_tensor(values):
        arithmetic = arithmetic_of(values)
        return arithmetic.row_sums(arithmetic.wide(values)[None, :])[0, 0]
    with np.errstate(all="ignore"):
        return float(values.sum())


def lift(values: Any, factor: Any) -> None:
    """Multiply values by a number in place; 0 stays 0."""
    xp = arithmetic_of(values).xp
    with np.errstate(all="ignore"):
        _store(values, ..., xp.where(values == 0, values, values * factor))


def _parts(problem: Problem) -> Iterator[tuple[slice, Problem]]:
    """Yield blocks of rows, as slices and Problems."""
    x = problem.x
    if not is_tensor(x):
        slices = blocks(x.shape, _CACHED)
    elif x.device.type == "meta" or hasattr(x, "fake_mode"):  # without values: a single block takes no memory
        slices = [slice(None)]
    else:
        slices = blocks(x.shape, _CACHED if x.device.type == "cpu" else _LAUNCHED)
    if is_tensor(x):
        problem = _as_array_problem(problem)
    for rows in slices:
        yield rows, problem.take(rows, x[rows, ...])


def _as_array_problem(problem: Problem) -> Problem:
    """Return a Problem of tensors with the types of one of arrays: int64 targets, wide weights, 0 for ignored rows."""
    arithmetic = arithmetic_of(problem.x)
    xp = arithmetic.xp
    w, s, tau = (None if each is None else arithmetic.wide(each) for each in (problem.w, problem.s, problem.tau))
    y, ignore_index = problem.y, problem.objective.ignore_index
    if y is not None:
        y = xp.astype(y, xp.int64, copy=False)
        if -(2**63) <= ignore_index < 2**63:
            s = xp.where(y == ignore_index, 0.0, xp.ones_like(y, dtype=arithmetic.dtype) if s is None else s)
    return replace(problem, y=y, w=w, s=s, tau=tau)


def _weighted(problem: Problem, upstream: Any) -> Problem:
    """Return the Problem with its row weights times the upstream gradient; a weight of 0 stays 0."""
    if upstream is None:
        return problem
    arithmetic = arithmetic_of(problem.x)
    xp, N = arithmetic.xp, problem.x.shape[0]
    s = xp.broadcast_to(arithmetic.wide(xp.asarray(upstream)), (N,))
    if problem.s is not None:
        with np.errstate(all="ignore"):
            s = xp.where(problem.s == 0, 0.0, arithmetic.wide(problem.s) * s)
    return replace(problem, s=s)


def _vector(x: Any, fill: float) -> Any:
    """Return an array with one number a row, in the widest type and on the device of the logits."""
    N = x.shape[0]
    if not is_tensor(x):
        return np.full(N, fill)
    arithmetic = arithmetic_of(x)
    return arithmetic.xp.full((N,), fill, dtype=arithmetic.dtype, device=x.device)


def _store(out: Any, rows: Any, value: Any) -> None:
    """Write values to rows of ``out``, rounded once to its type."""
    with np.errstate(all="ignore"):
        out[rows] = value if is_tensor(out) else np.asarray(value)
