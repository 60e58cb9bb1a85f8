"""Targets and row weights of a batch of planes' rows, and what becomes of rows that take no part.

The notes are those of ``tile.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.plane import write
from softnll._kernels.cpu.row_memory import among, if_given, lanes_of, nearest
from softnll._kernels.cpu.simd import load_scalar, size_of, splat, store_scalar, zero
from softnll._kernels.cpu.tile import E_Y, NOTES, PART, WEIGHT, X_Y, M, R, column_bytes
from softnll._kernels.cpu.tile_targets import note_parts

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
MASS, MASS_LOST, FAR, FAR_LOST = (NOTES + 512 * each for each in range(4))
COLUMNS = NOTES + 512 * 4  # of the tiles, after the notes


@if_given(lambda _array, kind: kind)
def dtype_if(array: Any, kind: Any) -> Any:
    """Return an array's dtype; ``kind`` if it is None."""
    return array.dtype


@register_jitable
def idle(s: Array, start: int, count: int) -> bool:
    """Return whether no row of a batch takes part."""
    i = start
    while i < start + count and s.shape[0] > 0 and s[i] == 0.0:
        i += 1
    return i == start + count


@register_jitable
def write_idle(
    start: int, count: int, n: int, loss: Array, ms: Array, rs: Array, out: int, step: int, element: Any, graded: bool
) -> None:
    """Write the results of rows that take no part: r = −1, m = −∞, loss 0, gradient 0."""
    for i in range(start, start + count):
        rs[i] = -1.0
        ms[i] = -np.inf
        loss[i] = 0.0
    if graded:
        lanes, size = lanes_of(element), size_of(element)
        nothing = splat(zero(element))
        for k in range(n):
            for i in range(0, count, lanes):
                write(out + k * step + i * size, count - i, nothing, element)


@register_jitable
def note_hard(
    y: Array,
    w: Array,
    s: Array,
    start: int,
    count: int,
    full: int,
    p: int,
    stride: int,
    n: int,
    element: Any,
    es: Any,
    work: Any,
    notes: int,
) -> Any:
    """Store weight, logit and, unless ``es`` is None, exponential of each row's target; return as ``note_parts``."""
    lanes, size, wide = lanes_of(work), size_of(element), size_of(work)
    for i in range(count):  # without branches: which rows take part is often as good as random
        given = y[start + i]
        known, c = among(given, n), nearest(given, n)
        x_y, weight = _f8(load_scalar(p + i * size + c * stride, element)), w[c] if w.shape[0] > 0 else 1.0
        store_scalar(notes + X_Y + 8 * i, x_y, _f8)
        store_scalar(notes + WEIGHT + 8 * i, weight if known else np.nan, _f8)
        if es is not None:
            place = es + i // lanes * column_bytes(n) + 64 * c + wide * (i % lanes)
            store_scalar(notes + E_Y + 8 * i, _f8(load_scalar(place, work)), _f8)
    return note_parts(s, start, count, full, es, notes)


@register_jitable
def note_weights(y: Array, s: Array, start: int, count: int, full: int, n: int, notes: int) -> bool:
    """Store each row's weight, NaN if its hard target is no class; return whether all rows take part."""
    for i in range(count):
        known = y.shape[0] == 0 or among(y[start + i], n)
        store_scalar(notes + WEIGHT + 8 * i, 1.0 if known else np.nan, _f8)
    _, whole = note_parts(s, start, count, full, None, notes)
    return whole


@register_jitable
def put_results(start: int, i: int, result: int, notes: int, loss: Array, ms: Array, rs: Array) -> None:
    """Write r, m and the loss of the i-th row of a batch, in this order: they may be one array.

    ``result`` is the address of the batch's losses.
    """
    if load_scalar(notes + PART + 8 * i, _f8) == 0.0:
        rs[start + i] = -1.0
        ms[start + i] = -np.inf
        loss[start + i] = 0.0
        return
    rs[start + i] = load_scalar(notes + R + 8 * i, _f8)
    ms[start + i] = load_scalar(notes + M + 8 * i, _f8)
    loss[start + i] = load_scalar(result + 8 * i, _f8)
