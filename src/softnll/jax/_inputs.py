"""Checks of arguments: those of the NumPy functions. Traced arrays are checked by type and shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from softnll._core.layout import Axis, Layout, as_real, loss_dtype
from softnll._core.options import CrossEntropy, checked, with_defaults
from softnll._core.problem import Problem, prepare, prepare_targets
from softnll._core.targets import counted_weights


def _has_values(value: Any) -> bool:
    """Return whether an array has values that this process can read."""
    return not isinstance(value, jax.core.Tracer) and getattr(value, "is_fully_addressable", True)


def floating(value: Any, name: str) -> Any:
    """Return a JAX array of floating-point numbers; integers become the default floating-point type."""
    if isinstance(value, jax.Array):
        _shown(value, 0, name)
    else:
        value = as_real(value, name)
    wide = jnp.issubdtype(value.dtype, jnp.integer)
    return jnp.asarray(value, dtype=float if wide else None)


def _shown(value: Any, fill: float, name: str | None = None) -> Any:
    """Return the values of an array, or as many constants of its type, as NumPy's."""
    if value is None:
        return None
    if isinstance(value, jax.Array) and (name or not _has_values(value)):
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            raise TypeError(f"{name or 'an argument'} has dtype {value.dtype}; allowed: numbers")
        constant = np.broadcast_to(np.full((), fill, value.dtype), value.shape)
        return as_real(constant, name) if name else constant
    return np.asarray(value) if isinstance(value, jax.Array) else value


def checked_options(temperature: Any, **given: Any) -> tuple[CrossEntropy, Any]:
    """Return checked options, and temperatures that are an array."""
    per_row = None
    if isinstance(temperature, jax.Array):
        temperature, per_row = 1.0, temperature
    objective, found = checked(*with_defaults(temperature=temperature, **given))
    return objective, found if per_row is None else per_row


def _logits_shown(x: Any) -> Any:
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def temperatures(per_row: Any, layout: Layout) -> Any:
    """Return temperatures as one a row; a traced number is that of each row."""
    if per_row is not None and np.ndim(per_row) == 0:
        return jnp.broadcast_to(per_row, layout.row_shape)
    return per_row


def _wide(value: Any, shape: Any) -> Any:
    return None if value is None else jnp.asarray(value, dtype=float).reshape(shape)


def normalised_arrays(
    x: Any, axis: Axis, per_row: Any, where: Any, *, empty: bool = False, name: str = "logits"
) -> tuple[tuple[Any, Any, Any], Layout]:
    """Return logits, temperatures and mask as rows, and their layout, after checking them."""
    shown = _logits_shown(x)
    _, layout = prepare(shown, axis, where=_shown(where, True), several=True, empty=empty, name=name)
    tau = temperatures(per_row, layout)
    if tau is not None:
        prepare(shown, axis, temperature=_shown(tau, 1), several=True, empty=empty, name=name)
    mask = None if where is None else layout.rows(jnp.broadcast_to(jnp.asarray(where), layout.shape))
    return (layout.rows(x), _wide(tau, -1), mask), layout


def loss_arrays(
    x: Any,
    targets: Any,
    objective: CrossEntropy,
    axis: Axis,
    *,
    class_weight: Any = None,
    sample_weight: Any = None,
    per_row: Any = None,
    where: Any = None,
    check: bool | None = None,
    name: str = "logits",
) -> tuple[tuple[Any, ...], Layout]:
    """Return the arrays of ``_rows.losses`` and the logits' layout, after checking them."""
    (rows, _, mask), layout = normalised_arrays(x, axis, None, where, name=name)
    if where is not None:
        shown = np.broadcast_to(_shown(where, True), layout.shape)
        where = layout.rows(shown) if _has_values(where) else None
    tau = temperatures(per_row, layout)
    return (
        rows,
        *target_arrays(targets, layout, objective, class_weight, sample_weight, tau, where, check),
        mask,
    ), layout


def target_arrays(
    targets: Any,
    layout: Layout,
    objective: CrossEntropy,
    class_weight: Any,
    sample_weight: Any,
    tau: Any,
    where: Any,
    check: bool | None,
) -> tuple[Any, Any, Any, Any, Any]:
    """Return y, q, w, s and temperatures after checking them; s is 0 for ignored rows."""
    known = _has_values(targets) and _has_values(sample_weight)
    problem = prepare_targets(
        Problem(None, replace(objective, reduction="sum"), where=where),
        layout,
        _shown(targets, 0),
        _shown(class_weight, 1),
        _shown(sample_weight, 1),
        (check is None or check) and known,
        None if tau is None else _shown(tau, 1),
    )
    C, s = layout.n_classes, _wide(sample_weight, -1)
    w = _wide(class_weight, (C,))
    if problem.q is not None:
        q = layout.rows(jnp.asarray(targets))
        return None, q, w, s, _wide(tau, -1)
    if _has_values(targets):
        assert problem.y is not None  # noqa: S101 - one of the two is there
        y = jnp.asarray(np.clip(problem.y, -1, C).astype(np.int32))
        ignored = None if problem.s is None else jnp.asarray(problem.s == 0)
        if sample_weight is not None and not _has_values(sample_weight):
            ignored = jnp.asarray(np.asarray(_shown(targets, 0)).reshape(-1) == objective.ignore_index)
    else:
        y = targets.reshape(-1)
        bounds = jnp.iinfo(y.dtype)
        fits = bounds.min <= objective.ignore_index <= bounds.max
        ignored = y == objective.ignore_index if fits else None
        y = jnp.clip(y, max(bounds.min, -1), min(bounds.max, C)).astype(jnp.int32)
    if ignored is not None:
        s = jnp.where(ignored, 0.0, 1.0 if s is None else s).astype(float)
    return y, None, w, s, _wide(tau, -1)


def reduced(loss: Any, arrays: tuple[Any, ...], objective: CrossEntropy, layout: Layout, dtype: Any) -> Any:
    """Return the losses after the objective's reduction, in the type of losses."""
    if objective.reduction == "none":
        return loss.reshape(layout.row_shape).astype(dtype)
    return over(jnp.sum(loss), divisor(arrays, objective, layout)).astype(dtype)


def divisor(arrays: tuple[Any, ...], objective: CrossEntropy, layout: Layout) -> Any:
    """Return what divides the sum of the losses: D = Σ s·w_y of a mean, or Σ s of soft targets; else None."""
    if objective.reduction != "mean":
        return None
    _, y, _, w, s = arrays[:5]
    weight = counted_weights(jnp, y, w, s, None if s is None or w is None else s == 0)
    return jnp.asarray(float(layout.n_rows)) if weight is None else jnp.sum(weight)


def over(value: Any, D: Any) -> Any:
    """Return a sum of losses over D; NaN, with the gradient 0, where D is 0."""
    return value if D is None else jnp.where(D > 0, value / jnp.where(D > 0, D, 1.0), jnp.nan)


def result_type(x: Any) -> Any:
    """Return the type of the losses of such logits."""
    return loss_dtype(np.dtype(x.dtype))
