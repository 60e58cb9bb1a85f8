"""The scalar kernels behind the kernels' interface: every option, any strides, one row at a time in float64.

They compute what the vector kernels (``interface.py``) do not: rows that hold NaN or an infinity, masked soft targets
and the like; the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll._kernels.cpu.load import Kernel, kernel_of
from softnll._kernels.cpu.signature import BOOLEAN, FLOAT64, NONE, VOID, array, output

Vector = NDArray[np.float64]

_NO_MASK = np.empty((0, 0), np.bool_)
_NO_SOFT_TARGETS = np.empty((0, 0), np.float32)
_NO_TARGETS = np.empty(0, np.int64)
_NO_WEIGHTS = np.empty(0)
_WIDE = (np.float32, np.float64)
_REAL = {"f4": "float32", "f8": "float64"}

_READ, _WRITTEN = array("float64", 1), output("float64", 1)
_TYPES = {  # of the kernels' parameters by name, but those that depend on the type of logits and soft targets
    "where": array("boolean", 2),
    "y": array("int64", 1),
    **dict.fromkeys(("w", "s", "taus"), _READ),
    **dict.fromkeys(("tau", "smoothing", "zeta", "softcap", "divisor"), FLOAT64),
    **dict.fromkeys(("lse", "loss", "ms", "rs", "u"), _WRITTEN),
    "log": BOOLEAN,
}


@cache
def _kernel(function: str, x: str, q: str, reads: bool) -> Kernel:
    """Return a kernel for logits and soft targets of these types; one that ``reads`` m and r has no loss."""
    of = _TYPES | dict.fromkeys(("out", "grad"), output(_REAL[x], 2))
    of |= {"x": array(_REAL[x], 2), "q": array(_REAL[q], 2)}
    if reads:
        of |= {"loss": NONE, "ms": _READ, "rs": _READ}
    return kernel_of(f"scalar.{function}", VOID, of)


def _call(function: str, problem: Problem, **others: Any) -> None:
    """Call a kernel with what a problem holds, and with its other arguments by name."""
    objective = problem.objective
    arguments = {
        "x": problem.x,
        "where": _NO_MASK if problem.where is None else problem.where,
        "y": _NO_TARGETS if problem.y is None else problem.y,
        "q": _NO_SOFT_TARGETS if problem.q is None else problem.q,
        "w": _NO_WEIGHTS if problem.w is None else problem.w,
        "s": _NO_WEIGHTS if problem.s is None else problem.s,
        "taus": _NO_WEIGHTS if problem.tau is None else problem.tau,
        "tau": objective.temperature,
        "smoothing": objective.label_smoothing,
        "zeta": objective.z_loss,
        "softcap": objective.softcap or 0.0,
        "divisor": problem.divisor,
        "u": np.empty(problem.x.shape[1]),
        **others,
    }
    reads = "ms" in others and others["loss"] is None
    kernel = _kernel(function, problem.x.dtype.str[1:], "f4" if problem.q is None else problem.q.dtype.str[1:], reads)
    kernel.call(*(arguments[name] for name in kernel.parameters))


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
        if out is None or not narrow:
            yield rows, part, None if out is None else out[rows]
            continue
        if scratch is None:
            scratch = np.empty(part.x.shape, np.float32)
        result = scratch[: len(part.x)]
        yield rows, part, result
        with np.errstate(all="ignore"):  # log-probabilities beyond float16's largest are -inf there
            out[rows] = result


def _normalise(problem: Problem, out: NDArray[Any], log: bool) -> None:
    """Write softmax or log_softmax."""
    for _, part, result in _staged(problem, out):
        _call("normalise", part, log=log, out=result)


def softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write p."""
    _normalise(problem, out, log=False)


def log_softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write log p."""
    _normalise(problem, out, log=True)


def logsumexp(problem: Problem) -> Vector:
    """Return lse of each row."""
    lse = np.empty(problem.x.shape[0])
    for rows, part, _ in _staged(problem, None):
        _call("logsumexp", part, lse=lse[rows])
    return lse


def losses(problem: Problem, out: NDArray[Any] | None) -> tuple[Vector, Vector, Vector]:
    """Return loss, m and r of each row and, with ``out``, write the gradient."""
    loss, m, r = np.empty((3, problem.x.shape[0]))
    for rows, part, result in _staged(problem, out):
        grad = np.empty((0, 0), part.x.dtype) if result is None else result
        _call("losses", part, loss=loss[rows], ms=m[rows], rs=r[rows], grad=grad)
    return loss, m, r


def forward(problem: Problem) -> tuple[Vector, Vector, Vector]:
    """Return each row's loss (row weight applied, not yet divided by the mean's denominator), m and r."""
    return losses(problem, None)


def forward_backward(problem: Problem, out: NDArray[Any]) -> Vector:
    """Return each row's loss and write the gradient of the reduced loss; ``out`` may be the logits."""
    return losses(problem, out)[0]


def backward(problem: Problem, m: Vector, r: Vector, out: NDArray[Any]) -> None:
    """Write the gradient of the reduced loss from the forward's m and r; ``out`` may be the logits."""
    for rows, part, result in _staged(problem, out):
        _call("losses", part, loss=None, ms=m[rows], rs=r[rows], grad=result)


def pick(problem: Problem) -> Vector:
    """Return −s·⟨t, x⟩ of each row: the loss of log-probabilities."""
    loss = np.empty(problem.x.shape[0])
    for rows, part, _ in _staged(problem, None):
        _call("pick", part, loss=loss[rows])
    return loss
