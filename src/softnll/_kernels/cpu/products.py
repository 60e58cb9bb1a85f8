"""Products of the Jacobians of softmax and log_softmax with an upstream gradient: which kernel, on how many threads."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll._kernels.cpu import scalar_interface
from softnll._kernels.cpu.load import compiled
from softnll._kernels.cpu.memory import LEFT_BLOCK, TURNED_BLOCK, past_caches
from softnll._kernels.cpu.parameters import entries_of
from softnll._kernels.cpu.signature import BOOLEAN, INTP, NONE, array, output
from softnll._kernels.cpu.threads import for_rows
from softnll._kernels.cpu.turned import plane, turn_back, turned

_LEAST_ROWS = 512  # of few classes, which are turned into planes

Matrix = Any  # (N, C) rows, each in one piece, or Planes


@cache
def _kernel(dtype: np.dtype[Any], strided: bool, log: bool, logits: bool) -> Any:
    """Return a kernel for one type of logits, compiled at first use."""
    entries, axes = entries_of(dtype), 3 if strided else 2
    return compiled(
        "product_by_plane.products" if strided else "product_by_row.products",
        INTP,
        saved=array(entries.element, axes),
        logits=BOOLEAN if logits else NONE,
        log=BOOLEAN if log else NONE,
        upstream=array(entries.element, axes),
        out=output(entries.element, axes),
        streamed=BOOLEAN,
        work=output(entries.computed, 1),
        first=INTP,
        last=INTP,
        left=output("int64", 1),
    )


def turns(n_rows: int, n_columns: int, itemsize: int) -> bool:
    """Return whether rows are turned into planes, which takes less time for few classes (docs/log.md, 2026-11-30)."""
    return n_rows >= _LEAST_ROWS and n_columns <= (32 if itemsize == 2 else 8)


def product(saved: Matrix, upstream: Matrix, out: Matrix, *, log: bool, logits: bool) -> None:
    """Write p⊙(v − ⟨p, v⟩) or, with ``log``, v − p·Σv, for an upstream gradient v.

    ``saved`` has the results of softmax or log_softmax or, with ``logits``, their logits. All three matrices are of one
    type and, like ``upstream``, either rows in one piece each or Planes; half types need the logits. Rows of few
    classes are turned into planes, a block at a time.
    """
    n_rows, n_columns = saved.shape
    if not isinstance(saved, Planes) and turns(n_rows, n_columns, saved.dtype.itemsize):

        def turn(first: int, last: int) -> None:
            for block in blocks((last - first, n_columns), TURNED_BLOCK):
                here = slice(first + block.start, first + block.stop)
                x, v = (turned(each[here], each.dtype) for each in (saved, upstream))
                written = plane(x.shape, out.dtype)
                _compute(x, v, written, (0, len(x)), log=log, logits=logits, streamed=False)
                turn_back(written, out[here])

        for_rows(n_rows, n_columns, turn)
        return
    streamed = past_caches(out.array if isinstance(out, Planes) else out)

    def compute(first: int, last: int) -> None:
        _compute(saved, upstream, out, (first, last), log=log, logits=logits, streamed=streamed)

    for_rows(n_rows, n_columns, compute)


def _compute(
    saved: Matrix, upstream: Matrix, out: Matrix, rows: tuple[int, int], *, log: bool, logits: bool, streamed: bool
) -> None:
    """Write the product for a range of rows."""
    strided = isinstance(saved, Planes)
    kernel = _kernel(saved.dtype, strided, log, logits)
    view, work = entries_of(saved.dtype).view, entries_of(saved.dtype).work
    s, v, o = (view(each.array if strided else each) for each in (saved, upstream, out))
    left = np.empty(rows[1] - rows[0], np.int64)
    n_left = kernel(s, True if logits else None, True if log else None, v, o, streamed, work, *rows, left)
    if n_left:
        for block in blocks((n_left, saved.shape[1]), LEFT_BLOCK):
            here = left[:n_left][block]
            out[here] = _of_rows(saved[here], upstream[here], log)


def _of_rows(x: NDArray[Any], upstream: NDArray[Any], log: bool) -> NDArray[Any]:
    """Return products for rows of logits of a half type, by the scalar kernels' results."""
    x, v = x.astype(np.float32), upstream.astype(np.float32)
    result = np.empty_like(x)
    (scalar_interface.log_softmax if log else scalar_interface.softmax)(Problem(x), result)
    with np.errstate(all="ignore"):
        if log:
            value = -v * np.expm1(result) - np.exp(result) * (v.sum(1, keepdims=True) - v)
        else:
            apart = v - np.take_along_axis(v, result.argmax(1)[:, None], 1)
            value = result * (apart - (result * apart).sum(1, keepdims=True))
        return value.astype(upstream.dtype)
