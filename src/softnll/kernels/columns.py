"""Kernels for rows of few classes: as many rows at a time as a vector has lanes, each lane its own row.

A tile of 16 rows (float64: 8) is turned so that a vector holds one class of all of them; then every step of ``rows.py`` is
one of vectors, and nothing is summed across lanes. Results are turned back in scratch and copied out. A row's arithmetic
does not depend on its lane, nor on its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

from softnll.kernels.elementary import log1p, power, references, two_sum
from softnll.kernels.plain import remainder
from softnll.kernels.rows import (
    LEAST,
    MOST,
    TINY,
    absent,
    address_of,
    aligned,
    lanes_of,
    out_row,
    product,
)
from softnll.kernels.simd import (
    add_doubles,
    both,
    copy,
    every,
    fill_zero,
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
    store_scalar,
    zero,
)

__all__ = ["backward_columns", "logsumexp_columns", "loss_columns", "normalise_columns"]

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
AHEAD = 2048  # bytes: how far ahead of a tile memory is asked for

# Where a tile notes sixteen float64 each, in bytes.
M, BIG, REST, X_Y, E_Y, WEIGHT, RESULT, FACTOR, LOW = (128 * each for each in range(9))
NOTES = 128 * 9


@register_jitable
def tile_bytes(n: int) -> int:
    """Return the scratch of a tile: notes, the turned logits and exponentials, and rows turned back."""
    return NOTES + 3 * 64 * (n + 8) + 128


@register_jitable
def turn(p: int, stride: int, count: int, n: int, element: Any, work: Any, xs: int) -> Any:
    """Write the columns of a tile to scratch; return each row's largest entry (NaN is passed over)."""
    size = size_of(element)
    lanes = lanes_of(element)
    fill = rounded(-np.inf, element)
    m = splat(fill)
    for line in range(0, count * stride, 64):
        prefetch(p + AHEAD + line)
    k = 0
    while k < n:
        if k + 8 > n >= 8:
            k = n - 8  # the last eight again: entries met twice change nothing
        columns = load_columns(p + k * size, stride, count, n - k, fill, element)
        for j in range(8):
            store(xs + 64 * (k + j), columns[j], work)
        k += 8
    for k in range(n):
        m = maximum(load(xs + 64 * k, work), m)
    return m


@register_jitable
def tournaments(xs: int, n: int, m: Any, work: Any, es: Any, notes: int) -> None:
    """Note m, largest exponential and rest of each row; write the exponentials to es, unless it is None."""
    c, magic, cut = references(m)
    store_doubles(notes + M, m)
    store(notes + REST, splat(0.0), _f8)
    store(notes + REST + 64, splat(0.0), _f8)  # float32: eight more rows; float64: what the additions lose
    big = splat(zero(work))
    k = 0
    while k < n:
        rest = splat(zero(work))
        for j in range(k, min(k + 4, n)):
            e = power(load(xs + 64 * j, work), c, magic, cut, None, None)
            if es is not None:
                store(es + 64 * j, e, work)
            rest = rest + minimum(e, big)
            big = maximum(big, e)
        add_doubles(notes + REST, rest)
        k += 4
    store_doubles(notes + BIG, big)


@register_jitable
def settle(notes: int, work: Any) -> None:
    """Add to float64 rests what their additions lost."""
    if lanes_of(work) == 8:
        store(notes + REST, load(notes + REST, _f8) + load(notes + REST + 64, _f8), _f8)


@register_jitable
def note_factor(notes: int, h: int, value: Any, divisor: Any) -> None:
    """Note value / divisor of eight rows, and what the division's rounding lost."""
    quotient = value / divisor
    store(notes + FACTOR + h, quotient, _f8)
    store(notes + LOW + h, remainder(value, quotient, divisor) / divisor, _f8)


@register_jitable
def factors(notes: int, work: Any) -> Any:
    """Return the noted factors as an unevaluated sum, in the type of the scratch."""
    high = load_doubles(notes + FACTOR, work)
    if lanes_of(work) == 16:  # what float32 cannot hold is the low part
        store_doubles(notes + LOW, high)
        for h in (0, 64):
            store(notes + LOW + h, load(notes + FACTOR + h, _f8) - load(notes + LOW + h, _f8), _f8)
    return high, load_doubles(notes + LOW, work)


@register_jitable
def common(notes: int, lanes: int) -> bool:
    """Whether this arithmetic serves every row of a tile: finite largest entries, no NaN, rests with their digits."""
    fine = True
    for h in range(0, 8 * lanes, 64):
        m, big, rest = load(notes + M + h, _f8), load(notes + BIG + h, _f8), load(notes + REST + h, _f8)
        size = maximum(m, 0.0 - m)
        infinite = splat(np.inf)
        finite = both(less(size, infinite), both(less(splat(0.0), big), less(rest, infinite)))
        digits = less(big * TINY, select(less(splat(0.0), rest), rest, big))
        fine = fine and every(both(finite, digits))
    return fine


@register_jitable
def served(notes: int, i: int) -> bool:
    """Whether it serves one row of a tile."""
    m, big = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + BIG + 8 * i, _f8)
    rest = load_scalar(notes + REST + 8 * i, _f8)
    if not (abs(m) < np.inf and big > 0.0 and rest < np.inf):
        return False
    return rest == 0.0 or rest > TINY * big


@register_jitable
def turn_back(es: int, n: int, element: Any, work: Any, rows: int) -> None:
    """Write columns as rows without gaps. The last eight come first: whatever they spill is written over."""
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
    """Copy rows of so many bytes to where they belong."""
    if stride == width:
        copy(out, rows, count * width)
        return
    for i in range(count):
        copy(out + i * stride, rows + i * width, width)


def normalise_columns(
    x: Array, prob: Any, out: Array, work: Array, first: int, last: int, odd: Array
) -> int:
    """Write softmax or, if ``prob`` is None, log_softmax of rows; return how many were left, noted in ``odd``."""
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    scratch = np.empty(tile_bytes(n), np.uint8)
    notes = aligned(scratch)
    xs = notes + NOTES
    es = xs + 64 * (n + 8)
    rows = es + 64 * (n + 8)
    left = 0
    for start in range(first, last, lanes):
        count = min(lanes, last - start)
        m = turn(address_of(x) + start * x.strides[0], x.strides[0], count, n, element, kind, xs)
        tournaments(xs, n, m, kind, es, notes)
        settle(notes, kind)
        for h in range(0, 8 * lanes, 64):
            big, rest = load(notes + BIG + h, _f8), load(notes + REST + h, _f8)
            if prob is None:
                store(notes + FACTOR + h, log1p(rest / big), _f8)
            else:
                note_factor(notes, h, splat(1.0), big + rest)
        factor, low = factors(notes, kind)
        for k in range(n):
            if prob is None:
                store(es + 64 * k, (load(xs + 64 * k, kind) - m) - factor, kind)
            else:
                store(es + 64 * k, product(load(es + 64 * k, kind), factor, low), kind)
        turn_back(es, n, element, kind, rows)
        o = out_row(out, start)
        if common(notes, lanes):
            copy_rows(rows, count, width, o, out.strides[0])
            continue
        for i in range(count):
            if served(notes, i):
                copy(o + i * out.strides[0], rows + i * width, width)
            else:
                odd[left] = start + i
                left += 1
    return left


def logsumexp_columns(x: Array, lse: Array, work: Array, first: int, last: int, odd: Array) -> int:
    """Write m + log1p(r) of rows; return how many were left, noted in ``odd``."""
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes = lanes_of(element)
    scratch = np.empty(tile_bytes(n), np.uint8)
    notes = aligned(scratch)
    xs = notes + NOTES
    left = 0
    for start in range(first, last, lanes):
        count = min(lanes, last - start)
        m = turn(address_of(x) + start * x.strides[0], x.strides[0], count, n, element, kind, xs)
        tournaments(xs, n, m, kind, None, notes)
        settle(notes, kind)
        for h in range(0, 8 * lanes, 64):
            big, rest = load(notes + BIG + h, _f8), load(notes + REST + h, _f8)
            store(notes + RESULT + h, load(notes + M + h, _f8) + log1p(rest / big), _f8)
        fine = common(notes, lanes)
        for i in range(count):
            if fine or served(notes, i):
                lse[start + i] = load_scalar(notes + RESULT + 8 * i, _f8)
            else:
                odd[left] = start + i
                left += 1
    return left


@register_jitable
def note_targets(
    y: Array, w: Array, s: Array, n: int, start: int, count: int, xs: int, es: Any, work: Any, notes: int
) -> bool:
    """Note weight, logit and exponential of each row's target; return whether all rows take part, with a target."""
    size = size_of(work)
    usual = True
    for i in range(16):
        store_scalar(notes + WEIGHT + 8 * i, 1.0, _f8)
        store_scalar(notes + X_Y + 8 * i, load_scalar(notes + M + 8 * i, _f8), _f8)
    for i in range(count):
        c = y[start + i]
        weight = s[start + i] if s.shape[0] > 0 else 1.0
        if weight == 0.0 or c < 0 or c >= n:
            usual = False
            store_scalar(notes + WEIGHT + 8 * i, 0.0 if weight == 0.0 else np.nan, _f8)
            continue
        if w.shape[0] > 0:
            weight *= w[c]
        usual = usual and 0.0 < weight < MOST
        store_scalar(notes + WEIGHT + 8 * i, np.nan if weight == 0.0 else weight, _f8)
        store_scalar(notes + X_Y + 8 * i, _f8(load_scalar(xs + 64 * c + size * i, work)), _f8)
        if es is not None:
            store_scalar(notes + E_Y + 8 * i, _f8(load_scalar(es + 64 * c + size * i, work)), _f8)
    return usual


def room_for(grad: Any, address: int) -> Any:
    """Return an address if there is a gradient to write, else None."""
    raise NotImplementedError


@overload(room_for)
def _room_for(grad, address):
    return (lambda grad, address: None) if absent(grad) else (lambda grad, address: address)


@register_jitable
def scale_and_turn_back(
    y: Array, start: int, count: int, n: int, zeta: float, divisor: float, es: int, element: Any, work: Any, notes: int, rows: int
) -> bool:
    """Make gradients of exponentials and turn them back; return whether all scales were in range.

    ``RESULT`` is used for the targets' entries; the weights are noted already.
    """
    lanes, size = lanes_of(element), size_of(work)
    fine = True
    for h in range(0, 8 * lanes, 64):
        big, rest, e = load(notes + BIG + h, _f8), load(notes + REST + h, _f8), load(notes + E_Y + h, _f8)
        r = rest / big
        rest = r * big
        one = splat(1.0)
        scale = load(notes + WEIGHT + h, _f8) / divisor
        if zeta > 0:
            extra = (load(notes + M + h, _f8) + log1p(r)) * (2.0 * zeta)
            whole = one + extra
            targeted = (extra * e - ((big - e) + rest)) / whole
            scale = scale * whole
            size_of_whole = maximum(whole, 0.0 - whole)
            fine = fine and every(both(less(splat(LEAST), size_of_whole), less(size_of_whole, splat(MOST))))
        else:
            targeted = 0.0 - ((big - e) + rest)
        magnitude = maximum(scale, 0.0 - scale)
        fine = fine and every(both(less(splat(LEAST), magnitude), less(magnitude, splat(MOST))))
        note_factor(notes, h, scale, big + rest)
        store(notes + RESULT + h, targeted, _f8)
    for i in range(count):
        c = y[start + i]
        if 0 <= c < n:
            store_scalar(es + 64 * c + size * i, rounded(load_scalar(notes + RESULT + 8 * i, _f8), work), work)
    factor, low = factors(notes, work)
    for k in range(n):
        store(es + 64 * k, product(load(es + 64 * k, work), factor, low), work)
    turn_back(es, n, element, work, rows)
    return fine


@register_jitable
def row_state(notes: int, i: int, zeta: float, divisor: float, graded: bool) -> int:
    """Return 0 for a row that is served, 1 for one that takes no part, 2 for one that is left to the plain kernels."""
    weight = load_scalar(notes + WEIGHT + 8 * i, _f8)
    if weight == 0.0:
        return 1
    m, x_y = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + X_Y + 8 * i, _f8)
    if not (served(notes, i) and 0.0 < weight < MOST and abs(m - x_y) < np.inf):
        return 2
    if graded:
        big, rest = load_scalar(notes + BIG + 8 * i, _f8), load_scalar(notes + REST + 8 * i, _f8)
        scale = abs(load_scalar(notes + FACTOR + 8 * i, _f8) * (big + rest))
        whole = abs(scale * divisor / weight)
        if not (LEAST < scale < MOST and (zeta == 0.0 or LEAST < whole < MOST)):
            return 2
    return 0


def loss_columns(
    x: Array,
    y: Array,
    w: Array,
    s: Array,
    zeta: float,
    divisor: float,
    loss: Array,
    ms: Array,
    rs: Array,
    grad: Array,
    work: Array,
    first: int,
    last: int,
    odd: Array,
) -> int:
    """Write loss (row weight applied), m, r and gradient (also / divisor) of rows with hard targets.

    ``ms`` and ``rs``, ``grad`` may be None. Return how many rows were left, noted in ``odd``.
    """
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    scratch = np.empty(tile_bytes(n), np.uint8)
    notes = aligned(scratch)
    xs = notes + NOTES
    es = room_for(grad, xs + 64 * (n + 8))
    rows = xs + 2 * 64 * (n + 8)
    left = 0
    for start in range(first, last, lanes):
        count = min(lanes, last - start)
        m = turn(address_of(x) + start * x.strides[0], x.strides[0], count, n, element, kind, xs)
        tournaments(xs, n, m, kind, es, notes)
        settle(notes, kind)
        fine = note_targets(y, w, s, n, start, count, xs, es, kind, notes)
        fine = common(notes, lanes) and fine
        if grad is not None:
            fine = scale_and_turn_back(y, start, count, n, zeta, divisor, es, element, kind, notes, rows) and fine
        infinite = splat(np.inf)
        for h in range(0, 8 * lanes, 64):
            m8 = load(notes + M + h, _f8)
            log_r = log1p(load(notes + REST + h, _f8) / load(notes + BIG + h, _f8))
            apart, lost = two_sum(m8, 0.0 - load(notes + X_Y + h, _f8))
            fine = fine and every(less(apart, infinite))
            value = (log_r + lost) + apart
            if zeta > 0:
                lse = m8 + log_r
                value = value + lse * lse * zeta
            store(notes + RESULT + h, value * load(notes + WEIGHT + h, _f8), _f8)
        if fine:
            for i in range(count):
                loss[start + i] = load_scalar(notes + RESULT + 8 * i, _f8)
                if ms is not None:
                    ms[start + i] = load_scalar(notes + M + 8 * i, _f8)
                    rs[start + i] = load_scalar(notes + REST + 8 * i, _f8) / load_scalar(notes + BIG + 8 * i, _f8)
            if grad is not None:
                copy_rows(rows, count, width, out_row(grad, start), grad.strides[0])
            continue
        for i in range(count):
            state = row_state(notes, i, zeta, divisor, grad is not None)
            if state == 2:
                odd[left] = start + i
                left += 1
                continue
            taking_part = state == 0
            loss[start + i] = load_scalar(notes + RESULT + 8 * i, _f8) if taking_part else 0.0
            if ms is not None:
                r = load_scalar(notes + REST + 8 * i, _f8) / load_scalar(notes + BIG + 8 * i, _f8)
                ms[start + i] = load_scalar(notes + M + 8 * i, _f8) if taking_part else -np.inf
                rs[start + i] = r if taking_part else -1.0
            if grad is not None:
                o = out_row(grad, start + i)
                if taking_part:
                    copy(o, rows + i * width, width)
                else:
                    fill_zero(o, width)
    return left


def backward_columns(
    x: Array,
    y: Array,
    w: Array,
    s: Array,
    zeta: float,
    divisor: float,
    ms: Array,
    rs: Array,
    grad: Array,
    work: Array,
    first: int,
    last: int,
    odd: Array,
) -> int:
    """Write the gradient of rows with hard targets from their m and r; return how many were left, noted in ``odd``."""
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    scratch = np.empty(tile_bytes(n), np.uint8)
    notes = aligned(scratch)
    xs = notes + NOTES
    es = xs + 64 * (n + 8)
    rows = es + 64 * (n + 8)
    left = 0
    for start in range(first, last, lanes):
        count = min(lanes, last - start)
        turn(address_of(x) + start * x.strides[0], x.strides[0], count, n, element, kind, xs)
        for i in range(lanes):
            store_scalar(notes + M + 8 * i, ms[start + min(i, count - 1)], _f8)
        m = load_doubles(notes + M, kind)
        tournaments(xs, n, m, kind, es, notes)
        c, magic, cut = references(m)
        store_doubles(notes + BIG, power(m, c, magic, cut, None, None))
        for i in range(lanes):
            rest = rs[start + min(i, count - 1)] * load_scalar(notes + BIG + 8 * i, _f8)
            store_scalar(notes + REST + 8 * i, rest, _f8)
        fine = note_targets(y, w, s, n, start, count, xs, es, kind, notes)
        fine = common(notes, lanes) and fine
        fine = scale_and_turn_back(y, start, count, n, zeta, divisor, es, element, kind, notes, rows) and fine
        if fine:
            copy_rows(rows, count, width, out_row(grad, start), grad.strides[0])
            continue
        for i in range(count):
            state = row_state(notes, i, zeta, divisor, True)
            o = out_row(grad, start + i)
            if state == 0:
                copy(o, rows + i * width, width)
            elif state == 1:
                fill_zero(o, width)
            else:
                odd[left] = start + i
                left += 1
    return left
