"""log1p of vectors, and the normaliser m + log1p(r)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

from softnll._kernels.cpu.elementary import exponential, exponential_in_two, of_floats
from softnll._kernels.cpu.exact import two_sum
from softnll._kernels.cpu.simd import equal, fused_multiply_subtract, logarithm_parts, mul_add, select, splat

_f4, _f8 = np.float32, np.float64
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
_LN2 = 0.6931471805599453
# From the power of two in a magic of float32 to the same in one of float64 (elementary.py).
_WIDER = (6755399441055744.0 + 1023.0 + 64.0) - (12582912.0 + 127.0 + 64.0)

Value = Any  # inside Numba, whose types are its own


@register_jitable
def _less(f: Value, e: Value, correction: Value) -> Value:
    """Return what f and e·_LN2_HIGH have more than log((1 + f)·2ᵉ) + correction."""
    half = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    p = mul_add(z, _L7, splat(_L6))
    p = mul_add(p, z, splat(_L5))
    p = mul_add(p, z, splat(_L4))
    p = mul_add(p, z, splat(_L3))
    p = mul_add(p, z, splat(_L2))
    p = mul_add(p, z, splat(_L1))
    return half - mul_add(s, half + z * p, mul_add(e, _LN2_LOW, correction))


@register_jitable
def log1p(x: Value) -> Value:
    """Return log(1 + x) of 8 float64 ≥ 0, within 1 ulp."""
    u, lost = two_sum(splat(1.0), x)
    f, e = logarithm_parts(u)
    small = equal(e, splat(0.0))  # 1 + x < √2: x itself is f, unrounded
    f = select(small, x, f)
    return mul_add(e, _LN2_HIGH, f - _less(f, e, select(small, splat(0.0), lost / u)))


@register_jitable
def _log1p_short(x: Value) -> Value:
    """Return log(1 + x) of 8 float64 ≥ 0 within 2⁻²⁸: enough for a result in float32, at a third of the cost."""
    f, e = logarithm_parts(x + 1.0)
    f = select(equal(e, splat(0.0)), x, f)
    half = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    p = mul_add(mul_add(mul_add(z, _L4, splat(_L3)), z, splat(_L2)), z, splat(_L1))
    return mul_add(e, _LN2, f - (half - s * (half + z * p)))


def normaliser(m: Value, rest: Value, c: Value, magic: Value, element: Value) -> Value:
    """Return m + log1p(rest/big) of 8 rows, in float64; big is exp(m − c) times the power of two in magic.

    ``c`` and ``magic`` are float64, of ``reference`` or ``references`` for the element's compute type. The sum over a
    row has the errors of its exponentials. Those of the exponential of m, the quotient, the logarithm and the sum are
    computed with what their roundings lose, as together they would exceed 2 units.
    """
    raise NotImplementedError


@register_jitable
def _normaliser_float32(m: Value, rest: Value, c: Value, magic: Value, element: Value) -> Value:
    return m + _log1p_short(rest / exponential(m - c, None, magic + _WIDER))


@register_jitable
def _normaliser_float64(m: Value, rest: Value, c: Value, magic: Value, element: Value) -> Value:
    big, low = exponential_in_two(m - c, magic)
    inverse = 1.0 / big
    r = rest * inverse
    r_low = (0.0 - fused_multiply_subtract(r, big, rest) - r * low) * inverse

    u, lost = two_sum(splat(1.0), r)
    f, e = logarithm_parts(u)
    small = equal(e, splat(0.0))
    f = select(small, r, f)
    less = _less(f, e, (r_low + select(small, splat(0.0), lost)) / u)
    total, more = two_sum(m, e * _LN2_HIGH)
    total, most = two_sum(total, f)
    return total + ((more + most) - less)


@overload(normaliser)
def _normaliser(m: Value, rest: Value, c: Value, magic: Value, element: Value) -> Value:
    return _normaliser_float32 if of_floats(element.dtype) else _normaliser_float64


def log_rest(r: Value, element: Value) -> Value:
    """Return log1p of 8 rests, to the precision of the element's compute type."""
    raise NotImplementedError


def _log_rest_float32(r: Value, element: Value) -> Value:
    return _log1p_short(r)


def _log_rest_float64(r: Value, element: Value) -> Value:
    return log1p(r)


@overload(log_rest)
def _log_rest(r: Value, element: Value) -> Value:
    return _log_rest_float32 if of_floats(element.dtype) else _log_rest_float64
