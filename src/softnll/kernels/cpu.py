"""The kernels of the CPU: vector kernels for what is common, plain loops for the rest; both compiled on first use.

Interface, the same in every kernels module: ``softmax``, ``log_softmax``, ``logsumexp``, ``forward``, ``backward``,
``forward_backward`` of a Problem, ``pick``, and ``total``. Outputs are ``(N, C)`` in the logits' type; losses, m and r
float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from softnll.kernels import columns, loops, rows, sums
from softnll.kernels.compile import array, compiled, fuses, output
from softnll.kernels.threads import for_rows, in_one_go
from softnll.problem import Problem
from softnll.targets import blocks

__all__ = ["backward", "forward", "forward_backward", "log_softmax", "logsumexp", "losses", "pick", "softmax", "total"]

Vector = NDArray[np.float64]

_NO_WEIGHTS = np.empty(0)
_FEW = 160  # classes up to which rows are taken a tile at a time (docs/log.md)
_STREAMED = 1 << 26  # bytes of an output from which it is written past the caches
_ELEMENTS = {"float32": types.float32, "float64": types.float64, "bfloat16": types.uint16, "float16": types.int16}
_BITS = {"bfloat16": np.uint16, "float16": np.int16}  # half types go in as their bits
_SCRATCH = {True: np.empty(0, np.float64), False: np.empty(0, np.float32)}


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


@cache
def _name(dtype: np.dtype[Any]) -> str:
    """Return a type's name, which NumPy takes 2 µs to make."""
    return dtype.name


def _bits(x: NDArray[Any]) -> NDArray[Any]:
    """Return an array as the kernels take it."""
    bits = _BITS.get(_name(x.dtype))
    return x if bits is None else x.view(bits)


def _served(problem: Problem) -> bool:
    """Whether the vector kernels serve this problem: the others go through plain loops."""
    objective = problem.objective
    if problem.q is not None or objective.softcap is not None or objective.label_smoothing > 0:
        return False
    return fuses() or (problem.tau is None and objective.temperature == 1)


def _dense(matrix: NDArray[Any] | None) -> bool:
    """Whether each row of a matrix lies in one piece, each entry at a multiple of its size."""
    return matrix is None or (matrix.flags.aligned and matrix.strides[1] == matrix.itemsize)


def _taus(problem: Problem) -> Vector | None:
    """Return the temperatures: one for all, one a row, or None for 1."""
    if problem.tau is not None:
        return problem.tau
    tau = problem.objective.temperature
    return None if tau == 1 else np.array([tau])


Values = tuple[Vector | None, ...]


class _Pair(NamedTuple):
    """A vector kernel and the plain loops that stand in for it."""

    call: Callable[..., int]
    plain: Callable[..., None]


def _leftovers(
    part: Problem, out: NDArray[Any] | None, per_row: Values, read: tuple[Vector, ...], odd: Any, pair: _Pair
) -> None:
    """Let plain loops do the rows that a vector kernel has left, and put the results in their places."""
    rest = part.take(odd, part.x[odd])
    written = None if out is None else np.empty(rest.x.shape, out.dtype)
    values = tuple(None if each is None else np.empty(len(odd)) for each in per_row)
    pair.plain(rest, written, (*values, *(each[odd] for each in read)))
    if out is not None:
        out[odd] = written
    for target, value in zip(per_row, values, strict=True):
        if target is not None:
            target[odd] = value


def _some(
    part: Problem,
    out: NDArray[Any] | None,
    per_row: Values,
    read: tuple[Vector, ...],
    first: int,
    last: int,
    pair: _Pair,
) -> None:
    """Let a vector kernel do some rows, and plain loops those that it leaves."""
    odd = np.empty(last - first, np.int64)
    left = pair.call(part, out, (*per_row, *read), first, last, odd)
    if left:
        _leftovers(part, out, per_row, read, odd[:left], pair)


def _packed(problem: Problem) -> Problem:
    """Return a problem whose rows lie in one piece."""
    where = None if problem.where is None else np.ascontiguousarray(problem.where)
    return replace(problem, x=np.ascontiguousarray(problem.x), where=where)


def _run(
    problem: Problem,
    out: NDArray[Any] | None,
    per_row: Values,
    pair: _Pair,
    read: tuple[Vector, ...] = (),
) -> None:
    """Let vector kernels do the rows, and plain loops those that they leave.

    ``call(problem, out, values, first, last, odd)`` and ``plain(problem, out, values)`` write the rows of ``out`` and
    of each ``per_row`` array; the values are those and what is ``read`` of each row.
    """
    n_rows, n_columns = problem.x.shape
    served, direct = _served(problem), _dense(problem.x) and _dense(out) and _dense(problem.where)
    if served and direct and in_one_go(n_rows, n_columns):
        _some(problem, out, per_row, read, 0, n_rows, pair)
        return

    def work(first: int, last: int) -> None:
        if served and direct:
            _some(problem, out, per_row, read, first, last, pair)
            return
        for block in blocks((last - first, n_columns), 1 << 16):
            here = slice(first + block.start, first + block.stop)
            part = problem.take(here, problem.x[here])
            result = None if out is None else out[here]
            values = tuple(None if each is None else each[here] for each in per_row)
            given = tuple(each[here] for each in read)
            if not served:
                pair.plain(part, result, (*values, *given))
                continue
            scratch = None if result is None else np.empty(result.shape, result.dtype)
            _some(_packed(part), scratch, values, given, 0, len(part.x), pair)
            if result is not None:
                result[...] = scratch

    for_rows(n_rows, n_columns, work)


def _streams(problem: Problem, out: NDArray[Any]) -> bool:
    """Whether an output is so large, and none of the input, that it is to be written past the caches."""
    return out.nbytes >= _STREAMED and not np.may_share_memory(out, problem.x)


def _few(problem: Problem) -> bool:
    """Whether a problem's rows are taken a tile at a time."""
    plain = problem.where is None and problem.tau is None and problem.objective.temperature == 1
    return plain and problem.x.shape[1] <= _FEW


def _normalise(problem: Problem, out: NDArray[Any], log: bool) -> None:
    """Write softmax or log_softmax."""
    name, few = _name(problem.x.dtype), _few(problem)
    taus, streamed = _taus(problem), _streams(problem, out)
    kind = "normalise_columns" if few else "normalise_rows"
    kernel = _kernel(kind, name, problem.where is not None, taus is not None, not log, True)
    work, flag = _SCRATCH[name == "float64"], None if log else True

    def call(part: Problem, out: Any, _: Any, first: int, last: int, odd: Any) -> int:
        if few:
            return kernel(_bits(part.x), flag, _bits(out), work, first, last, odd)
        return kernel(_bits(part.x), part.where, _taus(part), flag, _bits(out), streamed, work, first, last, odd)

    def plain(part: Problem, out: Any, _: Any) -> None:
        (loops.log_softmax if log else loops.softmax)(part, out)

    _run(problem, out, (), _Pair(call, plain))


def softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write p."""
    _normalise(problem, out, log=False)


def log_softmax(problem: Problem, out: NDArray[Any]) -> None:
    """Write log p."""
    _normalise(problem, out, log=True)


def logsumexp(problem: Problem) -> Vector:
    """Return lse of each row."""
    lse = np.full(problem.x.shape[0], -np.inf)
    if problem.x.shape[1] == 0:
        return lse
    name, few = _name(problem.x.dtype), _few(problem)
    kind = "logsumexp_columns" if few else "logsumexp_rows"
    kernel = _kernel(kind, name, problem.where is not None, False, False, False)
    work = _SCRATCH[name == "float64"]

    def call(part: Problem, _: Any, values: Any, first: int, last: int, odd: Any) -> int:
        if few:
            return kernel(_bits(part.x), values[0], work, first, last, odd)
        return kernel(_bits(part.x), part.where, values[0], first, last, odd)

    def plain(part: Problem, _: Any, values: Any) -> None:
        values[0][...] = loops.logsumexp(part)

    _run(problem, None, (lse,), _Pair(call, plain))
    return lse


def _given(problem: Problem, few: bool) -> tuple[Any, ...]:
    """Return logits, targets, weights and options in the kernels' order."""
    scalars = (problem.objective.z_loss, problem.divisor)
    weights = (
        problem.y,
        _NO_WEIGHTS if problem.w is None else problem.w,
        _NO_WEIGHTS if problem.s is None else problem.s,
    )
    x = _bits(problem.x)
    return (x, *weights, *scalars) if few else (x, problem.where, *weights, _taus(problem), *scalars)


def _options(problem: Problem) -> tuple[bool, bool]:
    """Return whether there are masks, and temperatures."""
    return problem.where is not None, _taus(problem) is not None


def _losses(problem: Problem, out: NDArray[Any] | None, *, notes: bool) -> tuple[Vector, Vector | None, Vector | None]:
    """Return each row's loss and, if asked, m and r; with ``out``, write the gradient."""
    n_rows = problem.x.shape[0]
    loss = np.empty(n_rows)
    m, r = np.empty((2, n_rows)) if notes else (None, None)
    name, few = _name(problem.x.dtype), _few(problem)
    streamed = out is not None and _streams(problem, out)
    how = ("loss_columns", name, False, False) if few else ("loss_rows", name, *_options(problem))
    kernel = _kernel(*how, notes, out is not None)
    work = _SCRATCH[name == "float64"]

    def call(part: Problem, out: Any, values: Any, first: int, last: int, odd: Any) -> int:
        ends = (work, first, last, odd) if few else (streamed, work, first, last, odd)
        return kernel(*_given(part, few), *values, None if out is None else _bits(out), *ends)

    def plain(part: Problem, out: Any, values: Any) -> None:
        for target, value in zip(values, loops.losses(part, out), strict=True):
            if target is not None:
                target[...] = value

    _run(problem, out, (loss, m, r), _Pair(call, plain))
    return loss, m, r


def forward(problem: Problem) -> tuple[Vector, Vector, Vector]:
    """Return each row's loss (row weight applied, not yet divided by the mean's denominator), m and r."""
    return _losses(problem, None, notes=True)  # type: ignore[return-value]


def losses(problem: Problem) -> Vector:
    """Return each row's loss alone."""
    return _losses(problem, None, notes=False)[0]


def forward_backward(problem: Problem, out: NDArray[Any]) -> Vector:
    """Return each row's loss and write the gradient of the reduced loss; ``out`` may be the logits."""
    return _losses(problem, out, notes=False)[0]


def backward(problem: Problem, m: Vector, r: Vector, out: NDArray[Any]) -> None:
    """Write the gradient of the reduced loss from the forward's m and r; ``out`` may be the logits."""
    name, few, streamed = _name(problem.x.dtype), _few(problem), _streams(problem, out)
    how = ("backward_columns", name, False, False) if few else ("backward_rows", name, *_options(problem))
    kernel = _kernel(*how, True, True)
    work = _SCRATCH[name == "float64"]

    def call(part: Problem, out: Any, values: Any, first: int, last: int, odd: Any) -> int:
        ends = (work, first, last, odd) if few else (streamed, work, first, last, odd)
        return kernel(*_given(part, few), *values, _bits(out), *ends)

    def plain(part: Problem, out: Any, values: Any) -> None:
        loops.backward(part, values[0], values[1], out)

    _run(problem, out, (), _Pair(call, plain), read=(m, r))


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
