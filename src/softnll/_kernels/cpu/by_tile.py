"""Kernels for rows of few classes: as many rows at a time as a vector has lanes, each lane its own row.

Their parameters are those of ``by_row.py``; options that only that serves are None.
Results are turned back in scratch and copied out. Rows that this arithmetic does not serve are not written; their
numbers are written to ``left``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from softnll._kernels.cpu.elementary import power, references
from softnll._kernels.cpu.logarithm import log_rest, normaliser
from softnll._kernels.cpu.row_memory import address_if, address_of, aligned, lanes_of, out_row
from softnll._kernels.cpu.row_options import write_no_part
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
    store_scalar,
)
from softnll._kernels.cpu.tile import (
    BIG,
    FACTOR,
    LOST,
    LOW,
    MOST_TILES,
    NOTES,
    REST,
    RESULT,
    M,
    R,
    column_bytes,
    copy_rows,
    note_factor,
    scale_columns,
    scratch_bytes,
    served,
    settle,
    tiles_of,
    tournaments,
    turn,
    turn_back,
    upcoming,
)
from softnll._kernels.cpu.tile_targets import (
    NO_PART,
    SERVED,
    clear_factors,
    note_gradients,
    note_losses,
    note_targets,
    put_all_results,
    row_state,
    write_gradients,
)

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64


def normalise(
    x: Array,
    where: Any,
    taus: Any,
    prob: Any,
    out: Array,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write softmax or, if ``prob`` is None, log_softmax of rows; return how many are left (numbers in ``left``)."""
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    tiles = tiles_of(n, True)
    scratch = np.empty(scratch_bytes(n, tiles), np.uint8)
    notes = aligned(scratch)
    es = notes + NOTES + column_bytes(n)
    rows = es + tiles * column_bytes(n)
    n_left = 0
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
            tournaments(
                notes + NOTES, n, m, kind, address_if(prob, here), note, soon, step, out_row(out, at), None, None
            )
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
                left[n_left] = start + i
                n_left += 1
    hold(scratch)
    return n_left


def logsumexp(x: Array, where: Any, lse: Array, work: Array, first: int, last: int, left: Array) -> int:
    """Write m + log1p(r) of rows; return how many are left (numbers in ``left``)."""
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes = lanes_of(element)
    scratch = np.empty(scratch_bytes(n, 0), np.uint8)
    notes = aligned(scratch)
    n_left = 0
    for start in range(first, last, lanes * MOST_TILES):
        count = min(lanes * MOST_TILES, last - start)
        full = -(-count // lanes)
        for t in range(full):
            at = start + t * lanes
            p = address_of(x) + at * x.strides[0]
            top = turn(p, x.strides[0], min(lanes, last - at), n, element, kind, notes + NOTES)
            soon, step = upcoming(p, x.strides[0] * lanes, n)
            c, magic, _ = references(top, None)
            store_doubles(notes + FACTOR + 8 * lanes * t, magic)
            store_doubles(notes + LOW + 8 * lanes * t, c)
            tournaments(notes + NOTES, n, top, kind, None, notes + 8 * lanes * t, soon, step, None, None, None)
        fine = settle(notes, full * lanes)
        for h in range(0, 8 * lanes * full, 64):
            m, rest, magic = load(notes + M + h, _f8), load(notes + REST + h, _f8), load(notes + FACTOR + h, _f8)
            lse_of_rows = normaliser(m, rest, load(notes + LOW + h, _f8), magic, kind)
            store(notes + RESULT + h, lse_of_rows, _f8)
        if fine:
            copy(address_of(lse) + 8 * start, notes + RESULT, 8 * count)
            continue
        for i in range(count):
            if served(notes, i):
                lse[start + i] = load_scalar(notes + RESULT + 8 * i, _f8)
            else:
                left[n_left] = start + i
                n_left += 1
    hold(scratch)
    return n_left


def losses(
    x: Array,
    where: Any,
    q: Any,
    y: Array,
    w: Any,
    s: Array,
    taus: Any,
    smoothing: float,
    zeta: float,
    divisor: float,
    loss: Array,
    ms: Array,
    rs: Array,
    grad: Any,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write loss (row weight applied), m, r and gradient (also / divisor) of rows with hard targets.

    ``grad`` may be None; ``where``, ``q`` and ``taus`` are, and ``smoothing`` is not used. Return
    how many rows are left (numbers in ``left``).
    """
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    tiles = tiles_of(n, grad is not None)
    scratch = np.empty(scratch_bytes(n, 0 if grad is None else tiles), np.uint8)
    notes = aligned(scratch)
    es = address_if(grad, notes + NOTES + column_bytes(n))
    rows = notes + NOTES + (1 + tiles) * column_bytes(n)
    n_left = 0
    for start in range(first, last, lanes * tiles):
        count = min(lanes * tiles, last - start)
        full = -(-count // lanes) * lanes
        for t in range(full // lanes):
            at = start + t * lanes
            p = address_of(x) + at * x.strides[0]
            m = turn(p, x.strides[0], min(lanes, last - at), n, element, kind, notes + NOTES)
            here = notes + NOTES + (1 + t) * column_bytes(n)
            soon, step = upcoming(p, x.strides[0] * lanes, n)
            note, target = notes + 8 * lanes * t, address_if(grad, out_row(grad, at))
            tournaments(notes + NOTES, n, m, kind, address_if(grad, here), note, soon, step, target, None, None)
        fine = settle(notes, full)
        usual, whole = note_targets(x, y, w, s, start, count, full, es, kind, notes)
        fine = fine and usual
        if grad is not None:
            fine = note_gradients(full, zeta, None, divisor, notes) and fine
            if not whole:
                clear_factors(full, notes)
            write_gradients(y, start, count, n, es, element, kind, notes, rows)
        fine = note_losses(full, zeta, None, kind, notes) and fine
        if fine:
            put_all_results(start, count, whole, notes + RESULT, notes, loss, ms, rs)
            if grad is not None:
                copy_rows(rows, count, width, out_row(grad, start), grad.strides[0])
            continue
        for i in range(count):
            state = row_state(notes, i, zeta, divisor, grad is not None)
            o = out_row(grad, start + i)
            if state == SERVED:
                ms[start + i] = load_scalar(notes + M + 8 * i, _f8)
                rs[start + i] = load_scalar(notes + R + 8 * i, _f8)
                loss[start + i] = load_scalar(notes + RESULT + 8 * i, _f8)
                if grad is not None:
                    copy(o, rows + i * width, width)
            elif state == NO_PART:
                write_no_part(start + i, n, loss, ms, rs, grad, o, element, False)
            else:
                left[n_left] = start + i
                n_left += 1
    hold(scratch)
    return n_left


def gradients(
    x: Array,
    where: Any,
    q: Any,
    y: Array,
    w: Any,
    s: Array,
    taus: Any,
    smoothing: float,
    zeta: float,
    divisor: float,
    loss: None,
    ms: Array,
    rs: Array,
    grad: Array,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write the gradient of rows with hard targets from m and r; return how many are left (numbers in ``left``)."""
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    lanes, width = lanes_of(element), n * size_of(element)
    scratch = np.empty(scratch_bytes(n, 1), np.uint8)
    notes = aligned(scratch)
    xs = notes + NOTES
    es = xs + column_bytes(n)
    rows = es + column_bytes(n)
    n_left = 0
    for start in range(first, last, lanes):
        count = min(lanes, last - start)
        p = address_of(x) + start * x.strides[0]
        turn(p, x.strides[0], count, n, element, kind, xs)
        for i in range(lanes):
            store_scalar(notes + M + 8 * i, ms[start + min(i, count - 1)], _f8)
        m = load_doubles(notes + M, kind)
        soon, step = upcoming(p, x.strides[0] * lanes, n)
        tournaments(xs, n, m, kind, es, notes, soon, step, out_row(grad, start), None, None)
        c, magic, cut = references(m, None)
        store_doubles(notes + BIG, power(m, c, magic, cut, None, None))
        for i in range(lanes):
            rest = rs[start + min(i, count - 1)] * load_scalar(notes + BIG + 8 * i, _f8)
            store_scalar(notes + REST + 8 * i, rest, _f8)
            store_scalar(notes + LOST + 8 * i, 0.0, _f8)
        fine = settle(notes, lanes)
        for i in range(lanes):
            store_scalar(notes + R + 8 * i, rs[start + min(i, count - 1)], _f8)
        usual, whole = note_targets(x, y, w, s, start, count, lanes, es, kind, notes)
        fine = note_gradients(lanes, zeta, None, divisor, notes) and fine and usual
        if (
            not whole
        ):  # rows whose upstream gradient is 0; the forward's rows without part have m = −∞, and are not fine
            clear_factors(lanes, notes)
        write_gradients(y, start, count, n, es, element, kind, notes, rows)
        if fine:
            copy_rows(rows, count, width, out_row(grad, start), grad.strides[0])
            continue
        for i in range(count):
            state = row_state(notes, i, zeta, divisor, True)
            o = out_row(grad, start + i)
            if state == SERVED:
                copy(o, rows + i * width, width)
            elif state == NO_PART:
                write_no_part(start + i, n, loss, ms, rs, grad, o, element, False)
            else:
                left[n_left] = start + i
                n_left += 1
    hold(scratch)
    return n_left
