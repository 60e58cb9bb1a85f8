"""One row of the scalar kernels: effective logits, exponentials, loss and gradient, an entry at a time in float64.

The mathematics is that of ``softnll._core.equation``, which says why; names are the same.
"""

from __future__ import annotations

import math
from typing import Any

from numba.extending import register_jitable

from softnll._kernels.cpu.exact import remainder, two_sum

LIFT = 600.0  # a rest below TINY is summed times exp(600) where it is scaled up again
LOWER = math.exp(-LIFT)

Array = Any  # inside Numba, whose types are its own


@register_jitable
def difference(u: float, m: float, tau: float) -> tuple[float, float]:
    """Return (u − m)/τ as an unevaluated sum hi + lo."""
    if u == m:
        return 0.0, 0.0
    d, lost = two_sum(u, -m)
    if not math.isfinite(d):
        if math.isfinite(u) and math.isfinite(m):
            return u / tau - m / tau, 0.0
        return d, 0.0
    if tau == 1.0:
        return d, lost
    hi = d / tau
    if abs(hi) < 1e3:  # the parts of a product must be normal numbers
        unit = 2.0**600 if tau < 1e-200 else 2.0**-600 if tau > 1e200 else 1.0
        return hi, (remainder(d * unit, hi, tau * unit) + lost * unit) / (tau * unit)
    return hi, (lost / tau if math.isfinite(hi) else 0.0)


@register_jitable
def effective(x: float, softcap: float) -> float:
    """Return a logit after the soft cap, if there is one (> 0), before the temperature."""
    return softcap * math.tanh(x / softcap) if softcap > 0 else x


@register_jitable
def sloped(value: float, x: float, softcap: float) -> float:
    """Return a value times the soft cap's derivative: 1/cosh², which does not cancel where tanh² rounds to 1."""
    if softcap <= 0:
        return value
    c = math.cosh(x / softcap)
    return value / c / c


@register_jitable
def load_row(x: Array, i: int, where: Array, softcap: float, u: Array) -> tuple[float, int, int]:
    """Write effective logits into u (−∞ where masked); return m, its first index, and how many classes there are.

    m is NaN where the whole row is: a NaN in it, or two +∞.
    """
    m = -math.inf
    a = -1
    allowed = 0
    infinities = 0
    nan = False
    for j in range(x.shape[1]):
        if where.shape[0] > 0 and not where[i, j]:
            u[j] = -math.inf
            continue
        allowed += 1
        value = effective(float(x[i, j]), softcap)
        u[j] = value
        if value != value:  # noqa: PLR0124 - NaN
            nan = True
        elif value > m or a < 0:
            m = value
            a = j
        if value == math.inf:
            infinities += 1
    if nan or infinities > 1:
        m = math.nan
    return m, a, allowed


@register_jitable
def exponential(hi: float, lo: float) -> float:
    """Return exp(hi + lo) for a tiny lo."""
    e = math.exp(hi)
    return e + e * lo


@register_jitable
def exponentials(u: Array, m: float, a: int, tau: float) -> float:
    """Replace u by exp((u − m)/τ) and return the rest: their sum without entry a, compensated."""
    if m == -math.inf:
        for j in range(u.shape[0]):
            u[j] = math.nan
        return -1.0
    rest = 0.0
    lost = 0.0
    for j in range(u.shape[0]):
        hi, lo = difference(u[j], m, tau)
        u[j] = exponential(hi, lo)
        if j != a:
            rest, error = two_sum(rest, u[j])
            lost += error
    return rest + lost


@register_jitable
def magnified_rest(x: Array, i: int, where: Array, softcap: float, tau: float, u: Array) -> float:
    """Return the rest times exp(600), for a row whose rest is tiny; u holds the effective logits afterwards."""
    m, a, _ = load_row(x, i, where, softcap, u)
    rest = 0.0
    lost = 0.0
    for j in range(u.shape[0]):
        if j != a:
            hi, lo = difference(u[j], m, tau)
            rest, error = two_sum(rest, exponential(hi + LIFT, lo))
            lost += error
    return rest + lost


@register_jitable
def target(i: int, j: int, y: Array, q: Array, w: Array, smoothing: float, share: float) -> float:
    """Return t_j = w_j·[(1 − ε)·q_j + ε/C] for an allowed class (share is ε/C)."""
    if q.shape[0] > 0:  # noqa: SIM108 - an else with a reason
        t = float(q[i, j])
    else:  # y has no rows where q has some
        t = 1.0 if j == y[i] else 0.0
    if smoothing > 0:
        t = (1.0 - smoothing) * t + share
    return t * w[j] if w.shape[0] > 0 else t


@register_jitable
def row_loss(
    i: int,
    u: Array,
    m: float,
    where: Array,
    y: Array,
    q: Array,
    w: Array,
    smoothing: float,
    share: float,
    tau: float,
) -> tuple[float, float, bool]:
    """Return Σ t_j·(m − u_j)/τ over t_j ≠ 0, the mass T = Σ t_j, and whether there is a t_j ≠ 0.

    Terms of a distribution are of one sign; those of a signed measure may have a mass of 0 and count nevertheless.
    """
    apart = 0.0
    lost = 0.0
    mass = 0.0
    mass_lost = 0.0
    counts = False
    start, stop = 0, u.shape[0]
    if q.shape[0] == 0 and smoothing == 0:
        start, stop = y[i], y[i] + 1  # one hard target: one term
    for j in range(start, stop):
        masked = where.shape[0] > 0 and not where[i, j]
        t = target(i, j, y, q, w, smoothing, 0.0 if masked else share)
        if t == 0:
            continue
        counts = True
        mass, error = two_sum(mass, t)
        mass_lost += error
        if masked:
            apart = math.inf
            continue
        hi, lo = difference(u[j], m, tau)
        apart, error = two_sum(apart, -hi * t)
        lost += error - lo * t
    if math.isfinite(apart) and math.isfinite(lost):
        apart += lost
    return apart, mass + mass_lost, counts


@register_jitable
def gradient_row(
    i: int,
    x: Array,
    u: Array,
    m: float,
    r: float,
    mass: float,
    extra: float,
    factor: float,
    where: Array,
    y: Array,
    q: Array,
    w: Array,
    smoothing: float,
    share: float,
    tau: float,
    softcap: float,
    lifted: float,
    grad: Array,
) -> None:
    """Write [(T − t)·p − t·(1 − p) + extra·T·p]·g'·factor, from the exponentials in u; extra = 2ζ·lse.

    ``lifted`` is 0 or the magnified rest: then 1 − p of the largest entry is made of it.
    """
    norm = 1.0 + r
    for j in range(u.shape[0]):
        if where.shape[0] > 0 and not where[i, j]:
            grad[i, j] = 0.0
            continue
        e = u[j]
        t = target(i, j, y, q, w, smoothing, share)
        scale = sloped(factor, float(x[i, j]), softcap)
        if t != 0:
            complement = ((1.0 - e) + r) / norm
            rounded = (mass - t) * (e / norm) + mass * extra * (e / norm)
            if e == 1 and lifted > 0:
                grad[i, j] = rounded * scale - (t * scale * lifted) * LOWER
            else:
                grad[i, j] = (rounded - t * complement) * scale
        elif e < 1e-290 and abs(mass * (1.0 + extra) * scale) > 1:
            # Half of the exponent before and half after the scale: a large scale must not meet a subnormal.
            hi, lo = difference(effective(float(x[i, j]), softcap), m, tau)
            half = exponential(0.5 * hi, 0.5 * lo)
            grad[i, j] = (half * (mass * (1.0 + extra) * scale / norm)) * half
        else:
            grad[i, j] = mass * (1.0 + extra) * scale * (e / norm)


@register_jitable
def fill_row(grad: Array, i: int, where: Array, value: float) -> None:
    """Set a row's gradient to 0 or NaN; masked classes get 0 in any case."""
    for j in range(grad.shape[1]):
        masked = where.shape[0] > 0 and not where[i, j]
        grad[i, j] = 0.0 if masked else value
