"""Losses and gradients of the equation where a factor, a sum or a product leaves the range of the type.

Products are computed with their exponents apart (``Arithmetic.product``). The mathematics is that of ``equation.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll._core.problem import Problem

if TYPE_CHECKING:
    from softnll._core.equation import Normalised


def _factors(problem: Problem) -> tuple[Any, ...]:
    """Return the row weights, if there are any."""
    return () if problem.s is None else (problem.s[:, None],)


def extreme_losses(problem: Problem, rows: Normalised, u: Any, lse: Any, t: Any) -> Any:
    """Return the losses, ``(N, 1)``, of rows with a finite largest entry, from effective logits and target measure."""
    arithmetic, zeta, factors = rows.arithmetic, problem.objective.z_loss, _factors(problem)
    xp, product = arithmetic.xp, arithmetic.product
    mass = arithmetic.row_sums(t)
    terms = product(2.0, 0.5 * rows.m - 0.5 * u, t, *factors, over=(rows.tau,))
    loss = arithmetic.row_sums(xp.where(t == 0, 0.0, terms), exact=True) + product(mass, rows.log_r, *factors)
    if zeta > 0:
        far = product(mass, zeta, rows.m, rows.m, *factors, over=(rows.tau, rows.tau))
        loss = loss + xp.where(xp.isfinite(lse), product(mass, zeta, lse, lse, *factors), far)
    return loss


def extreme_gradient(problem: Problem, rows: Normalised, complements: Any, lse: Any, t: Any) -> Any:
    """Return the gradient, ``(N, C)``, of rows with a finite largest entry, from 1 − p, lse and target measure."""
    arithmetic, objective, factors = rows.arithmetic, problem.objective, _factors(problem)
    xp, product = arithmetic.xp, arithmetic.product
    mass = arithmetic.row_sums(t)
    divisor = problem.divisor
    divisors: tuple[Any, ...] = (float(divisor) if isinstance(divisor, np.floating) else divisor, rows.tau)
    if objective.softcap is not None:
        z = xp.abs(arithmetic.wide(problem.x) / objective.softcap)
        root, norm = xp.exp(-0.5 * z), 1.0 + xp.exp(-2.0 * z)
        factors, divisors = (*factors, 4.0, root, root, root, root), (*divisors, norm, norm)
    half = xp.where(rows.hi == 0, 1.0, xp.exp(0.5 * rows.hi) * (1.0 + 0.5 * rows.lo))
    norm = 1.0 + rows.r
    untargeted = product(mass, half, half, *factors, over=(norm, *divisors))
    rounded = (mass - t) * rows.e / norm
    targeted = product(rounded - t * complements, *factors, over=divisors)
    if rows.lifted is not None:
        rest = product(t, rows.lifted, math.exp(-arithmetic.limits.lift), *factors, over=divisors)
        largest = product(rounded, *factors, over=divisors) - rest
        targeted = xp.where(rows.tiny & (rows.e == 1.0), largest, targeted)
    dx = xp.where(t == 0, untargeted, targeted)
    if objective.z_loss > 0:
        common = (2.0, mass, objective.z_loss, half, half, *factors)
        near = product(*common, lse, over=(norm, *divisors))
        far = product(*common, rows.m, over=(norm, rows.tau, *divisors))
        dx = dx + xp.where(half == 0, 0.0, xp.where(xp.isfinite(lse), near, far))
    return dx
