"""Values and gradients of plain CUDA tensors, by the Triton kernels: what ``compute`` is for the CPU.

Nothing here waits for the device, so that all of it goes into a CUDA graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll.kernels import cuda
from softnll.kernels.cuda import lift
from softnll.problem import Problem
from softnll.torch.cuda_problem import Rows, loss_problem

__all__ = [
    "Noted",
    "backward",
    "forward",
    "gradient",
    "handed_out",
    "lift",
    "log_softmax",
    "logsumexp",
    "losses",
    "noted",
    "notes_as_tensors",
    "pick",
    "reduced",
    "softmax",
    "with_gradient",
]


class Noted(NamedTuple):
    """What a forward leaves for its backward, besides logits and soft targets.

    Attributes
    ----------
    problem
        Hard targets, weights and options; no logits and no soft targets.
    rows
        How the logits become rows.
    m, r
        The largest entry and the rest of each row.
    """

    problem: Problem
    rows: Rows
    m: Tensor
    r: Tensor


def _empty(x: Tensor) -> Tensor:
    """Return memory for rows like these."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _normalised(x: Tensor, dim: int, fill: Any) -> Tensor:
    """Return what ``fill`` writes of logits."""
    rows = Rows(tuple(x.shape), dim)
    flat = rows.rows(x.detach())
    out = _empty(flat)
    fill(Problem(flat), out)
    return rows.restore(out, x)


def softmax(x: Tensor, dim: int) -> Tensor:
    """Return p."""
    return _normalised(x, dim, cuda.softmax)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return log p."""
    return _normalised(x, dim, cuda.log_softmax)


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """Return lse, without the dimension it is taken over."""
    rows = Rows(tuple(x.shape), dim)
    return cuda.logsumexp(Problem(rows.rows(x.detach()))).to(x.dtype).reshape(rows.row_shape)


def _problem(
    x: Tensor, target: Tensor, weight: Any, sample_weight: Any, temperature: Any, loss: Any
) -> tuple[Problem, Rows]:
    """Check everything that a loss is given and return it as a Problem."""
    rows = Rows(tuple(x.shape), loss.dim)
    if rows.n_classes == 0:
        raise ValueError(f"logits of shape {rows.shape} have no classes on axis {loss.dim}; allowed: at least one")
    given = (target, weight, sample_weight, temperature, loss.objective)
    return loss_problem(rows.rows(x.detach()), rows, *given, check=loss.check is True), rows


def reduced(problem: Problem, rows: Rows, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows' losses as the reduction says, float32 or wider."""
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    if problem.objective.reduction == "none":
        return values.to(dtype).reshape(rows.row_shape)
    value = cuda.total(values)
    if problem.objective.reduction == "mean":
        divisor: Any = problem.divisor
        if isinstance(divisor, Tensor):
            value = torch.where(divisor > 0, value / divisor, torch.nan)
        else:
            value = value / divisor if divisor > 0 else torch.full_like(value, torch.nan)
    return value.to(dtype)


def losses(*given: Any) -> Tensor:
    """Return the loss of ``(x, target, weight, sample_weight, temperature, Loss)``."""
    problem, rows = _problem(*given)
    return reduced(problem, rows, cuda.losses(problem), problem.x.dtype)


def noted(*given: Any) -> tuple[Tensor, Noted]:
    """Return the loss, and what the backward will want to know."""
    problem, rows = _problem(*given)
    return _noting(problem, rows, cuda.forward(problem))


def with_gradient(x: Tensor, *others: Any) -> tuple[Tensor, Noted, Tensor]:
    """Return the reduced loss, what a backward would want to know, and the gradient, made in one pass over logits."""
    problem, rows = _problem(x, *others)
    grad = _empty(problem.x)
    found = cuda.forward(problem, grad)
    return *_noting(problem, rows, found), grad


def _noting(problem: Problem, rows: Rows, found: tuple[Tensor, ...]) -> tuple[Tensor, Noted]:
    """Return the loss of losses, m and r of the rows, and what is to be kept of them."""
    values, m, r = found
    value = reduced(problem, rows, values, problem.x.dtype)
    problem.x = problem.q = None
    return value, Noted(problem, rows, m, r)


def _of(notes: Noted, x: Tensor, target: Tensor) -> Problem:
    """Return the Problem of notes with its logits and soft targets."""
    known = notes.problem
    q = notes.rows.rows(target.detach()) if known.y is None else None
    flat = notes.rows.rows(x.detach())
    return Problem(flat, known.objective, known.y, q, known.w, known.s, None, known.tau, known.divisor)


def handed_out(held: Tensor, upstream: Tensor, x: Tensor, target: Tensor, notes: Noted) -> Tensor:
    """Return the gradient that the forward made, made again where the upstream gradient is not 1.

    The device finds that out: nobody waits for it. Made again, from logits, it has all its digits; a product would cost
    as many bytes.
    """
    cuda.backward(_of(notes, x, target), notes.m, notes.r, held, upstream.reshape(()), made=True)
    return notes.rows.restore(held, x)


def gradient(upstream: Tensor, x: Tensor, target: Tensor, notes: Noted) -> Tensor:
    """Return the gradient of the loss with respect to the logits, times the upstream gradient of the loss."""
    problem = _of(notes, x, target)
    out = _empty(problem.x)
    one = problem.objective.reduction != "none"
    cuda.backward(problem, notes.m, notes.r, out, upstream.detach().reshape(() if one else -1).contiguous())
    return notes.rows.restore(out, x)


def forward(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and m and r of each row in the shape of the rows."""
    value, notes = noted(*given)
    return value, *notes_as_tensors(notes)


def notes_as_tensors(notes: Noted) -> tuple[Tensor, Tensor]:
    """Return m and r in the shape of the rows."""
    return notes.m.reshape(notes.rows.row_shape), notes.r.reshape(notes.rows.row_shape)


def backward(upstream: Tensor, m: Tensor, r: Tensor, x: Tensor, target: Tensor, *others: Any) -> Tensor:
    """Return the gradient as ``gradient`` does, from m and r of ``forward``; nothing is checked a second time."""
    weight, sample_weight, temperature, what = others
    rows = Rows(tuple(x.shape), what.dim)
    given = (target, weight, sample_weight, temperature, what.objective)
    problem = loss_problem(None, rows, *given, check=False)
    notes = Noted(problem, rows, m.reshape(-1).contiguous(), r.reshape(-1).contiguous())
    return gradient(upstream, x, target, notes)


def pick(x: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, loss: Any) -> Tensor:
    """Return the loss of log-probabilities."""
    problem, rows = _problem(x, target, weight, sample_weight, None, loss)
    return reduced(problem, rows, cuda.pick(problem), x.dtype)
