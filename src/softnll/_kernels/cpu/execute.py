"""How a computation of the CPU kernels is run: all rows at once, in threads, or a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll.kernels.compile import fuses
from softnll.kernels.threads import for_rows
from softnll.problem import Problem
from softnll.targets import blocks

__all__ = ["Computation", "few", "run", "run_capped", "run_few", "served", "soft_type", "spread"]

Vector = NDArray[np.float64]
Values = tuple[Vector | None, ...]

_FEW = 160  # classes up to which rows are taken a tile at a time (docs/log.md)
_STREAMED = 1 << 26  # bytes of an output from which it is written past the caches
_TINY = 1 << 14  # entries of logits that are not worth a look at how to share them out
_SMALL = 1e-15  # weights and shares so small that float32 might lose a product of them
_BLOCK = 1 << 15  # capped logits at a time
_LEAST_CAP = 1e-300  # 1/softcap is finite
_FIRST = np.zeros(1, np.int64)


class Computation(NamedTuple):
    """One computation on one type of logits, put together once: a tiny call has no time to look for its parts.

    ``call(problem, out, values, streamed, first, last, odd)`` is the vector kernel, which returns how many rows it
    leaves and notes them in ``odd``; ``plain(problem, out, values)`` are the loops that stand in for it. Both write the
    rows of ``out`` and of the first ``values``; what they read of each row are the last.
    """

    call: Callable[[Problem, Any, Any, bool, int, int, Any], int]
    plain: Callable[[Problem, Any, Any], None]


def few(problem: Problem) -> bool:
    """Whether a problem's rows are taken a tile at a time: few classes, none masked, logits and targets as they are."""
    if problem.where is not None or problem.tau is not None or problem.q is not None:
        return False
    return problem.objective.plain and problem.x.shape[1] <= _FEW


def spread(problem: Problem) -> bool:
    """Whether targets are spread over all classes."""
    return problem.q is not None or problem.objective.label_smoothing > 0


def run_few(computation: Computation, problem: Problem, out: NDArray[Any] | None, per_row: Values) -> None:
    """Run a computation on rows of few classes: if they are few themselves, by the shortest way to the kernel.

    It takes 1 µs where ``run`` takes 3; for a tiny problem that is most of its time.
    """
    x = problem.x
    n_rows, n_columns = x.shape
    if n_rows * n_columns > _TINY or not x.flags.carray or not (out is None or out.flags.carray):
        run(computation, problem, out, per_row)
        return
    # All that can be noted of a single row is its number, 0, whoever else does so at the same time.
    odd = _FIRST if n_rows == 1 else np.empty(n_rows, np.int64)
    left = computation.call(problem, out, per_row, False, 0, n_rows, odd)
    if left:
        _leftovers(computation, problem, out, per_row, (), odd[:left])


def run(
    computation: Computation,
    problem: Problem,
    out: NDArray[Any] | None,
    per_row: Values,
    read: tuple[Vector, ...] = (),
) -> None:
    """Run a computation: vector kernels do the rows, and plain loops those that they leave or cannot serve.

    What it writes are the rows of ``out`` and of each ``per_row`` array that is there; it reads ``read`` besides.
    """
    vectors = problem.objective.softcap is None and served(problem)
    matrices = (problem.x, out, problem.where, problem.q)
    fitting = problem.q is None or soft_type(problem) == problem.q.dtype
    if not (vectors and all(each is None or _in_one_piece(each) for each in matrices) and fitting):
        _in_blocks(computation, problem, out, per_row, read, vectors)
        return
    values = (*per_row, *read)
    streamed = out is not None and out.nbytes >= _STREAMED and not np.may_share_memory(out, problem.x)

    def work(first: int, last: int) -> None:
        odd = np.empty(last - first, np.int64)
        left = computation.call(problem, out, values, streamed, first, last, odd)
        if left:
            _leftovers(computation, problem, out, per_row, read, odd[:left])

    n_rows, n_columns = problem.x.shape
    for_rows(n_rows, n_columns, work)


def run_capped(
    computation: Computation,
    caps: tuple[Callable[..., Any], Callable[..., Any]],
    problem: Problem,
    uncapped: Problem,
    out: NDArray[Any] | None,
    per_row: Values,
    read: tuple[Vector, ...] = (),
) -> None:
    """Run a computation on logits with a soft cap: on their capped values, float64, a block of rows at a time.

    The computation is that of ``uncapped``, the problem that is left. ``caps`` write the capped logits, and the
    gradient by the logits from that by their capped values.
    """
    n_rows, n_columns = problem.x.shape
    softcap = problem.objective.softcap
    within, without = caps
    packs = problem.q is not None or problem.where is not None
    whole = _in_one_piece(problem.x) and (out is None or _in_one_piece(out))

    def work(first: int, last: int) -> None:
        for block in blocks((last - first, n_columns), _BLOCK):
            here = slice(first + block.start, first + block.stop)
            x = problem.x[here] if whole else np.ascontiguousarray(problem.x[here])
            u = np.empty(x.shape)
            within(x, softcap, u)
            part = uncapped.take(here, u)
            part = _packed(part) if packs else part
            values = tuple(None if each is None else each[here] for each in per_row)
            given = tuple(each[here] for each in read)
            grad = None if out is None else u
            odd = np.empty(len(x), np.int64)
            left = computation.call(part, grad, (*values, *given), False, 0, len(x), odd)
            if left:
                _leftovers(computation, part, grad, values, given, odd[:left])
            if out is not None:
                written = out[here] if whole else np.empty(x.shape, out.dtype)
                without(x, softcap, u, written)
                if not whole:
                    out[here] = written

    for_rows(n_rows, n_columns, work)


def served(problem: Problem) -> bool:
    """Whether the vector kernels serve this problem, a soft cap aside: the others go through plain loops."""
    objective = problem.objective
    if spread(problem) and not _spread_served(problem):
        return False
    if objective.softcap is not None and objective.softcap < _LEAST_CAP:
        return False
    return fuses() or (problem.tau is None and objective.temperature == 1)


def _spread_served(problem: Problem) -> bool:
    """Whether the vector kernels serve soft or smoothed targets: no masks, and nothing below float32's range."""
    if problem.where is not None:
        return False
    smoothing, w = problem.objective.label_smoothing, problem.w
    if w is not None and not (w[w != 0] > _SMALL).all():
        return False
    return smoothing == 0 or smoothing / problem.x.shape[1] > _SMALL


def _in_one_piece(matrix: NDArray[Any]) -> bool:
    """Whether each row of a matrix lies in one piece, each entry at a multiple of its size."""
    return matrix.strides[1] == matrix.itemsize and matrix.flags.aligned


def soft_type(problem: Problem) -> np.dtype[Any]:
    """Return the type in which a kernel takes soft targets: theirs, if it is computed in as the logits' is."""
    q, wide = problem.q.dtype, problem.x.dtype == np.float64
    return q if (q == np.float64) == wide else np.dtype(np.float64 if wide else np.float32)


def _leftovers(
    computation: Computation,
    problem: Problem,
    out: NDArray[Any] | None,
    per_row: Values,
    read: tuple[Vector, ...],
    odd: Any,
) -> None:
    """Let plain loops do the rows that a vector kernel has left, and put the results in their places."""
    rest = problem.take(odd, problem.x[odd])
    written = None if out is None else np.empty(rest.x.shape, out.dtype)
    values = tuple(None if each is None else np.empty(len(odd)) for each in per_row)
    computation.plain(rest, written, (*values, *(each[odd] for each in read)))
    if out is not None:
        out[odd] = written
    for target, value in zip(per_row, values, strict=True):
        if target is not None:
            target[odd] = value


def _packed(problem: Problem) -> Problem:
    """Return a problem whose rows lie in one piece, its soft targets of a type that goes with the logits'."""
    where = None if problem.where is None else np.ascontiguousarray(problem.where)
    with np.errstate(all="ignore"):  # what float32 cannot hold is left to the plain loops, or counts as 0
        q = None if problem.q is None else np.ascontiguousarray(problem.q, soft_type(problem))
    return replace(problem, x=np.ascontiguousarray(problem.x), where=where, q=q)


def _in_blocks(
    computation: Computation,
    problem: Problem,
    out: NDArray[Any] | None,
    per_row: Values,
    read: tuple[Vector, ...],
    vectors: bool,
) -> None:
    """Run a computation a block of rows at a time: rows with gaps are laid out anew, others go through loops."""
    n_rows, n_columns = problem.x.shape

    def do(here: slice) -> None:
        part = problem.take(here, problem.x[here])
        result = None if out is None else out[here]
        values = tuple(None if each is None else each[here] for each in per_row)
        given = tuple(each[here] for each in read)
        if not vectors:
            computation.plain(part, result, (*values, *given))
            return
        scratch = None if result is None else np.empty(result.shape, result.dtype)
        odd = np.empty(len(part.x), np.int64)
        left = computation.call(_packed(part), scratch, (*values, *given), False, 0, len(part.x), odd)
        if left:
            _leftovers(computation, part, scratch, values, given, odd[:left])
        if result is not None:
            result[...] = scratch

    def work(first: int, last: int) -> None:
        for block in blocks((last - first, n_columns), 1 << 16):
            do(slice(first + block.start, first + block.stop))

    for_rows(n_rows, n_columns, work)
