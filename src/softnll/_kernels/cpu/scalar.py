"""The scalar kernels: every option, any strides, an entry at a time; the readable twin of the vector kernels.

One row at a time, in float64, in one row of scratch. ``u`` holds the effective logits of the row and then, in place,
their exponentials relative to the largest. Arrays that are absent have no rows: Numba then needs one variant a type and
not one a combination of options.
"""

from __future__ import annotations

import math
from typing import Any

from numba.extending import register_jitable

from softnll._kernels.cpu.exact import TINY, two_sum
from softnll._kernels.cpu.row_options import mean_share, weight_of
from softnll._kernels.cpu.scalar_extremes import extreme_gradient_row, extreme_loss, extreme_pick, finished_loss
from softnll._kernels.cpu.scalar_row import (
    LOWER,
    difference,
    exponential,
    exponentials,
    fill_row,
    gradient_row,
    load_row,
    magnified_rest,
    row_loss,
    target,
)

Array = Any  # inside Numba, whose types are its own
MOST = 1e250  # factors beyond it, and below its reciprocal, are multiplied with their exponents apart


@register_jitable
def extreme(weight: float, divisor: float, tau: float, extra: float) -> bool:
    """Whether a row's factor s/(D·τ), or 2ζ·lse, is so large or small that products with it leave float64's range."""
    factor = mean_share(weight, divisor) / tau
    return not (1 / MOST < abs(factor) < MOST and abs(extra) < MOST) and divisor > 0


def normalise(x: Array, where: Array, taus: Array, tau: float, log: bool, out: Array, u: Array) -> None:
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
            rest += lost
            if 0 <= rest < TINY:
                rest = magnified_rest(x, i, where, 0.0, tau, u) * LOWER
            log_r = math.log1p(rest)
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


def logsumexp(x: Array, where: Array, taus: Array, tau: float, lse: Array, u: Array) -> None:
    """Write m/τ + log1p(r) of each row; −∞ for a row without entries."""
    for i in range(x.shape[0]):
        if taus.shape[0] > 0:
            tau = taus[i]
        m, a, _ = load_row(x, i, where, 0.0, u)
        lse[i] = m / tau + math.log1p(exponentials(u, m, a, tau))


def losses(
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
    loss: Any,
    ms: Array,
    rs: Array,
    grad: Array,
    u: Array,
) -> None:
    """Write each row's loss (row weight applied), m and r and, where ``grad`` has rows, the gradient (also / divisor).

    ``loss`` is None for the gradient alone, from m and r. ``grad`` may be ``x``: a row is read whole before it is
    written.
    """
    C = x.shape[1]
    for i in range(x.shape[0]):
        weight = weight_of(s, i)
        if taus.shape[0] > 0:
            tau = taus[i]
        if loss is not None:
            loss[i], ms[i], rs[i] = 0.0, -math.inf, -1.0
        if weight == 0:
            if grad.shape[0] > 0:
                fill_row(grad, i, where, 0.0)
            continue
        if q.shape[0] == 0 and (y[i] < 0 or y[i] >= C):
            if loss is not None:
                loss[i] = math.nan
            if grad.shape[0] > 0:
                fill_row(grad, i, where, math.nan)
            continue
        m, a, allowed = load_row(x, i, where, softcap, u)
        if loss is None:
            m, a = ms[i], -1  # the gradient needs no index a
        share = smoothing / max(allowed, 1)
        apart, mass, counts = row_loss(i, u, m, where, y, q, w, smoothing, share, tau)
        r = rs[i] if loss is None else exponentials(u, m, a, tau)
        lifted = magnified_rest(x, i, where, softcap, tau, u) if 0 <= r < TINY else 0.0  # subnormals have few digits
        if loss is None or 0 <= r < TINY:
            exponentials(u, m, a, tau)
        if loss is not None:
            r = lifted * LOWER if 0 <= r < TINY else r
            ms[i], rs[i] = m, r
        if allowed == 0 or not counts:
            if grad.shape[0] > 0:
                fill_row(grad, i, where, 0.0)
            continue
        lse = m / tau + math.log1p(r)
        if loss is not None:
            loss[i] = finished_loss(weight, apart, mass, m, r, lse, zeta, lifted)
            if not math.isfinite(loss[i]) and math.isfinite(m):
                load_row(x, i, where, softcap, u)
                loss[i] = extreme_loss(i, u, m, r, mass, where, y, q, w, smoothing, share, tau, zeta, weight)
                exponentials(u, m, a, tau)
        if grad.shape[0] > 0:
            extra = 2.0 * zeta * lse if zeta > 0 else 0.0
            if extreme(weight, divisor, tau, extra) and math.isfinite(m):
                extreme_gradient_row(
                    i, x, m, r, mass, weight, divisor, where, y, q, w, smoothing, share, tau, zeta, softcap, lifted,
                    grad,
                )  # fmt: skip
                continue
            factor = mean_share(weight, divisor) / tau
            gradient_row(
                i, x, u, m, r, mass, extra, factor, where, y, q, w, smoothing, share, tau, softcap, lifted, grad
            )  # fmt: skip


def pick(x: Array, y: Array, q: Array, w: Array, s: Array, loss: Array) -> None:
    """Write −s·Σ t_j·x_j over t_j ≠ 0, for logits that already are log-probabilities."""
    for i in range(x.shape[0]):
        weight = weight_of(s, i)
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
        if not math.isfinite(loss[i]):
            loss[i] = extreme_pick(i, x, y, q, w, weight)
