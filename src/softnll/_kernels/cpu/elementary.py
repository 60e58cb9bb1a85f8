"""exp of vectors, and the common reference that makes exp(x − m) exact where x − m is not.

**exp.** ``exp(v) = 2ⁿ·exp(t)`` with ``n = round(v / ln 2)`` and ``t = v − n·ln 2`` in [−½ ln 2, ½ ln 2]; ln 2 is
taken in two parts, the first so short that ``n`` times it is exact (Cody and Waite, *Software Manual for the
Elementary Functions*, 1980).
``n`` is rounded by adding 1.5·2²³ (float64: 1.5·2⁵²), which leaves it in the lowest bits of the sum: shifted into the
exponent they are 2ⁿ. ``exp(t) = 1 + t·q(t)``; q's coefficients are minimax for the relative error of exp (Lawson's
weighted least squares, ``benchmarks/coefficients.py``): as rounded 3.7e-9 = 2⁻²⁸ for float32, 1.1e-17 = 2⁻⁵⁶ for
float64. Measured over all float32: 0.88 ulp (1.15 at |m| near 272, 1.21 without fused multiply-add); float64 0.93.

**The reference.** A row needs ``exp(x − m)``, but x − m rounds, and the error of an exponent is an error of the
result: up to 50 ulp. So exp is taken of x itself, which is exact, and scaled by a power of two, ``2⁻ᴷ ≈ exp(−m)``,
which costs nothing: the shift that makes 2ⁿ makes 2ⁿ⁻ᴷ as well. Where m is so large that x would need too long an n,
the difference is taken after all: there x − m is exact for each x that counts (Sterbenz: x and m are within a factor
of two). Every quantity of a row is a ratio of such numbers, so the scale never has to be undone.

The exponentials are scaled up by 2⁶⁴ (float64: 2²⁰⁰) besides, so that none that counts is a subnormal number, which
costs processors a hundred cycles and digits: what underflows does so once, in the product that is stored. Below about
2⁻¹⁹⁰ (2⁻¹²²²) times the largest they are 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from softnll._kernels.cpu.exact import two_sum
from softnll._kernels.cpu.simd import (
    FLOATS,
    equal,
    fused_multiply_subtract,
    less,
    maximum,
    mul_add,
    power_of_two,
    select,
    splat,
    widen_sum,
)

_f4, _f8 = np.float32, np.float64
_Q2_4, _Q3_4, _Q4_4, _Q5_4, _Q6_4 = (
    _f4(each)
    for each in (
        0.4999999403953552,
        0.1666652113199234,
        0.04166838899254799,
        0.008368724025785923,
        0.001381457899697125,
    )
)
_Q2_8, _Q3_8, _Q4_8, _Q5_8, _Q6_8, _Q7_8, _Q8_8, _Q9_8, _Q10_8, _Q11_8 = (
    0.5000000000000011,
    0.16666666666666413,
    0.04166666666653003,
    0.008333333333494177,
    0.0013888888943667025,
    0.00019841269507314978,
    2.4801493057881946e-05,
    2.7557585614059544e-06,
    2.76302638941755e-07,
    2.5000333323841077e-08,
)

Value = Any  # inside Numba, whose types are its own


_CONSTANTS = {  # of float32, and of float64
    "one": (1.0, 1.0),
    "zero": (0.0, 0.0),
    "log2e": (1.4426950408889634, 1.4426950408889634),
    "ln2": (0.6931471805599453, 0.6931471805599453),
    "high": (-0.693359375, -0.693145751953125),  # −ln 2 = high + low; high has 9 bits, or 15
    "low": (2.12194440e-4, -1.42860682030941723212e-6),
    "round": (12582912.0, 6755399441055744.0),  # 1.5·2²³ and 1.5·2⁵²
    "base": (127.0 + 64.0, 1023.0 + 200.0),  # the exponent's bias, and the scale
    "limit": (272.0, 1700.0),  # from here on x − m is exact wherever exp(x − m) > 2⁻¹⁹⁰ (2⁻¹²²²)
    "cut": (-132.0, -847.0),  # below it a complement is 1
    "down": (2.0**-64, 2.0**-200),  # takes the scale back
    "ahead": (16.0, 40.0),  # (m − guess)/τ up to which the reference of a guess is accurate
}
_Constants = NamedTuple("_Constants", [(name, Any) for name in _CONSTANTS])  # type: ignore[misc]
_FLOAT32: Any = _Constants(*(_f4(each) for each, _ in _CONSTANTS.values()))
_FLOAT64: Any = _Constants(*(each for _, each in _CONSTANTS.values()))


def of_floats(vec: Any) -> bool:
    """Whether a type is computed in float32."""
    return vec in (FLOATS, types.float32)


def constants_of(value: Value) -> Value:
    """Return the constants of the type in which a number or a vector is computed."""
    raise NotImplementedError


@overload(constants_of)
def _constants_of(value: Value) -> Value:
    return _of_float32 if of_floats(value) else _of_float64


def _of_float32(value: Value) -> Value:
    return _FLOAT32


def _of_float64(value: Value) -> Value:
    return _FLOAT64


def _quotient_float32(r: Value) -> Value:
    q = mul_add(r, _Q6_4, _Q5_4)
    q = mul_add(q, r, _Q4_4)
    q = mul_add(q, r, _Q3_4)
    q = mul_add(q, r, _Q2_4)
    return mul_add(q, r, _FLOAT32.one)


def _quotient_float64(r: Value) -> Value:
    q = mul_add(r, _Q11_8, _Q10_8)
    q = mul_add(q, r, _Q9_8)
    q = mul_add(q, r, _Q8_8)
    q = mul_add(q, r, _Q7_8)
    q = mul_add(q, r, _Q6_8)
    q = mul_add(q, r, _Q5_8)
    q = mul_add(q, r, _Q4_8)
    q = mul_add(q, r, _Q3_8)
    q = mul_add(q, r, _Q2_8)
    return mul_add(q, r, 1.0)


def quotient(r: Value) -> Value:
    """Return (exp(r) − 1)/r."""
    raise NotImplementedError


@overload(quotient)
def _quotient(r: Value) -> Value:
    return _quotient_float32 if of_floats(r) else _quotient_float64


@register_jitable
def exponential(v: Value, lo: Value, magic: Value) -> Value:
    """Return exp(v + lo) times the scale in magic; ``lo`` is None for 0. NaN stays NaN."""
    of = constants_of(v)
    t = mul_add(v, of.log2e, magic)
    n = t - magic
    r = mul_add(n, of.low, mul_add(n, of.high, v))
    if lo is not None:
        r = r + lo
    q = quotient(r)
    scale = power_of_two(t)
    return mul_add(q, r * scale, scale)


@register_jitable
def with_complement(v: Value) -> Value:
    """Return p = exp(v) of a vector ≤ 0, and 1 − p to its own last places: it is not 0 where p rounds to 1."""
    of = constants_of(v)
    v = maximum(splat(of.cut), v)
    t = mul_add(v, of.log2e, splat(of.round + of.base))
    n = t - (of.round + of.base)
    r = mul_add(n, of.low, mul_add(n, of.high, v))
    q = quotient(r)
    scale = power_of_two(t)
    p = mul_add(q, r * scale, scale) * of.down
    return p, select(equal(n, splat(of.zero)), of.zero - q * r, of.one - p)


@register_jitable
def exponential_in_two(v: Value, magic: Value) -> Value:
    """Return exp(v) times the power of two in magic of 8 float64, as an unevaluated sum: within 0.2 units."""
    of = constants_of(v)
    t = mul_add(v, of.log2e, magic)
    n = t - magic
    coarse = mul_add(n, of.high, v)
    r = mul_add(n, of.low, coarse)
    q = quotient(r)
    change = q * r
    big, low = two_sum(splat(1.0), change)
    low = low + fused_multiply_subtract(q, r, change) + mul_add(n, of.low, coarse - r) * big
    scale = power_of_two(t)
    return big * scale, low * scale


@register_jitable
def power(x: Value, c: Value, magic: Value, cut: Value, beta: Value, beta_low: Value) -> Value:
    """Return exp((x − c)/τ) times the power of two in ``magic``; 0 where (x − c)/τ is below ``cut``.

    ``reference`` returns (c, magic, cut). ``beta + beta_low`` is 1/τ, or both are None for τ = 1. The rounding error of
    the product is added to the exponent.
    """
    d = x - c
    if beta is None:
        return exponential(maximum(cut, d), None, magic)
    v = d * beta
    lo = fused_multiply_subtract(d, beta, v) + d * beta_low
    nothing = cut - cut
    return select(less(v, cut), nothing, exponential(v, lo, magic))


@register_jitable
def references(m: Value, beta: Value) -> Value:
    """Return (c, magic, cut) of ``power`` for each lane, as vectors, from the largest entry m of each row.

    ``beta`` is 1/τ of all rows, or None for 1.
    """
    of = constants_of(m)
    scaled = m if beta is None else m * beta
    near = less(maximum(scaled, of.zero - scaled), splat(of.limit))
    k = mul_add(select(near, scaled, splat(of.zero)), of.log2e, splat(of.round)) - of.round
    c = select(near, splat(of.zero), m)
    return c, (of.round + of.base) - k, (k - of.base) * of.ln2


@register_jitable
def reference(m: Value, beta: Value) -> Value:
    """Return (c, magic, cut) of ``power`` for one row, as scalars, from its largest entry; those of 0 for m = ±∞.

    ``beta`` is 1/τ, or None for 1.
    """
    of = constants_of(m)
    scaled = m if beta is None else m * beta
    c = of.zero
    if abs(scaled) >= of.limit:
        c = of.zero if math.isinf(m) else m
        scaled = of.zero
    k = np.rint(scaled * of.log2e)
    return c, (of.round + of.base) - k, (k - of.base) * of.ln2


@register_jitable
def within_reach(m: Value, guess: Value, beta: Value) -> Value:
    """Return whether the reference of ``guess`` is accurate for a row whose largest entry is m."""
    of = constants_of(m)
    factor = of.one if beta is None else beta
    return abs(m * factor) < of.limit and abs(guess * factor) < of.limit and -16.0 <= (m - guess) * factor <= of.ahead


@register_jitable
def no_sum() -> Value:
    """Return the sum of nothing, for :func:`accumulate`."""
    return splat(0.0), splat(0.0)


def _accumulate_float32(total: Value, values: Value) -> Value:
    return total[0] + widen_sum(values), total[1]


def _accumulate_float64(total: Value, values: Value) -> Value:
    high, lost = two_sum(total[0], values)
    return high, total[1] + lost


def accumulate(total: Value, values: Value) -> Value:
    """Add a vector to a sum that does not drift: float32 in float64, float64 with what each addition loses."""
    raise NotImplementedError


@overload(accumulate)
def _accumulate(total: Value, values: Value) -> Value:
    return _accumulate_float32 if of_floats(values) else _accumulate_float64
