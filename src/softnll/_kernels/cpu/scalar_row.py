"""Rows as plain loops: the readable kernels, compiled by Numba.

One row at a time, in float64, in one row of scratch. ``u`` holds the effective logits of the row and then, in place,
their exponentials relative to the largest. Arrays that are absent have no rows: Numba then needs one variant a type and
not one a combination of options.

The helpers' mathematics is that of ``softnll.equation``, which says why; names are the same.
"""

from __future__ import annotations

import math
from typing import Any

from numba.extending import register_jitable

__all__ = ["gradient_rows", "logsumexp_rows", "loss_rows", "normalise_rows", "pick_rows"]

TINY = 1e-280  # below this the rest loses digits to subnormals: where it is scaled up again, it is summed magnified
LIFT = 600.0  # by exp(600)
LOWER = math.exp(-LIFT)

Array = Any  # inside Numba, whose types are its own


@register_jitable
def two_sum(a: float, b: float) -> tuple[float, float]:
    """Return a + b rounded, and what the rounding lost (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@register_jitable
def remainder(d: float, q: float, tau: float) -> float:
    """Return d − q·τ to full precision (Dekker's product)."""
    product = q * tau
    big = q * 134217729.0
    qh = big - (big - q)
    ql = q - qh
    big = tau * 134217729.0
    th = big - (big - tau)
    tl = tau - th
    return (d - product) - (((qh * th - product) + qh * tl + ql * th) + ql * tl)


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
    if abs(hi) < 1e3 and tau < 1e290:
        return hi, (remainder(d, hi, tau) + lost) / tau
    return hi, (lost / tau if math.isfinite(hi) else 0.0)


@register_jitable
def effective(x: float, softcap: float) -> float:
    """Return a logit after the soft cap, if there is one (> 0), before the temperature."""
    return softcap * math.tanh(x / softcap) if softcap > 0 else x


@register_jitable
def slope(x: float, softcap: float) -> float:
    """Return the soft cap's derivative: 1/cosh², which does not cancel where tanh² rounds to 1."""
    if softcap <= 0:
        return 1.0
    c = math.cosh(x / softcap)
    return 1.0 / c / c


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
    """Return the rest times exp(600), for a row whose rest is tiny."""
    m, a, _ = load_row(x, i, where, softcap, u)
    rest = 0.0
    for j in range(u.shape[0]):
        if j != a:
            hi, lo = difference(u[j], m, tau)
            rest += exponential(hi + LIFT, lo)
    return rest


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
) -> tuple[float, float]:
    """Return Σ t_j·(m − u_j)/τ over t_j ≠ 0, and the mass T = Σ t_j. All terms are of one sign."""
    apart = 0.0
    lost = 0.0
    mass = 0.0
    mass_lost = 0.0
    start, stop = 0, u.shape[0]
    if q.shape[0] == 0 and smoothing == 0:
        start, stop = y[i], y[i] + 1  # one hard target: one term
    for j in range(start, stop):
        masked = where.shape[0] > 0 and not where[i, j]
        t = target(i, j, y, q, w, smoothing, 0.0 if masked else share)
        if t == 0:
            continue
        mass, error = two_sum(mass, t)
        mass_lost += error
        if masked:
            apart = math.inf
            continue
        hi, lo = difference(u[j], m, tau)
        apart, error = two_sum(apart, -hi * t)
        lost += error - lo * t
    if math.isfinite(apart):
        apart += lost
    return apart, mass + mass_lost


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
        scale = factor * slope(float(x[i, j]), softcap)
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


def normalise_rows(x: Array, where: Array, taus: Array, tau: float, log: bool, out: Array, u: Array) -> None:
    """Write softmax or log_softmax of each row."""
    for i in range(x.shape[0]):
        if taus.shape[0] > 0:
            tau = taus[i]
        m, a, _ = load_row(x, i, where, 0.0, u)
        if log:
            rest = 0.0
            lost = 0.0
            for j in range(u.shape[0]):
                if j != a:
                    hi, lo = difference(u[j], m, tau)
                    rest, error = two_sum(rest, exponential(hi, lo))
                    lost += error
            log_r = math.log1p(rest + lost)
        else:
            norm = 1.0 + exponentials(u, m, a, tau)
        for j in range(u.shape[0]):
            masked = where.shape[0] > 0 and not where[i, j]
            if log:
                hi, lo = difference(u[j], m, tau)
                value = math.nan if m == -math.inf else (lo - log_r) + hi
                out[i, j] = -math.inf if masked else value
            else:
                out[i, j] = 0.0 if masked else u[j] / norm


def logsumexp_rows(x: Array, where: Array, taus: Array, tau: float, lse: Array, u: Array) -> None:
    """Write m/τ + log1p(r) of each row; −∞ for a row without entries."""
    for i in range(x.shape[0]):
        if taus.shape[0] > 0:
            tau = taus[i]
        m, a, _ = load_row(x, i, where, 0.0, u)
        lse[i] = m / tau + math.log1p(exponentials(u, m, a, tau))


def loss_rows(  # noqa: C901, PLR0912 - one row's story in its order
    x: Array,
    where: Array,
    y: Array,
    q: Array,
    w: Array,
    s: Array,
    taus: Array,
    tau: float,
    smoothing: float,
    zeta: float,
    softcap: float,
    divisor: float,
    loss: Array,
    ms: Array,
    rs: Array,
    grad: Array,
    u: Array,
) -> None:
    """Write each row's loss (row weight applied), m and r and, where ``grad`` has rows, the gradient (also / divisor).

    ``grad`` may be ``x``: a row is read whole before it is written.
    """
    C = x.shape[1]
    for i in range(x.shape[0]):
        weight = s[i] if s.shape[0] > 0 else 1.0
        if taus.shape[0] > 0:
            tau = taus[i]
        loss[i] = 0.0
        ms[i] = -math.inf
        rs[i] = -1.0
        if weight == 0:
            if grad.shape[0] > 0:
                fill_row(grad, i, where, 0.0)
            continue
        if q.shape[0] == 0 and (y[i] < 0 or y[i] >= C):
            loss[i] = math.nan
            if grad.shape[0] > 0:
                fill_row(grad, i, where, math.nan)
            continue
        m, a, allowed = load_row(x, i, where, softcap, u)
        share = smoothing / max(allowed, 1)
        apart, mass = row_loss(i, u, m, where, y, q, w, smoothing, share, tau)
        r = exponentials(u, m, a, tau)
        ms[i] = m
        rs[i] = r
        if allowed == 0 or mass == 0:
            if grad.shape[0] > 0:
                fill_row(grad, i, where, 0.0)
            continue
        log_r = math.log1p(r)
        lse = m / tau + log_r
        value = apart + mass * log_r
        if m == -math.inf or m != m:  # noqa: PLR0124 - NaN
            value = math.nan
        if zeta > 0:
            value = math.nan if m == math.inf else value + mass * zeta * lse * lse
        loss[i] = weight * value
        lifted = 0.0
        if 0 <= r < TINY and (weight * mass > 1 or grad.shape[0] > 0):
            lifted = magnified_rest(x, i, where, softcap, tau, u)
            if apart == 0 and zeta == 0 and weight * mass > 1:
                loss[i] = (weight * mass * lifted) * LOWER
            exponentials(u, m, a, tau)
        if grad.shape[0] > 0:
            extra = 2.0 * zeta * lse if zeta > 0 else 0.0
            factor = weight / divisor / tau if divisor > 0 else 0.0
            gradient_row(
                i, x, u, m, r, mass, extra, factor, where, y, q, w, smoothing, share, tau, softcap, lifted, grad
            )  # fmt: skip


def gradient_rows(
    x: Array,
    where: Array,
    y: Array,
    q: Array,
    w: Array,
    s: Array,
    taus: Array,
    tau: float,
    smoothing: float,
    zeta: float,
    softcap: float,
    divisor: float,
    ms: Array,
    rs: Array,
    grad: Array,
    u: Array,
) -> None:
    """Write the gradient of each row from its (m, r): the backward of ``loss_rows``. It needs no index a."""
    C = x.shape[1]
    for i in range(x.shape[0]):
        weight = s[i] if s.shape[0] > 0 else 1.0
        if taus.shape[0] > 0:
            tau = taus[i]
        m, r = ms[i], rs[i]
        if weight == 0:
            fill_row(grad, i, where, 0.0)
            continue
        if q.shape[0] == 0 and (y[i] < 0 or y[i] >= C):
            fill_row(grad, i, where, math.nan)
            continue
        _, _, allowed = load_row(x, i, where, softcap, u)
        share = smoothing / max(allowed, 1)
        _, mass = row_loss(i, u, m, where, y, q, w, smoothing, share, tau)
        if allowed == 0 or mass == 0:
            fill_row(grad, i, where, 0.0)
            continue
        lifted = magnified_rest(x, i, where, softcap, tau, u) if 0 <= r < TINY else 0.0
        exponentials(u, m, -1, tau)
        extra = 2.0 * zeta * (m / tau + math.log1p(r)) if zeta > 0 else 0.0
        factor = weight / divisor / tau if divisor > 0 else 0.0
        gradient_row(
            i, x, u, m, r, mass, extra, factor, where, y, q, w, smoothing, share, tau, softcap, lifted, grad
        )  # fmt: skip


def pick_rows(x: Array, y: Array, q: Array, w: Array, s: Array, loss: Array) -> None:
    """Write −s·Σ t_j·x_j over t_j ≠ 0, for logits that already are log-probabilities."""
    for i in range(x.shape[0]):
        weight = s[i] if s.shape[0] > 0 else 1.0
        loss[i] = 0.0
        if weight == 0:
            continue
        value = 0.0
        lost = 0.0
        start, stop = (0, x.shape[1]) if q.shape[0] > 0 else (y[i], y[i] + 1)
        for j in range(start, stop):
            t = target(i, j, y, q, w, 0.0, 0.0)
            if t != 0:
                value, error = two_sum(value, -t * float(x[i, j]))
                lost += error
        loss[i] = weight * (value + lost if math.isfinite(value) else value)
