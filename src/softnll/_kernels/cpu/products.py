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
from softnll._kernels.cpu.memory import LEFT_BLOCK, past_caches
from softnll._kernels.cpu.parameters import entries_of
from softnll._kernels.cpu.signature import BOOLEAN, INTP, NONE, array, output
from softnll._kernels.cpu.threads import for_rows

__all__ = ["product"]

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


def product(saved: Matrix, upstream: Matrix, out: Matrix, *, log: bool, logits: bool) -> None:
    """Write p⊙(v − ⟨p, v⟩) or, with ``log``, v − p·Σv, for an upstream gradient v.

    ``saved`` has the results of softmax or log_softmax or, with ``logits``, their logits. All three matrices are of one
    type and, like ``upstream``, either rows in one piece each or Planes; half types need the logits.
    """
    strided = isinstance(saved, Planes)
    kernel = _kernel(saved.dtype, strided, log, logits)
    view, work = entries_of(saved.dtype).view, entries_of(saved.dtype).work
    s, v, o = (view(each.array if strided else each) for each in (saved, upstream, out))
    streamed = past_caches(o)
    of_logits, of_log = True if logits else None, True if log else None

    def compute(first: int, last: int) -> None:
        left = np.empty(last - first, np.int64)
        n_left = kernel(s, of_logits, of_log, v, o, streamed, work, first, last, left)
        if n_left:
            for block in blocks((n_left, saved.shape[1]), LEFT_BLOCK):
                here = left[:n_left][block]
                out[here] = _of_rows(saved[here], upstream[here], log)

    n_rows, n_columns = saved.shape
    for_rows(n_rows, n_columns, compute)


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
