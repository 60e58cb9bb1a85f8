"""Tiles of planes: 16 rows (float64: 8) that lie side by side, so that a vector is one class of all of them.

A tile is copied to scratch as its columns, as ``tile.py`` has them, without being turned, and written back the same
way. Classes that are a power of two apart share a few places of the cache, so that no line stays there for long: each
is read once, four tiles at a time where there are as many, since memory is faster with neighbouring lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.row_memory import address_of, lanes_of
from softnll._kernels.cpu.simd import (
    load,
    load_part,
    load_scalar,
    maximum,
    prefetch,
    rounded,
    size_of,
    splat,
    store,
    store_doubles,
    store_part,
    store_scalar,
    zero,
)
from softnll._kernels.cpu.tile import MOST_TILES, M, column_bytes

Array = Any  # inside Numba, whose types are its own
CACHED = 8192  # vectors of scratch that stay in the nearer caches
FOUR = 4  # tiles that are read and written together
AHEAD = 3  # classes ahead that are prefetched


@register_jitable
def tiles_in_cache(n: int) -> int:
    """Return how many tiles of n classes are computed together."""
    return MOST_TILES if n * MOST_TILES <= CACHED else 1


@register_jitable
def rows_from(start: int, last: int, inner: int, most: int) -> int:
    """Return how many rows from ``start`` on, at most ``most``, lie side by side."""
    return min(most, inner - start % inner, last - start)


@register_jitable
def address_at(x: Array, i: int) -> int:
    """Return the address of the first class of row i."""
    inner = x.shape[2]
    return address_of(x) + i // inner * x.strides[0] + i % inner * x.strides[2]


@register_jitable
def read(p: int, count: int, element: Any) -> Any:
    """Return a vector of ``count`` rows; the lanes beyond are 0."""
    if count >= lanes_of(element):
        return load(p, element)
    return load_part(p, count, zero(element), element)


@register_jitable
def write(p: int, count: int, v: Any, element: Any) -> None:
    """Write ``count`` lanes of a vector."""
    if count >= lanes_of(element):
        store(p, v, element)
    else:
        store_part(p, count, v, element)


@register_jitable
def lift(p: int, stride: int, count: int, n: int, element: Any, work: Any, xs: int) -> Any:
    """Write the columns of a tile to scratch; return each row's largest entry, NaN ignored."""
    m = splat(rounded(-np.inf, element))
    other = m
    k = 0
    if count >= lanes_of(element):
        while k + 2 <= n:
            v, u = load(p + k * stride, element), load(p + (k + 1) * stride, element)
            store(xs + 64 * k, v, work)
            store(xs + 64 * (k + 1), u, work)
            m, other = maximum(v, m), maximum(u, other)
            k += 2
    while k < n:
        v = read(p + k * stride, count, element)
        store(xs + 64 * k, v, work)
        m = maximum(v, m)
        k += 1
    return maximum(other, m)


@register_jitable
def prefetch_four(p: int, stride: int, k: int, n: int, soon: int, size: int) -> None:
    """Prefetch four tiles' entries of the class that comes AHEAD classes after k, which may be in the next batch."""
    at = p + (k + AHEAD) * stride if k + AHEAD < n else soon + (k + AHEAD - n) * stride
    prefetch(at)
    prefetch(at + size)
    prefetch(at + 2 * size)
    prefetch(at + 3 * size)


@register_jitable
def lift_four(p: int, stride: int, n: int, element: Any, work: Any, xs: int, apart: int, soon: int) -> Any:
    """Do the same for four whole tiles, whose scratch is ``apart`` bytes apart; ``soon`` is where the next begin."""
    m0 = splat(rounded(-np.inf, element))
    m1, m2, m3 = m0, m0, m0
    size = size_of(element) * lanes_of(element)
    for k in range(n):
        at, to = p + k * stride, xs + 64 * k
        prefetch_four(p, stride, k, n, soon, size)
        v0, v1 = load(at, element), load(at + size, element)
        v2, v3 = load(at + 2 * size, element), load(at + 3 * size, element)
        store(to, v0, work)
        store(to + apart, v1, work)
        store(to + 2 * apart, v2, work)
        store(to + 3 * apart, v3, work)
        m0, m1, m2, m3 = maximum(v0, m0), maximum(v1, m1), maximum(v2, m2), maximum(v3, m3)
    return m0, m1, m2, m3


@register_jitable
def lift_batch(
    p: int, stride: int, count: int, n: int, element: Any, work: Any, xs: int, notes: int, soon: int
) -> None:
    """Write the columns of a batch's tiles to scratch; store each row's largest entry as ``M``."""
    lanes, columns = lanes_of(element), column_bytes(n)
    if count == lanes * FOUR:
        m0, m1, m2, m3 = lift_four(p, stride, n, element, work, xs, columns, soon)
        store_doubles(notes + M, m0)
        store_doubles(notes + M + 8 * lanes, m1)
        store_doubles(notes + M + 16 * lanes, m2)
        store_doubles(notes + M + 24 * lanes, m3)
        return
    for t in range(-(-count // lanes)):
        at = p + lanes * size_of(element) * t
        m = lift(at, stride, count - lanes * t, n, element, work, xs + t * columns)
        store_doubles(notes + M + 8 * lanes * t, m)


@register_jitable
def place_rows(xs: int, i: int, n: int, work: Any, out: int, stride: int, element: Any) -> None:
    """Write the i-th row of a tile alone."""
    for k in range(n):
        value = load_scalar(xs + 64 * k + i * size_of(work), work)
        store_scalar(out + k * stride + i * size_of(element), value, element)
