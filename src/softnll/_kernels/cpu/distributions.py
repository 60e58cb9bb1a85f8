"""Whether rows of soft targets are distributions: no entry below 0, and a sum, in float64, near enough to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.plane import address_at, read, rows_from
from softnll._kernels.cpu.row_memory import address_of, aligned, lanes_of
from softnll._kernels.cpu.simd import (
    add_doubles,
    align_stack,
    equal,
    every,
    hold,
    load,
    load_scalar,
    minimum,
    reduce_sum,
    size_of,
    splat,
    store,
    zero,
)

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
_SUMS, _LOST = 128, 128  # bytes of a vector's sums in float64, and of what their additions lose


@register_jitable
def clear(t: int) -> None:
    """Set the sums, and what they lost, to 0."""
    for h in range(0, 2 * (_SUMS + _LOST), 64):
        store(t + h, splat(0.0), _f8)


@register_jitable
def sums_at(t: int, h: int) -> Any:
    """Return eight of the sums."""
    even = load(t + h, _f8) + load(t + _SUMS + h, _f8)
    other = t + _SUMS + _LOST
    return even + (load(other + h, _f8) + load(other + _SUMS + h, _f8))


def of_rows(q: Array, tolerance: float, work: Array, first: int, last: int) -> int:
    """Return how many rows are not certainly distributions; each row lies in one piece."""
    align_stack()
    n, element, kind = q.shape[1], q.dtype, work.dtype
    lanes, size = lanes_of(element), size_of(element)
    scratch = np.empty(_SUMS + _LOST + 128, _f8)
    t = aligned(scratch)
    other = t + _SUMS + _LOST
    nothing, count = splat(zero(kind)), 0
    for i in range(first, last):
        p = address_of(q) + i * q.strides[0]
        clear(t)
        least, k = nothing, 0
        while k + 2 * lanes <= n:
            v, u = load(p + k * size, element), load(p + (k + lanes) * size, element)
            least = minimum(minimum(v, u), least)
            add_doubles(t, t + _SUMS, v)
            add_doubles(other, other + _SUMS, u)
            k += 2 * lanes
        while k < n:
            v = read(p + k * size, n - k, element)
            least = minimum(v, least)
            add_doubles(t, t + _SUMS, v)
            k += lanes
        apart = reduce_sum(sums_at(t, 0)) + reduce_sum(sums_at(t, 64)) - 1.0
        count += 0 if every(equal(least, nothing)) and abs(apart) <= tolerance else 1  # a NaN is in the sum
    hold(scratch)
    return count


def of_planes(q: Array, tolerance: float, work: Array, first: int, last: int) -> int:
    """Return how many rows of planes are not certainly distributions."""
    align_stack()
    n, stride, element, kind = q.shape[1], q.strides[1], q.dtype, work.dtype
    lanes = lanes_of(element)
    scratch = np.empty(_SUMS + _LOST + 128, _f8)
    t = aligned(scratch)
    nothing, found, start = splat(zero(kind)), 0, first
    while start < last:
        count = rows_from(start, last, q.shape[2], lanes)
        p = address_at(q, start)
        clear(t)
        least = nothing
        for k in range(n):
            v = read(p + k * stride, count, element)
            least = minimum(v, least)
            add_doubles(t, t + _SUMS, v)
        for i in range(count):
            apart = load_scalar(t + 8 * i, _f8) + load_scalar(t + _SUMS + 8 * i, _f8) - 1.0
            found += 0 if abs(apart) <= tolerance else 1
        found += 0 if every(equal(least, nothing)) else 1
        start += count
    hold(scratch)
    return found
