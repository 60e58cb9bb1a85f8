"""One pass over a row of logits: its largest entry, its largest exponential, and the sum of the other exponentials.

A sweep keeps, in each lane, the largest exponential and the sum of all others: of two numbers the larger takes part in
the next comparison and the smaller is added, so the sum leaves out the largest although its position is unknown.
That is (m, r) of docs/numerics.md: ``r = rest / largest``. A NaN reaches one of the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.elementary import accumulate, no_sum, power, reference, within_reach
from softnll._kernels.cpu.exact import TINY, remainder, two_sum
from softnll._kernels.cpu.row_memory import entry, lanes_of, last_entry, unaligned, write_vector
from softnll._kernels.cpu.simd import (
    align_stack,
    load,
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
    tournament,
    zero,
)

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64

AHEAD = 4096  # bytes ahead of the sweep that are prefetched
GROUP = 8  # vectors summed before their sum goes to a wider one (4: 1.6 times slower, for want of registers)
WINDOW = 256  # entries whose largest is the first guess of the row's
LEAST, MOST = 2.0**-34, 2.0**40  # the scales that neither overflow a factor nor bring back what was cut off
SMALLEST = 2.0**-120  # a factor below it loses digits in float32


@register_jitable
def largest(p: int, allowed: Any, n: int, element: Any) -> Any:
    """Return the largest of n entries, NaN ignored."""
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
    """Return the sum over all lanes, rounded about once: the high digits that the lanes share are added exactly."""
    high, low = two_sum(acc[0], acc[1])
    anchor = splat(16.0 * reduce_sum(high))
    common = (high + anchor) - anchor
    return reduce_sum(common) + (losers + reduce_sum((high - common) + low))


@register_jitable
def exponentials(v: Any, at: Any, magic: Any, cut: Any, beta: Any, beta_low: Any, w: Any, k: int, work: Any) -> Any:
    """Return the exponentials of a vector; write them to entry k of the scratch row w, unless it is None."""
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
    """Return (m, largest exponential, sum of the others); write all exponentials to scratch at w, unless it is None."""
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
    """Return (m, largest exponential, rest, c, magic) of a row; sweep it twice if the guess of m was too far off.

    The exponentials are relative to the reference (c, magic).
    """
    guess = largest(p, allowed, min(n, WINDOW), element)
    while True:
        c, magic, cut = reference(guess, beta)
        m, big, rest = sweep(p, allowed, n, element, c, magic, cut, beta, beta_low, w, work)
        if m == guess or within_reach(m, guess, beta) or m != m:  # noqa: PLR0124 - NaN
            return m, _f8(big), rest, c, magic
        guess = m  # the second sweep finds the same m


@register_jitable
def swept_from(
    m: float, p: int, allowed: Any, n: int, element: Any, beta: Any, beta_low: Any, w: Any, work: Any
) -> float:
    """Write a row's exponentials relative to a known largest entry m; return the largest of them."""
    at = rounded(m, element)
    c, magic, cut = reference(at, beta)
    big = _f8(reduce_max(power(splat(at), splat(c), splat(magic), splat(cut), beta, beta_low)))
    sweep(p, allowed, n, element, c, magic, cut, beta, beta_low, w, work)
    return big


@register_jitable
def ordinary(m: float, big: float, rest: float) -> bool:
    """Whether the vector kernels serve a swept row: a finite largest entry, no NaN, a rest that has kept its digits."""
    if not (abs(_f8(m)) < np.inf and big > 0.0 and rest < np.inf):
        return False
    return rest == 0.0 or rest >= TINY * big


@register_jitable
def in_two(value: float, big: float, rest: float, lost: float, element: Any) -> Any:
    """Return value / (big + rest + lost) as an unevaluated sum of two numbers of the compute type."""
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
    k = unaligned(out, n, element, streamed)
    if k > 0:
        store_part(out, k, product(load(w, work), high, low), element)
    while k + lanes <= n:
        write_vector(out + k * size, product(load(w + k * wide, work), high, low), element, streamed)
        k += lanes
    if k < n:
        store_part(out + k * size, n - k, product(load(w + k * wide, work), high, low), element)


@register_jitable
def narrow(big: float, element: Any) -> float:
    """Return the divisor of a factor, or 0 for float64, in whose range every quotient is."""
    return 0.0 if size_of(element) == 8 else big
