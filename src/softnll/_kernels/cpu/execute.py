"""Run the vector kernels on all rows of a problem, in threads, and the scalar kernels on the rows that those leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll._kernels.cpu import scalar_interface
from softnll._kernels.cpu.memory import BLOCK, FEW, LEFT_BLOCK, STREAMED, past_caches
from softnll._kernels.cpu.processor import fuses
from softnll._kernels.cpu.threads import for_rows

Vector = NDArray[np.float64]
Values = tuple[Vector | None, Vector | None, Vector | None]  # RowValues, or a plain tuple of the same

_FEW = FEW
_STREAMED = STREAMED
_TINY = 1 << 14  # entries of logits below which `run_few` calls the kernel directly
_SMALL = 1e-15  # weights and shares so small that float32 might lose a product of them
_LEAST_CAP = 1e-300  # 1/softcap is finite
NO_WEIGHTS = np.empty(0)
NO_TARGETS = np.empty(0, np.int64)
_ROW_0 = np.zeros(1, np.int64)


class RowValues(NamedTuple):
    """Float64 values of each row; None for those that a computation does not have."""

    value: Vector | None = None  # the loss, or logsumexp
    m: Vector | None = None
    r: Vector | None = None

    def take(self, rows: slice | NDArray[np.int64]) -> RowValues:
        """Return the values of some rows: a view for a slice, else a copy."""
        return RowValues(*(None if each is None else each[rows] for each in self))

    def filled(self, n_rows: int) -> RowValues:
        """Return the values, with scratch for those that are None: a kernel without variants writes all."""
        return RowValues(*(np.empty(n_rows) if each is None else each for each in self))

    def put(self, rows: NDArray[np.int64], values: RowValues) -> None:
        """Write the values of some rows, the loss last: m and r may be the same array."""
        for target, each in zip(reversed(self), reversed(values), strict=True):
            if target is not None:
                target[rows] = each


NO_VALUES = RowValues()


class Computation(NamedTuple):
    """The cached kernel and its fallback for one input type.

    ``kernel(problem, out, values, streamed, first, last, left)`` is the vector kernel. It returns how many rows it
    leaves to the scalar kernels and writes their numbers to ``left``. ``scalar(problem, out, values)`` computes all
    rows. Both write ``out``, and ``values`` unless the computation ``reads`` them.
    """

    kernel: Callable[[Problem, Any, Values, bool, int, int, Any], int]
    scalar: Callable[[Problem, Any, RowValues], None]
    reads: bool = False

    def of_rows(
        self,
        problem: Problem,
        out: Any,
        values: RowValues,
        span: tuple[int, int] | None = None,
        *,
        packed: Problem | None = None,
        streamed: bool = False,
    ) -> None:
        """Compute a span of rows, all by default; the vector kernel takes the ``packed`` problem if there is one."""
        first, last = (0, len(problem.x)) if span is None else span
        left = np.empty(last - first, np.int64)
        n_left = self.kernel(problem if packed is None else packed, out, values, streamed, first, last, left)
        if n_left:
            self.of_left(problem, out, values, left[:n_left])

    def of_left(self, problem: Problem, out: Any, values: RowValues, left: NDArray[np.int64]) -> None:
        """Compute rows that the vector kernel has left, by the scalar kernels."""
        for block in blocks((len(left), problem.x.shape[1]), LEFT_BLOCK):
            here = left[block]
            part = problem.take(here, problem.x[here])
            written = None if out is None else np.empty(part.x.shape, out.dtype)
            part_values = values.take(here)
            self.scalar(part, written, part_values)
            if out is not None:
                out[here] = written
            if not self.reads:
                values.put(here, part_values)


def scalar_losses(part: Problem, out: Any, values: RowValues) -> None:
    """Write r, m and losses, in this order, and the gradient if there is an ``out``, by the scalar kernels."""
    for target, value in zip(reversed(values), reversed(scalar_interface.losses(part, out)), strict=True):
        if target is not None:
            target[...] = value


def few(problem: Problem) -> bool:
    """Whether rows are computed a tile at a time: few classes, no masks, no temperatures, no spread targets."""
    if problem.where is not None or problem.tau is not None or problem.q is not None:
        return False
    return problem.objective.plain and problem.x.shape[1] <= _FEW


def temperatures(problem: Problem) -> Vector | None:
    """Return the temperatures as kernels take them: one for all, one a row, or None for 1."""
    if problem.tau is not None:
        return problem.tau
    tau = problem.objective.temperature
    return None if tau == 1 else np.array([tau])


def spread(problem: Problem) -> bool:
    """Whether targets are spread over all classes."""
    return problem.q is not None or problem.objective.label_smoothing > 0


def run_few(computation: Computation, problem: Problem, out: NDArray[Any] | None, values: Values) -> None:
    """Run a computation on rows of few classes; if there are few rows as well, call its kernel directly.

    The direct call takes 1 µs where ``run`` takes 3; for a tiny problem that is most of its time. So are the 0.4 µs
    that it takes to make RowValues: here they may be a plain tuple.
    """
    x = problem.x
    n_rows, n_columns = x.shape
    if n_rows * n_columns > _TINY or not x.flags.carray or not (out is None or out.flags.carray):
        run(computation, problem, out, RowValues(*values))
        return
    # The number of a single row is always 0: all threads may write it to the same array.
    left = _ROW_0 if n_rows == 1 else np.empty(n_rows, np.int64)
    n_left = computation.kernel(problem, out, values, False, 0, n_rows, left)
    if n_left:
        computation.of_left(problem, out, RowValues(*values), left[:n_left])


def run(computation: Computation, problem: Problem, out: NDArray[Any] | None, values: RowValues) -> None:
    """Run a computation: vector kernels compute the rows, and scalar kernels those that the former cannot."""
    vectors = problem.objective.softcap is None and served(problem)
    matrices = (problem.x, out, problem.where, problem.q)
    fitting = problem.q is None or soft_type(problem) == problem.q.dtype
    if not (vectors and all(each is None or in_one_piece(each) for each in matrices) and fitting):
        _in_blocks(computation, problem, out, values, vectors)
        return
    streamed = out is not None and past_caches(out, _STREAMED) and not np.may_share_memory(out, problem.x)
    n_rows, n_columns = problem.x.shape

    def work(first: int, last: int) -> None:
        computation.of_rows(problem, out, values, (first, last), streamed=streamed)

    for_rows(n_rows, n_columns, work)


def served(problem: Problem) -> bool:
    """Whether the vector kernels serve this problem, a soft cap aside; else the scalar kernels compute all of it."""
    if not options_served(problem.objective, problem.x.shape[1]) or not (problem.tau is None or fuses()):
        return False
    if not spread(problem):
        return True
    w = problem.w
    return problem.where is None and (w is None or bool((w[w != 0] > _SMALL).all()))


def options_served(objective: CrossEntropy, n_columns: int) -> bool:
    """Whether the vector kernels serve these options: no share of a target is below float32's range."""
    smoothing, softcap = objective.label_smoothing, objective.softcap
    if softcap is not None and softcap < _LEAST_CAP:
        return False
    return (fuses() or objective.temperature == 1) and (smoothing == 0 or smoothing / n_columns > _SMALL)


def in_one_piece(matrix: NDArray[Any]) -> bool:
    """Whether each row of a matrix lies in one piece, each entry at a multiple of its size."""
    return matrix.strides[1] == matrix.itemsize and matrix.flags.aligned


def soft_type(problem: Problem) -> np.dtype[Any]:
    """Return the type in which a kernel reads soft targets: their own, or the logits' compute type if that differs."""
    q, wide = problem.q.dtype, problem.x.dtype == np.float64
    return q if (q == np.float64) == wide else np.dtype(np.float64 if wide else np.float32)


def packed_rows(problem: Problem) -> Problem:
    """Return a problem whose rows lie in one piece, its soft targets of a type that goes with the logits'."""
    where = None if problem.where is None else np.ascontiguousarray(problem.where)
    with np.errstate(all="ignore"):  # what float32 cannot hold is left to the scalar kernels, or counts as 0
        q = None if problem.q is None else np.ascontiguousarray(problem.q, soft_type(problem))
    return replace(problem, x=np.ascontiguousarray(problem.x), where=where, q=q)


def _in_blocks(
    computation: Computation, problem: Problem, out: NDArray[Any] | None, values: RowValues, vectors: bool
) -> None:
    """Run a computation a block of rows at a time: on packed copies, or by the scalar kernels."""
    n_rows, n_columns = problem.x.shape

    def work(first: int, last: int) -> None:
        for block in blocks((last - first, n_columns), BLOCK):
            here = slice(first + block.start, first + block.stop)
            part, result = problem.take(here, problem.x[here]), None if out is None else out[here]
            if not vectors:
                computation.scalar(part, result, values.take(here))
                continue
            scratch = None if result is None else np.empty(result.shape, result.dtype)
            computation.of_rows(part, scratch, values.take(here), packed=packed_rows(part))
            if result is not None:
                result[...] = scratch

    for_rows(n_rows, n_columns, work)
