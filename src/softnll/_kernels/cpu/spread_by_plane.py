"""Losses and gradients of planes (``plane.py``) whose targets are spread over all classes, as in ``soft_targets.py``.

The measure ``t = w·[(1 − ε)·q + ε/C]`` of a class is computed where it is used: from the soft targets, which are planes
too, or from the number of the hard target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.by_plane import exponentials
from softnll._kernels.cpu.logarithm import log_rest
from softnll._kernels.cpu.losses_by_plane import place_gradient
from softnll._kernels.cpu.plane import address_at, read, rows_from, tiles_in_cache, write
from softnll._kernels.cpu.plane_targets import (
    COLUMNS,
    FAR,
    FAR_LOST,
    MASS,
    MASS_LOST,
    dtype_if,
    idle,
    note_weights,
    put_results,
    write_idle,
)
from softnll._kernels.cpu.row_memory import address_if, address_of, aligned, among, lanes_of
from softnll._kernels.cpu.row_options import one_for_all
from softnll._kernels.cpu.simd import (
    add_doubles,
    align_stack,
    both,
    copy,
    equal,
    every,
    hold,
    less,
    load,
    load_doubles,
    load_scalar,
    maximum,
    mul_add,
    rounded,
    select,
    size_of,
    splat,
    store,
    store_doubles,
    store_scalar,
    zero,
)
from softnll._kernels.cpu.soft_targets import EXTRA, FARTHEST, entry_of, term
from softnll._kernels.cpu.sweep import GROUP, LEAST, MOST, SMALLEST, product
from softnll._kernels.cpu.tile import BIG, PART, REST, RESULT, WEIGHT, M, R, column_bytes, factors, note_factor, served
from softnll._kernels.cpu.tile_targets import put_all_results, tempered

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
TOP = 2.0**85  # of big + rest, within which its product with MOST is in float32


@register_jitable
def shares_of(q: Any, w: Array, k: int, share: float, keep: float, work: Any) -> Any:
    """Return what a class has of ε and, beside, the factor of soft targets or the measure of a hard target's class."""
    weight = w[k] if w.shape[0] > 0 else 1.0
    whole = keep + share if q is None else keep
    return splat(rounded(share * weight, work)), splat(rounded(whole * weight, work))


@register_jitable
def measure(q: Any, kq: Any, offset: int, count: int, classes: Any, k: int, shares: Any, work: Any) -> Any:
    """Return the measure of class k of a tile's rows."""
    if q is None:
        return select(equal(classes, splat(rounded(_f8(k), work))), shares[1], shares[0])
    return mul_add(read(q + offset, count, kq), shares[1], shares[0])


@register_jitable
def note_measures(
    q: Any,
    kq: Any,
    apart: int,
    classes: Any,
    w: Array,
    keep: float,
    share: float,
    p: int,
    stride: int,
    count: int,
    n: int,
    element: Any,
    work: Any,
    notes: int,
) -> None:
    """Store T and Σ t·(m − x) of a tile's rows; ``q`` is the address of soft targets, or None.

    T is NaN where a soft target is so large that its product with an exponential may overflow.
    """
    align_stack()
    nothing = splat(zero(work))
    m = load_doubles(notes + M, work)
    store_doubles(notes + MASS, nothing)
    store_doubles(notes + MASS_LOST, nothing)
    store_doubles(notes + FAR, nothing)
    store_doubles(notes + FAR_LOST, nothing)
    top = nothing
    k = 0
    while k < n:
        stop = min(k + GROUP, n)
        mass = nothing
        far = nothing
        while k < stop:
            t = measure(q, kq, k * apart, count, classes, k, shares_of(q, w, k, share, keep, work), work)
            mass = mass + t
            if q is not None:
                top = maximum(top, maximum(t, nothing - t))
            far = far + term(read(p + k * stride, count, element), m, t, nothing)
            k += 1
        add_doubles(notes + MASS, notes + MASS_LOST, mass)
        add_doubles(notes + FAR, notes + FAR_LOST, far)
    store_doubles(notes + RESULT, top)
    for h in range(0, 8 * lanes_of(work), 64):
        whole = load(notes + MASS + h, _f8) + load(notes + MASS_LOST + h, _f8)
        ranged = less(load(notes + RESULT + h, _f8), splat(MOST))
        store(notes + MASS + h, select(ranged, whole, splat(np.nan)), _f8)
        store(notes + FAR + h, load(notes + FAR + h, _f8) + load(notes + FAR_LOST + h, _f8), _f8)
    for i in range(lanes_of(work)):
        if i >= count or load_scalar(notes + PART + 8 * i, _f8) == 0.0:
            store_scalar(notes + MASS + 8 * i, 1.0, _f8)
            store_scalar(notes + FAR + 8 * i, 0.0, _f8)


@register_jitable
def note_spread(full: int, zeta: float, tau: Any, divisor: float, work: Any, notes: int) -> bool:
    """Store each row's loss, its factor, and T in two parts (as ``MASS`` and ``FAR``); return whether all are in range.

    The second part is what the rounding of T to the compute type loses, plus 2ζ·lse·T. ``tau`` is the temperature of
    all rows, or None; ``divisor`` is τ times the mean's denominator.
    """
    fine = True
    infinite, least, most = splat(np.inf), splat(LEAST), splat(MOST)
    narrow = 0.0 if size_of(work) == 8 else SMALLEST
    for h in range(0, 8 * full, 64):
        m, r = tempered(load(notes + M + h, _f8), tau), load(notes + R + h, _f8)
        big, rest = load(notes + BIG + h, _f8), load(notes + REST + h, _f8)
        mass, weight = load(notes + MASS + h, _f8), load(notes + WEIGHT + h, _f8)
        far = tempered(load(notes + FAR + h, _f8), tau)
        log_r = log_rest(r, work)
        value = log_r
        extra = splat(0.0)
        if zeta > 0:
            lse = m + log_r
            value = log_r + (lse * zeta) * lse
            extra = lse * (2.0 * zeta)
            fine = fine and every(less(maximum(m, 0.0 - m), splat(FARTHEST)))
            fine = fine and every(less(maximum(extra, 0.0 - extra), splat(EXTRA)))
        store(notes + RESULT + h, weight * (far + mass * value), _f8)
        scale = weight / divisor
        size = maximum(scale, 0.0 - scale)
        heavy = maximum(weight, 0.0 - weight) * mass
        fine = fine and every(both(less(far, infinite), both(less(least, mass), less(mass, most))))
        fine = fine and every(both(less(splat(0.0), heavy), less(heavy, most)))
        fine = fine and every(both(both(less(least, size), less(size, most)), less((big + rest) * narrow, size)))
        if size_of(work) == 4:
            fine = fine and every(less(big + rest, splat(TOP)))
        note_factor(notes, h, scale, big, rest, splat(0.0))
        store(notes + FAR + h, extra * mass, _f8)
    return fine


@register_jitable
def spread_served(notes: int, i: int, result: float, zeta: float, tau: float, divisor: float, work: Any) -> bool:
    """Return whether the vector kernels serve one row of a batch; they do if it takes no part."""
    if load_scalar(notes + PART + 8 * i, _f8) == 0.0:
        return True
    m, weight = load_scalar(notes + M + 8 * i, _f8), load_scalar(notes + WEIGHT + 8 * i, _f8)
    mass = load_scalar(notes + MASS + 8 * i, _f8)
    if not (served(notes, i) and abs(result) < np.inf and LEAST < mass < MOST and 0.0 < abs(weight) * mass < MOST):
        return False
    if zeta > 0 and not (abs(m) / tau < FARTHEST and abs(load_scalar(notes + FAR + 8 * i, _f8)) < EXTRA * mass):
        return False
    top = load_scalar(notes + BIG + 8 * i, _f8) + load_scalar(notes + REST + 8 * i, _f8)
    scale = abs(weight / divisor)
    return LEAST < scale < MOST and (size_of(work) == 8 or (top < TOP and scale > SMALLEST * top))


@register_jitable
def write_tile(
    xs: int,
    n: int,
    q: Any,
    kq: Any,
    apart: int,
    classes: Any,
    w: Array,
    keep: float,
    share: float,
    rows: int,
    work: Any,
    notes: int,
    out: int,
    step: int,
    count: int,
    element: Any,
) -> None:
    """Write a tile's gradients from its exponentials to ``out``, which may be scratch; 0 in rows that take no part."""
    align_stack()
    nothing = splat(zero(work))
    one = splat(rounded(1.0, work))
    part = less(nothing, load_doubles(notes + PART, work))
    big, rest, mass = (
        load_doubles(notes + BIG, work),
        load_doubles(notes + REST, work),
        load_doubles(notes + MASS, work),
    )
    store_doubles(notes + RESULT, mass)
    for h in range(0, 8 * lanes_of(work), 64):
        lost = load(notes + MASS + h, _f8) - load(notes + RESULT + h, _f8)
        store(notes + RESULT + h, lost + load(notes + FAR + h, _f8), _f8)
    more = load_doubles(notes + RESULT, work)
    high, low = factors(notes, work)
    for k in range(n):
        t = measure(q, kq, k * apart, rows, classes, k, shares_of(q, w, k, share, keep, work), work)
        value = product(entry_of(load(xs + 64 * k, work), t, one, mass, more, big, rest), high, low)
        write(out + k * step, count, select(part, value, nothing), element)


@register_jitable
def classes_of(y: Array, start: int, count: int, n: int, work: Any, place: int) -> Any:
    """Return the targets of a tile's rows as numbers of the compute type; NaN for one that is no class."""
    for i in range(lanes_of(work)):
        c = y[start + i] if i < count and y.shape[0] > 0 else 0
        store_scalar(place + 8 * i, _f8(c) if among(c, n) else np.nan, _f8)
    return load_doubles(place, work)


def losses(
    x: Array,
    q: Any,
    y: Array,
    w: Array,
    s: Array,
    taus: Any,
    smoothing: float,
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

    ``q`` is None for hard targets ``y``; ``taus`` has the temperature of all rows, or is None. Return how many rows are
    left (numbers in ``left``).
    """
    align_stack()
    n, stride, step = x.shape[1], x.strides[1], 0 if grad is None else grad.strides[1]
    element, kind, kq = x.dtype, work.dtype, dtype_if(q, work.dtype)
    lanes, tiles, columns = lanes_of(element), tiles_in_cache(n), column_bytes(n)
    keep, share = 1.0 - smoothing, smoothing / n
    scratch = np.empty(COLUMNS + tiles * columns + 64, np.uint8)
    memory = np.empty(64 + 64, np.float64)
    notes, results = aligned(scratch), address_of(memory)
    es = address_if(grad, notes + COLUMNS)
    apart = 0 if q is None else q.strides[1]
    tau, one_tau, beta, beta_low, divided = one_for_all(taus, divisor, kind)
    n_left, start = 0, first
    while start < last:
        count = rows_from(start, last, x.shape[2], lanes * tiles)
        full = -(-count // lanes)
        p, o = address_at(x, start), 0 if grad is None else address_at(grad, start)
        if idle(s, start, count):
            write_idle(start, count, n, loss, ms, rs, o, step, element, grad is not None)
            start += count
            continue
        soon = address_at(x, start + count)
        fine = exponentials(p, stride, count, n, element, kind, notes + COLUMNS, es, notes, soon, beta, beta_low)
        whole = note_weights(y, s, start, count, full * lanes, n, notes)
        for t in range(full):
            note, rows, here = notes + 8 * lanes * t, count - lanes * t, start + lanes * t
            classes, place = classes_of(y, here, rows, n, kind, results + 512), p + lanes * size_of(element) * t
            at = address_if(q, 0 if q is None else address_at(q, here))
            note_measures(at, kq, apart, classes, w, keep, share, place, stride, rows, n, element, kind, note)
        fine = note_spread(full * lanes, zeta, one_tau, divided, kind, notes) and fine
        copy(results, notes + RESULT, 8 * full * lanes)  # the notes' place is used again
        if fine:
            put_all_results(start, count, whole, results, notes, loss, ms, rs)
        for t in range(0 if grad is None else full):
            note, rows, here = notes + 8 * lanes * t, count - lanes * t, start + lanes * t
            classes, xs = classes_of(y, here, rows, n, kind, results + 512), notes + COLUMNS + t * columns
            at = address_if(q, 0 if q is None else address_at(q, here))
            target = o + lanes * size_of(element) * t
            if fine:
                write_tile(xs, n, at, kq, apart, classes, w, keep, share, rows, kind, note, target, step, rows, element)
            else:
                write_tile(xs, n, at, kq, apart, classes, w, keep, share, rows, kind, note, xs, 64, lanes, kind)
        for i in range(0 if fine else count):
            if spread_served(notes, i, load_scalar(results + 8 * i, _f8), zeta, tau, divided, kind):
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
