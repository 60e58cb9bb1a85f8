"""nll_loss of sliced log-probabilities: the forward exchanges the target's entry, the backward nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softnll.torch._base.checks import wide_type
from softnll.torch._parallel.sliced import Sliced


class _Targets:
    """The hard targets of the slice's rows, and their weights.

    Attributes
    ----------
    rows
        ``(N, C_k)``, the log-probabilities.
    mine
        Whether a row's target is a class of the slice.
    at
        That class, counted from the slice's first; 0 for targets elsewhere.
    weight
        Its class weight; 0 for targets elsewhere.
    """

    __slots__ = ("at", "mine", "rows", "weight")

    def __init__(self, sliced: Sliced, x: Tensor) -> None:
        problem, tensor = sliced.problem, sliced.backend.tensor
        y = tensor(problem.y).to(torch.int64)
        self.rows = x.movedim(sliced.layout.axes[0], -1).reshape(sliced.layout.n_rows, sliced.layout.n_classes)
        self.mine, self.at = y >= 0, y.clamp(min=0)
        ones = torch.ones(len(y), dtype=wide_type(x), device=x.device)
        weight = ones if problem.w is None or not self.rows.shape[1] else tensor(problem.w)[self.at]
        self.weight = torch.where(self.mine, weight, 0.0)

    def numbers(self) -> Tensor:
        """Return ``−w_y·log p_y``, w_y and 1 of each row whose target is the slice's, else zeros: ``(N, 3)``."""
        entries = torch.zeros_like(self.weight)
        if self.rows.shape[1]:
            entries = self.rows.gather(1, self.at[:, None])[:, 0].to(self.weight.dtype)
        losses = torch.where(self.weight == 0, 0.0, -self.weight * entries)
        return torch.stack([losses, self.weight, self.mine.to(losses.dtype)], dim=1)


class _Picked(torch.autograd.Function):
    """The reduced loss of a slice's log-probabilities, whose rows are merged already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sliced: Sliced, losses: Tensor) -> Tensor:
        """Return the reduced loss of one a row."""
        ctx.sliced = sliced
        ctx.save_for_backward(x)
        backend, kind = sliced.backend, torch.float64 if x.dtype == torch.float64 else torch.float32
        kind = backend.array(torch.empty(0, dtype=kind)).dtype
        value: Tensor = backend.reduce(sliced.problem, sliced.layout, backend.array(losses), kind)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        """Return the gradient, which is 0 for all classes but the target's."""
        (x,), sliced = ctx.saved_tensors, ctx.sliced
        targets = _Targets(sliced, x)
        found = torch.zeros_like(targets.rows)
        if found.shape[1]:
            weight = sliced.backend.tensor(sliced.problem.s) * targets.weight
            slope = weight * upstream.detach().to(weight.dtype).reshape(-1) / sliced.problem.divisor
            slope = torch.where(weight == 0, 0.0, -slope).to(found.dtype)
            found.scatter_(1, targets.at[:, None], slope[:, None])
        axis = sliced.layout.axes[0]
        shape = [*x.shape[:axis], *x.shape[axis + 1 :], x.shape[axis]]
        return found.reshape(shape).movedim(-1, axis), None, None


def loss(x: Tensor, sliced: Sliced) -> Tensor:
    """Return the negative log-likelihood of hard targets under a slice's log-probabilities."""
    parts = sliced.exchange.gather(_Targets(sliced, x.detach()).numbers(), None)
    losses, weights, owners = parts.sum(0).unbind(1)  # at most one rank's numbers of a row are not 0
    if sliced.problem.w is not None:
        sliced.divide_by(sliced.backend.array(weights))
    s = sliced.backend.tensor(sliced.problem.s)
    losses = torch.where(weights == 0, 0.0, s * losses)
    losses = torch.where((owners == 0) & (s != 0), torch.nan, torch.where(s == 0, 0.0, losses))
    value: Tensor = _Picked.apply(x, sliced, losses)
    return value
