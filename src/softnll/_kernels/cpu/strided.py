"""Softmax and losses of planes (``_core/planes.py``): which kernel computes a Problem whose logits are planes.

The functions are those of ``interface.py``, which calls them. Such a Problem has no masks and at most one
temperature; the vector kernels compute losses without a soft cap.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._core.targets import blocks
from softnll._kernels.cpu import scalar_interface
from softnll._kernels.cpu.execute import (
    NO_TARGETS,
    NO_VALUES,
    NO_WEIGHTS,
    Computation,
    RowValues,
    Values,
    scalar_losses,
    served,
    soft_type,
    spread,
    temperatures,
)
from softnll._kernels.cpu.load import compiled
from softnll._kernels.cpu.memory import BLOCK
from softnll._kernels.cpu.parameters import entries_of
from softnll._kernels.cpu.signature import BOOLEAN, FLOAT64, INTP, NONE, Type, array, output
from softnll._kernels.cpu.threads import for_rows

DType = np.dtype[Any]
Vector = NDArray[np.float64]


def run(
    computation: Computation,
    problem: Problem,
    out: Planes | None,
    values: RowValues,
    vectors: bool,
    packed: Problem | None = None,
) -> None:
    """Run a computation on planes: by the vector kernels, unless ``vectors`` is False, and by the scalar kernels.

    The vector kernels take the ``packed`` problem if there is one.
    """
    n_rows, n_columns = problem.x.shape

    def work(first: int, last: int) -> None:
        if vectors:
            computation.of_rows(problem, out, values, (first, last), packed=packed)
            return
        for block in blocks((last - first, n_columns), BLOCK):
            here = slice(first + block.start, first + block.stop)
            part = problem.take(here, problem.x[here])
            written: Any = None if out is None else np.empty(part.x.shape, out.dtype)
            computation.scalar(part, written, values.take(here))
            if out is not None:
                out[here] = written

    for_rows(n_rows, n_columns, work)


@cache
def _normalise(dtype: DType, log: bool) -> Computation:
    """Return softmax or log_softmax."""
    entries = entries_of(dtype)
    kernel = compiled(
        "by_plane.normalise",
        INTP,
        x=array(entries.element, 3),
        prob=NONE if log else BOOLEAN,
        out=output(entries.element, 3),
        streamed=BOOLEAN,
        work=output(entries.computed, 1),
        first=INTP,
        last=INTP,
        left=output("int64", 1),
    )
    prob = None if log else True

    def call(part: Problem, out: Any, _: Values, streamed: bool, first: int, last: int, left: Any) -> Any:
        x, written = entries.view(part.x.array), entries.view(out.array)
        return kernel(x, prob, written, streamed, entries.work, first, last, left)

    def scalar(part: Problem, out: Any, _: RowValues) -> None:
        (scalar_interface.log_softmax if log else scalar_interface.softmax)(part, out)

    return Computation(call, scalar)


def normalise(problem: Problem, out: Planes, log: bool) -> None:
    """Write p or, with ``log``, log p."""
    run(_normalise(problem.x.dtype, log), problem, out, NO_VALUES, vectors=True)


@cache
def _logsumexp(dtype: DType) -> Computation:
    """Return logsumexp."""
    entries = entries_of(dtype)
    kernel = compiled(
        "by_plane.logsumexp",
        INTP,
        x=array(entries.element, 3),
        lse=output("float64", 1),
        work=output(entries.computed, 1),
        first=INTP,
        last=INTP,
        left=output("int64", 1),
    )

    def call(part: Problem, _: Any, values: Values, __: bool, first: int, last: int, left: Any) -> Any:
        return kernel(entries.view(part.x.array), values[0], entries.work, first, last, left)

    def scalar(part: Problem, _: Any, values: RowValues) -> None:
        assert values.value is not None  # noqa: S101 - logsumexp below makes it
        values.value[...] = scalar_interface.logsumexp(part)

    return Computation(call, scalar)


def logsumexp(problem: Problem) -> NDArray[np.float64]:
    """Return lse of each row."""
    lse = np.empty(len(problem.x))
    run(_logsumexp(problem.x.dtype), problem, None, RowValues(lse), vectors=True)
    return lse


def _loss_types(dtype: DType, tempered: bool, written: bool) -> dict[str, Type]:
    """Return the types of the parameters of both kernels of losses."""
    entries, reals, result = entries_of(dtype), array("float64", 1), output("float64", 1)
    return {
        "x": array(entries.element, 3),
        "y": array("int64", 1),
        **dict.fromkeys(("w", "s"), reals),
        "taus": reals if tempered else NONE,
        **dict.fromkeys(("zeta", "divisor"), FLOAT64),
        **dict.fromkeys(("loss", "ms", "rs"), result),
        "grad": output(entries.element, 3) if written else NONE,
        "work": output(entries.computed, 1),
        "first": INTP,
        "last": INTP,
        "left": output("int64", 1),
    }


@cache
def _hard(dtype: DType, tempered: bool, written: bool) -> Computation:
    """Return the loss of hard targets, with the gradient if ``written``."""
    entries = entries_of(dtype)
    kernel = compiled("losses_by_plane.losses", INTP, **_loss_types(dtype, tempered, written))

    def call(part: Problem, out: Any, values: Values, _: bool, first: int, last: int, left: Any) -> Any:
        x, grad = entries.view(part.x.array), None if out is None else entries.view(out.array)
        w, s = NO_WEIGHTS if part.w is None else part.w, NO_WEIGHTS if part.s is None else part.s
        options = temperatures(part), part.objective.z_loss, part.divisor
        return kernel(x, part.y, w, s, *options, *values, grad, entries.work, first, last, left)

    return Computation(call, scalar_losses)


@cache
def _spread(dtype: DType, q_type: DType | None, tempered: bool, written: bool) -> Computation:
    """Return the loss of soft (of a type) or, for None, smoothed targets, with the gradient if ``written``."""
    entries, soft = entries_of(dtype), None if q_type is None else entries_of(q_type)
    of = _loss_types(dtype, tempered, written) | {"smoothing": FLOAT64}
    of["q"] = NONE if soft is None else array(soft.element, 3)
    kernel = compiled("spread_by_plane.losses", INTP, **of)

    def call(part: Problem, out: Any, values: Values, _: bool, first: int, last: int, left: Any) -> Any:
        x, grad = entries.view(part.x.array), None if out is None else entries.view(out.array)
        q = None if soft is None else soft.view(part.q.array)
        y, objective = NO_TARGETS if part.y is None else part.y, part.objective
        w, s = NO_WEIGHTS if part.w is None else part.w, NO_WEIGHTS if part.s is None else part.s
        options = objective.label_smoothing, objective.z_loss, part.divisor
        return kernel(x, q, y, w, s, temperatures(part), *options, *values, grad, entries.work, first, last, left)

    return Computation(call, scalar_losses)


def computation_of(problem: Problem, *, written: bool) -> Computation:
    """Return the loss of planes with a problem's options, with the gradient if ``written``."""
    dtype, tempered = problem.x.dtype, problem.objective.temperature != 1
    if not spread(problem):
        return _hard(dtype, tempered, written)
    return _spread(dtype, None if problem.q is None else soft_type(problem), tempered, written)


def losses(problem: Problem, out: Planes | None, m: Vector | None, r: Vector | None) -> Vector:
    """Return the loss of each row; write m and r unless they are None and, with ``out``, the gradient.

    A backward from m and r is this as well: it takes as long, and reads weights of either sign. The gradient may be
    written over the logits.
    """
    loss = np.empty(len(problem.x))
    values = RowValues(loss, m, r) if m is not None else RowValues(loss, loss, loss)  # the loss is written last
    packed = None
    if problem.q is not None:
        with np.errstate(all="ignore"):  # what float32 cannot hold is left to the scalar kernels, or counts as 0
            packed = problem.with_rows(problem.x, problem.q.astype(soft_type(problem)))
    computation = computation_of(problem, written=out is not None)
    run(computation, problem, out, values, vectors=problem.objective.softcap is None and served(problem), packed=packed)
    return loss


def pick(problem: Problem) -> Vector:
    """Return −s·w_y·x_y of each row of log-probabilities with hard targets, of which only those entries are read."""
    array, y, w, s = problem.x.array, problem.y, problem.w, problem.s
    outer, n, inner = array.shape
    inside = (y >= 0) & (y < n)
    at = np.where(inside, y, 0)
    x = np.take_along_axis(array, at.reshape(outer, 1, inner), 1).reshape(-1, 1)
    if w is not None:
        s = w[at] if s is None else s * w[at]
    picked = Problem(x, problem.objective, y=np.zeros_like(y), s=s)
    loss = np.empty(len(x))

    def work(first: int, last: int) -> None:
        here = slice(first, last)
        loss[here] = scalar_interface.pick(picked.take(here, x[here]))

    for_rows(len(x), 1, work)
    loss[~inside if s is None else ~inside & (s != 0)] = np.nan
    return loss
