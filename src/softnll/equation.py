"""The definition: what the last layer computes, written once for any array library that speaks the array API.

Everything is made from two numbers a row, (m, r): the largest effective logit, and *the rest*, the sum of the other
entries' exponentials relative to it. The largest entry's own 1 is left out of the sum, so a confident row's small loss
and small gradient are not rounded away::

    m     = u_a                      a: the first largest entry
    r     = Σ_{j≠a} exp(u_j − m)
    p_k   = exp(u_k − m) / (1 + r)
    1−p_k = ((1 − exp(u_k − m)) + r) / (1 + r)
    NLL_k = (m − u_k) + log1p(r)

Every option is one of four quantities: effective logits u, target measure t of mass T, coefficient ζ, row weight::

    loss      = T·log1p(r) + Σ_{t_c≠0} t_c·(m − u_c) + T·ζ·lse²
    dloss/dx  = [ (T − t)·p − t·(1 − p) + 2ζ·T·lse·p ] · g'(x)

Differences u_k − m are carried as unevaluated sums hi + lo, because what their rounding loses is an error of the
exponent. All arithmetic is float64. Source: the textbook pair −log p_y and p − onehot(y), e.g. Bishop, *Pattern
Recognition and Machine Learning* (2006), equations 4.108 and 4.109; why the rest: docs/numerics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from softnll.problem import Problem

_TINY = 1e-280  # below this the rest loses digits to subnormals: where it is scaled up again, it is summed magnified
_LIFT = 600.0  # by exp(600)

__all__ = [
    "Rows",
    "complements",
    "effective_logits",
    "gradient",
    "hessian_product",
    "log_probabilities",
    "losses",
    "measure",
    "normalise",
    "normalisers",
    "picked",
    "probabilities",
]


@dataclass(frozen=True, slots=True)
class Rows:
    """The named intermediates of some rows: m, r and what they are made of.

    Attributes
    ----------
    m, r, log_r
        ``(N, 1)``: largest effective logit before the temperature, the rest, log1p(rest).
    hi, lo
        ``(N, C)``: (u − m)/τ as an unevaluated sum.
    e
        ``(N, C)``: exp(hi + lo), exactly 1 at the largest entry.
    tau
        ``(N, 1)`` temperatures, or a number.
    allowed
        ``(N, C)`` bool, or None when no class is masked.
    empty
        ``(N, 1)`` bool: rows without any class, whose values and gradients are 0; None when no class is masked.
    """

    m: Any
    r: Any
    log_r: Any
    hi: Any
    lo: Any
    e: Any
    tau: Any
    allowed: Any
    empty: Any


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return a + b rounded, and what the rounding lost (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _remainder(d: Any, q: Any, tau: Any) -> Any:
    """Return d − q·τ to full precision, for |q| where nothing overflows (Dekker's product)."""

    def split(a: Any) -> tuple[Any, Any]:
        big = a * 134217729.0  # 2²⁷ + 1
        high = big - (big - a)
        return high, a - high

    product = q * tau
    (qh, ql), (th, tl) = split(q), split(tau)
    low = ((qh * th - product) + qh * tl + ql * th) + ql * tl
    return (d - product) - low


def effective_logits(problem: Problem, xp: Any) -> tuple[Any, Any]:
    """Return ``(u, tau)``: logits after the soft cap, in float64, and the temperature they are yet to be divided by."""
    u = xp.astype(problem.x, xp.float64)
    if problem.objective.softcap is not None:
        cap = problem.objective.softcap
        u = cap * xp.tanh(u / cap)
    return u, problem.objective.temperature if problem.tau is None else problem.tau[:, None]


def normalise(problem: Problem) -> Rows:
    """Return (m, r) of each row, and the exponentials they come from."""
    xp = problem.x.__array_namespace__()
    with np.errstate(all="ignore"):
        u, tau = effective_logits(problem, xp)
        minus_inf = xp.asarray(-xp.inf, dtype=xp.float64)
        allowed = problem.where
        if allowed is not None:
            u = xp.where(allowed, u, minus_inf)
        a = xp.argmax(xp.where(xp.isnan(u), minus_inf, u), axis=1, keepdims=True)
        first = xp.arange(u.shape[1])[None, :] == a
        infinities = xp.sum(xp.astype(u == xp.inf, xp.float64), axis=1, keepdims=True)
        m = xp.max(u, axis=1, keepdims=True)
        m = xp.where(xp.any(xp.isnan(u), axis=1, keepdims=True) | (infinities > 1), xp.asarray(xp.nan), m)
        hi, lo = _differences(xp, u, m, tau)
        e = xp.exp(hi)
        e = e + e * lo
        rest = xp.sum(xp.where(first, xp.zeros_like(e), e), axis=1, keepdims=True)
        nothing = m == minus_inf
        r = xp.where(nothing, xp.asarray(-1.0, dtype=xp.float64), rest)
        e = xp.where(nothing, xp.asarray(xp.nan), e)
        empty = None if allowed is None else ~xp.any(allowed, axis=1, keepdims=True)
        return Rows(m, r, xp.log1p(r), hi, lo, e, tau, allowed, empty)


def _differences(xp: Any, u: Any, m: Any, tau: Any) -> tuple[Any, Any]:
    """Return (u − m)/τ as hi + lo; the difference is compensated first, then divided."""
    d, lost = _two_sum(u, -m)
    hi = d / tau
    # Where u − m overflows though both are finite, the quotients may not.
    apart = xp.isfinite(u) & xp.isfinite(m) & ~xp.isfinite(d)
    hi = xp.where(apart, u / tau - m / tau, hi)
    small = (xp.abs(hi) < 1e3) & xp.isfinite(d)  # beyond, exp is 0 and the relative error of hi is all that counts
    remainder = _remainder(d, xp.where(small, hi, xp.zeros_like(hi)), tau)
    divides = not isinstance(tau, float) or tau != 1.0
    lo = xp.where(small, remainder + lost, lost) / tau if divides else lost
    lo = xp.where(xp.isfinite(d) & xp.isfinite(lo), lo, xp.zeros_like(lo))
    same = u == m
    zero = xp.zeros_like(hi)
    return xp.where(same, zero, hi), xp.where(same, zero, lo)


def _lifted(xp: Any, rows: Rows) -> tuple[Any, Any]:
    """Return ``(N, 1)``: whether the rest is tiny, and the rest times exp(600) where it is."""
    tiny = (rows.r < _TINY) & (rows.r > 0)
    lifted = xp.where((rows.e < _TINY) & tiny, xp.exp(rows.hi + _LIFT) * (1.0 + rows.lo), xp.zeros_like(rows.e))
    return tiny, xp.sum(lifted, axis=1, keepdims=True)


def probabilities(rows: Rows) -> Any:
    """Return p, 0 where a class is masked."""
    xp = rows.e.__array_namespace__()
    with np.errstate(all="ignore"):
        return _masked(xp, rows, rows.e / (1.0 + rows.r), 0.0)


def complements(rows: Rows) -> Any:
    """Return 1 − p, without the cancellation of that subtraction."""
    with np.errstate(all="ignore"):
        return ((1.0 - rows.e) + rows.r) / (1.0 + rows.r)


def log_probabilities(rows: Rows) -> Any:
    """Return log p, −∞ where a class is masked."""
    xp = rows.e.__array_namespace__()
    with np.errstate(all="ignore"):
        value = (rows.lo - rows.log_r) + rows.hi
        value = xp.where(rows.m == -xp.inf, xp.asarray(xp.nan), value)
        return _masked(xp, rows, value, -xp.inf)


def normalisers(rows: Rows) -> Any:
    """Return lse = m/τ + log1p(r) as ``(N, 1)``."""
    with np.errstate(all="ignore"):
        return rows.m / rows.tau + rows.log_r


def _masked(xp: Any, rows: Rows, value: Any, fill: float) -> Any:
    """Return the value where a class is allowed, else the fill."""
    return value if rows.allowed is None else xp.where(rows.allowed, value, xp.asarray(fill, dtype=xp.float64))


def measure(problem: Problem) -> tuple[Any, Any]:
    """Return the target measure ``t (N, C)`` and its mass ``T (N, 1)``: t = w·[(1 − ε)·q + ε/C over the allowed]."""
    xp = problem.x.__array_namespace__()
    C = problem.x.shape[1]
    if problem.q is not None:
        t = xp.astype(problem.q, xp.float64)
    else:
        t = xp.astype(xp.arange(C)[None, :] == problem.y[:, None], xp.float64)
    epsilon = problem.objective.label_smoothing
    if epsilon > 0:
        if problem.where is None:
            share: Any = epsilon / C
        else:
            allowed = xp.astype(problem.where, xp.float64)
            share = epsilon * allowed / xp.maximum(xp.sum(allowed, axis=1, keepdims=True), xp.asarray(1.0))
        t = (1.0 - epsilon) * t + share
    if problem.w is not None:
        t = t * problem.w[None, :]
    return t, xp.sum(t, axis=1, keepdims=True)


def _out_of_range(xp: Any, problem: Problem) -> Any:
    """Return ``(N, 1)`` bool: rows whose hard target is no class; they are NaN."""
    if problem.y is None:
        return xp.zeros((problem.x.shape[0], 1), dtype=xp.bool)
    return ((problem.y < 0) | (problem.y >= problem.x.shape[1]))[:, None]


def _silent(xp: Any, problem: Problem, rows: Rows, mass: Any) -> Any:
    """Return ``(N, 1)`` bool: rows that contribute exactly 0, whatever they hold."""
    silent = (mass == 0) & ~_out_of_range(xp, problem)
    if problem.s is not None:
        silent = silent | (problem.s[:, None] == 0)
    return silent if rows.empty is None else silent | (rows.empty & ~_out_of_range(xp, problem))


def losses(problem: Problem, rows: Rows) -> Any:
    """Return ``(N,)`` losses: row weight times (⟨t, NLL⟩ + T·ζ·lse²)."""
    xp = rows.e.__array_namespace__()
    with np.errstate(all="ignore"):
        t, mass = measure(problem)
        nll = (rows.log_r - rows.lo) - rows.hi
        nll = _masked(xp, rows, nll, xp.inf)
        nll = xp.where(xp.isnan(rows.m) | (rows.m == -xp.inf), xp.asarray(xp.nan), nll)
        loss = xp.sum(xp.where(t == 0, xp.zeros_like(t), t * nll), axis=1, keepdims=True)
        zeta = problem.objective.z_loss
        if zeta > 0:
            lse = normalisers(rows)
            loss = xp.where(rows.m == xp.inf, xp.asarray(xp.nan), loss + mass * zeta * lse * lse)
        loss = xp.where(_out_of_range(xp, problem), xp.asarray(xp.nan), loss)
        if problem.s is not None:
            tiny, lifted = _lifted(xp, rows)
            tiny = tiny & (loss < _TINY) & (problem.s[:, None] * mass > 1)
            loss = xp.where(tiny, (problem.s[:, None] * mass * lifted) * math.exp(-_LIFT), loss * problem.s[:, None])
        silent = _silent(xp, problem, rows, mass)
        return xp.where(silent, xp.zeros_like(loss), loss)[:, 0]


def picked(problem: Problem) -> Any:
    """Return ``(N,)`` losses of log-probabilities: −s·⟨t, x⟩ over t ≠ 0."""
    xp = problem.x.__array_namespace__()
    with np.errstate(all="ignore"):
        t, _ = measure(problem)
        loss = xp.sum(xp.where(t == 0, xp.zeros_like(t), -t * xp.astype(problem.x, xp.float64)), axis=1)
        return loss if problem.s is None else xp.where(problem.s == 0, xp.zeros_like(loss), loss * problem.s)


def gradient(problem: Problem, rows: Rows) -> Any:
    """Return ``(N, C)`` derivatives of the reduced loss with respect to the logits as given."""
    xp = rows.e.__array_namespace__()
    with np.errstate(all="ignore"):
        t, mass = measure(problem)
        extra = 2.0 * problem.objective.z_loss * normalisers(rows) if problem.objective.z_loss > 0 else 0.0
        factor = _factor(xp, problem, rows)
        p = rows.e / (1.0 + rows.r)
        # Half of the exponent before and half after the scale: a large scale must not meet a subnormal.
        half = xp.exp(0.5 * rows.hi) * (1.0 + 0.5 * rows.lo)
        scaled = (half * (mass * (1.0 + extra) * factor / (1.0 + rows.r))) * half
        untargeted = xp.where(rows.e < 1e-290, scaled, mass * (1.0 + extra) * factor * p)
        rounded = (mass - t) * p + mass * extra * p
        targeted = (rounded - t * complements(rows)) * factor
        tiny, lifted = _lifted(xp, rows)
        largest = rounded * factor - (t * factor * lifted) * math.exp(-_LIFT)
        targeted = xp.where(tiny & (rows.e == 1.0), largest, targeted)
        dx = xp.where(t == 0, untargeted, targeted)
        dx = xp.where(_out_of_range(xp, problem), xp.asarray(xp.nan), dx)
        dx = _masked(xp, rows, dx, 0.0)
        return xp.where(_silent(xp, problem, rows, mass), xp.zeros_like(dx), dx)


def _factor(xp: Any, problem: Problem, rows: Rows) -> Any:
    """Return what the derivative with respect to u is multiplied by: slope of the cap, 1/τ, row weight, 1/D."""
    scale: Any = 1.0 if problem.s is None else problem.s[:, None]
    factor = scale / problem.divisor / rows.tau if problem.divisor > 0 else 0.0
    if problem.objective.softcap is None:
        return factor
    cosh = xp.cosh(xp.astype(problem.x, xp.float64) / problem.objective.softcap)
    return factor / cosh / cosh


def hessian_product(problem: Problem, rows: Rows, v: Any) -> Any:
    """Return the Hessian of the reduced loss, row by row, times ``v (N, C)``.

    ``ρ·{ g'⊙[T(1 + 2ζ·lse)(p⊙a − p⟨p, a⟩) + 2ζT·p⟨p, a⟩] + g''⊙v⊙[T(1 + 2ζ·lse)·p − t] }`` with ``a = g'⊙v``.
    """
    xp = rows.e.__array_namespace__()
    with np.errstate(all="ignore"):
        t, mass = measure(problem)
        zeta, cap = problem.objective.z_loss, problem.objective.softcap
        extra: Any = 2.0 * zeta * normalisers(rows) if zeta > 0 else 0.0
        slope: Any = 1.0 / rows.tau
        bend: Any = None
        if cap is not None:
            x = xp.astype(problem.x, xp.float64) / cap
            slope = slope / xp.cosh(x) / xp.cosh(x)
            bend = -2.0 * xp.tanh(x) * slope / cap
        p = probabilities(rows)
        a = slope * v
        # 0·v is 0, and a masked or impossible class must not bring in what v holds there.
        a = xp.where(p == 0, xp.zeros_like(a), a)
        product = slope * mass * (1.0 + extra) * softmax_product(xp, rows, p, a)
        if zeta > 0:
            product = product + slope * 2.0 * zeta * mass * p * xp.sum(p * a, axis=1, keepdims=True)
        if bend is not None:
            du = (mass - t) * p - t * complements(rows) + mass * extra * p
            product = product + xp.where(bend == 0, xp.zeros_like(du), bend * v * du)
        scale: Any = 1.0 if problem.s is None else problem.s[:, None]
        product = product * (scale / problem.divisor if problem.divisor > 0 else 0.0)
        product = xp.where(_out_of_range(xp, problem), xp.asarray(xp.nan), product)
        product = _masked(xp, rows, product, 0.0)
        return xp.where(_silent(xp, problem, rows, mass), xp.zeros_like(product), product)


def softmax_product(xp: Any, rows: Rows, p: Any, v: Any) -> Any:
    """Return (diag p − p pᵀ)·v = p⊙(v − ⟨p, v⟩), with v taken relative to the largest entry's.

    ``⟨p, v⟩ − v_a = Σ_{j≠a} p_j·(v_j − v_a)`` has no term of the size of v_a, so that a confident row's product, which
    is of the size of r, is not lost in it.
    """
    largest = xp.argmax(rows.e, axis=1, keepdims=True)
    at = xp.arange(v.shape[1])[None, :] == largest
    v_a = xp.sum(xp.where(at, v, xp.zeros_like(v)), axis=1, keepdims=True)
    apart = v - v_a
    shift = xp.sum(xp.where(p == 0, xp.zeros_like(p), p * apart), axis=1, keepdims=True)
    return xp.where(p == 0, xp.zeros_like(p), p * (apart - shift))  # whatever v holds there
