"""A loss whose classes lie in several slices: what each slice says of a row, and the row that follows from all.

A slice is a Problem with a part of the classes. It reduces each row to a few numbers; those of all slices are merged in
their order, by section 2 of docs/numerics.md, so that the result has the same bits wherever it is computed::

    m = max m_k,   r = Σ_k exp((m_k − m)/τ)·(1 + r_k) − 1, with the 1 left out before it is added
    ⟨t, NLL⟩ = Σ_k [ gap_k + T_k·(m − m_k)/τ ] + T·log1p(r),   gap_k = Σ_c t_c·(m_k − u_c)/τ

All terms have one sign, so that none cancel. The arrays are of any library with the array API.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from softnll._core import equation
from softnll._core.arithmetic import arithmetic_of
from softnll._core.equation import Normalised
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem

_ELSEWHERE = -1.0  # the gap, which is not negative, of a hard target without options that lies in another slice
_EMPTY = {"m": -np.inf, "r": -1.0}


class Whole(NamedTuple):
    """The rows over all slices: ``(N,)`` arrays.

    Attributes
    ----------
    m, r
        The largest effective logit before the temperature, and the rest.
    nll
        ``⟨t, NLL⟩``.
    mass
        T, the mass of the target measure.
    touched
        Whether the target measure has a nonzero entry.
    weight
        w_y, the class weight of a hard target.
    lse
        The logsumexp.
    entropy, argmax
        Of token statistics, else None.
    """

    m: Any
    r: Any
    nll: Any
    mass: Any
    touched: Any
    weight: Any
    lse: Any
    entropy: Any = None
    argmax: Any = None


def columns_of(*, soft: bool, smoothed: bool, weighted: bool, tokens: bool) -> tuple[str, ...]:
    """Return the names of the numbers that a slice says of each row: three for hard targets without options."""
    names = ["m", "r", "gap"]
    if soft or smoothed or weighted:
        names.append("mass")
    if soft or smoothed:
        names.append("touched")
    if not soft and smoothed and weighted:
        names.append("weight")
    return (*names, "spread", "argmax") if tokens else tuple(names)


def empty_columns(names: tuple[str, ...]) -> list[float]:
    """Return what a slice without classes says of a row."""
    return [_EMPTY.get(name, _ELSEWHERE if name == "gap" and "mass" not in names else 0.0) for name in names]


@np.errstate(all="ignore")
def summarise(problem: Problem, n_classes: int, start: int, names: tuple[str, ...]) -> Any:
    """Return the numbers of ``columns_of``, ``(N, k)``, of a slice that begins at class ``start``.

    A hard target of the Problem counts from the slice's first class, and is −1 where it lies in another slice.
    """
    rows = equation.normalise(problem)
    arithmetic = rows.arithmetic
    xp = arithmetic.xp
    t, mass = equation.measure(problem, n_classes)
    found = {"m": rows.m, "r": rows.r, "mass": mass}
    gap = arithmetic.row_sums(xp.where(t == 0, 0.0, -t * (rows.hi + rows.lo)))
    found["gap"] = gap if "mass" in names else xp.where(mass == 0, _ELSEWHERE, gap)
    if "touched" in names:
        found["touched"] = arithmetic.wide(xp.any(t != 0, axis=1, keepdims=True))
    if "weight" in names:
        at = problem.y[:, None] == arithmetic.range(problem.x.shape[1])[None, :]
        found["weight"] = arithmetic.row_sums(xp.where(at, problem.w[None, :], 0.0))
    if "spread" in names:
        found["spread"] = arithmetic.row_sums(xp.where(rows.e == 0, 0.0, -rows.e * (rows.hi + rows.lo)))
        found["argmax"] = arithmetic.wide(start + xp.argmax(problem.x, axis=1, keepdims=True))
    return xp.concat([found[name] for name in names], axis=1)


@np.errstate(all="ignore")
def summarise_targets(problem: Problem, m: Any, r: Any, names: tuple[str, ...]) -> Any:
    """Return what ``summarise`` does for hard targets without smoothing, from m and r: only their logits are read."""
    column, t = _targets_alone(problem, None)
    rows = equation.normalise(column, m, r)
    xp = rows.arithmetic.xp
    gap = xp.where(t == 0, 0.0, -t * (rows.hi + rows.lo))
    found = {"m": m[:, None], "r": r[:, None], "mass": t}
    found["gap"] = gap if "mass" in names else xp.where(t == 0, _ELSEWHERE, gap)
    return xp.concat([found[name] for name in names], axis=1)


def _targets_alone(problem: Problem, mass: Any) -> tuple[Problem, Any]:
    """Return the Problem of the column of the targets (the first class where a target lies elsewhere), and its t."""
    arithmetic = arithmetic_of(problem.x)
    xp, here = arithmetic.xp, problem.y >= 0
    at = xp.where(here, problem.y, 0)
    if mass is None:
        mass = xp.ones_like(at, dtype=arithmetic.dtype) if problem.w is None else problem.w[at]
    t = xp.where(here, mass, 0.0)[:, None]
    return replace(problem, x=xp.take_along_axis(problem.x, at[:, None], axis=1), y=None, q=t, w=None), t


@np.errstate(all="ignore")
def target_column(problem: Problem, whole: Whole) -> tuple[Any, Any]:
    """Return the classes of ``summarise_targets``' column and the gradient there, of hard targets without smoothing."""
    column, _ = _targets_alone(problem, whole.mass)
    rows = replace(equation.normalise(column, whole.m, whole.r), lifted=None)
    value = equation.gradient(column, rows, whole.mass[:, None])
    xp = rows.arithmetic.xp
    return xp.where(problem.y >= 0, problem.y, 0), _settled(xp, problem, whole, value)[:, 0]


def merge(xp: Any, m: Any, r: Any, tau: Any) -> tuple[Any, Any]:
    """Return m and r of the rows from those of their parts, ``(K, N)``, in the order of the parts."""
    whole_m, whole_r = m[0, ...], r[0, ...]
    for part_m, part_r in zip(m[1:, ...], r[1:, ...], strict=True):
        larger = part_m > whole_m
        high, low = xp.where(larger, part_m, whole_m), xp.where(larger, whole_m, part_m)
        of_high, of_low = xp.where(larger, part_r, whole_r), xp.where(larger, whole_r, part_r)
        whole_r = xp.where(low == -xp.inf, of_high, of_high + xp.exp((low - high) / tau) * (1.0 + of_low))
        whole_m = high
    undefined = xp.any(xp.isnan(m), axis=0) | (xp.sum(xp.where(m == xp.inf, 1, 0), axis=0) > 1)
    return xp.where(undefined, xp.nan, whole_m), whole_r


@np.errstate(all="ignore")
def rows_of(xp: Any, stacked: Any, names: tuple[str, ...], problem: Problem, n_classes: int, y: Any) -> Whole:
    """Return the rows from the numbers of all slices, ``(K, N, k)``; ``y`` are hard targets over all classes, or None.

    A row whose hard target lies in no slice is NaN.
    """
    at = {name: stacked[:, :, i] for i, name in enumerate(names)}
    tau = problem.objective.temperature if problem.tau is None else problem.tau
    m, r = merge(xp, at["m"], at["r"], tau)
    apart = xp.where(at["m"] == m, 0.0, (m - at["m"]) / tau)
    if "mass" in at:
        masses = at["mass"]
    else:
        elsewhere = at["gap"] == _ELSEWHERE
        masses, at["gap"] = xp.where(elsewhere, 0.0, 1.0), xp.where(elsewhere, 0.0, at["gap"])
    log_r = xp.log1p(r)
    mass = _total(masses)
    gap = _total(xp.where(masses == 0, at["gap"], at["gap"] + masses * apart))
    lse = m / tau + log_r
    nll = xp.where((mass == 0) & (gap == 0), 0.0, gap + mass * log_r)
    nll = xp.where(xp.isnan(m) | (m == -xp.inf), xp.nan, nll)
    inside = xp.ones_like(m, dtype=xp.bool) if y is None else (y >= 0) & (y < n_classes)
    nll = xp.where(inside, nll, xp.nan)
    touched = (_total(at["touched"]) != 0 if "touched" in at else mass != 0) | ~inside
    weight = _total(at["weight"]) if "weight" in at else mass
    if "spread" not in at:
        return Whole(m, r, nll, mass, touched, weight, lse)
    share = xp.where(at["m"] == -xp.inf, 0.0, xp.exp(-apart))
    spread = _total(share * xp.where(share == 0, 0.0, at["spread"] + apart * (1.0 + at["r"])))
    argmax, found = at["argmax"][0, ...], at["m"][0, ...]
    for part_m, part in zip(at["m"][1:, ...], at["argmax"][1:, ...], strict=True):
        better = (part_m > found) | (xp.isnan(part_m) & ~xp.isnan(found))
        argmax, found = xp.where(better, part, argmax), xp.where(better, part_m, found)
    return Whole(m, r, nll, mass, touched, weight, lse, log_r + spread / (1.0 + r), argmax)


def _total(parts: Any) -> Any:
    """Return the sum of the slices' numbers in the order of the slices."""
    total = parts[0, ...]
    for part in parts[1:, ...]:
        total = total + part
    return total


def _shared(problem: Problem, n_classes: int, m: Any, r: Any) -> tuple[Problem, Normalised, Any]:
    """Return the slice with its share of t as soft targets, and its exponentials relative to the whole row."""
    t, _ = equation.measure(problem, n_classes)
    objective = _unsmoothed(problem.objective)
    part = replace(problem, objective=objective, y=None, q=t, w=None)
    rows = equation.normalise(part, m, r)
    return part, replace(rows, lifted=None), t  # a tiny rest has terms in other slices


def _unsmoothed(objective: CrossEntropy) -> CrossEntropy:
    """Return the options without smoothing, which t includes already."""
    return replace(objective, label_smoothing=0.0) if objective.label_smoothing else objective


def _settled(xp: Any, problem: Problem, whole: Whole, value: Any) -> Any:
    """Return values with 0 in rows that take no part, and NaN where the loss is NaN because of its target."""
    absent = ~whole.touched if problem.s is None else ~whole.touched | (problem.s == 0)
    broken = whole.touched & (whole.mass == 0) & xp.isnan(whole.nll)
    return xp.where(absent[:, None], 0.0, xp.where(broken[:, None], xp.nan, value))


@np.errstate(all="ignore")
def gradient(problem: Problem, n_classes: int, whole: Whole) -> Any:
    """Return the gradient of the reduced loss with respect to a slice's logits, ``(N, C)``."""
    part, rows, _ = _shared(problem, n_classes, whole.m, whole.r)
    value = equation.gradient(part, rows, whole.mass[:, None])
    return _settled(rows.arithmetic.xp, problem, whole, value)


@np.errstate(all="ignore")
def target_gradient(problem: Problem, n_classes: int, whole: Whole, factor: Any) -> Any:
    """Return the gradient with respect to a slice's soft targets: ``factor·w·(1 − ε)·(NLL + ζ·lse²)``."""
    _, rows, _ = _shared(problem, n_classes, whole.m, whole.r)
    objective, lse = problem.objective, whole.lse[:, None]
    value = (objective.z_loss * lse * lse if objective.z_loss else 0.0) - equation.log_probabilities(rows)
    value = value * (1.0 - objective.label_smoothing) * factor[:, None]
    value = value if problem.w is None else value * problem.w[None, :]
    return _settled(rows.arithmetic.xp, problem, whole._replace(touched=factor != 0), value)


@np.errstate(all="ignore")
def token_gradient(problem: Problem, n_classes: int, whole: Whole, upstream: tuple[Any, Any, Any]) -> Any:
    """Return a slice's gradient of log_prob, entropy and lse: ``g·(1[k = y] − p) + p·(h − e·(log p + entropy))``."""
    g, e, h = upstream
    s: Any = 1.0 if problem.s is None else problem.s
    part, rows, _ = _shared(replace(problem, s=-g * s), n_classes, whole.m, whole.r)
    xp = rows.arithmetic.xp
    p, log_p = equation.probabilities(rows), equation.log_probabilities(rows)
    to_u = p * (h[:, None] - e[:, None] * (log_p + whole.entropy[:, None]))
    slope = equation.slope(part, rows.arithmetic, 1.0 / rows.tau)
    value = equation.gradient(part, rows, whole.mass[:, None]) + xp.where(p == 0, 0.0, to_u * slope)
    return _settled(xp, problem, whole, value)
