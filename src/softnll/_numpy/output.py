"""From rows back to what the caller gets: ``out=`` arrays, shapes, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from softnll.kernels.choose import kernels
from softnll.layout import Layout, loss_dtype
from softnll.problem import Problem

__all__ = ["narrowed", "reduce", "write"]

Result = TypeVar("Result")

_SAFE = 3e38  # a little less than the largest float32


def write(
    problem: Problem,
    layout: Layout,
    out: NDArray[Any] | None,
    fill: Callable[[Problem, NDArray[Any]], Result],
) -> tuple[NDArray[Any], Result]:
    """Let ``fill`` write rows of the logits' type and return them in the logits' shape, in ``out`` if that is given.

    An ``out`` that overlaps the logits in any other way than by being them, or another array that the kernels read, is
    written only after everything has been read.
    """
    dtype = problem.x.dtype
    if out is None:
        fresh = np.empty(problem.x.shape, dtype)
        result = fill(problem, fresh)
        return (fresh if layout.is_rows else layout.restore(fresh)), result
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; allowed: a NumPy array")
    if out.shape != layout.shape:
        raise ValueError(f"out has shape {out.shape}; allowed: the logits' shape {layout.shape}")
    if out.dtype != dtype and out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out has dtype {out.dtype}; allowed: {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; allowed: an array that can be written to")
    rows = layout.rows(out)
    direct = out.dtype.isnative and (rows is out or np.may_share_memory(rows, out)) and not _overlaps(rows, problem)
    target = rows if direct else np.empty(problem.x.shape, dtype)
    result = fill(problem, target)
    if not direct:
        out[...] = layout.restore(target)
    return out, result


def _overlaps(rows: NDArray[Any], problem: Problem) -> bool:
    """Whether writing these rows one after another could change what is still to be read."""
    x = problem.x
    if rows is not x and np.may_share_memory(rows, x) and not _same(rows, x):
        return True
    others = (problem.y, problem.q, problem.w, problem.s, problem.where, problem.tau)
    return any(other is not None and np.may_share_memory(rows, other) for other in others)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays of one shape and type are the same memory in the same order."""
    return one.strides == other.strides and one.ctypes.data == other.ctypes.data


def reduce(problem: Problem, layout: Layout, losses: NDArray[np.float64], dtype: np.dtype[Any] | None = None) -> Any:
    """Return the rows' losses as the objective's reduction says; by default in the type that the logits' type has."""
    dtype = loss_dtype(problem.x.dtype) if dtype is None else dtype
    reduction = problem.objective.reduction
    if reduction == "none":
        return narrowed(losses, dtype).reshape(layout.row_shape)[()]
    value = losses.item() if losses.size == 1 else kernels().total(losses)
    if reduction == "mean":
        value = value / problem.divisor if problem.divisor > 0 else math.nan
    if -_SAFE < value < _SAFE:
        return dtype.type(value)
    return narrowed(np.float64(value), dtype)


def narrowed(values: Any, dtype: np.dtype[Any]) -> Any:
    """Return float64 values in another type, where those beyond its largest number are inf."""
    if values.dtype == dtype:
        return values
    with np.errstate(all="ignore"):  # takes 1 µs: not for a number that is known to fit
        return values.astype(dtype)
