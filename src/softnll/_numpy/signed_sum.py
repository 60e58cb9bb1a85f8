"""The logarithm of a weighted sum of exponentials, and its sign: ``log |Σ_j b_j exp(x_j)|`` of each row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.targets import blocks

_LN2 = (0.693145751953125, 1.42860682030941723212e-06)  # ln 2 in two parts: an integer times the first one is exact
_FAR = 1 << 12  # powers of two beyond which a term is 0

Vector = NDArray[np.float64]


def signed_logsumexp(x: NDArray[Any], b: NDArray[Any]) -> tuple[Vector, Vector]:
    """Return ``(N,)`` logarithms of absolute values, and signs −1, 0 or 1, of the sums of ``(N, C)`` rows.

    An entry of weight 0 takes no part, whatever x is there. A sum of 0 has the logarithm −∞ and the sign 0.
    """
    value, sign = np.full(len(x), -np.inf), np.zeros(len(x))
    if x.shape[1]:
        for rows in blocks(x.shape):
            with np.errstate(all="ignore"):
                value[rows], sign[rows] = _of_rows(x[rows].astype(np.float64), b[rows].astype(np.float64))
    return value, sign


def _of_rows(x: Vector, b: Vector) -> tuple[Vector, Vector]:
    """Return logarithms and signs of some rows."""
    x = np.where(b == 0, -np.inf, x)
    b = np.where(np.isneginf(x) & np.isfinite(b), 0.0, b)
    lost: Any = (np.isnan(x) | np.isnan(b) | (np.isinf(b) & np.isneginf(x))).any(axis=1)
    infinite = (np.isposinf(x) | np.isinf(b)) & ~lost[:, None]
    value, sign = _of_finite(np.where(np.isfinite(x), x, -np.inf), np.where(np.isfinite(b) & np.isfinite(x), b, 0.0))
    some = infinite.any(axis=1)
    signs = np.where(infinite, np.sign(b), 0.0)
    least, most = signs.min(axis=1), signs.max(axis=1)
    lost |= some & (least < 0) & (most > 0)
    value, sign = np.where(some, np.inf, value), np.where(some, np.where(most > 0, 1.0, -1.0), sign)
    return np.where(lost, np.nan, value), np.where(lost, np.nan, sign)


def _of_finite(x: Vector, b: Vector) -> tuple[Vector, Vector]:
    """Return logarithms and signs of rows whose entries are finite, or of weight 0 at −∞.

    All terms are divided by the largest, ``b_a exp(x_a)``: their sum is 1 + rest, and ``log1p`` keeps a small rest.
    """
    at = np.argmax(np.where(b == 0, -np.inf, x + np.log(np.abs(b))), axis=1)[:, None]
    x_a, b_a = np.take_along_axis(x, at, axis=1), np.take_along_axis(b, at, axis=1)
    empty = b_a[:, 0] == 0
    x_a, b_a = np.where(b_a == 0, 0.0, x_a), np.where(b_a == 0, 1.0, b_a)
    terms = _quotients(x, b, x_a, b_a)
    np.put_along_axis(terms, at, 0.0, axis=1)
    rest = np.array([math.fsum(row) for row in terms.tolist()])
    log_b = np.log(np.abs(b_a[:, 0]))
    value = x_a[:, 0] + (log_b + np.log1p(np.where(rest < -1, -2 - rest, rest)))
    sign = np.sign(b_a[:, 0]) * np.sign(1 + rest)
    return np.where(empty, -np.inf, value), np.where(empty, 0.0, sign)


def _quotients(x: Vector, b: Vector, x_a: Vector, b_a: Vector) -> Vector:
    """Return ``b exp(x) / (b_a exp(x_a))`` where neither weights nor exponentials overflow or underflow on the way.

    ``x − x_a`` is computed with its rounding error, and split into a multiple of ln 2 and a remainder.
    """
    gap = np.where(b == 0, -1.0, x - x_a)
    part = gap - x
    error = np.where(b == 0, 0.0, (x - (gap - part)) + (-x_a - part))
    fraction, exponent = np.frexp(b)
    fraction_a, exponent_a = np.frexp(b_a)
    power = np.rint(np.clip(gap, -1e6, 1e6) / math.log(2))
    left = (gap - power * _LN2[0]) - power * _LN2[1]
    shift = np.clip(power + exponent - exponent_a, -_FAR, _FAR).astype(np.int64)
    near = np.abs(left) < 1  # else the gap is so large that the term is 0
    terms = np.where(near, fraction / fraction_a * np.exp(np.where(near, left, 0.0)), 0.0)
    terms += terms * np.where(np.abs(error) < 1, error, 0.0)
    scaled: Vector = np.ldexp(terms, shift)
    return scaled
