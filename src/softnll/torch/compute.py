"""Values and gradients of plain tensors, by the kernels that serve NumPy arrays; those on CUDA devices go elsewhere.

Nothing here is differentiable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softnll.kernels.choose import kernels
from softnll.layout import Layout
from softnll.objective import CrossEntropy
from softnll.output import narrowed, reduce, write
from softnll.problem import Problem, prepare, prepare_targets
from softnll.torch import devices
from softnll.torch.uncompiled import uncompiled
from softnll.torch.views import as_array, as_tensor, laid_out_like

__all__ = [
    "Loss",
    "Noted",
    "backward",
    "forward",
    "gradient",
    "handed_out",
    "log_softmax",
    "logsumexp",
    "losses",
    "noted",
    "notes_as_tensors",
    "pick",
    "scale",
    "softmax",
    "unreduced",
    "with_gradient",
]


@dataclass(slots=True)  # no tuple, which torch.func would take apart
class Loss:
    """What a loss is apart from its tensors.

    Attributes
    ----------
    objective
        The scalar options.
    dim
        The class dimension, counted from the front.
    check
        None: hard targets are checked; True: the masses of soft ones as well; False: neither.
    """

    objective: CrossEntropy
    dim: int
    check: bool | None = None


class Noted(NamedTuple):
    """What a forward leaves for its backward, besides logits and soft targets.

    Attributes
    ----------
    problem
        Hard targets, weights and options; no logits and no soft targets.
    layout
        How the logits become rows.
    m, r
        The largest entry and the rest of each row: arrays, or tensors on a CUDA device.
    """

    problem: Problem
    layout: Layout
    m: Any
    r: Any


@uncompiled
def softmax(x: Tensor, dim: int) -> Tensor:
    """Return p."""
    if devices.on_cuda(x):
        return devices.cuda().softmax(x, dim)
    problem, layout = prepare(as_array(x), dim, name="input")
    return laid_out_like(x, write(problem, layout, None, kernels().softmax)[0])


@uncompiled
def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return log p."""
    if devices.on_cuda(x):
        return devices.cuda().log_softmax(x, dim)
    problem, layout = prepare(as_array(x), dim, name="input")
    return laid_out_like(x, write(problem, layout, None, kernels().log_softmax)[0])


@uncompiled
def logsumexp(x: Tensor, dim: int) -> Tensor:
    """Return lse, without the dimension it is taken over."""
    if devices.on_cuda(x):
        return devices.cuda().logsumexp(x, dim)
    problem, layout = prepare(as_array(x), dim, empty=True, name="input")
    lse = narrowed(kernels().logsumexp(problem), problem.x.dtype)
    return as_tensor(lse.reshape(layout.row_shape))


def _problem(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    temperature: Tensor | None,
    loss: Loss,
) -> tuple[Problem, Layout]:
    """Check everything that a loss is given and return it as a Problem."""
    tau = None if temperature is None else as_array(temperature)
    problem, layout = prepare(as_array(x), loss.dim, loss.objective, tau, name="input")
    check = bool(loss.check) if target.is_floating_point() else loss.check is None or loss.check
    problem = prepare_targets(
        problem,
        layout,
        as_array(target),
        None if weight is None else as_array(weight),
        None if sample_weight is None else as_array(sample_weight),
        check,
    )
    return problem, layout


def _reduced(problem: Problem, layout: Layout, values: NDArray[np.float64]) -> Tensor:
    """Return the rows' losses as the reduction says."""
    value = reduce(problem, layout, values)
    return torch.from_numpy(np.asarray(value))


@uncompiled
def losses(*given: Any) -> Tensor:
    """Return the loss of ``(x, target, weight, sample_weight, temperature, Loss)``."""
    if devices.on_cuda(given[0]):
        return devices.cuda().losses(*given)
    problem, layout = _problem(*given)
    return _reduced(problem, layout, kernels().losses(problem))


def noted(*given: Any) -> tuple[Tensor, Noted]:
    """Return the loss, and what the backward will want to know."""
    if devices.on_cuda(given[0]):
        return devices.cuda().noted(*given)
    problem, layout = _problem(*given)
    return _noting(problem, layout, kernels().forward(problem))


def with_gradient(x: Tensor, *others: Any) -> tuple[Tensor, Noted, Tensor]:
    """Return the reduced loss, what a backward would want to know, and the gradient, made in one pass over logits."""
    if devices.on_cuda(x):
        return devices.cuda().with_gradient(x, *others)
    problem, layout = _problem(x, *others)
    grad, found = write(problem, layout, None, kernels().forward)
    return *_noting(problem, layout, found), laid_out_like(x, grad)


def _noting(problem: Problem, layout: Layout, found: tuple[NDArray[np.float64], ...]) -> tuple[Tensor, Noted]:
    """Return the loss of losses, m and r of the rows, and what is to be kept of them."""
    values, m, r = found
    value = _reduced(problem, layout, values)
    problem.x = problem.q = None  # whoever saves tensors may want to let go of those
    return value, Noted(problem, layout, m, r)


def handed_out(held: Tensor, upstream: Tensor, x: Tensor, target: Tensor, notes: Noted) -> Tensor:
    """Return the gradient that the forward made times the upstream gradient; it is the caller's from now on."""
    if devices.on_cuda(x):
        return devices.cuda().handed_out(held, upstream, x, target, notes)
    made = _lifted(held, upstream)
    return gradient(upstream, x, target, notes) if made is None else made


def _lifted(grad: Tensor, upstream: Tensor) -> Tensor | None:
    """Return a gradient times an upstream gradient, in place; None where that would cost digits.

    Those are lost where a subnormal number grows, and, to half types, where a product is rounded once more.
    """
    factor = upstream.item()
    if factor == 1:
        return grad
    if not 0 < abs(factor) < 1 or grad.dtype is torch.float16:
        return None
    if grad.dtype is torch.bfloat16 and abs(math.frexp(factor)[0]) != 0.5:
        return None
    return grad.mul_(factor)


@uncompiled
def gradient(upstream: Tensor, x: Tensor, target: Tensor, notes: Noted) -> Tensor:
    """Return the gradient of the loss with respect to the logits, times the upstream gradient of the loss."""
    if devices.on_cuda(x):
        return devices.cuda().gradient(upstream, x, target, notes)
    known, layout, m, r = notes
    q = layout.rows(as_array(target)) if known.y is None else None
    rows = layout.rows(as_array(x))
    problem = Problem(rows, known.objective, known.y, q, known.w, known.s, None, known.tau, known.divisor)
    scale(problem, upstream, rows.shape[0])
    grad, _ = write(problem, layout, None, lambda part, out: kernels().backward(part, m, r, out))
    return laid_out_like(x, grad)


def forward(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and m and r of each row in the shape of the rows."""
    if devices.on_cuda(given[0]):
        return devices.cuda().forward(*given)
    value, notes = noted(*given)
    return value, *notes_as_tensors(notes)


def notes_as_tensors(notes: Noted) -> tuple[Tensor, Tensor]:
    """Return m and r in the shape of the rows."""
    if isinstance(notes.m, Tensor):
        return devices.cuda().notes_as_tensors(notes)
    shape = notes.layout.row_shape
    return torch.from_numpy(notes.m.reshape(shape)), torch.from_numpy(notes.r.reshape(shape))


@uncompiled
def backward(upstream: Tensor, m: Tensor, r: Tensor, x: Tensor, target: Tensor, *others: Any) -> Tensor:
    """Return the gradient as ``gradient`` does, from m and r of ``forward``."""
    if devices.on_cuda(x):
        return devices.cuda().backward(upstream, m, r, x, target, *others)
    weight, sample_weight, temperature, what = others
    problem, layout = _problem(x, target, weight, sample_weight, temperature, replace(what, check=False))
    notes = Noted(problem, layout, as_array(m).reshape(-1), as_array(r).reshape(-1))
    return gradient(upstream, x, target, notes)


def scale(problem: Problem, upstream: Tensor, n_rows: int) -> None:
    """Put the upstream gradient into a Problem that nobody else has: it is a row weight, of either sign."""
    if problem.objective.reduction != "none":
        factor = upstream.item()
        if factor == 1:
            return
        if 1e-100 < factor < 1e100 and 1e-100 < problem.divisor < 1e100:
            problem.divisor /= factor
            return
        factors: Any = np.full(n_rows, factor)
    else:
        factors = as_array(upstream).reshape(-1).astype(np.float64)
    if problem.s is not None:
        with np.errstate(all="ignore"):  # a row of weight 0 takes no part, whatever comes from above
            factors = np.where(problem.s == 0, 0.0, problem.s * factors)
    problem.s = factors


@uncompiled
def pick(x: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, loss: Loss) -> Tensor:
    """Return the loss of log-probabilities."""
    if devices.on_cuda(x):
        return devices.cuda().pick(x, target, weight, sample_weight, loss)
    problem, layout = _problem(x, target, weight, sample_weight, None, loss)
    return _reduced(problem, layout, kernels().pick(problem))


@lru_cache(maxsize=64)
def unreduced(objective: CrossEntropy) -> CrossEntropy:
    """Return the same options without a reduction."""
    return replace(objective, reduction="none")
