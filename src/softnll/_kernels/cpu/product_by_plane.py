"""Products of the Jacobians of softmax and log_softmax with an upstream gradient, of planes (``plane.py``).

The formulas are those of ``product_by_row.py``; a vector is one class of as many rows as it has lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.by_plane import exponentials
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
    hold,
    less,
    load,
    load_doubles,
    maximum,
    mul_add,
    rounded,
    select,
    size_of,
    splat,
    store,
    store_doubles,
    zero,
)
from softnll._kernels.cpu.sweep import GROUP, product
from softnll._kernels.cpu.tile import BIG, LOST, NOTES, REST, RESULT, R, column_bytes, factors, note_factor, served

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
TOTALS = 192  # bytes a tile of what `entry` takes beside (log-)probability and upstream gradient


@register_jitable
def close(notes: int, work: Any) -> None:
    """Add to each row's sum what its additions lost."""
    for h in range(0, 8 * lanes_of(work), 64):
        store(notes + REST + h, load(notes + REST + h, _f8) + load(notes + LOST + h, _f8), _f8)


@register_jitable
def inner(ps: int, gs: int, n: int, work: Any, notes: int, to: int) -> None:
    """Store ⟨p, v − c⟩ of a tile's rows after c, v where p is largest, which is at ``to``."""
    align_stack()
    nothing = splat(zero(work))
    there = load(to, work)
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
    a: int,
    stride: int,
    count: int,
    n: int,
    element: Any,
    work: Any,
    log: Any,
    logits: Any,
    gs: int,
    to: int,
    out: int,
    step: int,
) -> None:
    """Write the products of a tile: ``a`` has its (log-)probabilities, ``gs`` its upstream gradient."""
    align_stack()
    one, other, share = load(to, work), load(to + 64, work), load(to + 128, work)
    for k in range(n):
        value = entry(log, logits, read(a + k * stride, count, work), load(gs + 64 * k, work), one, other, share)
        write(out + k * step, count, value, element)


@register_jitable
def write_four(
    a: int,
    stride: int,
    beside: int,
    n: int,
    element: Any,
    work: Any,
    log: Any,
    logits: Any,
    gs: int,
    to: int,
    out: int,
    step: int,
) -> None:
    """Do the same for four whole tiles; (log-)probabilities of one are ``beside`` bytes after those of the other."""
    align_stack()
    size, apart = size_of(element) * lanes_of(element), column_bytes(n)
    a0, b0, s0 = load(to, work), load(to + 64, work), load(to + 128, work)
    a1, b1, s1 = load(to + TOTALS, work), load(to + TOTALS + 64, work), load(to + TOTALS + 128, work)
    a2, b2, s2 = load(to + 2 * TOTALS, work), load(to + 2 * TOTALS + 64, work), load(to + 2 * TOTALS + 128, work)
    a3, b3, s3 = load(to + 3 * TOTALS, work), load(to + 3 * TOTALS + 64, work), load(to + 3 * TOTALS + 128, work)
    for k in range(n):
        p, g, o = a + k * stride, gs + 64 * k, out + k * step
        prefetch_four(out, step, k, n, out + FOUR * size, size)
        if log is not None and logits is None:
            prefetch_four(a, stride, k, n, a + FOUR * size, size)
        v0, v1 = load(g, work), load(g + apart, work)
        v2, v3 = load(g + 2 * apart, work), load(g + 3 * apart, work)
        store(o, entry(log, logits, load(p, work), v0, a0, b0, s0), element)
        store(o + size, entry(log, logits, load(p + beside, work), v1, a1, b1, s1), element)
        store(o + 2 * size, entry(log, logits, load(p + 2 * beside, work), v2, a2, b2, s2), element)
        store(o + 3 * size, entry(log, logits, load(p + 3 * beside, work), v3, a3, b3, s3), element)


@register_jitable
def write_batch(
    a: int,
    stride: int,
    beside: int,
    count: int,
    n: int,
    element: Any,
    work: Any,
    log: Any,
    logits: Any,
    gs: int,
    to: int,
    out: int,
    step: int,
) -> None:
    """Write the products of a batch."""
    lanes, columns = lanes_of(element), column_bytes(n)
    if count == FOUR * lanes:
        write_four(a, stride, beside, n, element, work, log, logits, gs, to, out, step)
        return
    for t in range(-(-count // lanes)):
        place, rows = out + lanes * size_of(element) * t, count - lanes * t
        g, total = gs + t * columns, to + TOTALS * t
        write_tile(a + beside * t, stride, rows, n, element, work, log, logits, g, total, place, step)


@register_jitable
def lift_pairs(
    p: int, stride: int, g: int, apart: int, count: int, n: int, work: Any, xs: int, gs: int, to: int, soon: Any
) -> None:
    """Copy a batch's probabilities and upstream gradients to scratch, and store v where p is largest at ``to``.

    ``soon`` is where both begin in the next batch.
    """
    align_stack()
    columns, lanes = column_bytes(n), lanes_of(work)
    least, nothing = splat(rounded(-1.0, work)), splat(zero(work))
    if count == FOUR * lanes:
        m0, m1, m2, m3 = least, least, least, least
        t0, t1, t2, t3 = nothing, nothing, nothing, nothing
        for k in range(n):
            prefetch_four(p, stride, k, n, soon[0], 64)
            prefetch_four(g, apart, k, n, soon[1], 64)
            a, b, x, y = p + k * stride, g + k * apart, xs + 64 * k, gs + 64 * k
            v0, v1, v2, v3 = load(a, work), load(a + 64, work), load(a + 128, work), load(a + 192, work)
            u0, u1, u2, u3 = load(b, work), load(b + 64, work), load(b + 128, work), load(b + 192, work)
            store(x, v0, work)
            store(x + columns, v1, work)
            store(x + 2 * columns, v2, work)
            store(x + 3 * columns, v3, work)
            store(y, u0, work)
            store(y + columns, u1, work)
            store(y + 2 * columns, u2, work)
            store(y + 3 * columns, u3, work)
            t0, m0 = select(less(m0, v0), u0, t0), maximum(v0, m0)
            t1, m1 = select(less(m1, v1), u1, t1), maximum(v1, m1)
            t2, m2 = select(less(m2, v2), u2, t2), maximum(v2, m2)
            t3, m3 = select(less(m3, v3), u3, t3), maximum(v3, m3)
        store(to, t0, work)
        store(to + TOTALS, t1, work)
        store(to + 2 * TOTALS, t2, work)
        store(to + 3 * TOTALS, t3, work)
        return
    for t in range(-(-count // lanes)):
        rows, x, y = count - lanes * t, xs + t * columns, gs + t * columns
        there, top = nothing, least
        for k in range(n):
            v, u = read(p + 64 * t + k * stride, rows, work), read(g + 64 * t + k * apart, rows, work)
            store(x + 64 * k, v, work)
            store(y + 64 * k, u, work)
            there, top = select(less(top, v), u, there), maximum(v, top)
        store(to + TOTALS * t, there, work)


@register_jitable
def lift_upstream(g: int, stride: int, count: int, n: int, element: Any, work: Any, gs: int, soon: int) -> None:
    """Copy a batch's upstream gradients to scratch."""
    lanes = lanes_of(element)
    if count == FOUR * lanes:
        lift_four(g, stride, n, element, work, gs, column_bytes(n), soon)
        return
    for t in range(-(-count // lanes)):
        lift(g + lanes * size_of(element) * t, stride, count - lanes * t, n, element, work, gs + t * column_bytes(n))


@register_jitable
def normalise_tile(xs: int, gs: int, n: int, log: Any, work: Any, notes: int, to: int) -> None:
    """Make exponentials probabilities; store, at ``to``, v where p is largest and 1 − p there."""
    align_stack()
    high, low = factors(notes, work)
    store(to + 128, load_doubles(notes + R, work), work)
    top, there = splat(rounded(-1.0, work)), splat(zero(work))
    for k in range(n):
        p = product(load(xs + 64 * k, work), high, low)
        store(xs + 64 * k, p, work)
        if log is None:
            there, top = select(less(top, p), load(gs + 64 * k, work), there), maximum(p, top)
    store(to, there, work)


@register_jitable
def note_shares(full: int, notes: int) -> None:
    """Store the factor of each row's exponentials and, as R, what the others than the largest have of the sum."""
    for h in range(0, 8 * full, 64):
        big, rest = load(notes + BIG + h, _f8), load(notes + REST + h, _f8)
        note_factor(notes, h, splat(1.0), big, rest, splat(0.0))
        store(notes + R + h, rest / (big + rest), _f8)


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
    lanes, columns, tiles = lanes_of(element), column_bytes(n), tiles_in_cache(2 * n)
    scratch = np.empty(NOTES + FOUR * TOTALS + 2 * tiles * columns + 64, np.uint8)
    notes = aligned(scratch)
    to = notes + NOTES
    xs = to + FOUR * TOTALS
    gs = xs + tiles * columns
    n_left = 0
    start = first
    while start < last:
        count = rows_from(start, last, saved.shape[2], lanes * tiles)
        full = -(-count // lanes)
        p, g, o = address_at(saved, start), address_at(upstream, start), address_at(out, start)
        stride, apart, step = saved.strides[1], upstream.strides[1], out.strides[1]
        soon = address_at(saved, start + count), address_at(upstream, start + count)
        if logits is not None:
            fine = exponentials(p, stride, count, n, element, kind, xs, True, notes, soon[0], None, None)
            for i in range(0 if fine else count):
                if not served(notes, i):
                    left[n_left] = start + i
                    n_left += 1
            note_shares(full * lanes, notes)
            lift_upstream(g, apart, count, n, element, kind, gs, soon[1])
        elif log is None:
            lift_pairs(p, stride, g, apart, count, n, kind, xs, gs, to, soon)
        else:
            lift_upstream(g, apart, count, n, element, kind, gs, soon[1])
        for t in range(full):
            x, v, note, total = xs + t * columns, gs + t * columns, notes + 8 * lanes * t, to + TOTALS * t
            if logits is not None:
                normalise_tile(x, v, n, log, kind, note, total)
            if log is None:
                inner(x, v, n, kind, note, total)
            else:
                summed(v, n, kind, note, total)
        if log is not None and logits is None:
            write_batch(p, stride, 64, count, n, element, kind, log, logits, gs, to, o, step)
        else:
            write_batch(xs, 64, columns, count, n, element, kind, log, logits, gs, to, o, step)
        start += count
    hold(scratch)
    return n_left
