"""The loss as one differentiable expression: what every derivative but the gradient is made of.

The kernels compute the loss and its gradient. Whatever else is asked for (derivatives of the gradient, with respect to
soft targets, along a tangent) is derived from this expression in float64, whose log_softmax and logsumexp have
derivatives of every order. Nothing here looks at values, so that vmap may go through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softnll.torch.compute import Loss
from softnll.torch.normalise import LogSoftmax, LogSumExp

__all__ = ["gradient", "loss", "pullback", "push", "row_weights", "target_gradient"]


def pullback(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """Return the function that takes a cotangent of a function's value to those of its inputs."""
    return torch.func.vjp(function, *inputs)[1]


def push(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
    """Return the derivative of a function along tangents, from reverse mode twice.

    Forward mode would be nested in the caller's, which torch does not allow; a pullback is linear, so that its own
    pullback is the derivative wanted.
    """
    value, pull = torch.func.vjp(function, *inputs)[:2]
    return pullback(pull, torch.zeros_like(value))(tangents)[0]


def row_weights(
    target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, what: Loss, batches: int = 0
) -> tuple[Tensor, Tensor]:
    """Return each row's weight, 0 where it is ignored, and the mean's denominator D, in float64.

    Each index of the first ``batches`` dimensions has a D of its own.
    """
    soft = target.is_floating_point()
    s = torch.ones_like(target.select(what.dim, 0) if soft else target, dtype=torch.float64)
    if sample_weight is not None:
        s = s * sample_weight
    if not soft:
        s = torch.where(target == what.objective.ignore_index, 0.0, s)
    counted = s
    if weight is not None and not soft:
        inside = (target >= 0) & (target < weight.shape[0])
        counted = s * torch.where(inside, weight.double()[torch.where(inside, target, 0).long()], 1.0)
    rows = tuple(range(batches, s.dim()))
    return s, counted.sum(rows) if rows else counted


def loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    temperature: Tensor | None,
    what: Loss,
) -> Tensor:
    """Return the reduced loss as an expression of logits and soft targets, for the sake of its derivatives.

    Its value may be NaN where the kernels' is not (0·∞ for a target of 0 at an impossible class); nobody asks for it.
    """
    objective, dim = what.objective, what.dim
    shape = [1] * x.dim()
    shape[dim] = C = x.shape[dim]
    s, D = row_weights(target, weight, sample_weight, what)
    if target.is_floating_point():
        t = _measure(target.double(), weight, what, shape)
        valid, silent = torch.ones_like(s, dtype=torch.bool), s == 0
    else:
        t = _measure(
            (target.unsqueeze(dim) == torch.arange(C, device=x.device).reshape(shape)).double(), weight, what, shape
        )
        valid = ((target >= 0) & (target < C)) | (s == 0)
        silent = (s == 0) | ((t.sum(dim) == 0) & valid)
    u = torch.where(silent.unsqueeze(dim), 0.0, x.double())  # a row that takes no part may hold anything
    if objective.softcap is not None:
        u = objective.softcap * torch.tanh(u / objective.softcap)
    u = u / (objective.temperature if temperature is None else temperature.double().unsqueeze(dim))
    rows = -(t * LogSoftmax.apply(u, dim)).sum(dim)
    if objective.z_loss > 0:
        rows = rows + objective.z_loss * t.sum(dim) * LogSumExp.apply(u, dim).square()
    rows = torch.where(valid, torch.where(silent, 0.0, s * rows), torch.nan)
    if objective.reduction == "none":
        return rows
    if objective.reduction == "sum":
        return rows.sum()
    return torch.where(D > 0, rows.sum() / torch.where(D > 0, D, 1.0), torch.nan)


def _measure(q: Tensor, weight: Tensor | None, what: Loss, shape: list[int]) -> Tensor:
    """Return the target measure t = w·[(1 − ε)·q + ε/C]."""
    epsilon = what.objective.label_smoothing
    t = (1 - epsilon) * q + epsilon / shape[what.dim] if epsilon > 0 else q
    return t if weight is None else t * weight.double().reshape(shape)


def gradient(upstream: Tensor, x: Tensor, target: Tensor, *others: Any) -> Tensor:
    """Return the gradient with respect to the logits, as an expression of upstream gradient, logits, soft targets."""
    return pullback(lambda each: loss(each, target, *others), x)(upstream.double())[0]


def target_gradient(upstream: Tensor, x: Tensor, target: Tensor, *others: Any) -> Tensor:
    """Return the gradient with respect to soft targets, as an expression of upstream gradient and logits."""
    return pullback(lambda q: loss(x, q, *others), target)(upstream.double())[0]
