"""The sum of many float64, compensated: its error does not grow with their number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.exact import two_sum
from softnll._kernels.cpu.simd import load, splat, store


@register_jitable
def added(high: float, low: float, value: float) -> tuple[float, float]:
    """Return a sum as high + low, with a value added."""
    high, lost = two_sum(high, value)
    return high, low + lost


def total(values: Any) -> float:
    """Return the sum, from sixteen running sums, each with what its additions lost."""
    f8 = np.float64
    n = values.shape[0]
    lanes = np.empty(32, f8)
    h0, h1 = splat(0.0), splat(0.0)
    l0, l1 = splat(0.0), splat(0.0)
    k = 0
    if values.strides[0] == 8:
        p, o = np.intp(values.ctypes.data), np.intp(lanes.ctypes.data)
        while k + 16 <= n:
            h0, e0 = two_sum(h0, load(p + 8 * k, f8))
            h1, e1 = two_sum(h1, load(p + 8 * k + 64, f8))
            l0, l1 = l0 + e0, l1 + e1
            k += 16
        store(o, h0, f8)
        store(o + 64, h1, f8)
        store(o + 128, l0, f8)
        store(o + 192, l1, f8)
    uncompensated = 0.0
    high, low = 0.0, 0.0
    if k > 0:
        for j in range(16):
            uncompensated += lanes[j]
            high, low = added(high, low, lanes[j])
            low += lanes[16 + j]
    for j in range(k, n):
        uncompensated += values[j]
        high, low = added(high, low, values[j])
    return high + low if math.isfinite(high) else uncompensated
