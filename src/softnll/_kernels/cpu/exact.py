"""Sums and products of floating-point numbers with the error that their rounding makes: of scalars and of vectors."""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

Value = Any  # inside Numba, whose types are its own: a float, or a vector of floats

TINY = 1e-280  # a sum of exponentials below it has lost digits to subnormals


@register_jitable
def two_sum(a: Value, b: Value) -> Value:
    """Return a + b rounded, and what the rounding lost (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@register_jitable
def remainder(d: Value, q: Value, tau: Value) -> Value:
    """Return d − q·τ to full precision (Dekker's product)."""
    product = q * tau
    big = q * 134217729.0
    qh = big - (big - q)
    ql = q - qh
    big = tau * 134217729.0
    th = big - (big - tau)
    tl = tau - th
    return (d - product) - (((qh * th - product) + qh * tl + ql * th) + ql * tl)
