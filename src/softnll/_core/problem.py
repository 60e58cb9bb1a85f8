"""The Problem: the validated inputs of a kernel, as rows, and the checks that produce it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.layout import Axis, Layout, as_floating, as_real, layout_of
from softnll._core.options import DEFAULT, CrossEntropy, split
from softnll._core.planes import planes_of
from softnll._core.targets import (
    SparseRows,
    all_inside,
    as_int64,
    as_targets,
    as_weights,
    check_hard,
    check_soft,
    counted_weights,
    first_bad,
    hard_rows,
)

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
_NARROW = (np.dtype(np.float32), np.dtype(np.float16))


@dataclass(slots=True, eq=False)  # frozen would add 1.2 µs to the 3 of a tiny softmax
class Problem:
    """Rows of logits with targets, weights and options. A Problem is valid, so that kernels do not check.

    The arrays are those of one array library. N rows, C classes. Nothing changes a Problem; its methods return another.

    Attributes
    ----------
    x
        ``(N, C)`` logits: float16, bfloat16, float32 or float64, any strides; or ``Planes`` of them.
    objective
        The scalar options.
    y
        ``(N,)`` int64 hard targets, or None. Outside [0, C) only with ``check=False``: that row is NaN.
    q
        ``(N, C)`` soft targets, floating-point, or None. ``SparseRows`` only in a Problem that is split by ``take``.
    w
        ``(C,)`` float64 class weights, or None for 1.
    s
        ``(N,)`` float64 row weights, 0 for a row that takes no part (whatever its logits), or None for 1.
    where
        ``(N, C)`` bool, False for a masked class, or None.
    tau
        ``(N,)`` float64 temperatures, or None for the objective's.
    divisor
        D, by which a mean divides the sum of the losses; else 1. A float, or a 0-d array on the device.
    """

    x: Any
    objective: CrossEntropy = DEFAULT
    y: Any = None
    q: Any = None
    w: Any = None
    s: Any = None
    where: Any = None
    tau: Any = None
    divisor: Any = 1.0

    def take(self, rows: Any, x: Any) -> Problem:
        """Return the Problem of some rows, with ``x`` as its logits."""

        def part(array: Any) -> Any:
            return None if array is None else array[rows, ...]

        return Problem(
            x,
            self.objective,
            part(self.y),
            self.q.take(rows) if isinstance(self.q, SparseRows) else part(self.q),
            self.w,
            part(self.s),
            part(self.where),
            part(self.tau),
            self.divisor,
        )

    def with_rows(self, x: Any, q: Any) -> Problem:
        """Return the Problem with these logits and soft targets."""
        return Problem(x, self.objective, self.y, q, self.w, self.s, self.where, self.tau, self.divisor)

    def with_upstream(self, upstream: float | NDArray[np.float64]) -> Problem:
        """Return a Problem whose gradient is that of this one times an upstream gradient: one number, or one a row.

        The upstream gradient enters the row weights, with its sign. The returned Problem is for gradients, not losses.
        """
        s, divisor = self.s, self.divisor
        if isinstance(upstream, float):
            if upstream == 1:
                return self
            if 1e-100 < upstream < 1e100 and 1e-100 < divisor < 1e100:
                divisor = divisor / upstream
                return Problem(self.x, self.objective, self.y, self.q, self.w, s, self.where, self.tau, divisor)
            upstream = np.full(self._n_rows(), upstream)
        if s is not None:
            with np.errstate(all="ignore"):  # a row of weight 0 keeps it, also if upstream is inf
                upstream = np.where(s == 0, 0.0, s * upstream)
        return Problem(self.x, self.objective, self.y, self.q, self.w, upstream, self.where, self.tau, divisor)

    def _n_rows(self) -> int:
        """Return N, also of a Problem without logits."""
        if self.x is not None or self.y is not None:
            return len(self.x if self.y is None else self.y)
        return len(self.q.probabilities if isinstance(self.q, SparseRows) else self.q)


def as_temperatures(value: Any, shape: tuple[int, ...], s: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return per-row temperatures as float64 ``(N,)`` after checking them, except in rows of weight 0."""
    array = as_real(value, "temperature").astype(np.float64, copy=False)
    if array.shape != shape:
        raise ValueError(f"temperature has shape {array.shape}; allowed: a number, or one a row: shape {shape}")
    bad = ~((array > 0) & (array < np.inf))
    if s is not None and bad.any():
        without_part = bad & (s == 0).reshape(shape)
        array, bad = np.where(without_part, 1.0, array), bad & ~without_part
    if bad.any():
        value = array.ravel()[np.argmax(bad)]
        raise ValueError(f"temperature{first_bad(bad, shape)} is {value}; allowed: finite numbers > 0")
    return array.reshape(-1)


def _as_where(value: Any, layout: Layout) -> NDArray[np.bool_]:
    """Return the mask as ``(N, C)`` bool after checking it."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("where is a masked array; pass a plain bool array")
    array = np.asarray(value)
    if array.dtype != np.bool_:
        raise TypeError(f"where has dtype {array.dtype}; allowed: bool (True: the class takes part)")
    try:
        full = np.broadcast_to(array, layout.shape)
    except ValueError:
        raise ValueError(f"where has shape {array.shape}; allowed: what broadcasts to {layout.shape}") from None
    rows: NDArray[np.bool_] = layout.rows(full)
    return rows


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
    planes: bool = False,
    of_loss: bool = False,
) -> tuple[Problem, Layout]:
    """Return the Problem, without targets, and the layout of logits, mask and per-row temperatures after checking them.

    With ``planes``, logits may be Planes; those ``of_loss`` also with a temperature and a soft cap.

    Raises
    ------
    TypeError
        If logits, mask or temperatures have an invalid type.
    ValueError
        If shapes do not match, a temperature is not positive, or there are no classes (unless ``empty`` allows that).
    """
    array = as_floating(logits, name)
    layout = layout_of(array.shape, axis) if type(axis) is int else Layout.of(array.shape, axis, several)
    if layout.n_classes == 0 and not empty:
        raise ValueError(f"{name} of shape {layout.shape} has no classes on axis {axis}; allowed: at least one")
    where = None if where is None else _as_where(where, layout)
    tau = None if temperature is None else as_temperatures(temperature, layout.row_shape)
    planes = planes and where is None and (of_loss or (objective.temperature == 1 and objective.softcap is None))
    x = array if layout.is_rows else logit_rows(array, layout, tau, planes=planes)
    return Problem(x, objective, None, None, None, None, where, tau), layout


def logit_rows(array: NDArray[Any], layout: Layout, tau: Any, *, planes: bool) -> Any:
    """Return logits as rows: with ``planes``, as Planes where their strides and the options allow that."""
    if planes and tau is None:
        found = planes_of(array, layout)
        if found is not None:
            return found
    return layout.rows(array)


def prepare_targets(
    problem: Problem,
    layout: Layout,
    targets: Any,
    class_weight: Any = None,
    sample_weight: Any = None,
    check: bool | None = None,
    temperatures: Any = None,
    *,
    signed: bool = False,
    certain: Callable[[Any, float], bool] | None = None,
) -> Problem:
    """Return a Problem with targets, weights and temperatures, after checking them against the logits of ``problem``.

    What a row that takes no part holds is not checked. The Problem has row weights (0 for ignored rows) and the mean's
    denominator: Σ s·w_y of hard targets, Σ s of soft ones. ``signed`` weights may be negative, NaN or infinite. Where
    the denominator is negative, row weights and denominator change their signs, which the mean does not depend on:
    kernels divide by positive numbers only. ``certain`` is that of ``check_soft``.

    Raises
    ------
    TypeError
        If targets or weights have an invalid type (bool; floats for hard targets).
    ValueError
        If shapes do not match, a target is out of range or masked, soft targets are not a distribution, or a weight is
        negative, NaN or infinite. ``check=False`` leaves out the checks of the targets' values.
    """
    check = check is None or check
    y, q = as_targets(targets, layout, problem.x)
    if class_weight is None and sample_weight is None and temperatures is None:
        unweighted = _unweighted(problem, layout, y)  # the most frequent case, in a third of the time
        if unweighted is not None:
            return unweighted
    w = None if class_weight is None else as_weights(class_weight, "class_weight", (layout.n_classes,), signed=signed)
    ignored, inside = None, True
    if y is not None:
        y, ignored, inside = hard_rows(y, layout, problem.objective.ignore_index)
    s = None
    if sample_weight is not None:
        s = as_weights(sample_weight, "sample_weight", layout.row_shape, ignored, signed=signed).reshape(-1)
    if ignored is not None:
        s = np.where(ignored, 0.0, 1.0 if s is None else s)
    if y is not None:
        if check and not (inside and problem.where is None):
            check_hard(y, layout, problem.objective.ignore_index, s, problem.where, inside)
        y = as_int64(y, layout.n_classes)
    elif check:
        assert q is not None  # noqa: S101 - as_targets returns one of the two
        check_soft(q, layout, s, problem.where, certain)
    tau = problem.tau if temperatures is None else as_temperatures(temperatures, layout.row_shape, s)
    divisor = 1.0
    if problem.objective.reduction == "mean":
        # With soft targets, class weights are not in the denominator.
        s, w = _near_one(s, sample_weight), w if y is None else _near_one(w, class_weight)
        s, divisor = _denominator(layout, y, w, s, inside)
    return Problem(problem.x, problem.objective, y, q, w, s, problem.where, tau, divisor)


def _denominator(layout: Layout, y: Any, w: Any, s: Any, inside: bool) -> tuple[Any, float]:
    """Return row weights and the mean's denominator, with the signs that make the latter positive."""
    absent = None if s is None or w is None else s == 0  # ignored rows, among others
    counted = counted_weights(np, y, w, s, absent, inside=inside)
    divisor = float(layout.n_rows if counted is None else counted.sum())
    if divisor < 0:
        return np.full(layout.n_rows, -1.0) if s is None else -s, -divisor
    return s, divisor


def _unweighted(problem: Problem, layout: Layout, y: Any) -> Problem | None:
    """Return the Problem of hard targets that are each in range or ignored, without masks; else None."""
    objective, C = problem.objective, layout.n_classes
    if y is None or y.dtype != _INT64 or problem.where is not None or 0 <= objective.ignore_index < C:
        return None
    s, n_rows = None, layout.n_rows
    if not all_inside(y, C):
        ignored = y == objective.ignore_index
        n_ignored = int(np.count_nonzero(ignored))
        if n_ignored < np.count_nonzero(y.view(np.uint64) >= C):
            return None
        s, n_rows = np.subtract(1.0, ignored), n_rows - n_ignored
    divisor = float(n_rows) if objective.reduction == "mean" else 1.0
    return Problem(problem.x, objective, y, None, None, s, None, problem.tau, divisor)


def _near_one(weights: Any, given: Any) -> Any:
    """Return weights of extreme size times a power of two, so that no product or sum of them overflows.

    ``given`` is what the caller passed: numbers of a narrower type than float64 are not extreme.
    """
    if weights is None or weights.size == 0 or getattr(given, "dtype", _FLOAT64) in _NARROW:
        return weights
    exponent = math.frexp(weights.item(np.abs(weights).argmax()))[1]
    return weights if abs(exponent) < 256 else np.ldexp(weights, -exponent)  # a mean does not depend on a common factor


def prepare_loss(
    logits: Any,
    targets: Any,
    objective: CrossEntropy,
    temperatures: Any = None,
    axis: Axis = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    where: Any = None,
    check: bool | None = None,
    planes: bool = False,
    certain: Callable[[Any, float], bool] | None = None,
) -> tuple[Problem, Layout]:
    """Return the Problem and the layout of a loss with checked options, after checking its arrays.

    ``planes`` is that of ``prepare``, ``certain`` that of ``check_soft``.
    """
    planes = planes and temperatures is None
    problem, layout = prepare(logits, axis, objective, None, where, several=True, planes=planes, of_loss=True)
    arrays = (targets, class_weight, sample_weight, check, temperatures)
    return prepare_targets(problem, layout, *arrays, certain=certain), layout


def loss_problem(
    logits: Any,
    targets: Any,
    *,
    planes: bool = False,
    certain: Callable[[Any, float], bool] | None = None,
    **options: Any,
) -> tuple[Problem, Layout]:
    """Return the Problem and the layout of a loss with the keywords of ``LossOptions``, after checking all of them."""
    objective, temperatures, arrays = split(options)
    return prepare_loss(logits, targets, objective, temperatures, **arrays, planes=planes, certain=certain)
