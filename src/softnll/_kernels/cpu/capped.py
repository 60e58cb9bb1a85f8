"""Losses of logits with a soft cap: a block at a time, other kernels compute those of the capped logits in float64.

The gradient by the logits is that by the capped ones times the slope of the cap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.options import CrossEntropy
from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll._kernels.cpu import strided
from softnll._kernels.cpu.execute import Computation, RowValues, in_one_piece, packed_rows, served, soft_type
from softnll._kernels.cpu.load import compiled
from softnll._kernels.cpu.parameters import CAPPED_BLOCK, entries_of
from softnll._kernels.cpu.signature import FLOAT64, NONE, VOID, array, output
from softnll._kernels.cpu.threads import for_rows

DType = np.dtype[Any]

_MOST = 1e250  # a row's factor up to which gradients are multiplied by the soft cap's slope afterwards


@cache
def caps(dtype: DType, *, keeps: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return what caps logits, and what makes gradients by them of those by the capped ones: with slopes, or None."""
    entries = entries_of(dtype)
    x, out = array(entries.element, 2), output(entries.element, 2)
    slopes, kept = (output("float64", 2), array("float64", 2)) if keeps else (NONE, NONE)
    cap = compiled("softcap.cap_rows", VOID, x=x, softcap=FLOAT64, u=output("float64", 2), slopes=slopes)
    uncap = compiled("softcap.uncap_rows", VOID, x=x, softcap=FLOAT64, g=array("float64", 2), slopes=kept, out=out)
    if entries.bits is None:
        return cap, uncap
    return (
        lambda x, softcap, u, slopes: cap(entries.view(x), softcap, u, slopes),
        lambda x, softcap, g, slopes, out: uncap(entries.view(x), softcap, g, slopes, entries.view(out)),
    )


def _keeps(problem: Problem, out: Any) -> bool:
    """Whether the slopes of the cap are kept for the gradient: for those of type float64 they have too few digits."""
    return out is not None and problem.x.dtype != np.float64


def serves(problem: Problem) -> bool:
    """Whether there is a soft cap, and vector kernels for all of the problem.

    The slope is multiplied by gradients that must not overflow before: then the scalar kernels compute all of it.
    """
    if problem.objective.softcap is None or not served(problem):
        return False
    s, w, tau = problem.s, problem.w, problem.tau
    with np.errstate(all="ignore"):
        largest = 1.0 if s is None or s.size == 0 else np.abs(s).max()
        largest = largest if w is None else largest * np.abs(w).max()
        least = problem.objective.temperature if tau is None or tau.size == 0 else tau.min()
        return not largest / least > _MOST * max(problem.divisor, 1 / _MOST)


@lru_cache(maxsize=64)
def _objective(objective: CrossEntropy) -> CrossEntropy:
    """Return the options without the soft cap."""
    return replace(objective, softcap=None)


def without_cap(problem: Problem) -> Problem:
    """Return the problem of the capped logits: without a cap, of type float64, and without rows so far."""
    return replace(problem, x=np.empty((0, problem.x.shape[1])), objective=_objective(problem.objective))


def run(
    computation: Computation, problem: Problem, uncapped: Problem, out: NDArray[Any] | None, values: RowValues
) -> None:
    """Run a computation, that of ``uncapped``, on rows."""
    n_rows, n_columns = problem.x.shape
    softcap = problem.objective.softcap
    keeps = _keeps(problem, out)
    cap, uncap = caps(problem.x.dtype, keeps=keeps)
    packs = problem.q is not None or problem.where is not None
    whole = in_one_piece(problem.x) and (out is None or in_one_piece(out))

    def work(first: int, last: int) -> None:
        for block in blocks((last - first, n_columns), CAPPED_BLOCK):
            here = slice(first + block.start, first + block.stop)
            x = problem.x[here] if whole else np.ascontiguousarray(problem.x[here])
            u, slopes = np.empty(x.shape), np.empty(x.shape) if keeps else None
            cap(x, softcap, u, slopes)
            part = uncapped.take(here, u)
            packed = packed_rows(part) if packs else part
            computation.of_rows(packed, None if out is None else u, values.take(here))
            if out is not None:
                written = out[here] if whole else np.empty(x.shape, out.dtype)
                uncap(x, softcap, u, slopes, written)
                if not whole:
                    out[here] = written
            del u, slopes, part, packed  # before the next block's

    for_rows(n_rows, n_columns, work)


def run_planes(problem: Problem, out: Planes | None, values: RowValues) -> None:
    """Write loss, m and r of each row of planes and, with ``out``, the gradient."""
    inner, n_columns = problem.x.array.shape[2], problem.x.shape[1]
    softcap, step = problem.objective.softcap, max(1, CAPPED_BLOCK // n_columns)
    keeps = _keeps(problem, out)
    cap, uncap = caps(problem.x.dtype, keeps=keeps)
    uncapped = without_cap(problem)
    computation = strided.computation_of(uncapped, written=out is not None)

    def work(first: int, last: int) -> None:
        while first < last:
            here = slice(first, min(last, first + step, (first // inner + 1) * inner))  # of one plane: views
            x = problem.x[here].T
            u, slopes = np.empty(x.shape), np.empty(x.shape) if keeps else None
            cap(x, softcap, u, slopes)
            part = uncapped.take(here, Planes(u[None]))
            packed = None
            if problem.q is not None:
                packed = part.with_rows(part.x, Planes(np.ascontiguousarray(part.q.T, soft_type(uncapped))[None]))
            computation.of_rows(part, None if out is None else part.x, values.take(here), packed=packed)
            if out is not None:
                uncap(x, softcap, u, slopes, out[here].T)
            del u, slopes, part, packed  # before the next block's
            first = here.stop

    for_rows(len(problem.x), n_columns, work)
