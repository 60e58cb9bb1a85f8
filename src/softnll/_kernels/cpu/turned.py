"""Rows of few classes with spread targets or a temperature: turned into planes, a block at a time, for their kernels.

A vector then holds one class of many rows, where the kernels of rows would leave most of a vector empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll._kernels.cpu import strided
from softnll._kernels.cpu.execute import RowValues, served, soft_type, spread
from softnll._kernels.cpu.memory import TURNED, TURNED_BLOCK
from softnll._kernels.cpu.threads import for_rows

_LINE = 16  # float32 of a cache line


def serves(problem: Problem) -> bool:
    """Return whether a loss is computed so: of few classes, its targets spread or with a temperature of all rows."""
    objective = problem.objective
    if objective.temperature == 1 and not spread(problem):
        return False
    return (
        problem.x.shape[1] <= TURNED
        and problem.tau is None
        and problem.where is None
        and objective.softcap is None
        and served(problem)
    )


def losses(problem: Problem, out: NDArray[Any] | None, values: RowValues) -> None:
    """Write loss, m and r of each row, unless they are None, and with ``out`` the gradient; it may be the logits."""
    q_type = None if problem.q is None else soft_type(problem)
    computation = strided.computation_of(problem, written=out is not None)
    n_rows, n_columns = problem.x.shape

    def work(first: int, last: int) -> None:
        for block in blocks((last - first, n_columns), TURNED_BLOCK):
            here = slice(first + block.start, first + block.stop)
            part = problem.take(here, turned(problem.x[here], problem.x.dtype))
            packed = None
            if q_type is not None:
                with np.errstate(all="ignore"):  # what float32 cannot hold is left to the scalar kernels, or is 0
                    packed = part.with_rows(part.x, turned(part.q, q_type))
            written = None if out is None else plane(part.x.shape, out.dtype)
            numbers = values.take(here).filled(len(part.x))
            computation.of_rows(part, written, numbers, packed=packed)
            if out is not None and written is not None:
                turn_back(written, out[here])

    for_rows(n_rows, n_columns, work)


def turned(rows: NDArray[Any], dtype: Any) -> Planes:
    """Return a copy of rows as one plane, of a type."""
    copy = plane(rows.shape, dtype)
    if rows.dtype == copy.array.dtype:
        _bits(copy.array[0])[...] = _bits(rows).T
    else:
        copy.array[0] = rows.T
    return copy


def turn_back(one: Planes, rows: NDArray[Any]) -> None:
    """Copy one plane to rows of its type."""
    _bits(rows)[...] = _bits(one.array[0]).T


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """Return the entries as integers, which NumPy copies in half the time of bfloat16."""
    return array.view(f"u{array.itemsize}")


def plane(shape: tuple[int, int], dtype: Any) -> Planes:
    """Return one plane for rows, uninitialised. Its classes are an odd number of cache lines apart.

    At 4096 bytes all classes would share one set of the first cache.
    """
    n_rows, n_columns = shape
    lines = -(-n_rows // _LINE) | 1
    return Planes(np.empty((1, n_columns, lines * _LINE), dtype)[..., :n_rows])
