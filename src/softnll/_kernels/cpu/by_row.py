"""Kernels for rows of many classes: one row at a time, one sweep over its logits.

A sweep keeps, in each lane, the largest exponential and the sum of all others: of two numbers the larger goes on to the
next comparison and the smaller is added, so the largest is left out of the sum without anyone knowing where it is.
That is (m, r) of docs/numerics.md: ``r = rest / largest``. A NaN reaches one of the two.

Rows that this arithmetic does not serve (a NaN, an infinity, nothing but −∞, a scale beyond its range, ...) are left
alone and noted in ``odd``; the plain kernels do them afterwards.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from softnll.kernels.elementary import (
    accumulate,
    log1p,
    no_sum,
    power,
    reference,
    two_sum,
    within_reach,
)
from softnll.kernels.plain import remainder
from softnll.kernels.simd import (
    align_stack,
    fence,
    hold,
    load,
    load_allowed,
    load_allowed_part,
    load_part,
    load_scalar,
    maximum,
    minimum,
    mul_add,
    prefetch,
    reduce_max,
    reduce_sum,
    rounded,
    size_of,
    splat,
    store,
    store_part,
    store_scalar,
    stream,
    tournament,
    zero,
)

__all__ = ["backward_rows", "logsumexp_rows", "loss_rows", "normalise_rows"]

Array = Any  # inside Numba, whose types are its own

AHEAD = 4096  # bytes: how far ahead of the sweep memory is asked for
GROUP = 8  # vectors summed before their sum goes to a wider one (4: 1.6 times slower, for want of registers)
WINDOW = 256  # entries from which the reference is guessed before the sweep
_f8 = np.float64
FAR = 1e30  # logits whose differences may overflow
TINY = 1e-280  # a rest below it has lost digits to subnormals
LEAST, MOST = 2.0**-34, 2.0**40  # the scales that neither overflow a factor nor bring back what was cut off
SMALLEST = 2.0**-120  # a factor below it loses digits in float32


def absent(kind: Any) -> bool:
    """Whether an argument's type says that it is not there. Numba then compiles the kernel without it."""
    return kind in (None, types.none)


@register_jitable
def address_of(array: Array) -> int:
    """Return where an array's first entry lies."""
    return np.intp(array.ctypes.data)  # type: ignore[return-value]


@register_jitable
def aligned(scratch: Array) -> int:
    """Return the first address in a scratch array that is a multiple of 64."""
    return (address_of(scratch) + 63) & -64


def room(wanted: Any, address: int) -> Any:
    """Return an address if what lies there is wanted (not None), else None."""
    raise NotImplementedError


@overload(room)
def _room(wanted, address):
    return (lambda wanted, address: None) if absent(wanted) else (lambda wanted, address: address)


@register_jitable
def out_row(out: Any, i: int) -> int:
    """Return where a row of the output lies; 0 without one."""
    if out is None:
        return 0
    return address_of(out) + i * out.strides[0]


@register_jitable
def lanes_of(element: Any) -> int:
    """Return how many entries a vector takes."""
    return 8 if size_of(element) == 8 else 16


@register_jitable
def entry(p: int, allowed: Any, k: int, element: Any) -> Any:
    """Return the vector at entry k of a row, −∞ where a class is masked."""
    v = load(p + k * size_of(element), element)
    return v if allowed is None else load_allowed(v, allowed + k)


@register_jitable
def last_entry(p: int, allowed: Any, k: int, count: int, element: Any) -> Any:
    """Return the vector of the last ``count`` entries, from k on, and −∞ besides."""
    fill = rounded(-np.inf, element)
    v = load_part(p + k * size_of(element), count, fill, element)
    return v if allowed is None else load_allowed_part(v, allowed + k, count)


@register_jitable
def largest(p: int, allowed: Any, n: int, element: Any) -> Any:
    """Return the largest of n entries; NaN is passed over."""
    lanes = lanes_of(element)
    fill = rounded(-np.inf, element)
    m0 = splat(fill)
    m1 = splat(fill)
    k = 0
    while k + 2 * lanes <= n:
        m0 = maximum(entry(p, allowed, k, element), m0)
        m1 = maximum(entry(p, allowed, k + lanes, element), m1)
        k += 2 * lanes
    while k + lanes <= n:
        m0 = maximum(entry(p, allowed, k, element), m0)
        k += lanes
    if k < n:
        m1 = maximum(last_entry(p, allowed, k, n - k, element), m1)
    return reduce_max(maximum(m0, m1))


@register_jitable
def gathered(acc: Any, losers: float) -> float:
    """Return all that was summed, rounded about once: the high digits that the lanes share are added exactly."""
    high, low = two_sum(acc[0], acc[1])
    anchor = splat(16.0 * reduce_sum(high))
    common = (high + anchor) - anchor
    return reduce_sum(common) + (losers + reduce_sum((high - common) + low))


@register_jitable
def exponentials(v: Any, at: Any, magic: Any, cut: Any, beta: Any, beta_low: Any, w: Any, k: int, work: Any) -> Any:
    """Return the exponentials of a vector; write them to scratch at entry k, unless it is None."""
    e = power(v, at, magic, cut, beta, beta_low)
    if w is not None:
        store(w + k * size_of(work), e, work)  # scratch has room for a whole vector
    return e


@register_jitable
def sweep(
    p: int,
    allowed: Any,
    n: int,
    element: Any,
    c: Any,
    magic: Any,
    cut: Any,
    beta: Any,
    beta_low: Any,
    w: Any,
    work: Any,
) -> Any:
    """Return (m, largest exponential, sum of the others); write all exponentials to w, unless it is None."""
    align_stack()
    lanes = lanes_of(element)
    size = size_of(element)
    m = splat(rounded(-np.inf, element))
    big = splat(zero(element))
    at, magics, cuts = splat(c), splat(magic), splat(cut)
    acc = no_sum()
    k = 0
    while k + GROUP * lanes <= n:
        rest = splat(zero(element))
        for _ in range(GROUP // 2):  # in pairs: a sum of eight then rounds five times, not eight
            v = entry(p, allowed, k, element)
            prefetch(p + k * size + AHEAD)
            e = exponentials(v, at, magics, cuts, beta, beta_low, w, k, work)
            one = minimum(e, big)
            m, big = maximum(v, m), maximum(big, e)
            k += lanes
            v = entry(p, allowed, k, element)
            prefetch(p + k * size + AHEAD)
            e = exponentials(v, at, magics, cuts, beta, beta_low, w, k, work)
            rest = rest + (one + minimum(e, big))
            m, big = maximum(v, m), maximum(big, e)
            k += lanes
        acc = accumulate(acc, rest)
    rest = splat(zero(element))
    other = splat(zero(element))
    while k < n:
        whole = k + lanes <= n
        v = entry(p, allowed, k, element) if whole else last_entry(p, allowed, k, n - k, element)
        e = exponentials(v, at, magics, cuts, beta, beta_low, w, k, work)
        rest, other = other, rest + minimum(e, big)
        m, big = maximum(v, m), maximum(big, e)
        k += lanes
    acc = accumulate(acc, rest + other)
    top, losers = tournament(big)
    return reduce_max(m), top, gathered(acc, losers)


@register_jitable
def swept(p: int, allowed: Any, n: int, element: Any, beta: Any, beta_low: Any, w: Any, work: Any) -> Any:
    """Sweep a row, again if the guess of its largest entry was too far off; return (m, largest exponential, rest)."""
    guess = largest(p, allowed, min(n, WINDOW), element)
    while True:
        c, magic, cut = reference(guess, beta)
        m, big, rest = sweep(p, allowed, n, element, c, magic, cut, beta, beta_low, w, work)
        if m == guess or within_reach(m, guess, beta) or m != m:  # noqa: PLR0124 - NaN
            return m, _f8(big), rest
        guess = m  # the second time they are equal


@register_jitable
def ordinary(m: float, big: float, rest: float) -> bool:
    """Whether this arithmetic serves a swept row: a finite largest entry, no NaN, a rest with its digits."""
    if not (abs(_f8(m)) < np.inf and big > 0.0 and rest < np.inf):
        return False
    return rest == 0.0 or rest >= TINY * big


@register_jitable
def head(out: int, n: int, element: Any, streamed: bool) -> int:
    """Return how many entries come before the first address that can be written past the caches."""
    size = size_of(element)
    return min(n, (-out & (size * lanes_of(element) - 1)) // size) if streamed else 0


@register_jitable
def put(address: int, v: Any, element: Any, streamed: bool) -> None:
    """Write a vector, past the caches if so asked."""
    if streamed:
        stream(address, v, element)
    else:
        store(address, v, element)


@register_jitable
def in_two(value: float, big: float, rest: float, lost: float, element: Any) -> Any:
    """Return value / (big + rest + lost) as an unevaluated sum, in the type in which an element is computed with."""
    divisor, error = two_sum(big, rest)
    quotient = value / divisor
    high = rounded(quotient, element)
    low = (quotient - _f8(high)) + (remainder(value, quotient, divisor) - quotient * (error + lost)) / divisor
    return high, rounded(low, element)


@register_jitable
def product(e: Any, high: Any, low: Any) -> Any:
    """Return e times a factor in two parts: e·(1/e) is 1, whatever e is."""
    return mul_add(e, high, e * low)


@register_jitable
def write_scaled(w: int, work: Any, n: int, factor: Any, out: int, element: Any, streamed: bool) -> None:
    """Write n entries of scratch times a factor in two parts."""
    lanes, size, wide = lanes_of(element), size_of(element), size_of(work)
    high, low = splat(factor[0]), splat(factor[1])
    k = head(out, n, element, streamed)
    if k > 0:
        store_part(out, k, product(load(w, work), high, low), element)
    while k + lanes <= n:
        put(out + k * size, product(load(w + k * wide, work), high, low), element, streamed)
        k += lanes
    if k < n:
        store_part(out + k * size, n - k, product(load(w + k * wide, work), high, low), element)


@register_jitable
def write_value(n: int, value: Any, out: int, element: Any, streamed: bool) -> None:
    """Write one value n times."""
    lanes, size = lanes_of(element), size_of(element)
    values = splat(value)
    k = head(out, n, element, streamed)
    if k > 0:
        store_part(out, k, values, element)
    while k + lanes <= n:
        put(out + k * size, values, element, streamed)
        k += lanes
    if k < n:
        store_part(out + k * size, n - k, values, element)


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
    k = head(out, n, element, streamed)
    if k > 0:
        store_part(out, k, log_probability(last_entry(p, allowed, 0, k, element), at, beta, logs), element)
    while k + lanes <= n:
        put(out + k * size, log_probability(entry(p, allowed, k, element), at, beta, logs), element, streamed)
        k += lanes
    if k < n:
        v = log_probability(last_entry(p, allowed, k, n - k, element), at, beta, logs)
        store_part(out + k * size, n - k, v, element)


@register_jitable
def temperature(taus: Any, i: int) -> float:
    """Return a row's temperature: there is one of all rows, or one a row; None stands for 1."""
    if taus is None:
        return 1.0
    return taus[i] if taus.shape[0] > 1 else taus[0]


def inverse(taus: Any, tau: float, element: Any) -> Any:
    """Return 1/τ as an unevaluated sum, or (None, None) without temperatures."""
    raise NotImplementedError


@overload(inverse)
def _inverse(taus, tau, element):
    def both(taus, tau, element):
        beta = rounded(1.0 / tau, element)
        return beta, rounded(remainder(1.0, _f8(beta), tau) / tau, element)

    return (lambda taus, tau, element: (None, None)) if absent(taus) else both


def mask_of(where: Any, i: int) -> Any:
    """Return where a row's mask lies, or None without masks."""
    raise NotImplementedError


@overload(mask_of)
def _mask_of(where, i):
    if absent(where):
        return lambda where, i: None
    return lambda where, i: address_of(where) + i * where.strides[0]


@register_jitable
def masked(where: Any, i: int, c: int) -> bool:
    """Whether a class is masked in a row."""
    if where is None:
        return False
    return not where[i, c]


def normalise_rows(
    x: Array,
    where: Array,
    taus: Array,
    prob: Any,
    out: Array,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    odd: Array,
) -> int:
    """Write softmax or, if ``prob`` is None, log_softmax of rows; return how many were left, noted in ``odd``."""
    align_stack()
    n = x.shape[1]
    element, scratch_type = x.dtype, work.dtype
    scratch = np.empty(n + 64, scratch_type)
    w = room(prob, aligned(scratch))
    left = 0
    for i in range(first, last):
        p, o, allowed = address_of(x) + i * x.strides[0], address_of(out) + i * out.strides[0], mask_of(where, i)
        beta, beta_low = inverse(taus, temperature(taus, i), element)
        m, big, rest = swept(p, allowed, n, element, beta, beta_low, w, scratch_type)
        if not ordinary(m, big, rest) or (beta is not None and abs(_f8(m)) > FAR):  # there x − m may overflow, not /τ
            odd[left] = i
            left += 1
        elif prob is None:
            write_logs(p, allowed, n, element, m, beta, rounded(math.log1p(rest / big), element), o, streamed)
        else:
            write_scaled(w, scratch_type, n, in_two(1.0, big, rest, 0.0, element), o, element, streamed)
    if streamed:
        fence()
    hold(scratch)
    return left


def logsumexp_rows(x: Array, where: Array, lse: Array, first: int, last: int, odd: Array) -> int:
    """Write m + log1p(r) of rows; return how many were left, noted in ``odd``."""
    align_stack()
    n = x.shape[1]
    element = x.dtype
    left = 0
    for i in range(first, last):
        p, allowed = address_of(x) + i * x.strides[0], mask_of(where, i)
        m, big, rest = swept(p, allowed, n, element, None, None, None, element)
        if ordinary(m, big, rest):
            lse[i] = _f8(m) + math.log1p(rest / big)
        else:
            odd[left] = i
            left += 1
    return left


@register_jitable
def finish(notes: int, zeta: float, losses: int) -> None:
    """Write eight losses: weight·T·(log1p(r) + (m − x_y)/τ + ζ·lse²), from what was noted of their rows."""
    f8 = np.float64
    m, r, x_y = load(notes, f8), load(notes + 64, f8), load(notes + 128, f8)
    tau, weight = load(notes + 192, f8), load(notes + 256, f8)
    log_r = log1p(r)
    apart, lost = two_sum(m, splat(0.0) - x_y)
    loss = (log_r + lost / tau) + apart / tau
    if zeta > 0:
        lse = m / tau + log_r
        loss = loss + lse * lse * zeta
    store(losses, weight * loss, f8)


@register_jitable
def note(notes: int, k: int, m: float, r: float, x_y: float, tau: float, weight: float) -> None:
    """Note what a row's loss is made of."""
    f8 = np.float64
    store_scalar(notes + 8 * k, m, f8)
    store_scalar(notes + 64 + 8 * k, r, f8)
    store_scalar(notes + 128 + 8 * k, x_y, f8)
    store_scalar(notes + 192 + 8 * k, tau, f8)
    store_scalar(notes + 256 + 8 * k, weight, f8)


@register_jitable
def narrow(big: float, element: Any) -> float:
    """Return what a factor is divided by, 0 where no division can leave the range."""
    return 0.0 if size_of(element) == 8 else big


@register_jitable
def scales(weight: float, mass: float, divisor: float, tau: float, zeta: float, m: float, r: float, big: float) -> Any:
    """Return the gradient's factor, 2ζ·lse, and whether both are in the range of this arithmetic."""
    extra = 2.0 * zeta * (m / tau + math.log1p(r)) if zeta > 0 else 0.0
    scale = weight / divisor * mass / tau if divisor > 0 else 0.0
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
    """Write a row's gradient from its exponentials in scratch; the rest is made of r, which is all a backward has."""
    rest = r * big
    lost = -remainder(rest, r, big)
    place = v + c * size_of(work)
    e = _f8(load_scalar(place, work))
    targeted = (extra * e - ((big - e) + rest)) / (1.0 + extra)
    store_scalar(place, rounded(targeted, element), work)
    write_scaled(v, work, n, in_two(factor, big, rest, lost, element), out, element, streamed)


def loss_rows(
    x: Array,
    where: Array,
    y: Array,
    w: Array,
    s: Array,
    taus: Array,
    zeta: float,
    divisor: float,
    loss: Array,
    ms: Array,
    rs: Array,
    grad: Array,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    odd: Array,
) -> int:
    """Write loss (row weight applied), m, r and gradient (also / divisor) of rows with hard targets.

    ``where``, ``taus``, ``ms`` and ``rs``, ``grad`` may be None. Return how many rows were left, noted in ``odd``.
    """
    align_stack()
    n = x.shape[1]
    element, scratch_type = x.dtype, work.dtype
    scratch = np.empty(n + 64, scratch_type)
    memory = np.empty(64, np.float64)
    notes = aligned(memory)
    v = room(grad, aligned(scratch))
    left = 0
    for start in range(first, last, 8):
        stop = min(start + 8, last)
        for k in range(8):
            note(notes, k, 0.0, 0.0, 0.0, 1.0, 0.0)
        for i in range(start, stop):
            p, allowed = address_of(x) + i * x.strides[0], mask_of(where, i)
            out = out_row(grad, i)
            weight = s[i] if s.shape[0] > 0 else 1.0
            if weight == 0:
                if grad is not None:
                    write_value(n, zero(element), out, element, streamed)
                if ms is not None:
                    ms[i], rs[i] = -np.inf, -1.0
                continue
            odd[left] = i
            c = y[i]
            if c < 0 or c >= n:
                left += 1
                continue
            tau = temperature(taus, i)
            beta, beta_low = inverse(taus, tau, element)
            m, big, rest = swept(p, allowed, n, element, beta, beta_low, v, scratch_type)
            mass = w[c] if w.shape[0] > 0 else 1.0
            x_y = _f8(load_scalar(p + c * size_of(element), element))
            r = rest / big
            if not (ordinary(m, big, rest) and abs(_f8(m) - x_y) < np.inf and 0 < weight * mass < MOST):
                left += 1
                continue
            if masked(where, i, c):
                left += 1
                continue
            if grad is not None:
                factor, extra, fine = scales(weight, mass, divisor, tau, zeta, _f8(m), r, narrow(big, element))
                if not fine:
                    left += 1
                    continue
                write_gradient(v, scratch_type, n, c, big, r, factor, extra, out, element, streamed)
            note(notes, i - start, _f8(m), r, x_y, tau, weight * mass)
            if ms is not None:
                ms[i], rs[i] = _f8(m), r
        finish(notes, zeta, notes + 320)
        for i in range(start, stop):
            loss[i] = load_scalar(notes + 320 + 8 * (i - start), np.float64)
    if streamed:
        fence()
    hold(scratch)
    hold(memory)
    return left


def backward_rows(
    x: Array,
    where: Array,
    y: Array,
    w: Array,
    s: Array,
    taus: Array,
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
    """Write the gradient of rows with hard targets from their m and r; return how many were left, noted in ``odd``."""
    align_stack()
    n = x.shape[1]
    element, scratch_type = x.dtype, work.dtype
    scratch = np.empty(n + 64, scratch_type)
    v = aligned(scratch)
    left = 0
    for i in range(first, last):
        p, allowed = address_of(x) + i * x.strides[0], mask_of(where, i)
        out = address_of(grad) + i * grad.strides[0]
        weight = s[i] if s.shape[0] > 0 else 1.0
        if weight == 0:
            write_value(n, zero(element), out, element, streamed)
            continue
        odd[left] = i
        c = y[i]
        m, r = ms[i], rs[i]
        mass = w[c] if w.shape[0] > 0 and 0 <= c < n else 1.0
        if not (0 <= c < n and abs(m) < np.inf and (r == 0 or TINY <= r < np.inf) and 0 < weight * mass < MOST):
            left += 1
            continue
        tau = temperature(taus, i)
        factor, extra, fine = scales(weight, mass, divisor, tau, zeta, m, r, 0.0)  # m is the reference: big is near 2⁶⁴
        if not fine:
            left += 1
            continue
        beta, beta_low = inverse(taus, tau, element)
        at = rounded(m, element)
        c0, magic, cut = reference(at, beta)
        at, base, magics, cuts = splat(at), splat(c0), splat(magic), splat(cut)
        big = _f8(reduce_max(power(at, base, magics, cuts, beta, beta_low)))
        sweep(p, allowed, n, element, c0, magic, cut, beta, beta_low, v, scratch_type)
        write_gradient(v, scratch_type, n, c, big, r, factor, extra, out, element, streamed)
    if streamed:
        fence()
    hold(scratch)
    return left
