"""Kernels for rows of many classes: one row at a time, one sweep over its logits.

Rows that this arithmetic does not serve (a NaN, an infinity, nothing but −∞, a scale beyond its range, ...) are not
written. Their numbers are written to ``left``; the scalar kernels compute them afterwards.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.exact import TINY, remainder, two_sum
from softnll._kernels.cpu.logarithm import log1p, normaliser
from softnll._kernels.cpu.row_memory import (
    address_if,
    address_of,
    aligned,
    entry,
    lanes_of,
    last_entry,
    out_row,
    unaligned,
    write_vector,
)
from softnll._kernels.cpu.row_options import inverse, mask_of, masked, mean_share, temperature, weight_of, write_no_part
from softnll._kernels.cpu.simd import (
    align_stack,
    fence,
    hold,
    load,
    load_scalar,
    rounded,
    size_of,
    splat,
    store,
    store_part,
    store_scalar,
)
from softnll._kernels.cpu.sweep import LEAST, MOST, SMALLEST, in_two, narrow, ordinary, swept, swept_from, write_scaled

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
FAR = 1e30  # logits whose differences may overflow
FARTHEST = 1e150  # a normaliser whose square may overflow


@register_jitable
def log_probability(v: Any, m: Any, beta: Any, log_r: Any) -> Any:
    """Return (x − m)/τ − log_r."""
    return (v - m) - log_r if beta is None else (v - m) * beta - log_r


@register_jitable
def write_logs(
    p: int, allowed: Any, n: int, element: Any, m: Any, beta: Any, log_r: Any, out: int, streamed: bool
) -> None:
    """Write log-probabilities."""
    lanes, size = lanes_of(element), size_of(element)
    at, logs = splat(m), splat(log_r)
    k = unaligned(out, n, element, streamed)
    if k > 0:
        store_part(out, k, log_probability(last_entry(p, allowed, 0, k, element), at, beta, logs), element)
    while k + lanes <= n:
        write_vector(out + k * size, log_probability(entry(p, allowed, k, element), at, beta, logs), element, streamed)
        k += lanes
    if k < n:
        v = log_probability(last_entry(p, allowed, k, n - k, element), at, beta, logs)
        store_part(out + k * size, n - k, v, element)


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
    element, scratch_type = x.dtype, work.dtype
    scratch = np.empty(n + 64, scratch_type)
    w = address_if(prob, aligned(scratch))
    n_left = 0
    for i in range(first, last):
        p, o, allowed = address_of(x) + i * x.strides[0], address_of(out) + i * out.strides[0], mask_of(where, i)
        beta, beta_low = inverse(taus, temperature(taus, i), element)
        m, big, rest, _, _ = swept(p, allowed, n, element, beta, beta_low, w, scratch_type)
        if not ordinary(m, big, rest) or (beta is not None and abs(_f8(m)) > FAR):  # there x − m may overflow, not /τ
            left[n_left] = i
            n_left += 1
        elif prob is None:
            write_logs(p, allowed, n, element, m, beta, rounded(math.log1p(rest / big), element), o, streamed)
        else:
            write_scaled(w, scratch_type, n, in_two(1.0, big, rest, 0.0, element), o, element, streamed)
    if streamed:
        fence()
    hold(scratch)
    return n_left


def logsumexp(x: Array, where: Any, lse: Array, work: Array, first: int, last: int, left: Array) -> int:
    """Write m + log1p(r) of rows; return how many are left (numbers in ``left``)."""
    align_stack()
    n = x.shape[1]
    element = x.dtype
    memory = np.empty(64, np.float64)
    notes = aligned(memory)
    n_left = 0
    for start in range(first, last, 8):
        stop = min(start + 8, last)
        clear(notes)
        for i in range(start, stop):
            p, allowed = address_of(x) + i * x.strides[0], mask_of(where, i)
            m, big, rest, c, magic = swept(p, allowed, n, element, None, None, None, element)
            if ordinary(m, big, rest):
                note(notes, i - start, _f8(m), rest, _f8(c), _f8(magic), 0.0)
                lse[i] = 0.0
            else:
                left[n_left] = i
                n_left += 1
                lse[i] = np.nan
        m, rest = load(notes, _f8), load(notes + 64, _f8)
        c, magic = load(notes + 128, _f8), load(notes + 192, _f8)
        store(notes + 320, normaliser(m, rest, c, magic, work), _f8)
        for i in range(start, stop):
            if lse[i] == 0.0:  # not left
                lse[i] = load_scalar(notes + 320 + 8 * (i - start), _f8)
    hold(memory)
    return n_left


@register_jitable
def finish(notes: int, zeta: float, losses: int) -> None:
    """Write eight losses: weight·T·(log1p(r) + (m − x_y)/τ + ζ·lse²), from the notes of their rows."""
    f8 = np.float64
    m, r, x_y = load(notes, f8), load(notes + 64, f8), load(notes + 128, f8)
    tau, weight = load(notes + 192, f8), load(notes + 256, f8)
    log_r = log1p(r)
    apart, lost = two_sum(m, splat(0.0) - x_y)
    loss = (log_r + lost / tau) + apart / tau
    if zeta > 0:
        lse = m / tau + log_r
        loss = loss + (lse * zeta) * lse
    store(losses, weight * loss, f8)


@register_jitable
def note(notes: int, k: int, m: float, r: float, x_y: float, tau: float, weight: float) -> None:
    """Store the terms of a row's loss in the notes of eight rows, at place k."""
    f8 = np.float64
    store_scalar(notes + 8 * k, m, f8)
    store_scalar(notes + 64 + 8 * k, r, f8)
    store_scalar(notes + 128 + 8 * k, x_y, f8)
    store_scalar(notes + 192 + 8 * k, tau, f8)
    store_scalar(notes + 256 + 8 * k, weight, f8)


@register_jitable
def clear(notes: int) -> None:
    """Store the terms of rows whose loss is 0."""
    for k in range(8):
        note(notes, k, 0.0, 0.0, 0.0, 1.0, 0.0)


@register_jitable
def scales(weight: float, mass: float, divisor: float, tau: float, zeta: float, m: float, r: float, big: float) -> Any:
    """Return the gradient's factor, 2ζ·lse, and whether the vector kernels serve numbers of their size."""
    extra = 2.0 * zeta * (m / tau + math.log1p(r)) if zeta > 0 else 0.0
    scale = mean_share(weight, divisor) * mass / tau
    factor = scale * (1.0 + extra)
    fine = LEAST < abs(factor) < MOST and LEAST < abs(1.0 + extra) < MOST
    return factor, extra, (fine and abs(factor) > SMALLEST * big * (1.0 + r)) or not divisor > 0


@register_jitable
def write_gradient(
    v: int,
    work: Any,
    n: int,
    c: int,
    big: float,
    r: float,
    factor: float,
    extra: float,
    out: int,
    element: Any,
    streamed: bool,
) -> None:
    """Write a row's gradient from its exponentials in scratch, and from r: a backward does not have the rest."""
    rest = r * big
    lost = -remainder(rest, r, big)
    place = v + c * size_of(work)
    e = _f8(load_scalar(place, work))
    targeted = (extra * e - ((big - e) + rest)) / (1.0 + extra)
    store_scalar(place, rounded(targeted, element), work)
    write_scaled(v, work, n, in_two(factor, big, rest, lost, element), out, element, streamed)


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
    loss: Any,
    ms: Any,
    rs: Any,
    grad: Any,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write loss (row weight applied), m, r and gradient (also / divisor) of rows with hard targets.

    ``loss`` is None for the gradient alone, from m and r. ``where``, ``taus`` and ``grad`` may be None; ``q`` is, and
    ``smoothing`` is not used. Return how many rows are left (numbers in ``left``).
    """
    align_stack()
    n, element, scratch_type = x.shape[1], x.dtype, work.dtype
    scratch, memory = np.empty(n + 64, scratch_type), np.empty(64, np.float64)
    notes, v = aligned(memory), address_if(grad, aligned(scratch))
    n_left = 0
    for start in range(first, last, 8):
        stop = min(start + 8, last)
        if loss is not None:
            clear(notes)
        for i in range(start, stop):
            p, out, allowed = address_of(x) + i * x.strides[0], out_row(grad, i), mask_of(where, i)
            weight = weight_of(s, i)
            if weight == 0:
                write_no_part(i, n, loss, ms, rs, grad, out, element, streamed)
                continue
            left[n_left] = i
            c = y[i]
            if c < 0 or c >= n:
                n_left += 1
                continue
            tau = temperature(taus, i)
            beta, beta_low = inverse(taus, tau, element)
            mass = w[c] if w.shape[0] > 0 else 1.0
            fine = 0 < abs(weight * mass) < MOST
            if loss is None:
                m, r, size = ms[i], rs[i], 0.0  # m is the reference: big is near 2⁶⁴
                fine = fine and abs(m) < np.inf and (r == 0 or TINY <= r < np.inf)
            else:
                top, big, rest, _, _ = swept(p, allowed, n, element, beta, beta_low, v, scratch_type)
                m, r, size = _f8(top), rest / big, narrow(big, element)
                x_y = _f8(load_scalar(p + c * size_of(element), element))
                fine = fine and ordinary(top, big, rest) and abs(m - x_y) / tau < np.inf and not masked(where, i, c)
                fine = fine and (zeta == 0 or abs(m) / tau < FARTHEST)
            if fine and grad is not None:
                factor, extra, fine = scales(weight, mass, divisor, tau, zeta, m, r, size)
                if fine and loss is None:
                    big = swept_from(m, p, allowed, n, element, beta, beta_low, v, scratch_type)
                if fine:
                    write_gradient(v, scratch_type, n, c, big, r, factor, extra, out, element, streamed)
            if not fine:
                n_left += 1
            elif loss is not None:
                note(notes, i - start, m, r, x_y, tau, weight * mass)
                ms[i], rs[i] = m, r
        if loss is not None:
            finish(notes, zeta, notes + 320)
            for i in range(start, stop):
                loss[i] = load_scalar(notes + 320 + 8 * (i - start), np.float64)
    if streamed:
        fence()
    hold(scratch)
    hold(memory)
    return n_left
