"""Values and gradients of the losses of logits, outside autograd, by the backend of the tensors' device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.layout import Layout
from softnll._core.problem import Problem
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.backend import backend_of
from softnll.torch._base.uncompiled import uncompiled


class Kept(NamedTuple):
    """The results of a forward that its backward uses, besides logits and soft targets.

    Attributes
    ----------
    problem
        The hard targets, weights and options, without logits and soft targets.
    layout
        The shape and the class dimension of the logits.
    m, r
        The largest entry and the rest of each row, as arrays of the backend.
    """

    problem: Problem
    layout: Layout
    m: Any
    r: Any

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and r as tensors, in the shape of the logits without the class dimension."""
        shape, backend = self.layout.row_shape, backend_of(like)
        return backend.tensor(self.m.reshape(shape)), backend.tensor(self.r.reshape(shape))


@uncompiled
def softmax(x: Tensor, dim: int) -> Tensor:
    """Return the probabilities of logits over a dimension."""
    backend = backend_of(x)
    return backend.normalise(x, dim, backend.softmax)


@uncompiled
def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return the log-probabilities of logits over a dimension."""
    backend = backend_of(x)
    return backend.normalise(x, dim, backend.log_softmax)


@uncompiled
def product(saved: Tensor, v: Tensor, dim: int, *, log: bool, logits: bool) -> Tensor | None:
    """Return the product of the Jacobian of softmax or, with ``log``, of log_softmax and v; None without a kernel.

    ``saved`` has the results or, with ``logits``, the logits.
    """
    return backend_of(saved).product(saved, v, dim, log=log, logits=logits)


@uncompiled
def logsumexp(x: Tensor, dim: int) -> Tensor:
    """Return logsumexp over a dimension, in the shape without it."""
    return backend_of(x).lse(x, dim)


@uncompiled
def losses(inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the loss of logits: a number, or one per row with ``reduction="none"``."""
    backend = backend_of(inputs.input)
    problem, layout = backend.loss_problem(inputs, settings)
    return backend.reduce(problem, layout, backend.losses(problem))


@uncompiled
def forward(inputs: LossInputs, settings: LossSettings) -> tuple[Tensor, Kept]:
    """Return the loss, and what its backward uses."""
    backend = backend_of(inputs.input)
    problem, layout = backend.loss_problem(inputs, settings)
    values, m, r = backend.forward(problem)
    return backend.reduce(problem, layout, values), Kept(problem.with_rows(None, None), layout, m, r)


@uncompiled
def with_gradient(inputs: LossInputs, settings: LossSettings) -> tuple[Tensor, Kept, Tensor]:
    """Return the loss, what its backward uses, and the gradient for upstream gradients of 1, in one pass."""
    backend = backend_of(inputs.input)
    problem, layout = backend.loss_problem(inputs, settings)
    out = backend.empty(problem.x.shape, problem.x.dtype, problem.x)
    values, m, r = backend.forward(problem, out)
    value = backend.reduce(problem, layout, values)
    kept_gradient = backend.kept_gradient(out, layout, inputs.input)
    return value, Kept(problem.with_rows(None, None), layout, m, r), kept_gradient


def recorded(inputs: LossInputs, settings: LossSettings, *, keeps: bool) -> tuple[Tensor, Kept, Tensor | None]:
    """Return the loss, what its backward uses and, if the forward ``keeps`` it, the gradient."""
    return with_gradient(inputs, settings) if keeps else (*forward(inputs, settings), None)


def _with_rows(kept: Kept, inputs: LossInputs) -> Problem:
    """Return the kept Problem with its logits and soft targets."""
    target = inputs.target if kept.problem.y is None else None
    return backend_of(inputs.input).with_rows(kept.problem, kept.layout, inputs.input, target)


@uncompiled
def gradient(upstream: Tensor, inputs: LossInputs, kept: Kept) -> Tensor:
    """Return the gradient of the loss with respect to the logits, times the upstream gradient of the loss."""
    backend = backend_of(inputs.input)
    problem = _with_rows(kept, inputs)
    problem, beside = backend.with_upstream(problem, backend.upstream(upstream, problem))
    out = backend.empty(problem.x.shape, problem.x.dtype, problem.x)
    backend.backward(problem, kept.m, kept.r, out, upstream=beside)
    return backend.restore(out, kept.layout, inputs.input)


@uncompiled
def rescaled(kept_gradient: Tensor, upstream: Tensor, saved: Callable[[], LossInputs | None], kept: Kept) -> Tensor:
    """Return the gradient that the forward has computed, times the upstream gradient; its memory may be overwritten.

    ``saved()`` returns the inputs of the loss, or None if they have been written to since the forward: then a product
    has no more digits than the kept gradient.
    """

    def again() -> tuple[Tensor, Problem, Any, Any] | None:
        inputs = saved()
        return None if inputs is None else (inputs.input, _with_rows(kept, inputs), kept.m, kept.r)

    value: Tensor | None = backend_of(kept_gradient).rescaled(kept_gradient, upstream, kept.layout, again)
    if value is not None:
        return value
    inputs = saved()
    return multiplied(kept_gradient, upstream, kept) if inputs is None else gradient(upstream, inputs, kept)


def keeps_gradient(inputs: LossInputs, settings: LossSettings) -> bool:
    """Return whether ``with_gradient`` serves this loss."""
    return backend_of(inputs.input).keeps_gradient(inputs, settings)


def multiplied(kept_gradient: Tensor, upstream: Tensor, kept: Kept) -> Tensor:
    """Return the gradient that the forward has computed, times the upstream gradient, without the logits.

    A row that takes no part has gradient 0 under any upstream gradient. A subnormal gradient keeps its few digits.
    """
    gradient = kept_gradient if kept_gradient.shape == kept.layout.shape else kept.layout.restore(kept_gradient)
    factor = upstream.unsqueeze(kept.layout.axes[0]) if upstream.dim() else upstream
    return torch.where(gradient == 0, 0.0, gradient * factor).to(gradient.dtype)


@uncompiled
def backward(upstream: Tensor, m: Tensor, r: Tensor, inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the gradient, as ``gradient`` does, from m and r as tensors; the forward has checked the inputs."""
    backend = backend_of(inputs.input)
    problem, layout = backend.loss_problem(inputs, settings.unchecked())
    flat = (backend.array(each.reshape(-1).contiguous()) for each in (m, r))
    kept = Kept(problem.with_rows(None, None), layout, *flat)
    del problem  # its rows may be a copy of the logits, and ``gradient`` lays them out itself
    return gradient(upstream, inputs, kept)


@uncompiled
def pick(inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the loss of log-probabilities."""
    backend = backend_of(inputs.input)
    problem, layout = backend.loss_problem(inputs, settings)
    return backend.reduce(problem, layout, backend.pick(problem))
