"""The definition of what the last layer computes, written once for every library with the Python array API.

Everything follows from two numbers a row, (m, r): the largest effective logit, and *the rest*, the sum of the other
entries' exponentials relative to it. The largest entry's own term, 1, is left out of the sum, so that the small loss
and the small gradient of a confident row do not round to 0::

    m     = u_a                      a: the first largest entry
    r     = Σ_{j≠a} exp(u_j − m)
    p_k   = exp(u_k − m) / (1 + r)
    1−p_k = ((1 − exp(u_k − m)) + r) / (1 + r)
    NLL_k = (m − u_k) + log1p(r)

Every option is one of four quantities: effective logits u, target measure t of mass T, coefficient ζ, row weight::

    loss      = T·log1p(r) + Σ_{t_c≠0} t_c·(m − u_c) + T·ζ·lse²
    dloss/dx  = [ (T − t)·p − t·(1 − p) + 2ζ·T·lse·p ] · g'(x)

Differences u_k − m are represented as sums hi + lo of two numbers, because their rounding error is an error of the
exponent. All arithmetic is float64, or float32 with compensated sums where there is no float64. Source: the textbook
pair −log p_y and p − onehot(y), e.g. Bishop, *Pattern Recognition and Machine Learning* (2006), equations 4.108 and
4.109. docs/numerics.md explains why r is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from softnll._core.arithmetic import Arithmetic, arithmetic_of, two_sum
from softnll._core.extremes import extreme_gradient, extreme_losses
from softnll._core.problem import Problem

_without_warnings = np.errstate(all="ignore")  # infinities and NaN are regular results


@dataclass(frozen=True, slots=True)
class Normalised:
    """The intermediate results of some rows: m, r and the exponentials.

    Attributes
    ----------
    arithmetic
        The array library, and the type of the computation.
    m, r, log_r
        ``(N, 1)``: the largest effective logit before the temperature, the rest, log1p(rest).
    hi, lo
        ``(N, C)``: (u − m)/τ as the sum hi + lo.
    e
        ``(N, C)``: exp(hi + lo), exactly 1 at the largest entry.
    tau
        ``(N, 1)`` temperatures, or a number.
    allowed
        ``(N, C)`` bool, or None when no class is masked.
    empty
        ``(N, 1)`` bool: rows without any class, whose values and gradients are 0; None when no class is masked.
    tiny, lifted
        ``(N, 1)``: whether the rest loses digits to subnormal exponentials and, for such rows, the rest times
        exp(limits.lift); ``lifted`` is None without such rows.
    """

    arithmetic: Arithmetic
    m: Any
    r: Any
    log_r: Any
    hi: Any
    lo: Any
    e: Any
    tau: Any
    allowed: Any
    empty: Any
    tiny: Any
    lifted: Any


def effective_logits(problem: Problem, arithmetic: Arithmetic) -> tuple[Any, Any]:
    """Return ``(u, tau)``: logits after the soft cap, in the widest type, and the temperature that divides them."""
    u, cap = arithmetic.wide(problem.x), problem.objective.softcap
    if cap is not None:
        u = cap * arithmetic.xp.tanh(u / cap)
    return u, problem.objective.temperature if problem.tau is None else problem.tau[:, None]


@_without_warnings
def normalise(problem: Problem, m: Any = None, r: Any = None) -> Normalised:
    """Return (m, r) of each row, and the exponentials.

    ``m`` and ``r``, ``(N,)`` each, may be passed from an earlier call on the same rows; else they are computed.
    """
    arithmetic = arithmetic_of(problem.x)
    xp, limits = arithmetic.xp, arithmetic.limits
    u, tau = effective_logits(problem, arithmetic)
    allowed = problem.where
    if allowed is not None:
        u = xp.where(allowed, u, -xp.inf)
    if u.shape[1] == 0:  # the array API has no maximum of an empty array
        zero = arithmetic.row_sums(u)[:, 0]
        m, r = zero - xp.inf, zero - 1.0
    if m is None:
        m = xp.max(u, axis=1, keepdims=True)  # NaN if an entry is
        ties = xp.sum(arithmetic.wide(u == m), axis=1, keepdims=True)
        m = xp.where((m == xp.inf) & (ties > 1), xp.nan, m)
    else:
        m = arithmetic.wide(xp.asarray(m))[:, None]
    hi, lo = _differences(arithmetic, u, m, tau)
    e = xp.exp(hi)
    e = e + e * lo
    nothing = m == -xp.inf
    rest = (  # each largest entry is exactly 1, and one of them is left out
        arithmetic.row_sums(xp.where(u == m, 0.0, e), exact=True) + (ties - 1.0)
        if r is None
        else arithmetic.wide(xp.asarray(r))[:, None]
    )
    tiny, lifted = (rest < limits.tiny) & (rest >= 0), None
    if not arithmetic.known_false(tiny):
        terms = xp.exp(hi + limits.lift) * (1.0 + lo)
        lifted = arithmetic.row_sums(xp.where(tiny & (e < limits.tiny), terms, 0.0), exact=True)
        if r is None:  # each subnormal summand has a large relative rounding error
            rest = xp.where(tiny, lifted * math.exp(-limits.lift), rest)
    rest = xp.where(nothing, -1.0, rest)
    e = xp.where(nothing, xp.nan, e)
    empty = None if allowed is None else ~xp.any(allowed, axis=1, keepdims=True)
    return Normalised(arithmetic, m, rest, xp.log1p(rest), hi, lo, e, tau, allowed, empty, tiny, lifted)


def _differences(arithmetic: Arithmetic, u: Any, m: Any, tau: Any) -> tuple[Any, Any]:
    """Return (u − m)/τ as hi + lo; the difference is computed with its rounding error, then divided."""
    xp = arithmetic.xp
    hi, lo = two_sum(u, -m)
    finite = xp.isfinite(hi)
    if not (isinstance(tau, float) and tau == 1.0):
        tau, tau_low = arithmetic.constant(tau) if isinstance(tau, float) else (tau, 0.0)
        d, lost = hi, lo
        # u − m may overflow where the difference of the quotients does not.
        hi = xp.where(xp.isfinite(u) & xp.isfinite(m) & ~finite, u / tau - m / tau, d / tau)
        small = (xp.abs(hi) < 1e3) & finite  # beyond 1e3, exp is 0, and only the relative error of hi matters
        q = xp.where(small, hi, 0.0)
        # The parts of a product must be normal numbers: q is at most 1e3, so that a power of two brings all into range.
        unit = _unit(arithmetic, tau)
        remainder = arithmetic.remainder(xp.where(small, d, 0.0) * unit, q, tau * unit)
        if tau_low:
            remainder = remainder - q * (tau_low * unit)
        lo = (xp.where(small, remainder, 0.0) + lost * unit) / (tau * unit)
    same = u == m
    return xp.where(same, 0.0, hi), xp.where(finite & xp.isfinite(lo) & ~same, lo, 0.0)


def _unit(arithmetic: Arithmetic, tau: Any) -> Any:
    """Return a power of two for each temperature of extreme size that brings it near 1; 1 for the others."""
    power = 0.6 * arithmetic.limits.power
    least = arithmetic.limits.most**-0.8
    if isinstance(tau, float):
        return 2.0**power if tau < least else 2.0**-power if tau * least > 1 else 1.0
    xp = arithmetic.xp
    return xp.where(tau < least, 2.0**power, xp.where(tau * least > 1, 2.0**-power, xp.ones_like(tau)))


@_without_warnings
def probabilities(rows: Normalised) -> Any:
    """Return the probabilities, 0 where a class is masked."""
    return _masked(rows, rows.e / (1.0 + rows.r), 0.0)


@_without_warnings
def complements(rows: Normalised) -> Any:
    """Return 1 − p without cancellation."""
    return ((1.0 - rows.e) + rows.r) / (1.0 + rows.r)


@_without_warnings
def log_probabilities(rows: Normalised) -> Any:
    """Return the log-probabilities, −∞ where a class is masked."""
    xp = rows.arithmetic.xp
    value = (rows.lo - rows.log_r) + rows.hi
    return _masked(rows, xp.where(rows.m == -xp.inf, xp.nan, value), -xp.inf)


@_without_warnings
def normalisers(rows: Normalised) -> Any:
    """Return logsumexp, m/τ + log1p(r), as ``(N, 1)``."""
    return rows.m / rows.tau + rows.log_r


def _masked(rows: Normalised, value: Any, fill: float) -> Any:
    """Return values where a class is allowed, and ``fill`` elsewhere."""
    return value if rows.allowed is None else rows.arithmetic.xp.where(rows.allowed, value, fill)


def measure(problem: Problem, n_classes: int | None = None) -> tuple[Any, Any]:
    """Return the target measure t, ``(N, C)``, and its mass T, ``(N, 1)``: t = w·[(1 − ε)·q + ε/C over the allowed].

    ``n_classes`` is the C of ε/C where the Problem has a part of the classes.
    """
    arithmetic = arithmetic_of(problem.x)
    C = problem.x.shape[1]
    if problem.q is not None:
        t = arithmetic.wide(problem.q)
    else:
        t = arithmetic.wide(arithmetic.range(C)[None, :] == problem.y[:, None])
    epsilon = problem.objective.label_smoothing
    if epsilon > 0:
        if problem.where is None:
            share: Any = epsilon / max(C if n_classes is None else n_classes, 1)
        else:
            allowed = arithmetic.wide(problem.where)
            count = arithmetic.xp.sum(allowed, axis=1, keepdims=True)
            share = epsilon * allowed / arithmetic.xp.where(count == 0, 1.0, count)
        t = (1.0 - epsilon) * t + share
    if problem.w is not None:
        weighted = t * problem.w[None, :]
        # The other classes of a hard target are not looked at: their weights may be NaN.
        t = arithmetic.xp.where(t == 0, 0.0, weighted) if problem.q is None else weighted
    elif problem.q is None and epsilon == 0:
        return t, arithmetic.wide((problem.y >= 0) & (problem.y < C))[:, None]
    return t, arithmetic.row_sums(t)


def special_rows(problem: Problem, xp: Any, t: Any, mass: Any, empty: Any, value: Any) -> Any:
    """Return values ``(N, ...)`` with NaN in rows whose hard target is out of range, and 0 in rows that take no part.

    A row takes no part, whatever its logits, if its weight is 0, its target measure is 0, or all classes are masked.
    """
    hard = problem.q is None and problem.objective.label_smoothing == 0  # of one class, whose measure is the mass
    without_part = mass == 0 if hard else ~xp.any(t != 0, axis=1, keepdims=True)
    if empty is not None:
        without_part = without_part | empty
    if problem.y is not None:
        outside = ((problem.y < 0) | (problem.y >= problem.x.shape[1]))[:, None]
        value = xp.where(outside, xp.nan, value)
        without_part = without_part & ~outside
    if problem.s is not None:
        without_part = without_part | (problem.s[:, None] == 0)
    return xp.where(without_part, 0.0, value)


@_without_warnings
def losses(problem: Problem, rows: Normalised) -> Any:
    """Return the loss of each row, ``(N,)``: row weight times (⟨t, NLL⟩ + T·ζ·lse²)."""
    arithmetic = rows.arithmetic
    xp = arithmetic.xp
    t, mass = measure(problem)
    nll = _masked(rows, (rows.log_r - rows.lo) - rows.hi, xp.inf)
    nll = xp.where(xp.isnan(rows.m) | (rows.m == -xp.inf), xp.nan, nll)
    loss = arithmetic.row_sums(xp.where(t == 0, 0.0, t * nll))
    zeta = problem.objective.z_loss
    if zeta > 0:
        lse = normalisers(rows)
        loss = xp.where(rows.m == xp.inf, xp.nan, loss + mass * (zeta * lse) * lse)
    if problem.s is not None:
        s = problem.s[:, None]
        loss = loss * s
        if rows.lifted is not None and zeta == 0:
            tiny = rows.tiny & xp.all((t == 0) | (rows.e == 1.0), axis=1, keepdims=True)
            loss = xp.where(tiny, arithmetic.product(s, mass, rows.lifted, math.exp(-arithmetic.limits.lift)), loss)
    overflows = ~xp.isfinite(loss) & xp.isfinite(rows.m)
    if not arithmetic.known_false(overflows):
        u, _ = effective_logits(problem, arithmetic)
        loss = xp.where(overflows, extreme_losses(problem, rows, _masked(rows, u, -xp.inf), normalisers(rows), t), loss)
    return special_rows(problem, xp, t, mass, rows.empty, loss)[:, 0]


@_without_warnings
def picked(problem: Problem) -> Any:
    """Return the loss of each row of log-probabilities, ``(N,)``: −s·⟨t, x⟩ over t ≠ 0."""
    arithmetic = arithmetic_of(problem.x)
    xp = arithmetic.xp
    t, mass = measure(problem)
    loss = arithmetic.row_sums(xp.where(t == 0, 0.0, -t * arithmetic.wide(problem.x)))
    loss = loss if problem.s is None else loss * problem.s[:, None]
    overflows = ~xp.isfinite(loss)
    if not arithmetic.known_false(overflows):
        s: Any = 1.0 if problem.s is None else problem.s[:, None]
        terms = arithmetic.product(-1.0, arithmetic.wide(problem.x), t, s)
        loss = xp.where(overflows, arithmetic.row_sums(xp.where(t == 0, 0.0, terms)), loss)
    return special_rows(problem, xp, t, mass, None, loss)[:, 0]


@_without_warnings
def gradient(problem: Problem, rows: Normalised, mass: Any = None) -> Any:
    """Return the gradient of the reduced loss with respect to the logits, ``(N, C)``.

    ``mass``, ``(N, 1)``, is T over all classes where the Problem has a part of them; then rows that take no part are
    the caller's.
    """
    arithmetic = rows.arithmetic
    xp, limits = arithmetic.xp, arithmetic.limits
    t, own = measure(problem)
    part, mass = mass is not None, own if mass is None else mass
    extra: Any = 2.0 * problem.objective.z_loss * normalisers(rows) if problem.objective.z_loss > 0 else 0.0
    factor = slope(problem, arithmetic, _row_scale(problem, arithmetic) / rows.tau)
    p = rows.e / (1.0 + rows.r)
    untargeted = mass * (1.0 + extra) * factor * p
    small = rows.e < limits.small
    if not arithmetic.known_false(small):
        # exp(u/2)·scale·exp(u/2): a large scale times a subnormal exponential would have too few digits.
        half = xp.exp(0.5 * rows.hi) * (1.0 + 0.5 * rows.lo)
        untargeted = xp.where(small, (half * (mass * (1.0 + extra) * factor / (1.0 + rows.r))) * half, untargeted)
    rounded = (mass - t) * p + mass * extra * p
    targeted = (rounded - t * complements(rows)) * factor
    if rows.lifted is not None:
        largest = rounded * factor - (t * factor * rows.lifted) * math.exp(-limits.lift)
        targeted = xp.where(rows.tiny & (rows.e == 1.0), largest, targeted)
    dx = xp.where(t == 0, untargeted, targeted)
    each = xp.zeros_like(rows.m)
    size, more = xp.abs(each + _row_scale(problem, arithmetic) / rows.tau), xp.abs(each + extra)
    extreme = ~((size > 1 / limits.most) & (size < limits.most) & (more < limits.most)) & xp.isfinite(rows.m)
    if not arithmetic.known_false(extreme):
        dx = xp.where(extreme, extreme_gradient(problem, rows, complements(rows), normalisers(rows), t), dx)
    return dx if part else _masked(rows, special_rows(problem, xp, t, mass, rows.empty, dx), 0.0)


def _row_scale(problem: Problem, arithmetic: Arithmetic) -> Any:
    """Return s/D, a number or ``(N, 1)``; 0 for a mean of no rows."""
    s: Any = 1.0 if problem.s is None else problem.s[:, None]
    divisor: Any = problem.divisor
    if isinstance(divisor, float | int | np.floating):
        return s / divisor if divisor > 0 else 0.0
    divisor = arithmetic.wide(divisor)
    return arithmetic.xp.where(divisor > 0, s / divisor, 0.0)


def slope(problem: Problem, arithmetic: Arithmetic, factor: Any) -> Any:
    """Return a factor times the derivative of the soft cap."""
    cap = problem.objective.softcap
    if cap is None:
        return factor
    cosh = arithmetic.xp.cosh(arithmetic.wide(problem.x) / cap)
    return factor / cosh / cosh


@_without_warnings
def hessian_product(problem: Problem, rows: Normalised, v: Any) -> Any:
    """Return the product of the reduced loss's Hessian and v, ``(N, C)``; the Hessian has one block a row.

    ``ρ·{ g'⊙[T(1 + 2ζ·lse)(p⊙a − p⟨p, a⟩) + 2ζT·p⟨p, a⟩] + g''⊙v⊙[T(1 + 2ζ·lse)·p − t] }`` with ``a = g'⊙v``.
    """
    arithmetic = rows.arithmetic
    xp = arithmetic.xp
    t, mass = measure(problem)
    zeta, cap = problem.objective.z_loss, problem.objective.softcap
    extra: Any = 2.0 * zeta * normalisers(rows) if zeta > 0 else 0.0
    factor = slope(problem, arithmetic, 1.0 / rows.tau)
    p = probabilities(rows)
    # Where p is 0 (a masked class, a logit of −∞), v may be inf or NaN, which must not enter the product.
    a = xp.where(p == 0, 0.0, factor * v)
    product = factor * mass * (1.0 + extra) * softmax_product(xp, rows, p, a)
    if zeta > 0:
        product = product + factor * 2.0 * zeta * mass * p * arithmetic.row_sums(p * a)
    if cap is not None:
        bend = -2.0 * xp.tanh(arithmetic.wide(problem.x) / cap) * factor / cap
        du = (mass - t) * p - t * complements(rows) + mass * extra * p
        product = product + xp.where(bend == 0, 0.0, bend * v * du)
    product = product * _row_scale(problem, arithmetic)
    return _masked(rows, special_rows(problem, xp, t, mass, rows.empty, product), 0.0)


def softmax_product(xp: Any, rows: Normalised, p: Any, v: Any) -> Any:
    """Return (diag p − p pᵀ)·v = p⊙(v − ⟨p, v⟩) of each row, without cancellation where one probability is near 1."""
    return xp.where(p == 0, 0.0, p * centred(rows, p, v))  # v may be inf or NaN where p is 0


def centred(rows: Normalised, p: Any, v: Any) -> Any:
    """Return v − ⟨p, v⟩ of each row, without cancellation where one probability is near 1.

    It is computed as ``(v − v_a) − Σ_{j≠a} p_j·(v_j − v_a)``, where a is the class of the largest p. Where p_a is near
    1, the results are of the size of 1 − p_a; a term of the size of v_a would round them to 0.
    """
    xp = rows.arithmetic.xp
    largest = rows.arithmetic.range(v.shape[1])[None, :] == xp.argmax(rows.e, axis=1, keepdims=True)
    apart = v - xp.sum(xp.where(largest, v, 0.0), axis=1, keepdims=True)
    return apart - rows.arithmetic.row_sums(xp.where(p == 0, 0.0, p * apart))
