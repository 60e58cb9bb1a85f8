"""Kernels for rows whose targets are spread over all classes: soft targets, label smoothing.

One row at a time, as ``rows.py`` has them, with a second row in scratch: the target measure
``t_j = w_j·[(1 − ε)·q_j + ε/C]`` of mass ``T = Σ t_j``. Then, with exponentials e_j of which the largest is B and the
others sum to R,

    loss      = Σ t_j·(m − u_j) + T·(log1p(R/B) + ζ·lse²)
    gradient  = [ (T − t_j + 2ζ·lse·T)·e_j − t_j·((B − e_j) + R) ] / (B + R)

times the row's scale: terms of one sign in the loss, and in the gradient none that rounds a certain row to 0.
Measures are held in the type that the logits are computed in; in the gradient they are scaled by a power of two, so
that a large mass does not overflow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll.kernels.elementary import accumulate, no_sum, power, reference, two_sum
from softnll.kernels.plain import remainder
from softnll.kernels.rows import (
    GROUP,
    LEAST,
    MOST,
    SMALLEST,
    TINY,
    address_of,
    aligned,
    gathered,
    head,
    in_two,
    inverse,
    lanes_of,
    narrow,
    ordinary,
    out_row,
    product,
    put,
    room,
    sweep,
    swept,
    temperature,
    write_value,
)
from softnll.kernels.simd import (
    align_stack,
    equal,
    fence,
    hold,
    load,
    load_part,
    load_scalar,
    mul_add,
    reduce_max,
    rounded,
    select,
    size_of,
    splat,
    store,
    store_part,
    store_scalar,
    zero,
)

__all__ = ["backward_dense", "loss_dense"]

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
EXTRA = 8.0  # |2ζ·lse| beyond which the plain kernels do a row
ROOM = 2.0**120, 2.0**1000  # what big + rest may be, to be multiplied by the above within float32 and float64


@register_jitable
def measure(q: Any, w: Any, k: int, keep: Any, share: Any, work: Any) -> Any:
    """Return the vector of t at entry k, from that of q; there is room for a whole vector of weights."""
    t = mul_add(q, keep, share)
    return t if w is None else t * load(w + k * size_of(work), work)


@register_jitable
def write_measure(q: int, kq: Any, w: Any, n: int, keep: float, share: float, t: int, work: Any) -> float:
    """Write a row's t to scratch, 0 beyond it; return T."""
    align_stack()
    lanes, size = lanes_of(work), size_of(work)
    kept, shared = splat(rounded(keep, work)), splat(rounded(share, work))
    acc = no_sum()
    k = 0
    while k + lanes <= n:
        v = measure(load(q + k * size_of(kq), kq), w, k, kept, shared, work)
        store(t + k * size, v, work)
        acc = accumulate(acc, v)
        k += lanes
    if k < n:
        last = load_part(q + k * size_of(kq), n - k, zero(work), kq)
        store(t + k * size, measure(last, w, k, kept, shared, work), work)
        v = load_part(t + k * size, n - k, zero(work), work)
        store(t + k * size, v, work)
        acc = accumulate(acc, v)
    return gathered(acc, 0.0)


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
def write_dense(
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
    k = head(out, n, element, streamed)
    if k > 0:
        g = entry_of(load(v, work), load(t, work), units, masses, lows, bigs, rests)
        store_part(out, k, product(g, high, more), element)
    while k + lanes <= n:
        g = entry_of(load(v + k * wide, work), load(t + k * wide, work), units, masses, lows, bigs, rests)
        put(out + k * size, product(g, high, more), element, streamed)
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
    scale = weight / divisor / tau / unit if divisor > 0 else 0.0
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
    write_dense(
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


@register_jitable
def share_of(w: Any, c: int, share: float, work: Any) -> Any:
    """Return what a share of a class weighs."""
    return rounded(share if w is None else share * _f8(load_scalar(w + c * size_of(work), work)), work)


@register_jitable
def put_target(w: Any, c: int, share: float, t: int, work: Any) -> float:
    """Write one entry of a measure; return it."""
    value = share_of(w, c, share, work)
    store_scalar(t + c * size_of(work), value, work)
    return _f8(value)


@register_jitable
def soft_or_hard(
    q: Any, y: Any, w: Any, i: int, n: int, keep: float, share: float, shares: float, t: int, work: Any
) -> float:
    """Write a row's measure to scratch and return its mass; NaN for a hard target that is no class.

    For hard targets the scratch holds what smoothing gives each class, of sum ``shares``: only one entry differs.
    """
    if q is not None:
        return write_measure(address_of(q) + i * q.strides[0], q.dtype, w, n, keep, share, t, work)
    c = y[i]
    if c < 0 or c >= n:
        return np.nan
    target = put_target(w, c, keep + share, t, work)
    return target if n == 1 else shares + target - _f8(share_of(w, c, share, work))


@register_jitable
def write_shares(w: Any, n: int, share: float, t: int, work: Any) -> float:
    """Write what smoothing gives each class to scratch, 0 beyond; return the sum."""
    mass = lost = 0.0
    for c in range(n):
        mass, error = two_sum(mass, put_target(w, c, share, t, work))
        lost += error
    for c in range(n, n + lanes_of(work)):
        store_scalar(t + c * size_of(work), zero(work), work)
    return mass + lost


def loss_dense(
    x: Array,
    q: Any,
    y: Array,
    weights: Any,
    s: Array,
    taus: Any,
    smoothing: float,
    zeta: float,
    divisor: float,
    loss: Array,
    ms: Any,
    rs: Any,
    grad: Any,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    odd: Array,
) -> int:
    """Write loss (row weight applied), m, r and gradient (also / divisor) of rows; return how many were left.

    ``q`` is None for hard targets ``y``; ``weights`` (with room for a vector beyond), ``taus``, ``ms`` and ``rs``,
    ``grad`` may be None. Rows that are left are noted in ``odd``.
    """
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    scratch, measures = np.empty(n + 64, kind), np.empty(n + 64, kind)
    v, t = room(grad, aligned(scratch)), aligned(measures)
    w = room(weights, out_row(weights, 0))
    keep, share = 1.0 - smoothing, smoothing / n
    shares = write_shares(w, n, share, t, kind) if q is None else 0.0
    left = 0
    for i in range(first, last):
        p, out = address_of(x) + i * x.strides[0], out_row(grad, i)
        weight = s[i] if s.shape[0] > 0 else 1.0
        if weight == 0:
            loss[i] = 0.0
            if grad is not None:
                write_value(n, zero(element), out, element, streamed)
            if ms is not None:
                ms[i], rs[i] = -np.inf, -1.0
            continue
        odd[left] = i
        tau = temperature(taus, i)
        beta, beta_low = inverse(taus, tau, element)
        mass = soft_or_hard(q, y, w, i, n, keep, share, shares, t, kind)
        m, big, rest = swept(p, None, n, element, beta, beta_low, v, kind)
        far = apart(p, n, element, m, t, kind) / tau
        r = rest / big
        fine = ordinary(m, big, rest) and far < np.inf and mass > LEAST and 0 < weight * mass < MOST
        if fine and grad is not None:
            fine = graded(weight, mass, divisor, tau, zeta, _f8(m), big, r, v, t, kind, n, out, element, streamed)
        if fine:
            log_r = math.log1p(r)
            lse = _f8(m) / tau + log_r
            loss[i] = weight * (far + mass * (log_r + zeta * lse * lse if zeta > 0 else log_r))
            if ms is not None:
                ms[i], rs[i] = _f8(m), r
        else:
            left += 1
        if q is None and 0 <= y[i] < n:
            put_target(w, y[i], share, t, kind)
    if streamed:
        fence()
    hold(scratch)
    hold(measures)
    return left


def backward_dense(
    x: Array,
    q: Any,
    y: Array,
    weights: Any,
    s: Array,
    taus: Any,
    smoothing: float,
    zeta: float,
    divisor: float,
    ms: Array,
    rs: Array,
    grad: Array,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    odd: Array,
) -> int:
    """Write the gradient of rows from their m and r; return how many were left, noted in ``odd``."""
    align_stack()
    n = x.shape[1]
    element, kind = x.dtype, work.dtype
    scratch, measures = np.empty(n + 64, kind), np.empty(n + 64, kind)
    v, t = aligned(scratch), aligned(measures)
    w = room(weights, out_row(weights, 0))
    keep, share = 1.0 - smoothing, smoothing / n
    shares = write_shares(w, n, share, t, kind) if q is None else 0.0
    left = 0
    for i in range(first, last):
        p, out = address_of(x) + i * x.strides[0], address_of(grad) + i * grad.strides[0]
        weight = s[i] if s.shape[0] > 0 else 1.0
        if weight == 0:
            write_value(n, zero(element), out, element, streamed)
            continue
        odd[left] = i
        tau = temperature(taus, i)
        beta, beta_low = inverse(taus, tau, element)
        m, r = ms[i], rs[i]
        mass = soft_or_hard(q, y, w, i, n, keep, share, shares, t, kind)
        fine = abs(m) < np.inf and (r == 0 or TINY <= r < np.inf) and mass > LEAST and 0 < weight * mass < MOST
        if fine:
            at = rounded(m, element)
            c0, magic, cut = reference(at, beta)
            big = _f8(reduce_max(power(splat(at), splat(c0), splat(magic), splat(cut), beta, beta_low)))
            sweep(p, None, n, element, c0, magic, cut, beta, beta_low, v, kind)
            fine = graded(weight, mass, divisor, tau, zeta, m, big, r, v, t, kind, n, out, element, streamed)
        if not fine:
            left += 1
        if q is None and 0 <= y[i] < n:
            put_target(w, y[i], share, t, kind)
    if streamed:
        fence()
    hold(scratch)
    hold(measures)
    return left
