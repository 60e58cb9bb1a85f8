"""Targets, losses and gradients of a tile's rows, from the notes of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.exact import remainder, two_sum
from softnll._kernels.cpu.logarithm import log1p, log_rest
from softnll._kernels.cpu.row_memory import address_of, lanes_of
from softnll._kernels.cpu.row_options import weight_of
from softnll._kernels.cpu.simd import (
    both,
    every,
    less,
    load,
    load_scalar,
    maximum,
    rounded,
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

__all__ = [
    "LEFT",
    "NO_PART",
    "SERVED",
    "note_gradients",
    "note_losses",
    "note_targets",
    "row_state",
    "tempered",
    "write_gradients",
]

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
def unweighted_targets(x: Array, y: Array, start: int, count: int, es: Any, work: Any, notes: int) -> bool:
    """Store what ``note_targets`` does, for rows of weight 1; return False if a target is no class."""
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
    """Store weight, logit and exponential of each row's target; return whether all rows take part and have a target."""
    n = x.shape[1]
    all_usual = True
    unweighted = s.shape[0] + w.shape[0] == 0 and unweighted_targets(x, y, start, count, es, work, notes)
    for i in range(0 if unweighted else count):
        c = y[start + i]
        weight = weight_of(s, start + i)
        if weight == 0.0 or c < 0 or c >= n:
            all_usual = False
            store_scalar(notes + WEIGHT + 8 * i, 0.0 if weight == 0.0 else np.nan, _f8)
            store_scalar(notes + X_Y + 8 * i, 0.0, _f8)
            continue
        if w.shape[0] > 0:
            weight *= w[c]
        all_usual = all_usual and 0.0 < weight < MOST
        store_scalar(notes + WEIGHT + 8 * i, np.nan if weight == 0.0 else weight, _f8)
        note_target(x, start, i, c, es, work, notes)
    for i in range(count, full):  # lanes without a row
        store_scalar(notes + WEIGHT + 8 * i, 1.0, _f8)
        store_scalar(notes + X_Y + 8 * i, load_scalar(notes + M + 8 * i, _f8), _f8)
        store_scalar(notes + E_Y + 8 * i, load_scalar(notes + BIG + 8 * i, _f8), _f8)
    return all_usual


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
    weight = load_scalar(notes + WEIGHT + 8 * i, _f8)
    if weight == 0.0:
        return NO_PART
    m, x_y = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + X_Y + 8 * i, _f8)
    if not (served(notes, i) and 0.0 < weight < MOST and abs(m - x_y) < np.inf):
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
