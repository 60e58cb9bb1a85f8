"""The Problem: everything a kernel needs, laid out as rows and valid beyond doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.layout import Axis, Layout, as_floating, as_real, layout_of
from softnll.objective import DEFAULT, CrossEntropy
from softnll.targets import as_targets, as_weights, check_soft, first_bad, hard_rows

__all__ = ["Problem", "as_temperatures", "prepare", "prepare_targets"]


@dataclass(slots=True, eq=False)  # frozen would take 1.2 µs more to make, of the 3 that a tiny softmax has
class Problem:
    """Rows of logits and what is asked of them. A kernel never checks: what is a Problem is valid.

    The arrays are those of any one array library. N rows, C classes. Nobody writes to a Problem: make another.

    Attributes
    ----------
    x
        ``(N, C)`` logits: float16, bfloat16, float32 or float64, any strides.
    objective
        The scalar options.
    y
        ``(N,)`` int64 hard targets, or None. Outside [0, C) only if checks were declined: that row is NaN.
    q
        ``(N, C)`` soft targets, floating-point, or None.
    w
        ``(C,)`` float64 class weights, or None for 1.
    s
        ``(N,)`` float64 row weights, 0 for a row that takes no part (whatever it holds), or None for 1.
    where
        ``(N, C)`` bool, False for a class that does not exist in that row, or None.
    tau
        ``(N,)`` float64 temperatures, or None for the objective's.
    divisor
        What the sum of the losses is divided by: D of the mean, else 1.
    """

    x: Any
    objective: CrossEntropy = DEFAULT
    y: Any = None
    q: Any = None
    w: Any = None
    s: Any = None
    where: Any = None
    tau: Any = None
    divisor: float = 1.0

    def take(self, rows: Any, x: Any) -> Problem:
        """Return the part of the problem in some rows, with these as its logits."""

        def part(array: Any) -> Any:
            return None if array is None else array[rows, ...]

        return Problem(
            x,
            self.objective,
            part(self.y),
            part(self.q),
            self.w,
            part(self.s),
            part(self.where),
            part(self.tau),
            self.divisor,
        )


def as_temperatures(value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return one temperature a row as float64 ``(N,)``."""
    array = as_real(value, "temperature").astype(np.float64, copy=False)
    if array.shape != shape:
        raise ValueError(f"temperature has shape {array.shape}; allowed: a number, or one a row: shape {shape}")
    bad = ~((array > 0) & (array < np.inf))
    if bad.any():
        value = array.ravel()[np.argmax(bad)]
        raise ValueError(f"temperature{first_bad(bad, shape)} is {value}; allowed: finite numbers > 0")
    return array.reshape(-1)


def _as_where(value: Any, layout: Layout) -> NDArray[np.bool_]:
    """Return the mask as ``(N, C)`` bool."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("where is a masked array; pass a plain bool array")
    array = np.asarray(value)
    if array.dtype != np.bool_:
        raise TypeError(f"where has dtype {array.dtype}; allowed: bool (True: the class takes part)")
    try:
        full = np.broadcast_to(array, layout.shape)
    except ValueError:
        raise ValueError(f"where has shape {array.shape}; allowed: what broadcasts to {layout.shape}") from None
    return layout.rows(full)


def prepare(
    logits: Any,
    axis: Axis = -1,
    objective: CrossEntropy = DEFAULT,
    temperature: Any = None,
    where: Any = None,
    several: bool = False,
    *,
    empty: bool = False,
    name: str = "logits",
) -> tuple[Problem, Layout]:
    """Check logits, mask and per-row temperatures and lay them out as a Problem without targets.

    Raises
    ------
    TypeError
        If logits, mask or temperatures are of a type that has no meaning here.
    ValueError
        If shapes do not fit, a temperature is not positive, or there are no classes (unless ``empty`` allows that).
    """
    array = as_floating(logits, name)
    layout = layout_of(array.shape, axis) if type(axis) is int else Layout.of(array.shape, axis, several)
    if layout.n_classes == 0 and not empty:
        raise ValueError(f"{name} of shape {layout.shape} have no classes on axis {axis}; allowed: at least one")
    where = None if where is None else _as_where(where, layout)
    tau = None if temperature is None else as_temperatures(temperature, layout.row_shape)
    x = array if layout.is_rows else layout.rows(array)
    return Problem(x, objective, None, None, None, None, where, tau), layout


def prepare_targets(
    problem: Problem,
    layout: Layout,
    targets: Any,
    class_weight: Any = None,
    sample_weight: Any = None,
    check: bool = True,
) -> Problem:
    """Check targets and weights against a Problem's logits and return the Problem that holds them.

    Sets the row weights (0 where ``ignore_index`` says so) and the mean's denominator: Σ s·w_y over the rows with a
    hard target, Σ s over rows with soft ones.

    Raises
    ------
    TypeError
        If targets or weights are of a type that has no meaning here (bool; floats for hard targets).
    ValueError
        If shapes do not fit, a target is out of range or masked out, soft targets are no distribution, or a weight is
        negative, NaN or infinite. ``check=False`` leaves out the checks of the targets' values.
    """
    y, q = as_targets(targets, layout)
    w = None if class_weight is None else as_weights(class_weight, "class_weight", (layout.n_classes,))
    s = None if sample_weight is None else as_weights(sample_weight, "sample_weight", layout.row_shape).reshape(-1)
    if y is not None:
        y, ignored = hard_rows(y, layout, problem.objective.ignore_index, problem.where, check)
        if ignored is not None:
            s = np.where(ignored, 0.0, 1.0 if s is None else s)
    else:
        assert q is not None  # noqa: S101 - as_targets returns one of the two
        if check:
            check_soft(q, layout, s, problem.where)
    divisor = 1.0
    if problem.objective.reduction == "mean":
        if s is None and w is None:
            divisor = float(layout.n_rows)
        else:
            s, w = (
                _near_one(s),
                _near_one(w) if q is None else w,
            )  # class weights are not in the denominator of soft ones
            divisor = _divisor(y, w, s, layout)
    return Problem(problem.x, problem.objective, y, q, w, s, problem.where, problem.tau, divisor)


def _near_one(weights: Any) -> Any:
    """Return weights of extreme size times a power of two, so that no product or sum of them leaves the range."""
    if weights is None or weights.size == 0:
        return weights
    exponent = math.frexp(weights.item(weights.argmax()))[1]
    return weights if abs(exponent) < 256 else np.ldexp(weights, -exponent)  # a mean does not depend on their unit


def _divisor(y: Any, w: Any, s: Any, layout: Layout) -> float:
    """Return D, the mean's denominator."""
    if y is None or w is None:
        return float(layout.n_rows if s is None else s.sum())
    inside = (y >= 0) & (y < len(w))
    row_weight = np.where(inside, w[np.where(inside, y, 0)], 1.0)
    return float(row_weight.sum() if s is None else (s * row_weight).sum())
