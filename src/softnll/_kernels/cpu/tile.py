"""A tile of 16 rows (float64: 8): turned, so that a vector holds one class of all of them, swept, and turned back.

Every step of ``sweep.py`` is then one of vectors, and nothing is summed across lanes. A row's arithmetic depends
neither on its lane nor on its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.elementary import power, references
from softnll._kernels.cpu.exact import TINY, remainder, two_sum
from softnll._kernels.cpu.row_memory import lanes_of
from softnll._kernels.cpu.simd import (
    add_doubles,
    align_stack,
    both,
    copy,
    every,
    less,
    load,
    load_columns,
    load_doubles,
    load_scalar,
    maximum,
    minimum,
    prefetch,
    rounded,
    select,
    size_of,
    splat,
    store,
    store_columns,
    store_doubles,
    zero,
)
from softnll._kernels.cpu.sweep import GROUP, ordinary, product

_f8 = np.float64
AHEAD = 1  # tiles ahead that are prefetched, a cache line for each class

# Offsets, in bytes, of the notes of up to 64 rows (a batch of tiles): one float64 a row of each.
MOST_TILES = 4
M, BIG, REST, LOST, X_Y, E_Y, WEIGHT, RESULT, FACTOR, LOW, PART = (512 * each for each in range(11))
NOTES = 512 * 11
R = LOST  # after `settle`


@register_jitable
def tiles_of(n: int, graded: bool) -> int:
    """Return how many tiles are computed together, so that the latency of one is hidden behind the others."""
    return MOST_TILES if n <= 16 or not graded else 2 if n <= 32 else 1


@register_jitable
def column_bytes(n: int) -> int:
    """Return the size of a tile's columns in bytes, whole blocks of eight beyond the last included."""
    return 64 * (n + 8)


@register_jitable
def scratch_bytes(n: int, tiles: int) -> int:
    """Return the size in bytes of a batch's scratch: notes, one tile turned, exponentials, and rows turned back."""
    return NOTES + (1 + 2 * tiles) * column_bytes(n) + 128


@register_jitable
def turn(p: int, stride: int, count: int, n: int, element: Any, work: Any, xs: int) -> Any:
    """Write the columns of a tile to scratch; return each row's largest entry, NaN ignored."""
    size = size_of(element)
    fill = rounded(-np.inf, element)
    m = splat(fill)
    k = 0
    while k < n:
        if k + 8 > n >= 8:
            k = n - 8  # the last eight: some are loaded twice, which changes nothing
        columns = load_columns(p + k * size, stride, count, n - k, fill, element)
        for j in range(8):
            store(xs + 64 * (k + j), columns[j], work)
        k += 8
    for k in range(n):
        m = maximum(load(xs + 64 * k, work), m)
    return m


@register_jitable
def tournaments(
    xs: int,
    n: int,
    m: Any,
    work: Any,
    es: Any,
    notes: int,
    soon: Any,
    step: int,
    out: Any,
    beta: Any,
    beta_low: Any,
) -> None:
    """Store m, largest exponential and rest of each row of a tile; write the exponentials to es, unless it is None.

    ``beta + beta_low`` is 1/τ of all rows, or both are None.

    Prefetch what is read next (``soon``) and where results are written (``out``), every ``step`` bytes, unless None.
    """
    align_stack()
    c, magic, cut = references(m, beta)
    store_doubles(notes + M, m)
    nothing = splat(zero(work))
    store_doubles(notes + REST, nothing)
    store_doubles(notes + LOST, nothing)
    big = nothing
    k = 0
    while k + GROUP <= n:
        rest = nothing
        for j in range(0, GROUP, 2):  # in pairs: a sum of eight then rounds five times, not eight
            if soon is not None:
                prefetch(soon + step * (k + j))
                prefetch(soon + step * (k + j + 1))
            if out is not None:
                prefetch(out + step * (k + j))
                prefetch(out + step * (k + j + 1))
            e = power(load(xs + 64 * (k + j), work), c, magic, cut, beta, beta_low)
            f = power(load(xs + 64 * (k + j + 1), work), c, magic, cut, beta, beta_low)
            if es is not None:
                store(es + 64 * (k + j), e, work)
                store(es + 64 * (k + j + 1), f, work)
            losers = minimum(e, big)
            big = maximum(big, e)
            rest = rest + (losers + minimum(f, big))
            big = maximum(big, f)
        add_doubles(notes + REST, notes + LOST, rest)
        k += GROUP
    rest = nothing
    other = nothing
    while k < n:
        e = power(load(xs + 64 * k, work), c, magic, cut, beta, beta_low)
        if es is not None:
            store(es + 64 * k, e, work)
        rest, other = other, rest + minimum(e, big)
        big = maximum(big, e)
        k += 1
    add_doubles(notes + REST, notes + LOST, rest + other)
    store_doubles(notes + BIG, big)


@register_jitable
def upcoming(p: int, tile: int, n: int) -> Any:
    """Return the address of the tile that comes AHEAD tiles later, and the bytes between its prefetched lines."""
    return p + AHEAD * tile, tile // n


@register_jitable
def settle(notes: int, n_rows: int) -> bool:
    """Add to the rests what their additions lost, and store r; return whether the vector kernels serve all rows.

    They do not serve a NaN, an infinite largest entry, or a rest that has lost digits to subnormals.
    """
    fine = True
    infinite, nothing = splat(np.inf), splat(0.0)
    for h in range(0, 8 * n_rows, 64):
        m, big = load(notes + M + h, _f8), load(notes + BIG + h, _f8)
        rest = load(notes + REST + h, _f8) + load(notes + LOST + h, _f8)
        store(notes + REST + h, rest, _f8)
        store(notes + R + h, rest / big, _f8)
        finite = both(less(maximum(m, 0.0 - m), infinite), both(less(nothing, big), less(rest, infinite)))
        digits = less(big * TINY, select(less(nothing, rest), rest, big))
        fine = fine and every(both(finite, digits))
    return fine


@register_jitable
def served(notes: int, i: int) -> bool:
    """Whether the vector kernels serve one row of a batch."""
    m, big = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + BIG + 8 * i, _f8)
    rest = load_scalar(notes + REST + 8 * i, _f8)
    return ordinary(m, big, rest)


@register_jitable
def note_factor(notes: int, h: int, value: Any, big: Any, rest: Any, lost: Any) -> None:
    """Store value / (big + rest + lost) of eight rows, and what its rounding lost."""
    divisor, error = two_sum(big, rest)
    inverse = 1.0 / divisor
    quotient = value * inverse
    store(notes + FACTOR + h, quotient, _f8)
    store(notes + LOW + h, (remainder(value, quotient, divisor) - quotient * (error + lost)) * inverse, _f8)


@register_jitable
def factors(notes: int, work: Any) -> Any:
    """Return the factors of a tile's rows in two parts, as vectors of the compute type."""
    high, low = load_doubles(notes + FACTOR, work), load_doubles(notes + LOW, work)
    if lanes_of(work) == 16:  # the low part is what float32 cannot hold
        store_doubles(notes + RESULT, high)
        for h in (0, 64):
            store(notes + RESULT + h, load(notes + FACTOR + h, _f8) - load(notes + RESULT + h, _f8), _f8)
        low = load_doubles(notes + RESULT, work)
    return high, low


@register_jitable
def scale_columns(es: int, n: int, work: Any, notes: int) -> None:
    """Multiply a tile's exponentials by its rows' factors."""
    high, low = factors(notes, work)
    for k in range(n):
        store(es + 64 * k, product(load(es + 64 * k, work), high, low), work)


@register_jitable
def turn_back(es: int, n: int, element: Any, work: Any, rows: int) -> None:
    """Write columns as rows without gaps. The last eight come first: what they write beyond the row is overwritten."""
    size = size_of(element)
    k = (n - 1) // 8 * 8
    while k >= 0:
        v0, v1, v2, v3 = (
            load(es + 64 * k, work),
            load(es + 64 * k + 64, work),
            load(es + 64 * k + 128, work),
            load(es + 64 * k + 192, work),
        )
        v4, v5, v6, v7 = (
            load(es + 64 * k + 256, work),
            load(es + 64 * k + 320, work),
            load(es + 64 * k + 384, work),
            load(es + 64 * k + 448, work),
        )
        store_columns(rows + k * size, n * size, (v0, v1, v2, v3, v4, v5, v6, v7), element)
        k -= 8


@register_jitable
def copy_rows(rows: int, count: int, width: int, out: int, stride: int) -> None:
    """Copy rows of so many bytes to the output."""
    if stride == width:
        copy(out, rows, count * width)
        return
    for i in range(count):
        copy(out + i * stride, rows + i * width, width)
