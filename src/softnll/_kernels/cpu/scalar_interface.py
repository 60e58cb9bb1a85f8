"""The plain kernels behind the kernels' interface: every option, any strides, one row at a time in float64.

The vector kernels (``cpu.py``) give them what they do not serve: rows that hold NaN or an infinity, the soft cap and
the like; the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from softnll.kernels import plain
from softnll.kernels.compile import array, compiled, output
from softnll.problem import Problem
from softnll.targets import blocks

__all__ = ["backward", "forward", "forward_backward", "log_softmax", "logsumexp", "losses", "pick", "softmax"]

Vector = NDArray[np.float64]

_NO_MASK = np.empty((0, 0), np.bool_)
_NO_TARGETS = np.empty(0, np.int64)
_NO_WEIGHTS = np.empty(0)
_WIDE = (np.float32, np.float64)
_REAL = {"f4": types.float32, "f8": types.float64}

_MASK, _INTS, _REALS = array(types.boolean, 2), array(types.int64, 1), array(types.float64, 1)
_ROW = output(types.float64, 1)
_F8 = types.float64
_TARGETS = (_INTS, None, _REALS, _REALS, _REALS, *[_F8] * 5)  # y, q, w, s, taus; tau, ε, ζ, softcap, divisor


@cache
def _compiled(name: str, x: str, q: str = "f4") -> Any:
    """Return a kernel for logits and soft targets of these types."""
    matrix, out = array(_REAL[x], 2), output(_REAL[x], 2)
    targets = tuple(array(_REAL[q], 2) if each is None else each for each in _TARGETS)
    arguments = {
        "normalise_rows": (matrix, _MASK, _REALS, _F8, types.boolean, out, _ROW),
        "logsumexp_rows": (matrix, _MASK, _REALS, _F8, _ROW, _ROW),
        "loss_rows": (matrix, _MASK, *targets, _ROW, _ROW, _ROW, out, _ROW),
        "gradient_rows": (matrix, _MASK, *targets, _REALS, _REALS, out, _ROW),
        "pick_rows": (matrix, *targets[:4], _ROW),
    }[name]
    return compiled(getattr(plain, name), types.void, *arguments)


def _staged(problem: Problem, out: NDArray[Any] | None) -> Iterator[tuple[slice, Problem, NDArray[Any] | None]]:
    """Yield the problem whole or, for half types, in blocks of rows widened to float32 and rounded back once."""
    x, q = problem.x, problem.q
    narrow = x.dtype not in _WIDE
    if not narrow and (q is None or q.dtype in _WIDE):
        yield slice(0, x.shape[0]), problem, out
        return
    scratch: NDArray[np.float32] | None = None
    for rows in blocks(x.shape, 1 << 16):
        part = problem.take(rows, x[rows].astype(np.float32) if narrow else x[rows])
        if part.q is not None and part.q.dtype not in _WIDE:
            part = replace(part, q=part.q.astype(np.float32))
        if out is not None and not narrow:
            yield rows, part, out[rows]
            continue
        if out is None:
            yield rows, part, None
            continue
        if scratch is None:
            scratch = np.empty(part.x.shape, np.float32)
        result = scratch[: len(part.x)]
        yield rows, part, result
        with np.errstate(all="ignore"):  # log-probabilities beyond float16's largest are -inf there
            out[rows] = result


def _shape_arguments(problem: Problem) -> tuple[Any, ...]:
    """Return the arguments that are not about targets: where, per-row and common temperature."""
    return (
        _NO_MASK if problem.where is None else problem.where,
        _NO_WEIGHTS if problem.tau is None else problem.tau,
        problem.objective.temperature,
    )


def _target_arguments(problem: Problem) -> tuple[Any, ...]:
    """Return everything that describes the loss, in the kernels' order."""
    objective = problem.objective
    where, taus, tau = _shape_arguments(problem)
    return (
        where,
        _NO_TARGETS if problem.y is None else problem.y,
        np.empty((0, 0), np.float32) if problem.q is None else problem.q,
        _NO_WEIGHTS if problem.w is None else problem.w,
        _NO_WEIGHTS if problem.s is None else problem.s,
        taus,
        tau,
        objective.label_smoothing,
        objective.z_loss,
        objective.softcap or 0.0,
        problem.divisor,
    )


def _kernel(name: str, problem: Problem) -> Any:
    """Return the kernel for this problem's types."""
    return _compiled(name, problem.x.dtype.str[1:], "f4" if problem.q is None else problem.q.dtype.str[1:])


def _normalise(problem: Problem, out: NDArray[Any], log: bool) -> None:
    """Write softmax or log_softmax."""
    scratch = np.empty(problem.x.shape[1])
    for _, part, result in _staged(problem, out):
        _kernel("normalise_rows", part)(part.x, *_shape_arguments(part), log, result, scratch)


def softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write p."""
    _normalise(problem, out, log=False)


def log_softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write log p."""
    _normalise(problem, out, log=True)


def logsumexp(problem: Problem) -> Vector:
    """Return lse of each row."""
    lse = np.empty(problem.x.shape[0])
    scratch = np.empty(problem.x.shape[1])
    for rows, part, _ in _staged(problem, None):
        _kernel("logsumexp_rows", part)(part.x, *_shape_arguments(part), lse[rows], scratch)
    return lse


def losses(problem: Problem, out: NDArray[Any] | None) -> tuple[Vector, Vector, Vector]:
    """Return loss, m and r of each row and, with ``out``, write the gradient."""
    loss, m, r = np.empty((3, problem.x.shape[0]))
    scratch = np.empty(problem.x.shape[1])
    for rows, part, result in _staged(problem, out):
        grad = np.empty((0, 0), part.x.dtype) if result is None else result
        _kernel("loss_rows", part)(part.x, *_target_arguments(part), loss[rows], m[rows], r[rows], grad, scratch)
    return loss, m, r


def forward(problem: Problem) -> tuple[Vector, Vector, Vector]:
    """Return each row's loss (row weight applied, not yet divided by the mean's denominator), m and r."""
    return losses(problem, None)


def forward_backward(problem: Problem, out: NDArray[Any]) -> Vector:
    """Return each row's loss and write the gradient of the reduced loss; ``out`` may be the logits."""
    return losses(problem, out)[0]


def backward(problem: Problem, m: Vector, r: Vector, out: NDArray[Any]) -> None:
    """Write the gradient of the reduced loss from the forward's m and r; ``out`` may be the logits."""
    scratch = np.empty(problem.x.shape[1])
    for rows, part, result in _staged(problem, out):
        _kernel("gradient_rows", part)(part.x, *_target_arguments(part), m[rows], r[rows], result, scratch)


def pick(problem: Problem) -> Vector:
    """Return −s·⟨t, x⟩ of each row: the loss of log-probabilities."""
    loss = np.empty(problem.x.shape[0])
    for rows, part, _ in _staged(problem, None):
        _kernel("pick_rows", part)(part.x, *_target_arguments(part)[1:5], loss[rows])
    return loss
