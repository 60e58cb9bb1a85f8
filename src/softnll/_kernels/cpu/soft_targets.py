"""Kernels for rows whose targets are spread over all classes: soft targets, label smoothing.

One row at a time, as in ``by_row.py``, with a second row in scratch: the target measure
``t_j = w_j·[(1 − ε)·q_j + ε/C]`` of mass ``T = Σ t_j``. Then, with exponentials e_j of which the largest is B and the
others sum to R,

    loss      = Σ t_j·(m − u_j) + T·(log1p(R/B) + ζ·lse²)
    gradient  = [ (T − t_j + 2ζ·lse·T)·e_j − t_j·((B − e_j) + R) ] / (B + R)

times the row's scale: terms of one sign in the loss, and in the gradient none that rounds a certain row to 0.
Measures have the compute type of the logits; in the gradient they are scaled by a power of two, so that a large mass
does not overflow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.elementary import accumulate, no_sum
from softnll._kernels.cpu.exact import TINY, remainder
from softnll._kernels.cpu.row_memory import address_if, address_of, aligned, lanes_of, out_row, unaligned, write_vector
from softnll._kernels.cpu.row_options import inverse, mean_share, temperature, weight_of, write_no_part
from softnll._kernels.cpu.simd import (
    align_stack,
    equal,
    fence,
    hold,
    load,
    load_part,
    mul_add,
    rounded,
    select,
    size_of,
    splat,
    store_part,
    zero,
)
from softnll._kernels.cpu.sweep import (
    GROUP,
    LEAST,
    MOST,
    SMALLEST,
    gathered,
    in_two,
    narrow,
    ordinary,
    product,
    swept,
    swept_from,
)
from softnll._kernels.cpu.target_measure import put_target, soft_or_hard, write_shares

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
FARTHEST = 1e150  # a normaliser whose square may overflow
EXTRA = 8.0  # |2ζ·lse| beyond which a row is left to the scalar kernels
ROOM = 2.0**120, 2.0**1000  # bounds of big + rest within which its product with the above is in float32 and float64


@register_jitable
def term(v: Any, m: Any, t: Any, nothing: Any) -> Any:
    """Return t·(m − u), 0 for t = 0 whatever u is."""
    return select(equal(t, nothing), nothing, t * (m - v))


@register_jitable
def apart(p: int, n: int, element: Any, m: Any, t: int, work: Any) -> float:
    """Return Σ t_j·(m − x_j), from the measure in scratch."""
    align_stack()
    lanes, size, wide = lanes_of(element), size_of(element), size_of(work)
    at, nothing = splat(m), splat(zero(work))
    acc = no_sum()
    k = 0
    while k + GROUP * lanes <= n:
        total = nothing
        for _ in range(GROUP // 2):
            one = term(load(p + k * size, element), at, load(t + k * wide, work), nothing)
            k += lanes
            total = total + (one + term(load(p + k * size, element), at, load(t + k * wide, work), nothing))
            k += lanes
        acc = accumulate(acc, total)
    total = nothing
    other = nothing
    while k + lanes <= n:
        one = term(load(p + k * size, element), at, load(t + k * wide, work), nothing)
        total, other = other, total + one
        k += lanes
    if k < n:
        v = load_part(p + k * size, n - k, zero(element), element)
        total = total + term(v, at, load(t + k * wide, work), nothing)
    acc = accumulate(acc, total + other)
    return gathered(acc, 0.0)


@register_jitable
def entry_of(e: Any, t: Any, unit: Any, mass: Any, low: Any, big: Any, rest: Any) -> Any:
    """Return (T − t + 2ζ·lse·T)·e − t·((B − e) + R), T and ``low`` in units: what T's rounding lost, and 2ζ·lse·T."""
    t = t * unit
    return mul_add((mass - t) + low, e, (t * ((big - e) + rest)) * -1.0)


@register_jitable
def write_soft(
    v: int,
    t: int,
    work: Any,
    n: int,
    unit: Any,
    mass: Any,
    low: Any,
    big: Any,
    rest: Any,
    factor: Any,
    out: int,
    element: Any,
    streamed: bool,
) -> None:
    """Write a row's gradient from its exponentials and its measure in scratch."""
    align_stack()
    lanes, size, wide = lanes_of(element), size_of(element), size_of(work)
    units, masses, lows, bigs, rests = splat(unit), splat(mass), splat(low), splat(big), splat(rest)
    high, more = splat(factor[0]), splat(factor[1])
    k = unaligned(out, n, element, streamed)
    if k > 0:
        g = entry_of(load(v, work), load(t, work), units, masses, lows, bigs, rests)
        store_part(out, k, product(g, high, more), element)
    while k + lanes <= n:
        g = entry_of(load(v + k * wide, work), load(t + k * wide, work), units, masses, lows, bigs, rests)
        write_vector(out + k * size, product(g, high, more), element, streamed)
        k += lanes
    if k < n:
        g = entry_of(load(v + k * wide, work), load(t + k * wide, work), units, masses, lows, bigs, rests)
        store_part(out + k * size, n - k, product(g, high, more), element)


@register_jitable
def graded(
    weight: float,
    mass: float,
    divisor: float,
    tau: float,
    zeta: float,
    m: float,
    big: float,
    r: float,
    v: int,
    t: int,
    work: Any,
    n: int,
    out: int,
    element: Any,
    streamed: bool,
) -> bool:
    """Write a row's gradient; return False, and write nothing, if this arithmetic does not serve it."""
    extra = 2.0 * zeta * (m / tau + math.log1p(r)) if zeta > 0 else 0.0
    rest = r * big  # as a backward has it, to the bit
    lost = -remainder(rest, r, big)
    unit = math.ldexp(1.0, -math.frexp(mass)[1])
    scale = mean_share(weight, divisor) / tau / unit
    if not (
        abs(extra) < EXTRA
        and big + rest < (ROOM[1] if size_of(work) == 8 else ROOM[0])
        and ((LEAST < abs(scale) < MOST and abs(scale) > SMALLEST * narrow(big + rest, work)) or not divisor > 0)
    ):
        return False
    whole = mass * unit
    high = rounded(whole, work)
    low = rounded((whole - _f8(high)) + extra * whole, work)
    factor = in_two(scale, big, rest, lost, element)
    write_soft(
        v,
        t,
        work,
        n,
        rounded(unit, work),
        high,
        low,
        rounded(big, work),
        rounded(rest, work),
        factor,
        out,
        element,
        streamed,
    )
    return True


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
    ms: Array,
    rs: Array,
    grad: Any,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write loss (row weight applied), m, r and gradient (also / divisor) of rows; return how many are left.

    ``loss`` is None for the gradient alone, from m and r. ``q`` is None for hard targets ``y``; ``w`` (with room for a
    vector beyond), ``taus`` and ``grad`` may be None. The numbers of rows that are left are in ``left``.
    """
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    scratch, measures = np.empty(n + 64, kind), np.empty(n + 64, kind)
    v, t = address_if(grad, aligned(scratch)), aligned(measures)
    weights = address_if(w, out_row(w, 0))
    keep, share = 1.0 - smoothing, smoothing / n
    shares = write_shares(weights, n, share, t, kind) if q is None else 0.0
    n_left = 0
    for i in range(first, last):
        p, out = address_of(x) + i * x.strides[0], out_row(grad, i)
        weight = weight_of(s, i)
        if weight == 0:
            write_no_part(i, n, loss, ms, rs, grad, out, element, streamed)
            continue
        left[n_left] = i
        tau = temperature(taus, i)
        beta, beta_low = inverse(taus, tau, element)
        mass = soft_or_hard(q, y, weights, i, n, keep, share, shares, t, kind)
        fine = mass > LEAST and 0 < abs(weight) * mass < MOST
        if loss is None:
            m, r = ms[i], rs[i]
            fine = fine and abs(m) < np.inf and (r == 0 or TINY <= r < np.inf)
            big = swept_from(m, p, None, n, element, beta, beta_low, v, kind) if fine else 0.0
        else:
            top, big, rest, _, _ = swept(p, None, n, element, beta, beta_low, v, kind)
            m, r = _f8(top), rest / big
            far = apart(p, n, element, top, t, kind) / tau
            fine = fine and ordinary(top, big, rest) and far < np.inf and (zeta == 0 or abs(m) / tau < FARTHEST)
        if fine and grad is not None:
            fine = graded(weight, mass, divisor, tau, zeta, m, big, r, v, t, kind, n, out, element, streamed)
        if not fine:
            n_left += 1
        elif loss is not None:
            log_r = math.log1p(r)
            lse = m / tau + log_r
            ms[i], rs[i] = m, r
            loss[i] = weight * (far + mass * (log_r + (zeta * lse) * lse if zeta > 0 else log_r))
        if q is None and 0 <= y[i] < n:
            put_target(weights, y[i], share, t, kind)
    if streamed:
        fence()
    hold(scratch)
    hold(measures)
    return n_left
