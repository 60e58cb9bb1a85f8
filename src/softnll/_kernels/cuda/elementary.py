"""exp, log1p and tanh of Triton tensors, and the common reference with which exp(x − m) is exact where x − m is not.

The mathematics, the coefficients and the names are those of ``_kernels/cpu/elementary.py``, which explains them: exp is
computed of x itself and scaled by a power of two near exp(−m), 2⁶⁴ (float64: 2²⁰⁰) above it, so that no significant
term is a subnormal number. The error of ``tl.exp`` is up to 63 units in the last place, and libdevice does not run in
the interpreter.

Every function computes in the type of its first argument, float32 or float64. Only ``tl.fma`` fuses products and sums:
launches pass ``enable_fp_fusion=False``.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)

_HIGH_4, _LOW_4 = tl.constexpr(-0.693359375), tl.constexpr(2.12194440e-4)  # −ln 2 = high + low
_ROUND_4, _BASE_4, _LIMIT_4 = tl.constexpr(12582912.0), tl.constexpr(127.0 + 64.0), tl.constexpr(272.0)
_EXP_4 = tl.constexpr(
    (0.001381457899697125, 0.008368724025785923, 0.04166838899254799, 0.1666652113199234, 0.4999999403953552, 1.0)
)

_HIGH_8, _LOW_8 = tl.constexpr(-0.693145751953125), tl.constexpr(-1.42860682030941723212e-6)
_ROUND_8, _BASE_8, _LIMIT_8 = tl.constexpr(6755399441055744.0), tl.constexpr(1023.0 + 200.0), tl.constexpr(1700.0)
_EXP_8 = tl.constexpr(
    (
        2.5000333323841077e-08,
        2.76302638941755e-07,
        2.7557585614059544e-06,
        2.4801493057881946e-05,
        0.00019841269507314978,
        0.0013888888943667025,
        0.008333333333494177,
        0.04166666666653003,
        0.16666666666666413,
        0.5000000000000011,
        1.0,
    )
)

# log1p: fdlibm's coefficients (Sun Microsystems, 1993, s_log1p.c)
_LOG1P = tl.constexpr(
    (
        0.1479819860511658591,
        0.1531383769920937332,
        0.1818357216161805012,
        0.2222219843214978396,
        0.2857142874366239149,
        0.3999999999940941908,
        0.6666666666666735130,
    )
)
_LN2_HIGH, _LN2_LOW = tl.constexpr(6.93147180369123816490e-01), tl.constexpr(1.90821492927058770002e-10)
_ROOT_HALF = tl.constexpr(0x3FE6A09E667F3BCD)  # the bits of √½

# tanh(z)/z − 1 by powers of z² (Abramowitz and Stegun, 4.5.64)
_TANH_4 = tl.constexpr((62 / 2835, -17 / 315, 2 / 15, -1 / 3))
_TANH_8 = tl.constexpr((-929569 / 638512875, 21844 / 6081075, -1382 / 155925, 62 / 2835, -17 / 315, 2 / 15, -1 / 3))


@triton.jit
def number(bits):
    """Return the float64 with the bits of an integer argument; Triton would pass a float argument as float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def mul_add(a, b: tl.constexpr, c: tl.constexpr):
    """Return a·b + c, rounded once, for constants b and c."""
    return tl.fma(a, tl.full(a.shape, b, a.dtype), tl.full(a.shape, c, a.dtype))


@triton.jit
def polynomial(x, coefficients: tl.constexpr):
    """Return the polynomial of x with these coefficients, the highest power's first; each step is rounded once."""
    q = tl.full(x.shape, coefficients.value[0], x.dtype)  # Triton 3.2 has no subscripts of constants themselves
    for i in tl.static_range(1, len(coefficients.value)):
        q = tl.fma(q, x, tl.full(x.shape, coefficients.value[i], x.dtype))
    return q


@triton.jit
def power_of_two(t):
    """Return 2ⁿ from a number whose lowest bits are n + bias, the exponent's bias."""
    if t.dtype == tl.float64:
        return (t.to(tl.int64, bitcast=True) << 52).to(tl.float64, bitcast=True)
    else:
        return (t.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)


@triton.jit
def exponential(v, lo, magic):
    """Return exp(v + lo) times the power of two that ``magic`` contains; ``lo`` None means 0. NaN stays NaN."""
    t = tl.fma(v, tl.full(v.shape, _LOG2E, v.dtype), magic)
    n = t - magic
    high: tl.constexpr = _HIGH_8 if v.dtype == tl.float64 else _HIGH_4
    low: tl.constexpr = _LOW_8 if v.dtype == tl.float64 else _LOW_4
    r = tl.fma(n, tl.full(v.shape, low, v.dtype), tl.fma(n, tl.full(v.shape, high, v.dtype), v))
    if lo is not None:
        r = r + lo
    q = polynomial(r, _EXP_8 if v.dtype == tl.float64 else _EXP_4)
    scale = power_of_two(t)
    return tl.fma(q, r * scale, scale)


@triton.jit
def power(u, c, magic, cut, beta, beta_low):
    """Return exp((u − c)/τ) times the power of two in ``magic``; 0 where (u − c)/τ is below ``cut``.

    ``reference`` returns (c, magic, cut). ``beta + beta_low`` is 1/τ, or both are None for τ = 1. The rounding error of
    the product is added to the exponent.
    """
    d = tl.where(u == c, 0.0, u - c)  # also for u = c = ∞
    if beta is None:
        return exponential(tl.where(d < cut, cut, d), None, magic)
    else:
        v = d * beta
        lo = tl.where(tl.abs(d) < float("inf"), tl.fma(d, beta, -v) + d * beta_low, 0.0)
        low = v < cut
        return tl.where(low, 0.0, exponential(tl.where(low, cut, v), lo, magic))


@triton.jit
def reference(m, beta):
    """Return the reference (c, magic, cut) of rows whose largest entry is m; ``beta`` is 1/τ, or None for 1."""
    scaled = m if beta is None else m * beta
    limit: tl.constexpr = _LIMIT_8 if m.dtype == tl.float64 else _LIMIT_4
    rounding: tl.constexpr = _ROUND_8 if m.dtype == tl.float64 else _ROUND_4
    base: tl.constexpr = _BASE_8 if m.dtype == tl.float64 else _BASE_4
    near = tl.abs(scaled) < limit
    k = mul_add(tl.where(near, scaled, 0.0), _LOG2E, rounding) - rounding
    magic, cut = -k + (rounding + base), (k - base) * _LN2
    c = tl.where(near | (m == float("-inf")), 0.0, m)
    return c, magic, cut


@triton.jit
def two_sum(a, b):
    """Return a + b rounded, and the rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def log1p(x):
    """Return log(1 + x) of float64 ≥ −1, within 1 ulp."""
    u, lost = two_sum(tl.full(x.shape, 1.0, tl.float64), x)
    bits = u.to(tl.int64, bitcast=True)
    k = (bits - _ROOT_HALF) >> 52
    f = (bits - (k << 52)).to(tl.float64, bitcast=True) - 1.0
    e = k.to(tl.float64)
    small = k == 0  # 1 + x < √2: x itself is f, unrounded
    f = tl.where(small, x, f)
    correction = tl.where(small, 0.0, lost / u)
    half = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    p = polynomial(z, _LOG1P)
    tail = tl.fma(s, half + z * p, tl.fma(e, tl.full(x.shape, _LN2_LOW, tl.float64), correction))
    value = tl.fma(e, tl.full(x.shape, _LN2_HIGH, tl.float64), f - (half - tail))
    value = tl.where(x == -1.0, float("-inf"), value)
    return tl.where((x == x) & (x < float("inf")), value, x)


@triton.jit
def capped(x, cap):
    """Return cap·tanh(x/cap) and its derivative 1/cosh², both from E = exp(−2|x/cap|), which does not overflow.

    1 − E has few digits for small x/cap, where a power series of tanh is used.
    """
    z = tl.abs(x) / cap
    far: tl.constexpr = 374.0 if z.dtype == tl.float64 else 53.0  # from here on the derivative is 0
    scaled: tl.constexpr = _ROUND_8 + _BASE_8 if z.dtype == tl.float64 else _ROUND_4 + _BASE_4
    down: tl.constexpr = 2.0**-200 if z.dtype == tl.float64 else 2.0**-64
    large = exponential(-2.0 * tl.where(z > far, far, z), None, tl.full(z.shape, scaled, z.dtype))
    e = large * down
    norm = 1.0 / (1.0 + e)
    size = cap * ((1.0 - e) * norm)
    square = tl.where(z < 0.125, z * z, 0.0)
    p = polynomial(square, _TANH_8 if z.dtype == tl.float64 else _TANH_4)
    value = tl.where(z < 0.125, tl.fma(x * square, p, x), tl.where(x < 0, -size, size))
    return value, (large * norm * norm) * (4.0 * down)
