"""exp and log1p of vectors, and the common reference that makes exp(x − m) exact where x − m is not.

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

from softnll.kernels.simd import (
    FLOATS,
    equal,
    fused_multiply_subtract,
    less,
    logarithm_parts,
    maximum,
    mul_add,
    power_of_two,
    select,
    splat,
    widen_sum,
)

__all__ = [
    "accumulate",
    "exponential",
    "log1p",
    "log_rest",
    "no_sum",
    "power",
    "reference",
    "references",
    "two_sum",
    "within_reach",
]

_f4 = np.float32
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

_LOG2E_8, _LN2_8 = 1.4426950408889634, 0.6931471805599453
_HIGH_8, _LOW_8 = -0.693145751953125, -1.42860682030941723212e-6
_ROUND_8 = 6755399441055744.0  # 1.5·2⁵²
_BASE_8 = 1023.0 + 200.0
_LIMIT_8 = 1700.0
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

# log1p: fdlibm's coefficients (Sun Microsystems, 1993, s_log1p.c), error of the polynomial below 2⁻⁵⁸.
_L1, _L2, _L3, _L4, _L5, _L6, _L7 = (
    0.6666666666666735130,
    0.3999999999940941908,
    0.2857142874366239149,
    0.2222219843214978396,
    0.1818357216161805012,
    0.1531383769920937332,
    0.1479819860511658591,
)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

Value = Any  # inside Numba, whose types are its own


def _of(vec: Any) -> bool:
    """Whether a type is computed in float32."""
    return vec in (FLOATS, types.float32)


@register_jitable
def _exp_float32(v: Value, lo: Value, magic: Value) -> Value:
    """Return exp(v + lo) times the scale in magic, for 16 float32."""
    t = mul_add(v, _LOG2E_4, magic)
    n = t - magic
    r = mul_add(n, _LOW_4, mul_add(n, _HIGH_4, v))
    if lo is not None:
        r = r + lo
    q = mul_add(r, _Q6_4, _Q5_4)
    q = mul_add(q, r, _Q4_4)
    q = mul_add(q, r, _Q3_4)
    q = mul_add(q, r, _Q2_4)
    q = mul_add(q, r, _ONE_4)
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
    q = mul_add(r, _Q11_8, _Q10_8)
    q = mul_add(q, r, _Q9_8)
    q = mul_add(q, r, _Q8_8)
    q = mul_add(q, r, _Q7_8)
    q = mul_add(q, r, _Q6_8)
    q = mul_add(q, r, _Q5_8)
    q = mul_add(q, r, _Q4_8)
    q = mul_add(q, r, _Q3_8)
    q = mul_add(q, r, _Q2_8)
    q = mul_add(q, r, 1.0)
    scale = power_of_two(t)
    return mul_add(q, r * scale, scale)


def exponential(v: Value, lo: Value, magic: Value) -> Value:
    """Return exp(v + lo) times the scale in magic; ``lo`` is None for 0. NaN stays NaN."""
    raise NotImplementedError


@overload(exponential)
def _exponential(v: Value, lo: Value, magic: Value) -> Value:
    return _exp_float32 if _of(v) else _exp_float64


@register_jitable
def power(x: Value, c: Value, magic: Value, cut: Value, beta: Value, beta_low: Value) -> Value:
    """Return exp(x/τ) relative to a reference: 0 below its cut.

    ``beta + beta_low`` is 1/τ, or both are None for τ = 1. The product's rounding is carried along, as it is an error
    of the exponent.
    """
    d = x - c
    if beta is None:
        return exponential(maximum(cut, d), None, magic)
    v = d * beta
    lo = fused_multiply_subtract(d, beta, v) + d * beta_low
    nothing = cut - cut
    return select(less(v, cut), nothing, exponential(v, lo, magic))


@register_jitable
def _references_float32(m: Value) -> Value:
    c = select(less(maximum(m, _ZERO_4 - m), splat(_LIMIT_4)), splat(_ZERO_4), m)
    k = mul_add(m - c, _LOG2E_4, splat(_ROUND_4)) - _ROUND_4
    return c, (_ROUND_4 + _BASE_4) - k, (k - _BASE_4) * _LN2_4


@register_jitable
def _references_float64(m: Value) -> Value:
    c = select(less(maximum(m, 0.0 - m), splat(_LIMIT_8)), splat(0.0), m)
    k = mul_add(m - c, _LOG2E_8, splat(_ROUND_8)) - _ROUND_8
    return c, (_ROUND_8 + _BASE_8) - k, (k - _BASE_8) * _LN2_8


def references(m: Value) -> Value:
    """Return (c, magic, cut): what each lane's exponentials are relative to, if m is their largest exponent."""
    raise NotImplementedError


@overload(references)
def _references(m: Value) -> Value:
    return _references_float32 if _of(m) else _references_float64


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
    """Return (c, magic, cut) for one row, as scalars; for ±∞ those of 0. ``beta`` is 1/τ or None."""
    raise NotImplementedError


@overload(reference)
def _reference(m: Value, beta: Value) -> Value:
    return _reference_float32 if _of(m) else _reference_float64


@register_jitable
def _within_reach_float32(m: Value, guess: Value, beta: Value) -> Value:
    factor = _ONE_4 if beta is None else beta
    return abs(m * factor) < _LIMIT_4 and abs(guess * factor) < _LIMIT_4 and -16.0 <= (m - guess) * factor <= 16.0


@register_jitable
def _within_reach_float64(m: Value, guess: Value, beta: Value) -> Value:
    factor = 1.0 if beta is None else beta
    return abs(m * factor) < _LIMIT_8 and abs(guess * factor) < _LIMIT_8 and -16.0 <= (m - guess) * factor <= 40.0


def within_reach(m: Value, guess: Value, beta: Value) -> Value:
    """Whether a reference made of a guess of the largest entry serves a row whose largest is another, m."""
    raise NotImplementedError


@overload(within_reach)
def _within_reach(m: Value, guess: Value, beta: Value) -> Value:
    return _within_reach_float32 if _of(m) else _within_reach_float64


@register_jitable
def two_sum(a: Value, b: Value) -> Value:
    """Return a + b rounded, and what the rounding lost (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@register_jitable
def log1p(x: Value) -> Value:
    """Return log(1 + x) of 8 float64 ≥ 0, within 1 ulp."""
    u, lost = two_sum(splat(1.0), x)
    f, e = logarithm_parts(u)
    small = equal(e, splat(0.0))  # 1 + x < √2: x itself is f, unrounded
    f = select(small, x, f)
    correction = select(small, splat(0.0), lost / u)
    half = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    p = mul_add(z, _L7, splat(_L6))
    p = mul_add(p, z, splat(_L5))
    p = mul_add(p, z, splat(_L4))
    p = mul_add(p, z, splat(_L3))
    p = mul_add(p, z, splat(_L2))
    p = mul_add(p, z, splat(_L1))
    tail = mul_add(s, half + z * p, mul_add(e, _LN2_LOW, correction))
    return mul_add(e, _LN2_HIGH, f - (half - tail))


@register_jitable
def _log1p_short(x: Value) -> Value:
    """Return log(1 + x) of 8 float64 ≥ 0 within 2⁻²⁸: enough for a result in float32, at a third of the cost."""
    f, e = logarithm_parts(x + 1.0)
    f = select(equal(e, splat(0.0)), x, f)
    half = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    p = mul_add(mul_add(mul_add(z, _L4, splat(_L3)), z, splat(_L2)), z, splat(_L1))
    return mul_add(e, _LN2_8, f - (half - s * (half + z * p)))


def log_rest(r: Value, element: Value) -> Value:
    """Return log1p of 8 rests, as exactly as the type that is computed in asks for."""
    raise NotImplementedError


@overload(log_rest)
def _log_rest(r, element):
    if _of(element.dtype):
        return lambda r, element: _log1p_short(r)
    return lambda r, element: log1p(r)


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
    return _accumulate_float32 if _of(values) else _accumulate_float64
