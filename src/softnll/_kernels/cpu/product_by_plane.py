"""Products of the Jacobians of softmax and log_softmax with an upstream gradient, of planes (``plane.py``).

The formulas are those of ``product_by_row.py``; a vector is one class of as many rows as it has lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.by_plane import finish
from softnll._kernels.cpu.logarithm import log_rest
from softnll._kernels.cpu.plane import (
    FOUR,
    address_at,
    lift,
    lift_four,
    prefetch_four,
    read,
    rows_from,
    tiles_in_cache,
    write,
)
from softnll._kernels.cpu.product_by_row import entry
from softnll._kernels.cpu.row_memory import aligned, lanes_of
from softnll._kernels.cpu.simd import (
    add_doubles,
    align_stack,
    equal,
    hold,
    less,
    load,
    load_doubles,
    maximum,
    mul_add,
    select,
    size_of,
    splat,
    store,
    store_doubles,
    zero,
)
from softnll._kernels.cpu.sweep import GROUP
from softnll._kernels.cpu.tile import (
    BIG,
    FACTOR,
    LOST,
    NOTES,
    REST,
    RESULT,
    R,
    column_bytes,
    note_factor,
    served,
    settle,
    tournaments,
)

__all__ = ["products"]

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64


@register_jitable
def normalised(x: Array, i: int, count: int, log: Any, work: Any, notes: int, xs: int) -> bool:
    """Write (log-)probabilities of a tile of logits to scratch at xs; return whether the arithmetic serves all rows."""
    n = x.shape[1]
    element = x.dtype
    lanes = lanes_of(element)
    p = address_at(x, i)
    m = lift(p, x.strides[1], count, n, element, work, xs)
    soon, step = p + lanes * size_of(element), x.strides[1]
    if log is None:
        tournaments(xs, n, m, work, xs, notes, soon, step, None)
    else:
        tournaments(xs, n, m, work, None, notes, soon, step, None)
    fine = settle(notes, lanes)
    for h in range(0, 8 * lanes, 64):
        if log is None:
            note_factor(notes, h, splat(1.0), load(notes + BIG + h, _f8), load(notes + REST + h, _f8), splat(0.0))
        else:
            store(notes + FACTOR + h, log_rest(load(notes + R + h, _f8), work), _f8)
    if log is None:
        finish(xs, n, True, work, notes, xs, 64, lanes, work)
    else:
        finish(xs, n, None, work, notes, xs, 64, lanes, work)
    return fine


@register_jitable
def close(notes: int, work: Any) -> None:
    """Add to each row's sum what its additions lost."""
    for h in range(0, 8 * lanes_of(work), 64):
        store(notes + REST + h, load(notes + REST + h, _f8) + load(notes + LOST + h, _f8), _f8)


@register_jitable
def inner(ps: int, gs: int, n: int, top: Any, work: Any, notes: int, to: int) -> None:
    """Store two vectors of a tile's rows: v where p is largest, ``top``, and ⟨p, v − that⟩."""
    align_stack()
    nothing = splat(zero(work))
    there = nothing
    for k in range(n):
        there = select(equal(load(ps + 64 * k, work), top), load(gs + 64 * k, work), there)
    store_doubles(notes + REST, nothing)
    store_doubles(notes + LOST, nothing)
    k = 0
    while k + GROUP <= n:
        total = nothing
        for _ in range(GROUP // 2):
            at, up = ps + 64 * k, gs + 64 * k
            one = load(at, work) * (load(up, work) - there)
            total = total + mul_add(load(at + 64, work), load(up + 64, work) - there, one)
            k += 2
        add_doubles(notes + REST, notes + LOST, total)
    total = nothing
    other = nothing
    while k < n:
        total, other = other, mul_add(load(ps + 64 * k, work), load(gs + 64 * k, work) - there, total)
        k += 1
    add_doubles(notes + REST, notes + LOST, total + other)
    close(notes, work)
    store(to, there, work)
    store(to + 64, load_doubles(notes + REST, work), work)


@register_jitable
def summed(gs: int, n: int, work: Any, notes: int, to: int) -> None:
    """Store Σv of a tile's rows in two vectors, of which the second is what the first's rounding lost."""
    align_stack()
    nothing = splat(zero(work))
    store_doubles(notes + REST, nothing)
    store_doubles(notes + LOST, nothing)
    k = 0
    while k < n:
        stop = min(k + GROUP, n)
        total = nothing
        other = nothing
        while k < stop:
            total, other = other, total + load(gs + 64 * k, work)
            k += 1
        add_doubles(notes + REST, notes + LOST, total + other)
    close(notes, work)
    total = load_doubles(notes + REST, work)
    store_doubles(notes + BIG, total)
    for h in range(0, 8 * lanes_of(work), 64):
        above = load(notes + BIG + h, _f8)
        finite = less(maximum(above, 0.0 - above), splat(np.inf))
        store(notes + RESULT + h, select(finite, load(notes + REST + h, _f8) - above, splat(0.0)), _f8)
    store(to, total, work)
    store(to + 64, load_doubles(notes + RESULT, work), work)


@register_jitable
def write_tile(
    a: int, stride: int, count: int, n: int, element: Any, work: Any, log: Any, gs: int, to: int, out: int, step: int
) -> None:
    """Write the products of a tile: ``a`` has its (log-)probabilities, ``gs`` its upstream gradient."""
    align_stack()
    one, other = load(to, work), load(to + 64, work)
    for k in range(n):
        value = entry(log, read(a + k * stride, count, work), load(gs + 64 * k, work), one, other)
        write(out + k * step, count, value, element)


@register_jitable
def write_four(
    a: int, stride: int, beside: int, n: int, element: Any, work: Any, log: Any, gs: int, to: int, out: int, step: int
) -> None:
    """Do the same for four whole tiles; (log-)probabilities of one are ``beside`` bytes after those of the other."""
    align_stack()
    size, apart = size_of(element) * lanes_of(element), 2 * column_bytes(n)
    a0, b0, a1, b1 = load(to, work), load(to + 64, work), load(to + 128, work), load(to + 192, work)
    a2, b2, a3, b3 = load(to + 256, work), load(to + 320, work), load(to + 384, work), load(to + 448, work)
    for k in range(n):
        p, g, o = a + k * stride, gs + 64 * k, out + k * step
        prefetch_four(out, step, k, n, out + FOUR * size, size)
        if log is not None:
            prefetch_four(a, stride, k, n, a + FOUR * size, size)
        store(o, entry(log, load(p, work), load(g, work), a0, b0), element)
        store(o + size, entry(log, load(p + beside, work), load(g + apart, work), a1, b1), element)
        store(o + 2 * size, entry(log, load(p + 2 * beside, work), load(g + 2 * apart, work), a2, b2), element)
        store(o + 3 * size, entry(log, load(p + 3 * beside, work), load(g + 3 * apart, work), a3, b3), element)


@register_jitable
def write_batch(
    saved: Array, upstream: Array, start: int, count: int, log: Any, work: Any, xs: int, notes: int, out: int, step: int
) -> None:
    """Write the products of a batch, from results in the compute type."""
    n, element = saved.shape[1], upstream.dtype
    lanes, size, columns = lanes_of(element), size_of(element), column_bytes(n)
    p, g, to = address_at(saved, start), address_at(upstream, start), notes + NOTES
    stride, apart, soon = saved.strides[1], upstream.strides[1], start + count
    if count == FOUR * lanes:
        lift_four(g, apart, n, element, work, xs + columns, 2 * columns, address_at(upstream, soon))
        if log is None:
            tops = lift_four(p, stride, n, work, work, xs, 2 * columns, address_at(saved, soon))
            inner(xs, xs + columns, n, tops[0], work, notes, to)
            inner(xs + 2 * columns, xs + 3 * columns, n, tops[1], work, notes, to + 128)
            inner(xs + 4 * columns, xs + 5 * columns, n, tops[2], work, notes, to + 256)
            inner(xs + 6 * columns, xs + 7 * columns, n, tops[3], work, notes, to + 384)
            write_four(xs, 64, 2 * columns, n, element, work, log, xs + columns, to, out, step)
        else:
            for t in range(FOUR):
                summed(xs + (2 * t + 1) * columns, n, work, notes, to + 128 * t)
            write_four(p, stride, 64, n, element, work, log, xs + columns, to, out, step)
        return
    for t in range(-(-count // lanes)):
        rows = count - lanes * t
        lift(g + lanes * size * t, apart, rows, n, element, work, xs + columns)
        top = lift(p + 64 * t, stride, rows, n, work, work, xs)
        write_totals(xs, n, top, log, work, notes, to)
        write_tile(xs, 64, rows, n, element, work, log, xs + columns, to, out + lanes * size * t, step)


@register_jitable
def write_totals(xs: int, n: int, top: Any, log: Any, work: Any, notes: int, to: int) -> None:
    """Store the two vectors that ``entry`` takes beside (log-)probabilities and upstream gradient."""
    if log is None:
        inner(xs, xs + column_bytes(n), n, top, work, notes, to)
    else:
        summed(xs + column_bytes(n), n, work, notes, to)


def products(
    saved: Array,
    logits: Any,
    log: Any,
    upstream: Array,
    out: Array,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write products of softmax or, unless ``log`` is None, of log_softmax; return how many rows are left.

    ``saved`` has the results, in the compute type, if ``logits`` is None, else the logits.
    """
    align_stack()
    n = saved.shape[1]
    element, kind = upstream.dtype, work.dtype
    lanes, columns = lanes_of(element), column_bytes(n)
    tiles = tiles_in_cache(2 * n) if logits is None else 1
    scratch = np.empty(NOTES + 512 + 2 * tiles * columns + 64, np.uint8)
    notes = aligned(scratch)
    to = notes + NOTES
    xs = to + 512
    n_left = 0
    start = first
    while start < last:
        count = rows_from(start, last, saved.shape[2], lanes * tiles)
        o = address_at(out, start)
        if logits is None:
            write_batch(saved, upstream, start, count, log, kind, xs, notes, o, out.strides[1])
        else:
            fine = normalised(saved, start, count, log, kind, notes, xs)
            for i in range(0 if fine else count):
                if not served(notes, i):
                    left[n_left] = start + i
                    n_left += 1
            lift(address_at(upstream, start), upstream.strides[1], count, n, element, kind, xs + columns)
            top = lift(xs, 64, lanes, n, kind, kind, xs)
            write_totals(xs, n, top, log, kind, notes, to)
            write_tile(xs, 64, count, n, element, kind, log, xs + columns, to, o, out.strides[1])
        start += count
    hold(scratch)
    return n_left
