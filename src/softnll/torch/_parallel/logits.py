"""The loss of sliced logits as an autograd function: the forward merges, the backward needs no collective."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softnll._core.problem import Problem
from softnll.torch._parallel.sliced import Sliced


def _problem(sliced: Sliced, x: Tensor) -> Problem:
    """Return the slice's Problem with its logits."""
    problem = sliced.problem
    return problem.with_rows(sliced.backend.rows_of(x, sliced.layout), problem.q)


class _SlicedLoss(torch.autograd.Function):
    """The reduced loss of a slice's logits and soft targets, which are merged already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, sliced: Sliced) -> Tensor:
        """Return the loss."""
        ctx.sliced = sliced
        ctx.save_for_backward(x, target)
        return sliced.loss()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        """Return the gradients with respect to the slice's logits and soft targets."""
        sliced, (x, target) = ctx.sliced, ctx.saved_tensors
        to_x, to_target, _ = ctx.needs_input_grad
        problem, backend = _problem(sliced, x), sliced.backend
        rows = slice(0, sliced.layout.n_rows)
        found: list[Any] = [None, None]
        for i, (wanted, like, write) in enumerate(
            ((to_x, x, sliced.gradient), (to_target, target, sliced.target_gradient))
        ):
            if wanted and x.numel() == 0:
                found[i] = torch.zeros_like(like)
            elif wanted:
                out = backend.empty(problem.x.shape, backend.array(like).dtype, problem.x)
                write(problem, rows, out, upstream)
                found[i] = backend.restore(out, sliced.layout, x).to(like.dtype)
        if found[1] is not None:
            found[1] = sliced.of_target(found[1], target)
        return found[0], found[1], None


def loss(x: Tensor, target: Tensor, sliced: Sliced) -> Tensor:
    """Return the loss of a slice's logits."""
    sliced.merge(sliced.blank() if x.numel() == 0 else sliced.summarise(_problem(sliced, x)))
    value: Tensor = _SlicedLoss.apply(x, target, sliced)
    return value
