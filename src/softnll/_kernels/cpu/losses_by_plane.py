"""Losses and gradients of planes (``plane.py``) with hard targets, a batch of rows that lie side by side at a time.

Rows that this arithmetic does not serve are not written; their numbers are written to ``left``. The gradient may be
written over the logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.by_plane import exponentials, finish_batch
from softnll._kernels.cpu.plane import address_at, place_rows, rows_from, tiles_in_cache
from softnll._kernels.cpu.plane_targets import COLUMNS, idle, note_hard, put_results, write_idle
from softnll._kernels.cpu.row_memory import address_if, address_of, aligned, lanes_of
from softnll._kernels.cpu.row_options import one_for_all
from softnll._kernels.cpu.simd import align_stack, copy, hold, load_scalar, size_of, store_scalar, zero
from softnll._kernels.cpu.sweep import LEAST, MOST
from softnll._kernels.cpu.tile import BIG, FACTOR, PART, REST, RESULT, WEIGHT, X_Y, M, column_bytes, served
from softnll._kernels.cpu.tile_targets import (
    FARTHEST,
    clear_factors,
    note_gradients,
    note_losses,
    put_all_results,
    put_targets,
)

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64


@register_jitable
def is_served(notes: int, i: int, zeta: float, tau: float, divisor: float, graded: bool) -> bool:
    """Return whether the vector kernels serve one row of a batch; they do if it takes no part."""
    if load_scalar(notes + PART + 8 * i, _f8) == 0.0:
        return True
    weight = load_scalar(notes + WEIGHT + 8 * i, _f8)
    m, x_y = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + X_Y + 8 * i, _f8)
    if not (served(notes, i) and 0.0 < abs(weight) < MOST and abs(m - x_y) / tau < np.inf):
        return False
    if zeta > 0 and not abs(m) / tau < FARTHEST:
        return False
    if graded:
        big, rest = load_scalar(notes + BIG + 8 * i, _f8), load_scalar(notes + REST + 8 * i, _f8)
        scale = abs(load_scalar(notes + FACTOR + 8 * i, _f8) * (big + rest))
        whole = abs(scale * divisor / weight)
        return LEAST < scale < MOST and (zeta == 0.0 or LEAST < whole < MOST)
    return True


@register_jitable
def place_gradient(es: int, i: int, n: int, work: Any, notes: int, out: int, step: int, element: Any) -> None:
    """Write the gradient of the i-th row of a batch from scratch; 0 if it takes no part."""
    lanes, size = lanes_of(element), size_of(element)
    if load_scalar(notes + PART + 8 * i, _f8) == 0.0:
        for k in range(n):
            store_scalar(out + k * step + i * size, zero(work), element)
        return
    t = i // lanes
    place_rows(es + t * column_bytes(n), i % lanes, n, work, out + lanes * size * t, step, element)


def losses(
    x: Array,
    y: Array,
    w: Array,
    s: Array,
    taus: Any,
    zeta: float,
    divisor: float,
    loss: Array,
    ms: Array,
    rs: Array,
    grad: Any,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write loss (row weight applied), m and r of rows and, unless ``grad`` is None, the gradient (also / divisor).

    ``taus`` has the temperature of all rows, or is None. Return how many rows are left (numbers in ``left``). Weights
    may be negative.
    """
    align_stack()
    n, stride, step = x.shape[1], x.strides[1], 0 if grad is None else grad.strides[1]
    element, kind = x.dtype, work.dtype
    lanes, tiles = lanes_of(element), tiles_in_cache(n)
    scratch = np.empty(COLUMNS + tiles * column_bytes(n) + 64, np.uint8)
    memory = np.empty(64, np.float64)
    notes, results = aligned(scratch), address_of(memory)
    es = address_if(grad, notes + COLUMNS)
    tau, one_tau, beta, beta_low, divided = one_for_all(taus, divisor, kind)
    n_left, start = 0, first
    while start < last:
        count = rows_from(start, last, x.shape[2], lanes * tiles)
        full = -(-count // lanes) * lanes
        p, o = address_at(x, start), 0 if grad is None else address_at(grad, start)
        soon = address_at(x, start + count)
        if idle(s, start, count):
            write_idle(start, count, n, loss, ms, rs, o, step, element, grad is not None)
            start += count
            continue
        fine = exponentials(p, stride, count, n, element, kind, notes + COLUMNS, es, notes, soon, beta, beta_low)
        usual, whole = note_hard(y, w, s, start, count, full, p, stride, n, element, es, kind, notes)
        fine = fine and usual
        if grad is not None:
            fine = note_gradients(full, zeta, one_tau, divided, notes) and fine
            if not whole:
                clear_factors(full, notes)
            put_targets(y, start, count, n, es, kind, notes)
        fine = note_losses(full, zeta, one_tau, kind, notes) and fine
        copy(results, notes + RESULT, 8 * full)  # the notes' place is used again
        if fine:
            put_all_results(start, count, whole, results, notes, loss, ms, rs)
        if grad is not None:
            finish_batch(es, n, fine, True, kind, notes, o, step, count, element)
        for i in range(0 if fine else count):
            if is_served(notes, i, zeta, tau, divided, grad is not None):
                put_results(start, i, results, notes, loss, ms, rs)
                if grad is not None:
                    place_gradient(es, i, n, kind, notes, o, step, element)
            else:
                left[n_left] = start + i
                n_left += 1
        start += count
    hold(scratch)
    hold(memory)
    return n_left
