"""The kernels of the CPU: vector kernels for what is common, plain loops for the rest; both compiled on first use.

Interface, the same in every kernels module: ``softmax``, ``log_softmax``, ``logsumexp``, ``forward``, ``backward``,
``forward_backward`` of a Problem, ``pick``, and ``total``. Outputs are ``(N, C)`` in the logits' type; losses, m and r
float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from softnll.kernels import cap, columns, dense, loops, rows, sums
from softnll.kernels.compile import array, compiled, output
from softnll.kernels.running import Computation, few, run, run_capped, run_few, served, soft_type, spread
from softnll.kernels.threads import for_rows
from softnll.objective import CrossEntropy
from softnll.problem import Problem

__all__ = ["backward", "forward", "forward_backward", "log_softmax", "logsumexp", "losses", "pick", "softmax", "total"]

Vector = NDArray[np.float64]
DType = np.dtype[Any]

_NO_WEIGHTS = np.empty(0)
_NO_TARGETS = np.empty(0, np.int64)
_ELEMENTS = {"float32": types.float32, "float64": types.float64, "bfloat16": types.uint16, "float16": types.int16}
_BITS = {"bfloat16": np.uint16, "float16": np.int16}  # half types go in as their bits
_SCRATCH: dict[bool, NDArray[Any]] = {True: np.empty(0, np.float64), False: np.empty(0, np.float32)}


@cache
def _kernel(name: str, dtype: str, where: bool, taus: bool, notes: bool, out: bool) -> Any:
    """Return a kernel for a type of logits, compiled for just those arrays that are there."""
    element = _ELEMENTS[dtype]
    row, ints, reals, result = (
        array(element, 2),
        array(types.int64, 1),
        array(types.float64, 1),
        output(types.float64, 1),
    )
    mask = array(types.boolean, 2) if where else types.none
    temperatures = reals if taus else types.none
    written = output(element, 2) if out else types.none
    work = output(types.float64 if element == types.float64 else types.float32, 1)
    span = (types.intp, types.intp, output(types.int64, 1))
    weights = (ints, reals, reals)
    loss = (row, mask, *weights, temperatures, types.float64, types.float64)
    notes_of = (result, result) if notes else (types.none, types.none)
    prob = types.boolean if notes else types.none
    arguments: dict[str, tuple[Any, ...]] = {
        "normalise_rows": (row, mask, temperatures, prob, output(element, 2), types.boolean, work, *span),
        "logsumexp_rows": (row, mask, result, *span),
        "loss_rows": (*loss, result, *notes_of, written, types.boolean, work, *span),
        "backward_rows": (*loss, reals, reals, output(element, 2), types.boolean, work, *span),
        "normalise_columns": (row, prob, output(element, 2), work, *span),
        "logsumexp_columns": (row, result, work, *span),
        "loss_columns": (row, *weights, types.float64, types.float64, result, *notes_of, written, work, *span),
        "backward_columns": (
            row,
            *weights,
            types.float64,
            types.float64,
            reals,
            reals,
            output(element, 2),
            work,
            *span,
        ),
    }
    return compiled(getattr(columns if name.endswith("columns") else rows, name), types.intp, *arguments[name])


@cache
def _total() -> Any:
    """Return the kernel of sums."""
    return compiled(sums.total, types.float64, array(types.float64, 1))


def _taus(problem: Problem) -> Vector | None:
    """Return the temperatures: one for all, one a row, or None for 1."""
    if problem.tau is not None:
        return problem.tau
    tau = problem.objective.temperature
    return None if tau == 1 else np.array([tau])


def _options(problem: Problem) -> tuple[bool, bool]:
    """Return whether there are masks, and temperatures."""
    return problem.where is not None, problem.tau is not None or problem.objective.temperature != 1


@cache
def _softmax(dtype: DType, rows: tuple[bool, bool] | None = None, log: bool = False) -> Computation:
    """Return softmax or log_softmax: by tiles or, with these options, by ``rows``."""
    name = "normalise_columns" if rows is None else "normalise_rows"
    kernel = _kernel(name, dtype.name, *(rows or (False, False)), not log, True)
    bits, work, flag = _BITS.get(dtype.name), _SCRATCH[dtype == np.float64], None if log else True

    def call(part: Problem, out: Any, _: Any, streamed: bool, first: int, last: int, odd: Any) -> Any:
        x = part.x
        if bits is not None:
            x, out = x.view(bits), out.view(bits)
        if rows is None:
            return kernel(x, flag, out, work, first, last, odd)
        return kernel(x, part.where, _taus(part), flag, out, streamed, work, first, last, odd)

    def plain(part: Problem, out: Any, _: Any) -> None:
        (loops.log_softmax if log else loops.softmax)(part, out)

    return Computation(call, plain)


def softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write p."""
    rows = None if few(problem) else _options(problem)
    (run_few if rows is None else run)(_softmax(problem.x.dtype, rows), problem, out, ())


def log_softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write log p."""
    rows = None if few(problem) else _options(problem)
    (run_few if rows is None else run)(_softmax(problem.x.dtype, rows, True), problem, out, ())


@cache
def _lse(dtype: DType, rows: bool, masked: bool) -> Computation:
    """Return logsumexp: by tiles or by ``rows``."""
    kernel = _kernel("logsumexp_rows" if rows else "logsumexp_columns", dtype.name, masked, False, False, False)
    bits, work = _BITS.get(dtype.name), _SCRATCH[dtype == np.float64]

    def call(part: Problem, _: Any, values: Any, __: bool, *span: Any) -> Any:
        x = part.x if bits is None else part.x.view(bits)
        return kernel(x, part.where, values[0], *span) if rows else kernel(x, values[0], work, *span)

    def plain(part: Problem, _: Any, values: Any) -> None:
        values[0][...] = loops.logsumexp(part)

    return Computation(call, plain)


def logsumexp(problem: Problem) -> Vector:
    """Return lse of each row."""
    n_rows, n_columns = problem.x.shape
    if n_columns == 0:
        return np.full(n_rows, -np.inf)
    lse = np.empty(n_rows)
    if few(problem):
        run_few(_lse(problem.x.dtype, False, False), problem, None, (lse,))
    else:
        run(_lse(problem.x.dtype, True, problem.where is not None), problem, None, (lse,))
    return lse


def _losing(kernel: Any, dtype: DType, by_tiles: bool) -> Callable[..., Any]:
    """Return the call of a kernel that takes targets."""
    bits, work = _BITS.get(dtype.name), _SCRATCH[dtype == np.float64]

    def call(part: Problem, out: Any, values: Any, streamed: bool, *span: Any) -> Any:
        x, w, s, zeta, divisor = part.x, part.w, part.s, part.objective.z_loss, part.divisor
        if bits is not None:
            x, out = x.view(bits), None if out is None else out.view(bits)
        w, s = _NO_WEIGHTS if w is None else w, _NO_WEIGHTS if s is None else s
        if by_tiles:
            return kernel(x, part.y, w, s, zeta, divisor, *values, out, work, *span)
        return kernel(x, part.where, part.y, w, s, _taus(part), zeta, divisor, *values, out, streamed, work, *span)

    return call


def _loss_loops(part: Problem, out: Any, values: Any) -> None:
    """Write losses, m and r, and the gradient if there is an ``out``, by plain loops."""
    for target, value in zip(values, loops.losses(part, out), strict=True):
        if target is not None:
            target[...] = value


def _backward_loops(part: Problem, out: Any, notes: Any) -> None:
    """Write the gradient from m and r by plain loops."""
    m, r = notes
    loops.backward(part, m, r, out)


@cache
def _loss(dtype: DType, notes: bool, written: bool, rows: tuple[bool, bool] | None) -> Computation:
    """Return the loss, with m and r as ``notes`` and with the gradient ``written``: by tiles or by ``rows``."""
    name = "loss_columns" if rows is None else "loss_rows"
    kernel = _kernel(name, dtype.name, *(rows or (False, False)), notes, written)
    return Computation(_losing(kernel, dtype, rows is None), _loss_loops)


def _padded(w: Vector | None, dtype: DType, n_columns: int) -> NDArray[Any] | None:
    """Return class weights in the type that is computed in, with room for a vector beyond the last."""
    if w is None:
        return None
    padded = np.zeros(n_columns + 64, dtype)
    with np.errstate(all="ignore"):  # a weight beyond float32 is inf, and its rows are left to the plain loops
        padded[:n_columns] = w
    return padded


@cache
def _dense(dtype: DType, q: DType | None, weights: bool, taus: bool, notes: bool | None, written: bool) -> Computation:
    """Return the loss of soft (of a type) or smoothed targets, as ``_loss`` does; ``notes`` None: their gradient."""
    element, work = _ELEMENTS[dtype.name], _SCRATCH[dtype == np.float64]
    computed = types.float64 if dtype == np.float64 else types.float32
    matrix, reals, result = array(element, 2), array(types.float64, 1), output(types.float64, 1)
    per_row = {None: (reals, reals), False: (result, types.none, types.none), True: (result, result, result)}[notes]
    kernel = compiled(
        dense.backward_dense if notes is None else dense.loss_dense,
        types.intp,
        matrix,
        types.none if q is None else array(_ELEMENTS[q.name], 2),
        array(types.int64, 1),
        array(computed, 1) if weights else types.none,
        reals,
        reals if taus else types.none,
        *[types.float64] * 3,
        *per_row,
        output(element, 2) if written else types.none,
        types.boolean,
        output(computed, 1),
        types.intp,
        types.intp,
        output(types.int64, 1),
    )
    bits, q_bits = _BITS.get(dtype.name), None if q is None else _BITS.get(q.name)

    def call(part: Problem, out: Any, values: Any, streamed: bool, *span: Any) -> Any:
        x, q, objective = part.x, part.q, part.objective
        w = _padded(part.w, work.dtype, x.shape[1])
        if bits is not None:
            x, out = x.view(bits), None if out is None else out.view(bits)
        if q_bits is not None:
            q = q.view(q_bits)
        y, s = _NO_TARGETS if part.y is None else part.y, _NO_WEIGHTS if part.s is None else part.s
        scalars = objective.label_smoothing, objective.z_loss, part.divisor
        return kernel(x, q, y, w, s, _taus(part), *scalars, *values, out, streamed, work, *span)

    return Computation(call, _backward_loops if notes is None else _loss_loops)


def _dense_of(problem: Problem, notes: bool | None, written: bool) -> Computation:
    """Return the computation of spread targets for a problem."""
    q = None if problem.q is None else soft_type(problem)
    return _dense(problem.x.dtype, q, problem.w is not None, _options(problem)[1], notes, written)


@cache
def _caps(dtype: DType) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return what caps logits, and what makes gradients by them of those by the capped ones."""
    element, bits = _ELEMENTS[dtype.name], _BITS.get(dtype.name)
    matrix, wide, written = array(element, 2), output(types.float64, 2), output(element, 2)
    within = compiled(cap.cap_rows, types.void, matrix, types.float64, wide)
    without = compiled(cap.uncap_rows, types.void, matrix, types.float64, array(types.float64, 2), written)
    if bits is None:
        return within, without
    return (
        lambda x, softcap, u: within(x.view(bits), softcap, u),
        lambda x, softcap, g, out: without(x.view(bits), softcap, g, out.view(bits)),
    )


@lru_cache(maxsize=64)
def _without_cap(objective: CrossEntropy) -> CrossEntropy:
    """Return the options without the soft cap."""
    return replace(objective, softcap=None)


def _uncapped(problem: Problem) -> Problem:
    """Return the problem that a soft cap leaves: no cap, and logits of float64, which are not there yet."""
    none, objective = np.empty((0, problem.x.shape[1])), _without_cap(problem.objective)
    return Problem(
        none, objective, problem.y, problem.q, problem.w, problem.s, problem.where, problem.tau, problem.divisor
    )


def _caps_in_vectors(problem: Problem) -> bool:
    """Whether there is a soft cap, and vector kernels for all of the problem."""
    return problem.objective.softcap is not None and served(problem)


def _losses(problem: Problem, out: NDArray[Any] | None, m: Vector | None, r: Vector | None) -> Vector:
    """Return each row's loss; write m and r and, with ``out``, the gradient."""
    loss = np.empty(problem.x.shape[0])
    if _caps_in_vectors(problem):
        uncapped = _uncapped(problem)
        computation = _losing_computation(uncapped, m is not None, out is not None)
        run_capped(computation, _caps(problem.x.dtype), problem, uncapped, out, (loss, m, r))
        return loss
    computation = _losing_computation(problem, m is not None, out is not None)
    (run_few if few(problem) else run)(computation, problem, out, (loss, m, r))
    return loss


def _losing_computation(problem: Problem, notes: bool, written: bool) -> Computation:
    """Return the loss for a problem: of spread targets, by tiles or by rows."""
    if spread(problem):
        return _dense_of(problem, notes, written)
    return _loss(problem.x.dtype, notes, written, None if few(problem) else _options(problem))


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


@cache
def _gradient(dtype: DType, rows: tuple[bool, bool] | None) -> Computation:
    """Return the gradient from m and r: by tiles or, with these options, by ``rows``."""
    name = "backward_columns" if rows is None else "backward_rows"
    kernel = _kernel(name, dtype.name, *(rows or (False, False)), True, True)
    return Computation(_losing(kernel, dtype, rows is None), _backward_loops)


def _gradient_of(problem: Problem) -> Computation:
    """Return the gradient from m and r for a problem."""
    if spread(problem):
        return _dense_of(problem, None, True)
    return _gradient(problem.x.dtype, None if few(problem) else _options(problem))


def backward(problem: Problem, m: Vector, r: Vector, out: NDArray[Any]) -> None:
    """Write the gradient of the reduced loss from the forward's m and r; ``out`` may be the logits."""
    if _caps_in_vectors(problem):
        uncapped = _uncapped(problem)
        run_capped(_gradient_of(uncapped), _caps(problem.x.dtype), problem, uncapped, out, (), read=(m, r))
        return
    computation = _gradient_of(problem)
    run(computation, problem, out, (), read=(m, r))


def pick(problem: Problem) -> Vector:
    """Return −s·⟨t, x⟩ of each row: the loss of log-probabilities."""
    loss = np.empty(problem.x.shape[0])

    def work(first: int, last: int) -> None:
        here = slice(first, last)
        loss[here] = loops.pick(problem.take(here, problem.x[here]))

    for_rows(problem.x.shape[0], problem.x.shape[1], work)
    return loss


def total(values: Vector) -> float:
    """Return the sum, compensated: its error does not grow with the number of rows."""
    return float(_total()(values))
