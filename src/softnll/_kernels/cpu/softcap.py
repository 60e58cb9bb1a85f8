"""The soft cap of rows of logits, u = c·tanh(x/c), and gradients by x from those by u, with its slope 1/cosh²(x/c).

Both come from E = exp(−2|x/c|), of which nothing overflows: tanh = (1 − E)/(1 + E), and 1/cosh² = 4E/(1 + E)², which
does not cancel where tanh rounds to 1. For small x/c the first would: there tanh is its series (Abramowitz and Stegun,
4.5.64) up to the 15th power; what is left out is below 2⁻⁵³ for |x/c| < ⅛. All in float64, whatever the logits' type
(docs/numerics.md, section 3). Slopes of logits of narrower types, whose products end below 10⁻⁴⁵, are kept as numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from softnll._kernels.cpu.elementary import exponential
from softnll._kernels.cpu.row_memory import address_of, aligned, lanes_of
from softnll._kernels.cpu.simd import (
    align_stack,
    copy,
    equal,
    hold,
    less,
    load,
    load_doubles,
    load_part,
    maximum,
    minimum,
    mul_add,
    select,
    size_of,
    splat,
    store,
    store_doubles,
    store_part,
    zero,
)

Array = Any  # inside Numba, whose types are its own
Value = Any

_MAGIC = 6755399441055744.0 + 1023.0 + 200.0  # exp times 2²⁰⁰, so that no factor of the slope is a subnormal number
_DOWN = 2.0**-200
_FAR = 300.0  # |x/c| from which on the power of two is larger, so that no factor of the slope is a subnormal number
_FURTHER = 900.0  # the exponent that it has more there
_HALFWAY = 2.0**-549  # the root of 4·2⁻¹¹⁰⁰
_LAST = 735.0  # from here on the slope times the largest number is 0
_T1, _T2, _T3, _T4 = -1 / 3, 2 / 15, -17 / 315, 62 / 2835
_T5, _T6, _T7 = -1382 / 155925, 21844 / 6081075, -929569 / 638512875


@register_jitable
def decay(x: Value, inverse: Value) -> Value:
    """Return exp(−2|x·inverse|)·2²⁰⁰ of 8 float64; NaN stays NaN."""
    z = minimum(splat(374.0), maximum(splat(0.0) - x, x) * inverse)
    return exponential(z * splat(-2.0), None, splat(_MAGIC))


@register_jitable
def capped(x: Value, cap: Value, inverse: Value, element: Any) -> Value:
    """Return cap·tanh(x/cap) of 8 float64, and its slope; that of logits of type float64 loses digits far away."""
    e = decay(x, inverse) * splat(_DOWN)
    norm = splat(1.0) / (splat(1.0) + e)
    wide = size_of(element) == 8
    size = cap * ((splat(1.0) - e) / (splat(1.0) + e) if wide else (splat(1.0) - e) * norm)
    z = x * inverse
    square = z * z
    p = mul_add(square, _T7, splat(_T6))
    p = mul_add(p, square, splat(_T5))
    p = mul_add(p, square, splat(_T4))
    p = mul_add(p, square, splat(_T3))
    p = mul_add(p, square, splat(_T2))
    p = mul_add(p, square, splat(_T1))
    value = select(less(x, splat(0.0)), splat(0.0) - size, size)
    value = select(less(square, splat(1 / 64)), mul_add(x * square, p, x), value)
    return value, (e * norm * norm) * splat(4.0)


@register_jitable
def sloped(g: Value, x: Value, inverse: Value) -> Value:
    """Return g/cosh²(x·inverse) of 8 float64; a gradient of 0 stays 0, whatever the logit; NaN is the usual one."""
    z = minimum(splat(_LAST), maximum(splat(0.0) - x, x) * inverse)
    near = less(z, splat(_FAR))
    large = exponential(z * splat(-2.0), None, select(near, splat(_MAGIC), splat(_MAGIC + _FURTHER)))
    e = select(near, large * splat(_DOWN), splat(0.0))
    norm = splat(1.0) / (splat(1.0) + e)
    # Near, the slope is not below 2⁻⁸⁶⁶. Far, a product with it is rounded once, at the end.
    slope = select(near, (e * norm * norm) * splat(4.0), large)
    half = select(near, splat(1.0), splat(_HALFWAY))
    value = select(equal(g, splat(0.0)), g, ((g * half) * slope) * half)
    return select(equal(value, value), value, splat(np.nan))


def slopes_for(x: Array, grad: Any) -> Any:
    """Return memory for slopes of logits, or None without a gradient, or if its type is float64."""
    raise NotImplementedError


def _no_slopes(x: Any, grad: Any) -> Any:
    return None


def _memory(x: Any, grad: Any) -> Any:
    return np.empty(x.shape)


@overload(slopes_for)
def _slopes_for(x: Any, grad: Any) -> Any:
    return _no_slopes if grad in (None, types.none) or x.dtype == types.float64 else _memory


@register_jitable
def times(g: Value, slope: Value) -> Value:
    """Return gradients times slopes of 8 float64; a gradient of 0 stays 0, and NaN is the usual one."""
    value = select(equal(g, splat(0.0)), g, g * slope)
    return select(equal(value, value), value, splat(np.nan))


@register_jitable
def cap_8(x: int, to: int, slopes: int, cap: Value, inverse: Value, element: Any) -> None:
    """Write 8 capped logits and, unless the address is 0, slopes; x is the address of float64."""
    value, slope = capped(load(x, np.float64), cap, inverse, element)
    store(to, value, np.float64)
    if slopes != 0:
        store(slopes, slope, np.float64)


def cap_rows(x: Array, softcap: float, u: Array, slopes: Any) -> None:
    """Write the capped logits of rows as float64 and, unless it is None, the slopes of the cap."""
    align_stack()
    n, element = x.shape[1], x.dtype
    size, lanes = size_of(element), lanes_of(element)
    cap, inverse = splat(softcap), splat(1.0 / softcap)
    spare = np.empty(48, np.float64)
    t = aligned(spare)
    for i in range(x.shape[0]):
        p, to = address_of(x) + i * x.strides[0], address_of(u) + i * u.strides[0]
        k = 0
        by = 0 if slopes is None else address_of(slopes) + i * slopes.strides[0]
        while k + lanes <= n:
            wide = to + 8 * k if slopes is None else t  # not where the slopes' addresses have the same last 12 bits
            store_doubles(wide, load(p + size * k, element))
            for j in range(0, lanes, 8):
                at = by if slopes is None else by + 8 * (k + j)
                cap_8(wide + 8 * j, to + 8 * (k + j), at, cap, inverse, element)
            k += lanes
        if k < n:
            store_doubles(t, load_part(p + size * k, n - k, zero(element), element))
            for j in range(0, lanes, 8):
                cap_8(t + 8 * j, t + 8 * j, 0 if slopes is None else t + 8 * (lanes + j), cap, inverse, element)
            copy(to + 8 * k, t, 8 * (n - k))
            if slopes is not None:
                copy(by + 8 * k, t + 8 * lanes, 8 * (n - k))
    hold(spare)


def uncap_rows(x: Array, softcap: float, g: Array, slopes: Any, out: Array) -> None:
    """Write gradients by the capped logits, float64, as gradients by the logits; ``out`` may be ``x``.

    Slopes are those that ``cap_rows`` wrote or, for None, are computed anew.
    """
    align_stack()
    n, element, f8 = x.shape[1], x.dtype, np.float64
    size, lanes = size_of(element), lanes_of(element)
    inverse = splat(1.0 / softcap)
    spare = np.empty(24, f8)
    t = aligned(spare)
    for i in range(x.shape[0]):
        p, o = address_of(x) + i * x.strides[0], address_of(out) + i * out.strides[0]
        by = address_of(g) + i * g.strides[0]
        at = 0 if slopes is None else address_of(slopes) + i * slopes.strides[0]
        k = 0
        while k + lanes <= n:
            if slopes is None:
                store_doubles(t, load(p + size * k, element))
            for j in range(0, lanes, 8):
                given = load(by + 8 * (k + j), f8)
                if slopes is None:
                    store(t + 8 * j, sloped(given, load(t + 8 * j, f8), inverse), f8)
                else:
                    store(t + 8 * j, times(given, load(at + 8 * (k + j), f8)), f8)
            store(o + size * k, load_doubles(t, element), element)
            k += lanes
        if k < n:
            if slopes is None:
                store_doubles(t, load_part(p + size * k, n - k, zero(element), element))
            for j in range(0, min(lanes, n - k), 8):
                count = min(8, n - k - j)
                given = load_part(by + 8 * (k + j), count, 0.0, f8)
                if slopes is None:
                    store(t + 8 * j, sloped(given, load(t + 8 * j, f8), inverse), f8)
                else:
                    store(t + 8 * j, times(given, load_part(at + 8 * (k + j), count, 0.0, f8)), f8)
            store_part(o + size * k, n - k, load_doubles(t, element), element)
    hold(spare)
