"""Convert the kernels' rows to the results of public functions: ``out=`` arrays, shapes, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from softnll._core.layout import Layout, loss_dtype
from softnll._core.planes import empty_like, memory_of, restored, rows_as
from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll._kernels.select import kernels

Result = TypeVar("Result")

_SAFE = 3e38  # a little less than the largest float32


def write(
    problem: Problem,
    layout: Layout,
    out: NDArray[Any] | None,
    fill: Callable[[Problem, NDArray[Any]], Result],
) -> tuple[NDArray[Any], Result]:
    """Return what ``fill`` writes, as an array of the logits' shape and type or in ``out``, and what it returns.

    If ``out`` partially overlaps the logits or another input, the result is written to a temporary first.
    """
    dtype = problem.x.dtype
    if out is None:
        fresh = empty_like(problem.x)
        result = fill(problem, fresh)
        return (fresh if layout.is_rows else restored(fresh, layout)[()]), result  # of a scalar, a scalar
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is a {type(out).__name__}; allowed: a NumPy array")
    if out.shape != layout.shape:
        raise ValueError(f"out has shape {out.shape}; allowed: the logits' shape {layout.shape}")
    if out.dtype != dtype and out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out has dtype {out.dtype}; allowed: {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; allowed: an array that can be written to")
    rows = rows_as(problem.x, out, layout)
    shared = rows is out or np.may_share_memory(memory_of(rows), out)
    direct = out.dtype.isnative and shared and not _overlaps(memory_of(rows), problem)
    target = rows if direct else empty_like(problem.x)
    result = fill(problem, target)
    if not direct:
        out[...] = restored(target, layout)
    return out, result


def _overlaps(rows: NDArray[Any], problem: Problem) -> bool:
    """Return whether writing these rows one after another could change an input that is read later."""
    x = memory_of(problem.x)
    if rows is not x and np.may_share_memory(rows, x) and not _same(rows, x):
        return True
    others = (problem.y, problem.q, problem.w, problem.s, problem.where, problem.tau)
    return any(other is not None and np.may_share_memory(rows, memory_of(other)) for other in others)


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays of one shape and type have the same memory in the same order."""
    return one.strides == other.strides and one.ctypes.data == other.ctypes.data


def reduce(
    problem: Problem,
    layout: Layout,
    losses: NDArray[np.float64],
    dtype: np.dtype[Any] | None = None,
    *,
    again: Callable[[Problem], NDArray[np.float64]] | None = None,
    total: Callable[[NDArray[np.float64]], float] | None = None,
) -> Any:
    """Return the losses after the objective's reduction; ``dtype`` None means the type of losses of the logits.

    With ``again``, the function that computed the losses, a mean is finite also where a row's loss alone overflows. The
    problem must still have its logits. ``total`` returns a sum; None means the kernels' function.
    """
    dtype = loss_dtype(problem.x.dtype) if dtype is None else dtype
    reduction = problem.objective.reduction
    if reduction == "none":
        return narrowed(losses, dtype).reshape(layout.row_shape)[()]
    value = losses.item() if losses.size == 1 else (total or kernels().total)(losses)
    if reduction == "mean":
        value = value / problem.divisor if problem.divisor > 0 else math.nan
        if math.isinf(value):
            value = _mean(problem, losses, again, total or kernels().total)
    if -_SAFE < value < _SAFE:
        return dtype.type(value)
    return narrowed(np.float64(value), dtype)


def _mean(
    problem: Problem,
    losses: NDArray[np.float64],
    again: Callable[[Problem], NDArray[np.float64]] | None,
    total: Callable[[NDArray[np.float64]], float],
) -> float:
    """Return Σ (loss/D), for losses whose sum overflows."""
    parts = losses / problem.divisor
    if again is not None:
        overflowed = np.flatnonzero(np.isinf(losses))
        for block in blocks((len(overflowed), problem.x.shape[1])):
            rows = overflowed[block]
            part = problem.take(rows, problem.x[rows])
            shares = np.full(len(rows), 1 / problem.divisor) if part.s is None else part.s / problem.divisor
            parts[rows] = again(replace(part, s=shares))
    return float(total(parts))


def narrowed(values: Any, dtype: np.dtype[Any]) -> Any:
    """Return float64 values in another type; values that overflow in it are inf."""
    if values.dtype == dtype:
        return values
    with np.errstate(all="ignore"):  # takes 1 µs, so that callers avoid it for a number that does not overflow
        return values.astype(dtype)
