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
from typing import Any

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
_LOG2E_4, _LN2_4 = _f4(1.4426950408889634), _f4(0.6931471805599453)
_HIGH_4, _LOW_4 = _f4(-0.693359375), _f4(2.12194440e-4)  # −ln 2 = high + low; high has 9 bits
_ROUND_4 = _f4(12582912.0)  # 1.5·2²³
_BASE_4 = _f4(127 + 64)  # the exponent's bias, and the scale
_LIMIT_4 = _f4(272.0)  # from here on x − m is exact wherever exp(x − m) > 2⁻¹⁹⁰
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
_ONE_4, _ZERO_4 = _f4(1.0), _f4(0.0)
_CUT_4, _DOWN_4 = _f4(-132.0), _f4(2.0**-64)  # below the cut exp is 0; the scale is taken back

_LOG2E_8, _LN2_8 = 1.4426950408889634, 0.6931471805599453
_HIGH_8, _LOW_8 = -0.693145751953125, -1.42860682030941723212e-6
_ROUND_8 = 6755399441055744.0  # 1.5·2⁵²
_BASE_8 = 1023.0 + 200.0
_LIMIT_8 = 1700.0
_CUT_8, _DOWN_8 = -847.0, 2.0**-200
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


def of_floats(vec: Any) -> bool:
    """Whether a type is computed in float32."""
    return vec in (FLOATS, types.float32)


@register_jitable
def _quotient_float32(r: Value) -> Value:
    """Return (exp(r) − 1)/r."""
    q = mul_add(r, _Q6_4, _Q5_4)
    q = mul_add(q, r, _Q4_4)
    q = mul_add(q, r, _Q3_4)
    q = mul_add(q, r, _Q2_4)
    return mul_add(q, r, _ONE_4)


@register_jitable
def _quotient_float64(r: Value) -> Value:
    """Return (exp(r) − 1)/r."""
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


@register_jitable
def _exp_float32(v: Value, lo: Value, magic: Value) -> Value:
    """Return exp(v + lo) times the scale in magic, for 16 float32."""
    t = mul_add(v, _LOG2E_4, magic)
    n = t - magic
    r = mul_add(n, _LOW_4, mul_add(n, _HIGH_4, v))
    if lo is not None:
        r = r + lo
    q = _quotient_float32(r)
    scale = power_of_two(t)
    return mul_add(q, r * scale, scale)


@register_jitable
def _exp_float64(v: Value, lo: Value, magic: Value) -> Value:
    """Return exp(v + lo) times the scale in magic, for 8 float64."""
    t = mul_add(v, _LOG2E_8, magic)
    n = t - magic
    r = mul_add(n, _LOW_8, mul_add(n, _HIGH_8, v))
    if lo is not None:
        r = r + lo
    q = _quotient_float64(r)
    scale = power_of_two(t)
    return mul_add(q, r * scale, scale)


def exponential(v: Value, lo: Value, magic: Value) -> Value:
    """Return exp(v + lo) times the scale in magic; ``lo`` is None for 0. NaN stays NaN."""
    raise NotImplementedError


@overload(exponential)
def _exponential(v: Value, lo: Value, magic: Value) -> Value:
    return _exp_float32 if of_floats(v) else _exp_float64


@register_jitable
def _complement_float32(v: Value) -> Value:
    v = maximum(splat(_CUT_4), v)
    t = mul_add(v, _LOG2E_4, splat(_ROUND_4 + _BASE_4))
    n = t - (_ROUND_4 + _BASE_4)
    r = mul_add(n, _LOW_4, mul_add(n, _HIGH_4, v))
    q = _quotient_float32(r)
    scale = power_of_two(t)
    p = mul_add(q, r * scale, scale) * _DOWN_4
    return p, select(equal(n, splat(_ZERO_4)), _ZERO_4 - q * r, _ONE_4 - p)


@register_jitable
def _complement_float64(v: Value) -> Value:
    v = maximum(splat(_CUT_8), v)
    t = mul_add(v, _LOG2E_8, splat(_ROUND_8 + _BASE_8))
    n = t - (_ROUND_8 + _BASE_8)
    r = mul_add(n, _LOW_8, mul_add(n, _HIGH_8, v))
    q = _quotient_float64(r)
    scale = power_of_two(t)
    p = mul_add(q, r * scale, scale) * _DOWN_8
    return p, select(equal(n, splat(0.0)), 0.0 - q * r, 1.0 - p)


def with_complement(v: Value) -> Value:
    """Return p = exp(v) of a vector ≤ 0, and 1 − p to its own last places: it is not 0 where p rounds to 1."""
    raise NotImplementedError


@overload(with_complement)
def _with_complement(v: Value) -> Value:
    return _complement_float32 if of_floats(v) else _complement_float64


@register_jitable
def exponential_in_two(v: Value, magic: Value) -> Value:
    """Return exp(v) times the power of two in magic of 8 float64, as an unevaluated sum: within 0.2 units."""
    t = mul_add(v, _LOG2E_8, magic)
    n = t - magic
    coarse = mul_add(n, _HIGH_8, v)
    r = mul_add(n, _LOW_8, coarse)
    q = _quotient_float64(r)
    change = q * r
    big, low = two_sum(splat(1.0), change)
    low = low + fused_multiply_subtract(q, r, change) + mul_add(n, _LOW_8, coarse - r) * big
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
def _references_float32(m: Value, beta: Value) -> Value:
    scaled = m if beta is None else m * beta
    near = less(maximum(scaled, _ZERO_4 - scaled), splat(_LIMIT_4))
    k = mul_add(select(near, scaled, splat(_ZERO_4)), _LOG2E_4, splat(_ROUND_4)) - _ROUND_4
    c = select(near, splat(_ZERO_4), m)
    return c, (_ROUND_4 + _BASE_4) - k, (k - _BASE_4) * _LN2_4


@register_jitable
def _references_float64(m: Value, beta: Value) -> Value:
    scaled = m if beta is None else m * beta
    near = less(maximum(scaled, 0.0 - scaled), splat(_LIMIT_8))
    k = mul_add(select(near, scaled, splat(0.0)), _LOG2E_8, splat(_ROUND_8)) - _ROUND_8
    c = select(near, splat(0.0), m)
    return c, (_ROUND_8 + _BASE_8) - k, (k - _BASE_8) * _LN2_8


def references(m: Value, beta: Value) -> Value:
    """Return (c, magic, cut) of ``power`` for each lane, as vectors, from the largest entry m of each row.

    ``beta`` is 1/τ of all rows, or None for 1.
    """
    raise NotImplementedError


@overload(references)
def _references(m: Value, beta: Value) -> Value:
    return _references_float32 if of_floats(m) else _references_float64


@register_jitable
def _reference_float32(m: Value, beta: Value) -> Value:
    scaled = m if beta is None else m * beta
    c = _ZERO_4
    if abs(scaled) >= _LIMIT_4:
        c = _ZERO_4 if math.isinf(m) else m
        scaled = _ZERO_4
    k = _f4(np.rint(scaled * _LOG2E_4))
    return c, (_ROUND_4 + _BASE_4) - k, (k - _BASE_4) * _LN2_4


@register_jitable
def _reference_float64(m: Value, beta: Value) -> Value:
    scaled = m if beta is None else m * beta
    c = 0.0
    if abs(scaled) >= _LIMIT_8:
        c = 0.0 if math.isinf(m) else m
        scaled = 0.0
    k = np.rint(scaled * _LOG2E_8)
    return c, (_ROUND_8 + _BASE_8) - k, (k - _BASE_8) * _LN2_8


def reference(m: Value, beta: Value) -> Value:
    """Return (c, magic, cut) of ``power`` for one row, as scalars, from its largest entry; those of 0 for m = ±∞.

    ``beta`` is 1/τ, or None for 1.
    """
    raise NotImplementedError


@overload(reference)
def _reference(m: Value, beta: Value) -> Value:
    return _reference_float32 if of_floats(m) else _reference_float64


@register_jitable
def _within_reach_float32(m: Value, guess: Value, beta: Value) -> Value:
    factor = _ONE_4 if beta is None else beta
    return abs(m * factor) < _LIMIT_4 and abs(guess * factor) < _LIMIT_4 and -16.0 <= (m - guess) * factor <= 16.0


@register_jitable
def _within_reach_float64(m: Value, guess: Value, beta: Value) -> Value:
    factor = 1.0 if beta is None else beta
    return abs(m * factor) < _LIMIT_8 and abs(guess * factor) < _LIMIT_8 and -16.0 <= (m - guess) * factor <= 40.0


def within_reach(m: Value, guess: Value, beta: Value) -> Value:
    """Return whether the reference of ``guess`` is accurate for a row whose largest entry is m."""
    raise NotImplementedError


@overload(within_reach)
def _within_reach(m: Value, guess: Value, beta: Value) -> Value:
    return _within_reach_float32 if of_floats(m) else _within_reach_float64


@register_jitable
def no_sum() -> Value:
    """Return the sum of nothing, for :func:`accumulate`."""
    return splat(0.0), splat(0.0)


@register_jitable
def _accumulate_float32(total: Value, values: Value) -> Value:
    return total[0] + widen_sum(values), total[1]


@register_jitable
def _accumulate_float64(total: Value, values: Value) -> Value:
    high, lost = two_sum(total[0], values)
    return high, total[1] + lost


def accumulate(total: Value, values: Value) -> Value:
    """Add a vector to a sum that does not drift: float32 in float64, float64 with what each addition loses."""
    raise NotImplementedError


@overload(accumulate)
def _accumulate(total: Value, values: Value) -> Value:
    return _accumulate_float32 if of_floats(values) else _accumulate_float64
