"""Softmax, losses and gradients of NumPy arrays, by kernels that Numba compiles on first use.

Vector kernels compute what is common and scalar kernels the rest. The interface is the same in every kernels module:
``softmax``, ``log_softmax``, ``logsumexp``, ``forward``, ``backward``, ``forward_backward`` of a Problem, ``pick``, and
``total``. Outputs are ``(N, C)`` in the logits' type; losses, m and r float64.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._kernels.cpu import capped, scalar_interface, strided, turned
from softnll._kernels.cpu.calls import loss_call, normalise_call, product_call
from softnll._kernels.cpu.execute import (
    NO_TARGETS,
    NO_VALUES,
    NO_WEIGHTS,
    Computation,
    RowValues,
    Values,
    few,
    in_one_piece,
    run,
    run_few,
    scalar_losses,
    soft_type,
    spread,
    temperatures,
)
from softnll._kernels.cpu.load import compiled
from softnll._kernels.cpu.parameters import entries_of, logsumexp_types, loss_types, normalise_types
from softnll._kernels.cpu.products import product
from softnll._kernels.cpu.signature import FLOAT64, INTP, NONE, array, output
from softnll._kernels.cpu.threads import for_rows

__all__ = [
    "TAKES_PLANES",
    "are_distributions",
    "backward",
    "forward",
    "forward_backward",
    "log_softmax",
    "logsumexp",
    "loss_call",
    "losses",
    "normalise_call",
    "pick",
    "product",
    "product_call",
    "softmax",
    "total",
]

TAKES_PLANES = True  # the logits of a Problem may be Planes

Vector = NDArray[np.float64]
DType = np.dtype[Any]
Options = tuple[bool, bool]  # whether there are masks, and temperatures


def _options(problem: Problem) -> Options:
    """Return whether there are masks, and temperatures."""
    return problem.where is not None, problem.tau is not None or problem.objective.temperature != 1


@cache
def _normalise(dtype: DType, log: bool, options: Options | None) -> Computation:
    """Return softmax or log_softmax: by rows with these options or, for None, by tiles."""
    masked, tempered = options or (False, False)
    function = "by_tile.normalise" if options is None else "by_row.normalise"
    kernel = compiled(function, INTP, **normalise_types(dtype, masked, tempered, log))
    entries, prob = entries_of(dtype), None if log else True
    bits, work = entries.bits, entries.work

    def call(part: Problem, out: Any, _: Values, streamed: bool, first: int, last: int, left: Any) -> Any:
        x, where = part.x, part.where
        if bits is not None:
            x, out = x.view(bits), out.view(bits)
        taus = temperatures(part) if tempered else None
        return kernel(x, where, taus, prob, out, streamed, work, first, last, left)

    def scalar(part: Problem, out: Any, _: RowValues) -> None:
        (scalar_interface.log_softmax if log else scalar_interface.softmax)(part, out)

    return Computation(call, scalar)


def softmax(problem: Problem, out: Any) -> None:
    """Write p."""
    if isinstance(problem.x, Planes):
        strided.normalise(problem, out, log=False)
    elif few(problem):
        run_few(_normalise(problem.x.dtype, False, None), problem, out, NO_VALUES)
    else:
        run(_normalise(problem.x.dtype, False, _options(problem)), problem, out, NO_VALUES)


def log_softmax(problem: Problem, out: Any) -> None:
    """Write log p."""
    if isinstance(problem.x, Planes):
        strided.normalise(problem, out, log=True)
    elif few(problem):
        run_few(_normalise(problem.x.dtype, True, None), problem, out, NO_VALUES)
    else:
        run(_normalise(problem.x.dtype, True, _options(problem)), problem, out, NO_VALUES)


@cache
def _logsumexp(dtype: DType, by_tiles: bool, masked: bool) -> Computation:
    """Return logsumexp: by tiles or by rows."""
    function = "by_tile.logsumexp" if by_tiles else "by_row.logsumexp"
    kernel = compiled(function, INTP, **logsumexp_types(dtype, masked))
    bits, work = entries_of(dtype).bits, entries_of(dtype).work

    def call(part: Problem, _: Any, values: Values, __: bool, first: int, last: int, left: Any) -> Any:
        x = part.x if bits is None else part.x.view(bits)
        lse, _, _ = values
        return kernel(x, part.where, lse, work, first, last, left)

    def scalar(part: Problem, _: Any, values: RowValues) -> None:
        assert values.value is not None  # noqa: S101 - logsumexp below makes it
        values.value[...] = scalar_interface.logsumexp(part)

    return Computation(call, scalar)


def logsumexp(problem: Problem) -> Vector:
    """Return lse of each row."""
    if isinstance(problem.x, Planes):
        return strided.logsumexp(problem)
    n_rows, n_columns = problem.x.shape
    if n_columns == 0:
        return np.full(n_rows, -np.inf)
    lse = np.empty(n_rows)
    if few(problem):
        run_few(_logsumexp(problem.x.dtype, True, False), problem, None, RowValues(lse))
    else:
        run(_logsumexp(problem.x.dtype, False, problem.where is not None), problem, None, RowValues(lse))
    return lse


def _scalar_gradients(part: Problem, out: Any, values: RowValues) -> None:
    """Write the gradient from m and r by the scalar kernels."""
    assert values.m is not None and values.r is not None  # noqa: S101, PT018 - backward below passes them
    scalar_interface.backward(part, values.m, values.r, out)


@cache
def _hard(dtype: DType, options: Options | None, written: bool, reads: bool) -> Computation:
    """Return the loss of hard targets, with m and r and with the gradient ``written``, or (``reads``) their gradient.

    It is computed by rows with these options or, for None, by tiles. m and r are always written, before the loss,
    so that all may be one array: that takes no time, and there are half as many kernels to compile.
    """
    masked, tempered = options or (False, False)
    function = "by_row.losses"
    if options is None:  # one kernel for both makes the backward of ten classes 3 % slower
        function = "by_tile.gradients" if reads else "by_tile.losses"
    reals = array("float64", 1)
    of = loss_types(dtype, masked=masked, tempered=tempered, q=None, w=reals, written=written, reads=reads)
    kernel = compiled(function, INTP, **of)
    bits, work = entries_of(dtype).bits, entries_of(dtype).work

    def call(part: Problem, out: Any, values: Values, streamed: bool, first: int, last: int, left: Any) -> Any:
        x, w, s, zeta, divisor = part.x, part.w, part.s, part.objective.z_loss, part.divisor
        if bits is not None:
            x, out = x.view(bits), None if out is None else out.view(bits)
        w, s = NO_WEIGHTS if w is None else w, NO_WEIGHTS if s is None else s
        taus = temperatures(part) if tempered else None
        return kernel(
            x, part.where, None, part.y, w, s, taus, 0.0, zeta, divisor, *values, out, streamed, work, first, last, left
        )

    return Computation(call, _scalar_gradients if reads else scalar_losses, reads)


def _padded(w: Vector | None, dtype: DType, n_columns: int) -> NDArray[Any] | None:
    """Return class weights in the compute type, padded so that a vector may be read beyond the last."""
    if w is None:
        return None
    padded = np.zeros(n_columns + 64, dtype)
    with np.errstate(all="ignore"):  # a weight beyond float32 is inf, and its rows are left to the scalar kernels
        padded[:n_columns] = w
    return padded


@cache
def _soft(
    dtype: DType, q_type: DType | None, weighted: bool, tempered: bool, written: bool, reads: bool
) -> Computation:
    """Return the loss of soft (of a type) or, for None, smoothed targets, or their gradient, as ``_hard`` does."""
    entries, q_bits = entries_of(dtype), None if q_type is None else entries_of(q_type).bits
    bits, work = entries.bits, entries.work
    w_type = array(entries.computed, 1) if weighted else NONE
    of = loss_types(dtype, masked=False, tempered=tempered, q=q_type, w=w_type, written=written, reads=reads)
    kernel = compiled("soft_targets.losses", INTP, **of)

    def call(part: Problem, out: Any, values: Values, streamed: bool, first: int, last: int, left: Any) -> Any:
        x, q, objective = part.x, part.q, part.objective
        w = _padded(part.w, work.dtype, x.shape[1])
        if bits is not None:
            x, out = x.view(bits), None if out is None else out.view(bits)
        if q_bits is not None:
            q = q.view(q_bits)
        y, s = NO_TARGETS if part.y is None else part.y, NO_WEIGHTS if part.s is None else part.s
        smoothing, zeta, divisor = objective.label_smoothing, objective.z_loss, part.divisor
        taus = temperatures(part)
        return kernel(
            x, None, q, y, w, s, taus, smoothing, zeta, divisor, *values, out, streamed, work, first, last, left
        )

    return Computation(call, _scalar_gradients if reads else scalar_losses, reads)


def _of_targets(problem: Problem, written: bool, reads: bool = False) -> Computation:
    """Return the loss for a problem, or its gradient: of spread targets, by tiles or by rows."""
    dtype = problem.x.dtype
    if spread(problem):
        q_type = None if problem.q is None else soft_type(problem)
        return _soft(dtype, q_type, problem.w is not None, _options(problem)[1], written, reads)
    if few(problem):
        return _hard(dtype, None, written, reads)
    return _hard(dtype, _options(problem), written, reads)


def _losses(problem: Problem, out: NDArray[Any] | None, m: Vector | None, r: Vector | None) -> Vector:
    """Return each row's loss; write m and r and, with ``out``, the gradient."""
    loss = np.empty(problem.x.shape[0])
    if capped.serves(problem):
        _capped(problem, out, RowValues(loss, m, r))
        return loss
    if isinstance(problem.x, Planes):
        return strided.losses(problem, out, m, r)  # type: ignore[arg-type]
    if turned.serves(problem):
        turned.losses(problem, out, RowValues(loss, m, r))
        return loss
    computation = _of_targets(problem, out is not None)
    if m is None:
        m = r = loss  # which is written last
    if few(problem):
        run_few(computation, problem, out, (loss, m, r))
    else:
        run(computation, problem, out, RowValues(loss, m, r))
    return loss


def forward(problem: Problem, out: NDArray[Any] | None = None) -> tuple[Vector, Vector, Vector]:
    """Return each row's loss (row weight applied, not yet divided by the mean's denominator), m and r.

    With ``out``, the gradient is written there in the same pass.
    """
    m, r = np.empty((2, problem.x.shape[0]))
    return _losses(problem, out, m, r), m, r


def losses(problem: Problem) -> Vector:
    """Return each row's loss alone."""
    return _losses(problem, None, None, None)


def forward_backward(problem: Problem, out: NDArray[Any]) -> Vector:
    """Return each row's loss and write the gradient of the reduced loss; ``out`` may be the logits."""
    return _losses(problem, out, None, None)


def _capped(problem: Problem, out: Any, values: RowValues, reads: bool = False) -> None:
    """Write loss, m and r of each row of logits with a soft cap, or read m and r, and write the gradient to ``out``."""
    values = values if reads else values.filled(len(problem.x))
    if isinstance(problem.x, Planes):
        capped.run_planes(problem, out, values)
        return
    uncapped = capped.without_cap(problem)
    capped.run(_of_targets(uncapped, out is not None, reads), problem, uncapped, out, values)


def backward(problem: Problem, m: Vector, r: Vector, out: NDArray[Any]) -> None:
    """Write the gradient of the reduced loss from the forward's m and r; ``out`` may be the logits.

    Planes and turned rows compute m and r anew. Others read them: they may be those of more classes.
    """
    if capped.serves(problem):
        planes = isinstance(problem.x, Planes)  # which compute m and r anew
        _capped(problem, out, RowValues() if planes else RowValues(None, m, r), reads=not planes)
        return
    if isinstance(problem.x, Planes):
        strided.losses(problem, out, None, None)  # type: ignore[arg-type]
        return
    if turned.serves(problem):
        turned.losses(problem, out, RowValues())
        return
    computation = _of_targets(problem, True, reads=True)
    if few(problem):
        run_few(computation, problem, out, (None, m, r))
    else:
        run(computation, problem, out, RowValues(None, m, r))


def pick(problem: Problem) -> Vector:
    """Return −s·⟨t, x⟩ of each row: the loss of log-probabilities."""
    if isinstance(problem.x, Planes) and problem.q is None:
        return strided.pick(problem)
    n_rows, n_columns = problem.x.shape
    loss = np.empty(n_rows)

    def work(first: int, last: int) -> None:
        here = slice(first, last)
        loss[here] = scalar_interface.pick(problem.take(here, problem.x[here]))

    for_rows(n_rows, n_columns, work)
    return loss


@cache
def _distributions(dtype: DType, axes: int) -> Any:
    """Return the check of soft targets of a type: of rows with two axes, of planes with three."""
    entries = entries_of(dtype)
    function = "distributions.of_rows" if axes == 2 else "distributions.of_planes"
    types = {"q": array(entries.element, axes), "tolerance": FLOAT64, "work": output(entries.computed, 1)}
    return compiled(function, INTP, **types, first=INTP, last=INTP)


def are_distributions(q: Any, tolerance: float) -> bool:
    """Return whether all rows of soft targets are certainly distributions, with sums this near to 1."""
    if not (isinstance(q, Planes) or in_one_piece(q)):
        return False
    entries, matrix = entries_of(q.dtype), q.array if isinstance(q, Planes) else q
    check, view, found = _distributions(matrix.dtype, matrix.ndim), entries.view(matrix), []

    def work(first: int, last: int) -> None:
        found.append(check(view, tolerance, entries.work, first, last))

    n_rows, n_columns = q.shape
    for_rows(n_rows, n_columns, work)
    return not any(found)


@cache
def _total() -> Any:
    """Return the kernel of sums."""
    return compiled("total.total", FLOAT64, values=array("float64", 1))


def total(values: Vector) -> float:
    """Return the sum, compensated: its error does not grow with the number of rows."""
    return float(_total()(values))
