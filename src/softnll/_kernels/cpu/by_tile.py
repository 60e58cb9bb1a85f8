"""Kernels for rows of few classes: as many rows at a time as a vector has lanes, each lane its own row.

A tile of 16 rows (float64: 8) is turned so that a vector holds one class of all of them; then every step of
``rows.py`` is one of vectors, and nothing is summed across lanes. Results are turned back in scratch and copied out.
A row's arithmetic does not depend on its lane, nor on its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll.kernels.elementary import log1p, log_rest, power, references, two_sum
from softnll.kernels.plain import remainder
from softnll.kernels.rows import (
    GROUP,
    LEAST,
    MOST,
    TINY,
    address_of,
    aligned,
    lanes_of,
    out_row,
    product,
    room,
)
from softnll.kernels.simd import (
    add_doubles,
    align_stack,
    both,
    copy,
    every,
    fill_zero,
    hold,
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
AHEAD = 1  # tiles: how far ahead memory is asked for, a line a class

# What is noted of up to 64 rows (a batch of tiles), one float64 a row: where, in bytes.
MOST_TILES = 4
M, BIG, REST, LOST, X_Y, E_Y, WEIGHT, RESULT, FACTOR, LOW = (512 * each for each in range(10))
NOTES = 512 * 10
R = LOST  # once the rests are settled


@register_jitable
def tiles_of(n: int, graded: bool) -> int:
    """Return how many tiles are taken together, so that the latency of one is hidden behind the others."""
    return MOST_TILES if n <= 16 or not graded else 2 if n <= 32 else 1


@register_jitable
def column_bytes(n: int) -> int:
    """Return the bytes of a tile's columns, with room for what a whole block of eight spills."""
    return 64 * (n + 8)


@register_jitable
def scratch_bytes(n: int, tiles: int) -> int:
    """Return the scratch of a batch: notes, one tile turned, exponentials, and rows turned back."""
    return NOTES + (1 + 2 * tiles) * column_bytes(n) + 128


@register_jitable
def turn(p: int, stride: int, count: int, n: int, element: Any, work: Any, xs: int) -> Any:
    """Write the columns of a tile to scratch; return each row's largest entry (NaN is passed over)."""
    size = size_of(element)
    fill = rounded(-np.inf, element)
    m = splat(fill)
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
def tournaments(xs: int, n: int, m: Any, work: Any, es: Any, notes: int, soon: int, step: int, out: Any) -> None:
    """Note m, largest exponential and rest of each row of a tile; write the exponentials to es, unless it is None.

    On the way, ask memory for what is to be read soon, and for where results go, every ``step`` bytes.
    """
    align_stack()
    c, magic, cut = references(m)
    store_doubles(notes + M, m)
    nothing = splat(zero(work))
    store_doubles(notes + REST, nothing)
    store_doubles(notes + LOST, nothing)
    big = nothing
    k = 0
    while k + GROUP <= n:
        rest = nothing
        for j in range(0, GROUP, 2):  # in pairs: a sum of eight then rounds five times, not eight
            prefetch(soon + step * (k + j))
            prefetch(soon + step * (k + j + 1))
            if out is not None:
                prefetch(out + step * (k + j))
                prefetch(out + step * (k + j + 1))
            e = power(load(xs + 64 * (k + j), work), c, magic, cut, None, None)
            f = power(load(xs + 64 * (k + j + 1), work), c, magic, cut, None, None)
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
        e = power(load(xs + 64 * k, work), c, magic, cut, None, None)
        if es is not None:
            store(es + 64 * k, e, work)
        rest, other = other, rest + minimum(e, big)
        big = maximum(big, e)
        k += 1
    add_doubles(notes + REST, notes + LOST, rest + other)
    store_doubles(notes + BIG, big)


@register_jitable
def upcoming(p: int, tile: int, n: int) -> Any:
    """Return where the tile lies that comes AHEAD tiles later, and how much of it is asked for with each class."""
    return p + AHEAD * tile, tile // n


@register_jitable
def settle(notes: int, n_rows: int) -> bool:
    """Add to the rests what their additions lost, and note r; return whether this arithmetic serves all rows.

    It does not where there is a NaN, an infinite largest entry, or a rest that has lost digits to subnormals.
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
    """Whether it serves one row."""
    m, big = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + BIG + 8 * i, _f8)
    rest = load_scalar(notes + REST + 8 * i, _f8)
    if not (abs(m) < np.inf and big > 0.0 and rest < np.inf):
        return False
    return rest == 0.0 or rest > TINY * big


@register_jitable
def note_factor(notes: int, h: int, value: Any, big: Any, rest: Any, lost: Any) -> None:
    """Note value / (big + rest + lost) of eight rows, and what its rounding lost."""
    divisor, error = two_sum(big, rest)
    inverse = 1.0 / divisor
    quotient = value * inverse
    store(notes + FACTOR + h, quotient, _f8)
    store(notes + LOW + h, (remainder(value, quotient, divisor) - quotient * (error + lost)) * inverse, _f8)


@register_jitable
def scale_columns(es: int, n: int, work: Any, notes: int) -> None:
    """Multiply a tile's exponentials by its rows' factors."""
    high, low = load_doubles(notes + FACTOR, work), load_doubles(notes + LOW, work)
    if lanes_of(work) == 16:  # what float32 cannot hold is the low part
        store_doubles(notes + RESULT, high)
        for h in (0, 64):
            store(notes + RESULT + h, load(notes + FACTOR + h, _f8) - load(notes + RESULT + h, _f8), _f8)
        low = load_doubles(notes + RESULT, work)
    for k in range(n):
        store(es + 64 * k, product(load(es + 64 * k, work), high, low), work)


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


def normalise_columns(x: Array, prob: Any, out: Array, work: Array, first: int, last: int, odd: Array) -> int:
    """Write softmax or, if ``prob`` is None, log_softmax of rows; return how many were left, noted in ``odd``."""
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    tiles = tiles_of(n, True)
    scratch = np.empty(scratch_bytes(n, tiles), np.uint8)
    notes = aligned(scratch)
    es = notes + NOTES + column_bytes(n)
    rows = es + tiles * column_bytes(n)
    left = 0
    for start in range(first, last, lanes * tiles):
        count = min(lanes * tiles, last - start)
        full = -(-count // lanes)
        for t in range(full):
            at, here = start + t * lanes, es + t * column_bytes(n)
            p = address_of(x) + at * x.strides[0]
            m = turn(p, x.strides[0], min(lanes, last - at), n, element, kind, notes + NOTES)
            if prob is None:
                for k in range(n):  # x − m is kept instead of the exponentials
                    store(here + 64 * k, load(notes + NOTES + 64 * k, kind) - m, kind)
            soon, step = upcoming(p, x.strides[0] * lanes, n)
            note = notes + 8 * lanes * t
            tournaments(notes + NOTES, n, m, kind, room(prob, here), note, soon, step, out_row(out, at))
        fine = settle(notes, full * lanes)
        for h in range(0, 8 * lanes * full, 64):
            if prob is None:
                store(notes + FACTOR + h, log_rest(load(notes + R + h, _f8), kind), _f8)
            else:
                big, rest = load(notes + BIG + h, _f8), load(notes + REST + h, _f8)
                note_factor(notes, h, splat(1.0), big, rest, splat(0.0))
        for t in range(full):
            here = es + t * column_bytes(n)
            if prob is None:
                log_r = load_doubles(notes + FACTOR + 8 * lanes * t, kind)
                for k in range(n):
                    store(here + 64 * k, load(here + 64 * k, kind) - log_r, kind)
            else:
                scale_columns(here, n, kind, notes + 8 * lanes * t)
            turn_back(here, n, element, kind, rows + t * lanes * width)
        o = out_row(out, start)
        if fine:
            copy_rows(rows, count, width, o, out.strides[0])
            continue
        for i in range(count):
            if served(notes, i):
                copy(o + i * out.strides[0], rows + i * width, width)
            else:
                odd[left] = start + i
                left += 1
    hold(scratch)
    return left


def logsumexp_columns(x: Array, lse: Array, work: Array, first: int, last: int, odd: Array) -> int:
    """Write m + log1p(r) of rows; return how many were left, noted in ``odd``."""
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes = lanes_of(element)
    scratch = np.empty(scratch_bytes(n, 0), np.uint8)
    notes = aligned(scratch)
    left = 0
    for start in range(first, last, lanes * MOST_TILES):
        count = min(lanes * MOST_TILES, last - start)
        full = -(-count // lanes)
        for t in range(full):
            at = start + t * lanes
            p = address_of(x) + at * x.strides[0]
            m = turn(p, x.strides[0], min(lanes, last - at), n, element, kind, notes + NOTES)
            soon, step = upcoming(p, x.strides[0] * lanes, n)
            tournaments(notes + NOTES, n, m, kind, None, notes + 8 * lanes * t, soon, step, None)
        fine = settle(notes, full * lanes)
        for h in range(0, 8 * lanes * full, 64):
            log_r = log_rest(load(notes + R + h, _f8), kind)
            store(notes + RESULT + h, load(notes + M + h, _f8) + log_r, _f8)
        if fine:
            copy(address_of(lse) + 8 * start, notes + RESULT, 8 * count)
            continue
        for i in range(count):
            if served(notes, i):
                lse[start + i] = load_scalar(notes + RESULT + 8 * i, _f8)
            else:
                odd[left] = start + i
                left += 1
    hold(scratch)
    return left


@register_jitable
def place_of(es: int, i: int, c: int, n: int, work: Any) -> int:
    """Return where class c of the i-th row lies among the columns of a batch."""
    lanes = lanes_of(work)
    return es + i // lanes * column_bytes(n) + 64 * c + size_of(work) * (i % lanes)


@register_jitable
def note_target(x: Array, start: int, i: int, c: int, es: Any, work: Any, notes: int) -> None:
    """Note logit and exponential of a row's target."""
    element = x.dtype
    x_y = load_scalar(address_of(x) + (start + i) * x.strides[0] + c * size_of(element), element)
    store_scalar(notes + X_Y + 8 * i, _f8(x_y), _f8)
    if es is not None:
        e_y = load_scalar(place_of(es, i, c, x.shape[1], work), work)
        store_scalar(notes + E_Y + 8 * i, _f8(e_y), _f8)


@register_jitable
def unweighted_targets(x: Array, y: Array, start: int, count: int, es: Any, work: Any, notes: int) -> bool:
    """Note of each row what ``note_targets`` does, where each weighs 1; return False if a target is no class."""
    for i in range(count):
        c = y[start + i]
        if c < 0 or c >= x.shape[1]:
            return False
        note_target(x, start, i, c, es, work, notes)
    for h in range(0, 8 * count, 64):
        store(notes + WEIGHT + h, splat(1.0), _f8)
    return True


@register_jitable
def note_targets(
    x: Array, y: Array, w: Array, s: Array, start: int, count: int, full: int, es: Any, work: Any, notes: int
) -> bool:
    """Note weight, logit and exponential of each row's target; return whether all rows take part, with a target."""
    n = x.shape[1]
    usual = True
    plain = s.shape[0] + w.shape[0] == 0 and unweighted_targets(x, y, start, count, es, work, notes)
    for i in range(0 if plain else count):
        c = y[start + i]
        weight = s[start + i] if s.shape[0] > 0 else 1.0
        if weight == 0.0 or c < 0 or c >= n:
            usual = False
            store_scalar(notes + WEIGHT + 8 * i, 0.0 if weight == 0.0 else np.nan, _f8)
            store_scalar(notes + X_Y + 8 * i, 0.0, _f8)
            continue
        if w.shape[0] > 0:
            weight *= w[c]
        usual = usual and 0.0 < weight < MOST
        store_scalar(notes + WEIGHT + 8 * i, np.nan if weight == 0.0 else weight, _f8)
        note_target(x, start, i, c, es, work, notes)
    for i in range(count, full):  # lanes without a row
        store_scalar(notes + WEIGHT + 8 * i, 1.0, _f8)
        store_scalar(notes + X_Y + 8 * i, load_scalar(notes + M + 8 * i, _f8), _f8)
        store_scalar(notes + E_Y + 8 * i, load_scalar(notes + BIG + 8 * i, _f8), _f8)
    return usual


@register_jitable
def note_gradients(full: int, zeta: float, divisor: float, notes: int) -> bool:
    """Note each row's factor and, as ``RESULT``, its target's entry; return whether all scales were in range."""
    fine = True
    one, least, most = splat(1.0), splat(LEAST), splat(MOST)
    for h in range(0, 8 * full, 64):
        big, e = load(notes + BIG + h, _f8), load(notes + E_Y + h, _f8)
        r = load(notes + R + h, _f8)
        rest = r * big  # as the backward has it, to the bit
        lost = 0.0 - remainder(rest, r, big)
        scale = load(notes + WEIGHT + h, _f8) / divisor
        targeted = 0.0 - ((big - e) + rest)
        if zeta > 0:
            extra = (load(notes + M + h, _f8) + log1p(r)) * (2.0 * zeta)
            whole = one + extra
            targeted = (extra * e + targeted) / whole
            scale = scale * whole
            magnitude = maximum(whole, 0.0 - whole)
            fine = fine and every(both(less(least, magnitude), less(magnitude, most)))
        magnitude = maximum(scale, 0.0 - scale)
        fine = fine and every(both(less(least, magnitude), less(magnitude, most)))
        note_factor(notes, h, scale, big, rest, lost)
        store(notes + RESULT + h, targeted, _f8)
    return fine


@register_jitable
def write_gradients(
    y: Array, start: int, count: int, n: int, es: int, element: Any, work: Any, notes: int, rows: int
) -> None:
    """Put the targets' entries among the exponentials, scale them and turn them back."""
    lanes, width = lanes_of(element), n * size_of(element)
    for i in range(count):
        c = y[start + i]
        if 0 <= c < n:
            value = rounded(load_scalar(notes + RESULT + 8 * i, _f8), work)
            store_scalar(place_of(es, i, c, n, work), value, work)
    for t in range(-(-count // lanes)):
        here = es + t * column_bytes(n)
        scale_columns(here, n, work, notes + 8 * lanes * t)
        turn_back(here, n, element, work, rows + t * lanes * width)


@register_jitable
def note_losses(full: int, zeta: float, work: Any, notes: int) -> bool:
    """Note each row's loss as ``RESULT``; return whether all are finite."""
    fine = True
    infinite = splat(np.inf)
    for h in range(0, 8 * full, 64):
        m = load(notes + M + h, _f8)
        log_r = log_rest(load(notes + R + h, _f8), work)
        apart, lost = two_sum(m, 0.0 - load(notes + X_Y + h, _f8))
        fine = fine and every(less(apart, infinite))
        value = (log_r + lost) + apart
        if zeta > 0:
            lse = m + log_r
            value = value + lse * lse * zeta
        store(notes + RESULT + h, value * load(notes + WEIGHT + h, _f8), _f8)
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
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    tiles = tiles_of(n, grad is not None)
    scratch = np.empty(scratch_bytes(n, 0 if grad is None else tiles), np.uint8)
    notes = aligned(scratch)
    es = room(grad, notes + NOTES + column_bytes(n))
    rows = notes + NOTES + (1 + tiles) * column_bytes(n)
    left = 0
    for start in range(first, last, lanes * tiles):
        count = min(lanes * tiles, last - start)
        full = -(-count // lanes) * lanes
        for t in range(full // lanes):
            at = start + t * lanes
            p = address_of(x) + at * x.strides[0]
            m = turn(p, x.strides[0], min(lanes, last - at), n, element, kind, notes + NOTES)
            here = notes + NOTES + (1 + t) * column_bytes(n)
            soon, step = upcoming(p, x.strides[0] * lanes, n)
            note, target = notes + 8 * lanes * t, room(grad, out_row(grad, at))
            tournaments(notes + NOTES, n, m, kind, room(grad, here), note, soon, step, target)
        fine = settle(notes, full)
        fine = note_targets(x, y, w, s, start, count, full, es, kind, notes) and fine
        if grad is not None:
            fine = note_gradients(full, zeta, divisor, notes) and fine
            write_gradients(y, start, count, n, es, element, kind, notes, rows)
        fine = note_losses(full, zeta, kind, notes) and fine
        if fine:
            copy(address_of(loss) + 8 * start, notes + RESULT, 8 * count)
            if ms is not None:
                copy(address_of(ms) + 8 * start, notes + M, 8 * count)
                copy(address_of(rs) + 8 * start, notes + R, 8 * count)
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
                ms[start + i] = load_scalar(notes + M + 8 * i, _f8) if taking_part else -np.inf
                rs[start + i] = load_scalar(notes + R + 8 * i, _f8) if taking_part else -1.0
            if grad is not None:
                o = out_row(grad, start + i)
                if taking_part:
                    copy(o, rows + i * width, width)
                else:
                    fill_zero(o, width)
    hold(scratch)
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
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    scratch = np.empty(scratch_bytes(n, 1), np.uint8)
    notes = aligned(scratch)
    xs = notes + NOTES
    es = xs + column_bytes(n)
    rows = es + column_bytes(n)
    left = 0
    for start in range(first, last, lanes):
        count = min(lanes, last - start)
        p = address_of(x) + start * x.strides[0]
        turn(p, x.strides[0], count, n, element, kind, xs)
        for i in range(lanes):
            store_scalar(notes + M + 8 * i, ms[start + min(i, count - 1)], _f8)
        m = load_doubles(notes + M, kind)
        soon, step = upcoming(p, x.strides[0] * lanes, n)
        tournaments(xs, n, m, kind, es, notes, soon, step, out_row(grad, start))
        c, magic, cut = references(m)
        store_doubles(notes + BIG, power(m, c, magic, cut, None, None))
        for i in range(lanes):
            rest = rs[start + min(i, count - 1)] * load_scalar(notes + BIG + 8 * i, _f8)
            store_scalar(notes + REST + 8 * i, rest, _f8)
            store_scalar(notes + LOST + 8 * i, 0.0, _f8)
        fine = settle(notes, lanes)
        for i in range(lanes):
            store_scalar(notes + R + 8 * i, rs[start + min(i, count - 1)], _f8)
        fine = note_targets(x, y, w, s, start, count, lanes, es, kind, notes) and fine
        fine = note_gradients(lanes, zeta, divisor, notes) and fine
        write_gradients(y, start, count, n, es, element, kind, notes, rows)
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
    hold(scratch)
    return left
