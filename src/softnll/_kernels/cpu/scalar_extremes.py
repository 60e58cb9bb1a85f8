"""One row of the scalar kernels where a factor, a sum or a product of its results leaves the range of float64.

Products are numbers ``value·2^power`` with an integer power, of which only the result is rounded to float64. The
mathematics is that of ``scalar_row.py``.
"""

from __future__ import annotations

import math
from typing import Any

from numba.extending import register_jitable

from softnll._kernels.cpu.exact import two_sum
from softnll._kernels.cpu.scalar_row import LOWER, difference, effective, exponential, target

Array = Any  # inside Numba, whose types are its own


@register_jitable
def times(value: float, power: int, factor: float) -> tuple[float, int]:
    """Return value·2^power·factor."""
    mantissa, exponent = math.frexp(factor)
    return value * mantissa, power + exponent


@register_jitable
def over(value: float, power: int, divisor: float) -> tuple[float, int]:
    """Return value·2^power / divisor."""
    mantissa, exponent = math.frexp(divisor)
    return value / mantissa, power - exponent


@register_jitable
def number(value: float, power: int) -> float:
    """Return value·2^power as float64."""
    return math.ldexp(value, power)


@register_jitable
def finished_loss(
    weight: float, apart: float, mass: float, m: float, r: float, lse: float, zeta: float, lifted: float
) -> float:
    """Return s·(Σ t·(m − u)/τ + T·(log1p(r) + ζ·lse²)); ``lifted`` is 0 or the magnified rest, if that is tiny."""
    if m == -math.inf or m != m or (zeta > 0 and m == math.inf):  # noqa: PLR0124 - NaN
        return math.nan
    if lifted > 0 and zeta == 0:
        value, power = times(LOWER, 0, lifted)
        value, power = times(value, power, mass)
        value, power = times(value, power, weight)
        return weight * apart + number(value, power)
    value = apart + mass * math.log1p(r)
    if zeta > 0:
        value += mass * (zeta * lse) * lse
    return weight * value


@register_jitable
def extreme_loss(
    i: int,
    u: Array,
    m: float,
    r: float,
    mass: float,
    where: Array,
    y: Array,
    q: Array,
    w: Array,
    smoothing: float,
    share: float,
    tau: float,
    zeta: float,
    weight: float,
) -> float:
    """Return a row's loss from its effective logits in u; m is finite."""
    total = 0.0
    lost = 0.0
    start, stop = 0, u.shape[0]
    if q.shape[0] == 0 and smoothing == 0:
        start, stop = y[i], y[i] + 1
    for j in range(start, stop):
        masked = where.shape[0] > 0 and not where[i, j]
        t = target(i, j, y, q, w, smoothing, 0.0 if masked else share)
        if t == 0:
            continue
        if masked:
            return math.inf
        value, power = times(0.5 * m - 0.5 * u[j], 1, t)
        value, power = times(value, power, weight)
        value, power = over(value, power, tau)
        total, error = two_sum(total, number(value, power))
        lost += error
    if not math.isfinite(total):
        return total
    total += lost
    log_r = math.log1p(r)
    value, power = times(mass, 0, log_r)
    value, power = times(value, power, weight)
    total += number(value, power)
    if zeta > 0:
        value, power = times(mass, 0, zeta)
        value, power = times(value, power, weight)
        for _ in range(2):
            value, power = times_normaliser(value, power, m, log_r, tau)
        total += number(value, power)
    return total


@register_jitable
def times_normaliser(value: float, power: int, m: float, log_r: float, tau: float) -> tuple[float, int]:
    """Return value·2^power·lse, also where lse = m/τ + log1p(r) is beyond float64."""
    lse = m / tau + log_r
    if math.isfinite(lse):
        return times(value, power, lse)
    value, power = times(value, power, m)
    return over(value, power, tau)


@register_jitable
def extreme_pick(i: int, x: Array, y: Array, q: Array, w: Array, weight: float) -> float:
    """Return −s·Σ t_j·x_j over t_j ≠ 0."""
    total = 0.0
    start, stop = (0, x.shape[1]) if q.shape[0] > 0 else (y[i], y[i] + 1)
    for j in range(start, stop):
        t = target(i, j, y, q, w, 0.0, 0.0)
        if t != 0:
            value, power = times(-t, 0, float(x[i, j]))
            value, power = times(value, power, weight)
            total += number(value, power)
    return total


@register_jitable
def extreme_gradient_row(
    i: int,
    x: Array,
    m: float,
    r: float,
    mass: float,
    weight: float,
    divisor: float,
    where: Array,
    y: Array,
    q: Array,
    w: Array,
    smoothing: float,
    share: float,
    tau: float,
    zeta: float,
    softcap: float,
    lifted: float,
    grad: Array,
) -> None:
    """Write [(T − t)·p − t·(1 − p) + 2ζ·lse·T·p]·g'·s/(D·τ)."""
    norm = 1.0 + r
    log_r = math.log1p(r)
    for j in range(x.shape[1]):
        if where.shape[0] > 0 and not where[i, j]:
            grad[i, j] = 0.0
            continue
        score = float(x[i, j])
        hi, lo = difference(effective(score, softcap), m, tau)
        half = exponential(0.5 * hi, 0.5 * lo)
        e = half * half if hi < 0 else 1.0
        t = target(i, j, y, q, w, smoothing, share)
        entry = 0.0
        if t == 0:
            value, power = times(mass / norm, 0, half)
            value, power = times(value, power, half)
            entry = scaled(value, power, weight, divisor, tau, score, softcap)
        elif e == 1 and lifted > 0:
            entry = scaled((mass - t) * (e / norm), 0, weight, divisor, tau, score, softcap)
            value, power = times(LOWER, 0, lifted)
            value, power = times(value, power, t)
            entry -= scaled(value, power, weight, divisor, tau, score, softcap)
        else:
            value = (mass - t) * (e / norm) - t * (((1.0 - e) + r) / norm)
            entry = scaled(value, 0, weight, divisor, tau, score, softcap)
        if zeta > 0 and half > 0:
            value, power = times(2.0 * mass / norm, 0, zeta)
            value, power = times(value, power, half)
            value, power = times(value, power, half)
            value, power = times_normaliser(value, power, m, log_r, tau)
            entry += scaled(value, power, weight, divisor, tau, score, softcap)
        grad[i, j] = entry


@register_jitable
def scaled(value: float, power: int, weight: float, divisor: float, tau: float, score: float, softcap: float) -> float:
    """Return value·2^power·g'·s/(D·τ); 0 where the mean has no rows."""
    if not divisor > 0:
        return 0.0
    value, power = times(value, power, weight)
    value, power = over(value, power, divisor)
    value, power = over(value, power, tau)
    if softcap > 0:
        z = abs(score / softcap)
        if z > 1490:  # exp(−2z) times the largest number is 0
            return 0.0
        quarter, rest = math.exp(-0.5 * z), 1.0 + math.exp(-2.0 * z)
        for _ in range(4):
            value, power = times(value, power, quarter)
        value = value * 4.0 / rest / rest
    return number(value, power)
