"""softmax, log_softmax and logsumexp of planes (``plane.py``), a batch of rows that lie side by side at a time.

Rows that this arithmetic does not serve are not written; their numbers are written to ``left``. The output may be the
logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.elementary import references
from softnll._kernels.cpu.logarithm import log_rest, normaliser
from softnll._kernels.cpu.plane import (
    FOUR,
    address_at,
    lift_batch,
    place_rows,
    prefetch_four,
    rows_from,
    tiles_in_cache,
    write,
)
from softnll._kernels.cpu.row_memory import address_if, address_of, aligned, lanes_of
from softnll._kernels.cpu.simd import (
    align_stack,
    copy,
    hold,
    load,
    load_doubles,
    load_scalar,
    size_of,
    splat,
    store,
    store_doubles,
)
from softnll._kernels.cpu.sweep import product
from softnll._kernels.cpu.tile import (
    BIG,
    FACTOR,
    LOW,
    NOTES,
    REST,
    RESULT,
    M,
    R,
    column_bytes,
    factors,
    note_factor,
    served,
    settle,
    tournaments,
)

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64


@register_jitable
def parts(prob: Any, work: Any, notes: int) -> Any:
    """Return what ``ready`` takes of each row of a tile: the factor in two parts, or m and log1p(r)."""
    if prob is None:
        return load_doubles(notes + M, work), load_doubles(notes + FACTOR, work)
    return factors(notes, work)


@register_jitable
def ready(prob: Any, v: Any, one: Any, other: Any) -> Any:
    """Return an exponential times the row's factor or, if ``prob`` is None, a log-probability."""
    return (v - one) - other if prob is None else product(v, one, other)


@register_jitable
def finish(xs: int, n: int, prob: Any, work: Any, notes: int, out: int, stride: int, count: int, element: Any) -> None:
    """Write a tile's results to ``out``, which may be scratch: exponentials times factors, or log-probabilities."""
    align_stack()
    one, other = parts(prob, work, notes)
    for k in range(n):
        write(out + k * stride, count, ready(prob, load(xs + 64 * k, work), one, other), element)


@register_jitable
def finish_four(xs: int, n: int, prob: Any, work: Any, notes: int, out: int, stride: int, element: Any) -> None:
    """Do the same for four whole tiles together."""
    align_stack()
    lanes = lanes_of(element)
    size, apart = lanes * size_of(element), column_bytes(n)
    a0, b0 = parts(prob, work, notes)
    a1, b1 = parts(prob, work, notes + 8 * lanes)
    a2, b2 = parts(prob, work, notes + 16 * lanes)
    a3, b3 = parts(prob, work, notes + 24 * lanes)
    for k in range(n):
        at, to = xs + 64 * k, out + k * stride
        prefetch_four(out, stride, k, n, out + FOUR * size, size)
        store(to, ready(prob, load(at, work), a0, b0), element)
        store(to + size, ready(prob, load(at + apart, work), a1, b1), element)
        store(to + 2 * size, ready(prob, load(at + 2 * apart, work), a2, b2), element)
        store(to + 3 * size, ready(prob, load(at + 3 * apart, work), a3, b3), element)


@register_jitable
def finish_batch(
    xs: int, n: int, fine: bool, prob: Any, work: Any, notes: int, out: int, stride: int, count: int, element: Any
) -> None:
    """Write a batch's results or, unless all rows are ``fine``, leave them in scratch."""
    lanes, columns = lanes_of(element), column_bytes(n)
    if fine and count == FOUR * lanes:
        finish_four(xs, n, prob, work, notes, out, stride, element)
        return
    for t in range(-(-count // lanes)):
        at, note = xs + t * columns, notes + 8 * lanes * t
        if fine:
            finish(at, n, prob, work, note, out + lanes * size_of(element) * t, stride, count - lanes * t, element)
        else:
            finish(at, n, prob, work, note, at, 64, lanes, work)


@register_jitable
def exponentials(
    p: int,
    stride: int,
    count: int,
    n: int,
    element: Any,
    work: Any,
    xs: int,
    es: Any,
    notes: int,
    soon: int,
    beta: Any,
    beta_low: Any,
) -> bool:
    """Copy a batch's logits to scratch at xs, and store m and rest of its rows; return whether all rows are served.

    Unless ``es`` is None, exponentials replace the logits in scratch. ``beta`` and ``beta_low`` are ``tournaments``'.
    """
    lanes = lanes_of(element)
    full = -(-count // lanes)
    lift_batch(p, stride, count, n, element, work, xs, notes, soon)
    for t in range(full):
        at, note = xs + t * column_bytes(n), notes + 8 * lanes * t
        tournaments(at, n, load_doubles(note + M, work), work, address_if(es, at), note, None, 0, None, beta, beta_low)
    return settle(notes, full * lanes)


def normalise(x: Array, prob: Any, out: Array, streamed: bool, work: Array, first: int, last: int, left: Array) -> int:
    """Write softmax or, if ``prob`` is None, log_softmax of rows; return how many are left (numbers in ``left``)."""
    align_stack()
    n, inner = x.shape[1], x.shape[2]
    element, kind = x.dtype, work.dtype
    lanes = lanes_of(element)
    tiles, columns = tiles_in_cache(n), column_bytes(n)
    scratch = np.empty(NOTES + tiles * columns + 64, np.uint8)
    notes = aligned(scratch)
    n_left = 0
    start = first
    while start < last:
        count = rows_from(start, last, inner, lanes * tiles)
        full = -(-count // lanes)
        p, o, soon = address_at(x, start), address_at(out, start), address_at(x, start + count)
        fine = exponentials(p, x.strides[1], count, n, element, kind, notes + NOTES, prob, notes, soon, None, None)
        for h in range(0, 8 * lanes * full, 64):
            if prob is None:
                store(notes + FACTOR + h, log_rest(load(notes + R + h, _f8), kind), _f8)
            else:
                note_factor(notes, h, splat(1.0), load(notes + BIG + h, _f8), load(notes + REST + h, _f8), splat(0.0))
        finish_batch(notes + NOTES, n, fine, prob, kind, notes, o, out.strides[1], count, element)
        for i in range(0 if fine else count):
            if served(notes, i):
                t = i // lanes
                xs, here = notes + NOTES + t * columns, o + lanes * size_of(element) * t
                place_rows(xs, i % lanes, n, kind, here, out.strides[1], element)
            else:
                left[n_left] = start + i
                n_left += 1
        start += count
    hold(scratch)
    return n_left


def logsumexp(x: Array, lse: Array, work: Array, first: int, last: int, left: Array) -> int:
    """Write m + log1p(r) of rows; return how many are left (numbers in ``left``)."""
    align_stack()
    n, inner = x.shape[1], x.shape[2]
    element, kind = x.dtype, work.dtype
    lanes = lanes_of(element)
    tiles, columns = tiles_in_cache(n), column_bytes(n)
    scratch = np.empty(NOTES + tiles * columns + 64, np.uint8)
    notes = aligned(scratch)
    n_left = 0
    start = first
    while start < last:
        count = rows_from(start, last, inner, lanes * tiles)
        full = -(-count // lanes)
        soon = address_at(x, start + count)
        lift_batch(address_at(x, start), x.strides[1], count, n, element, kind, notes + NOTES, notes, soon)
        for t in range(full):
            note = notes + 8 * lanes * t
            top = load_doubles(note + M, kind)
            c, magic, _ = references(top, None)
            store_doubles(note + FACTOR, magic)
            store_doubles(note + LOW, c)
            tournaments(notes + NOTES + t * columns, n, top, kind, None, note, None, 0, None, None, None)
        fine = settle(notes, full * lanes)
        for h in range(0, 8 * lanes * full, 64):
            m, rest, magic = load(notes + M + h, _f8), load(notes + REST + h, _f8), load(notes + FACTOR + h, _f8)
            store(notes + RESULT + h, normaliser(m, rest, load(notes + LOW + h, _f8), magic, kind), _f8)
        if fine:
            copy(address_of(lse) + 8 * start, notes + RESULT, 8 * count)
        for i in range(0 if fine else count):
            if served(notes, i):
                lse[start + i] = load_scalar(notes + RESULT + 8 * i, _f8)
            else:
                left[n_left] = start + i
                n_left += 1
        start += count
    hold(scratch)
    return n_left
