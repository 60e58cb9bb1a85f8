"""Targets, losses and gradients of a tile's rows, from the notes of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.exact import remainder, two_sum
from softnll._kernels.cpu.logarithm import log1p, log_rest
from softnll._kernels.cpu.row_memory import address_of, among, lanes_of, nearest
from softnll._kernels.cpu.simd import (
    both,
    copy,
    equal,
    every,
    less,
    load,
    load_scalar,
    maximum,
    rounded,
    select,
    size_of,
    splat,
    store,
    store_scalar,
)
from softnll._kernels.cpu.sweep import LEAST, MOST
from softnll._kernels.cpu.tile import (
    BIG,
    E_Y,
    FACTOR,
    LOW,
    PART,
    REST,
    RESULT,
    WEIGHT,
    X_Y,
    M,
    R,
    column_bytes,
    note_factor,
    scale_columns,
    served,
    turn_back,
)

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
FARTHEST = 1e150  # a normaliser whose square may overflow
SERVED, NO_PART, LEFT = range(3)  # states of a row


@register_jitable
def place_of(es: int, i: int, c: int, n: int, work: Any) -> int:
    """Return the address of class c of the i-th row among the columns of a batch."""
    lanes = lanes_of(work)
    return es + i // lanes * column_bytes(n) + 64 * c + size_of(work) * (i % lanes)


@register_jitable
def note_target(x: Array, start: int, i: int, c: int, es: Any, work: Any, notes: int) -> None:
    """Store logit and exponential of a row's target."""
    element = x.dtype
    x_y = load_scalar(address_of(x) + (start + i) * x.strides[0] + c * size_of(element), element)
    store_scalar(notes + X_Y + 8 * i, _f8(x_y), _f8)
    if es is not None:
        e_y = load_scalar(place_of(es, i, c, x.shape[1], work), work)
        store_scalar(notes + E_Y + 8 * i, _f8(e_y), _f8)


@register_jitable
def note_targets(
    x: Array, y: Array, w: Array, s: Array, start: int, count: int, full: int, es: Any, work: Any, notes: int
) -> Any:
    """Store weight, logit and exponential of each row's target; return what ``note_parts`` does."""
    n = x.shape[1]
    if s.shape[0] + w.shape[0] == 0 and unweighted_targets(x, y, start, count, es, work, notes):
        for h in range(0, 8 * full, 64):
            store(notes + WEIGHT + h, splat(1.0), _f8)
            store(notes + PART + h, splat(1.0), _f8)
        note_rest(count, full, notes)
        return True, True
    for i in range(count):  # without branches: which rows take part is often as good as random
        given = y[start + i]
        known, c = among(given, n), nearest(given, n)
        weight = w[c] if w.shape[0] > 0 else 1.0
        store_scalar(notes + WEIGHT + 8 * i, weight if known else np.nan, _f8)
        note_target(x, start, i, c, es, work, notes)
    return note_parts(s, start, count, full, es, notes)


@register_jitable
def unweighted_targets(x: Array, y: Array, start: int, count: int, es: Any, work: Any, notes: int) -> bool:
    """Store logit and exponential of each row's target; return False if a target is no class."""
    for i in range(count):
        c = y[start + i]
        if c < 0 or c >= x.shape[1]:
            return False
        note_target(x, start, i, c, es, work, notes)
    return True


@register_jitable
def note_rest(count: int, full: int, notes: int) -> None:
    """Fill the notes of lanes without a row."""
    for i in range(count, full):
        store_scalar(notes + PART + 8 * i, 1.0, _f8)
        store_scalar(notes + WEIGHT + 8 * i, 1.0, _f8)
        store_scalar(notes + X_Y + 8 * i, load_scalar(notes + M + 8 * i, _f8), _f8)
        store_scalar(notes + E_Y + 8 * i, load_scalar(notes + BIG + 8 * i, _f8), _f8)


@register_jitable
def note_parts(s: Array, start: int, count: int, full: int, es: Any, notes: int) -> Any:
    """Multiply the weights of targets by those of rows, and store as ``PART`` 1, or 0 for a row that takes no part.

    Return whether all rows that take part have a target and a weight in range, and whether all take part. A row that
    takes no part is computed as one of weight 1 whose target is its largest entry; its results are replaced afterwards.
    """
    for i in range(count if s.shape[0] > 0 else 0):
        store_scalar(notes + PART + 8 * i, s[start + i], _f8)
    note_rest(count, full, notes)
    usual = whole = True
    nothing, one, most = splat(0.0), splat(1.0), splat(MOST)
    for h in range(0, 8 * full, 64):
        weight = load(notes + WEIGHT + h, _f8)
        if s.shape[0] > 0:
            share = load(notes + PART + h, _f8)
            none = equal(share, nothing)
            part, weight = select(none, nothing, one), select(none, one, share * weight)
            whole = whole and every(less(nothing, part))
            store(notes + X_Y + h, select(none, load(notes + M + h, _f8), load(notes + X_Y + h, _f8)), _f8)
            if es is not None:
                store(notes + E_Y + h, select(none, load(notes + BIG + h, _f8), load(notes + E_Y + h, _f8)), _f8)
            store(notes + PART + h, part, _f8)
        else:
            store(notes + PART + h, one, _f8)
        weight = select(equal(weight, nothing), splat(np.nan), weight)
        usual = usual and every(less(maximum(weight, 0.0 - weight), most))
        store(notes + WEIGHT + h, weight, _f8)
    return usual, whole


@register_jitable
def clear_factors(full: int, notes: int) -> None:
    """Set the factors, and the gradient's entry at the target, of rows that take no part to 0."""
    nothing = splat(0.0)
    for h in range(0, 8 * full, 64):
        part = less(nothing, load(notes + PART + h, _f8))
        store(notes + FACTOR + h, select(part, load(notes + FACTOR + h, _f8), nothing), _f8)
        store(notes + LOW + h, select(part, load(notes + LOW + h, _f8), nothing), _f8)
        store(notes + RESULT + h, select(part, load(notes + RESULT + h, _f8), nothing), _f8)


@register_jitable
def put_all_results(
    start: int, count: int, whole: bool, result: int, notes: int, loss: Array, ms: Array, rs: Array
) -> None:
    """Write loss, m and r of a batch: 0, −∞ and −1 of rows that take no part; ``result`` is the losses' address."""
    for h in range(0, 0 if whole else 8 * count, 64):  # lanes without a row are in the notes too
        part = less(splat(0.0), load(notes + PART + h, _f8))
        store(result + h, select(part, load(result + h, _f8), splat(0.0)), _f8)
        store(notes + M + h, select(part, load(notes + M + h, _f8), splat(-np.inf)), _f8)
        store(notes + R + h, select(part, load(notes + R + h, _f8), splat(-1.0)), _f8)
    copy(address_of(ms) + 8 * start, notes + M, 8 * count)
    copy(address_of(rs) + 8 * start, notes + R, 8 * count)
    copy(address_of(loss) + 8 * start, result, 8 * count)


@register_jitable
def tempered(value: Any, tau: Any) -> Any:
    """Return a value divided by the temperature, or itself without one."""
    return value if tau is None else value / splat(tau)


@register_jitable
def note_gradients(full: int, zeta: float, tau: Any, divisor: float, notes: int) -> bool:
    """Store each row's factor and, as ``RESULT``, its target's entry; return whether all scales are in range.

    ``tau`` is the temperature of all rows, or None; ``divisor`` is τ times the mean's denominator.
    """
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
            extra = (tempered(load(notes + M + h, _f8), tau) + log1p(r)) * (2.0 * zeta)
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
def put_targets(y: Array, start: int, count: int, n: int, es: int, work: Any, notes: int) -> None:
    """Write the gradient's entry at each row's target, which is in the notes, among the exponentials.

    Rows that take no part have factors of 0; those without a target are not served.
    """
    for i in range(count):
        place = place_of(es, i, nearest(y[start + i], n), n, work)
        store_scalar(place, rounded(load_scalar(notes + RESULT + 8 * i, _f8), work), work)


@register_jitable
def write_gradients(
    y: Array, start: int, count: int, n: int, es: int, element: Any, work: Any, notes: int, rows: int
) -> None:
    """Put the targets' entries among the exponentials, scale them and turn them back."""
    lanes, width = lanes_of(element), n * size_of(element)
    put_targets(y, start, count, n, es, work, notes)
    for t in range(-(-count // lanes)):
        here = es + t * column_bytes(n)
        scale_columns(here, n, work, notes + 8 * lanes * t)
        turn_back(here, n, element, work, rows + t * lanes * width)


@register_jitable
def note_losses(full: int, zeta: float, tau: Any, work: Any, notes: int) -> bool:
    """Store each row's loss as ``RESULT``; return whether all are finite. ``tau`` is as in ``note_gradients``."""
    fine = True
    infinite = splat(np.inf)
    for h in range(0, 8 * full, 64):
        m = load(notes + M + h, _f8)
        log_r = log_rest(load(notes + R + h, _f8), work)
        apart, lost = two_sum(m, 0.0 - load(notes + X_Y + h, _f8))
        fine = fine and every(less(apart, infinite))
        value = (log_r + tempered(lost, tau)) + tempered(apart, tau)
        if zeta > 0:
            lse = tempered(m, tau) + log_r
            value = value + (lse * zeta) * lse
        value = value * load(notes + WEIGHT + h, _f8)
        fine = fine and every(less(value, infinite))
        store(notes + RESULT + h, value, _f8)
    return fine


@register_jitable
def row_state(notes: int, i: int, zeta: float, divisor: float, graded: bool) -> int:
    """Return whether a row is SERVED by these kernels, has NO_PART, or is LEFT to the scalar kernels."""
    if load_scalar(notes + PART + 8 * i, _f8) == 0.0:
        return NO_PART
    weight = load_scalar(notes + WEIGHT + 8 * i, _f8)
    m, x_y = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + X_Y + 8 * i, _f8)
    if not (served(notes, i) and abs(weight) < MOST and abs(m - x_y) < np.inf):
        return LEFT
    if zeta > 0 and not abs(m) < FARTHEST:
        return LEFT
    if graded:
        big, rest = load_scalar(notes + BIG + 8 * i, _f8), load_scalar(notes + REST + 8 * i, _f8)
        scale = abs(load_scalar(notes + FACTOR + 8 * i, _f8) * (big + rest))
        whole = abs(scale * divisor / weight)
        if not (LEAST < scale < MOST and (zeta == 0.0 or LEAST < whole < MOST)):
            return LEFT
    return SERVED
