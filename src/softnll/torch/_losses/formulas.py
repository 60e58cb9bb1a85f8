"""The loss of logits as a differentiable expression of torch functions, for derivatives that the kernels do not have.

The kernels compute the loss and its gradient. Second derivatives, derivatives with respect to soft targets and those
along tangents come from this expression in float64, whose log_softmax and logsumexp have derivatives of every order.
The expression does not branch on values, so that vmap can map over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.options import CrossEntropy
from softnll._core.targets import counted_weights
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.checks import wide_type
from softnll.torch._base.inputs import lacks_classes
from softnll.torch._losses.normalise import LogSoftmax, LogSumExp


class Normalisers(NamedTuple):
    """What an expression of the loss is made of.

    Attributes
    ----------
    log_softmax, logsumexp
        Functions of logits and a dimension.
    product
        ``⟨t, log p⟩`` of each row: a function of t, log p and the class dimension.
    """

    log_softmax: Callable[[Tensor, int], Tensor]
    logsumexp: Callable[[Tensor, int], Tensor]
    product: Callable[[Tensor, Tensor, int], Tensor]


DIFFERENTIABLE = Normalisers(LogSoftmax.apply, LogSumExp.apply, lambda t, log_p, dim: (t * log_p).sum(dim))


def pullback(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """Return the vector-Jacobian product of a function at its inputs, as a function of the upstream gradient."""
    return torch.func.vjp(function, *inputs)[1]


def push(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
    """Return the derivative of a function along tangents, computed by reverse mode twice.

    Forward mode here would be nested in that of the caller, which torch does not allow. A vector-Jacobian product is
    linear in the upstream gradient, so that the vector-Jacobian product of it is the derivative along a tangent.
    """
    value, pull = torch.func.vjp(function, *inputs)[:2]
    return pullback(pull, torch.zeros_like(value))(tangents)[0]


def row_weights(inputs: LossInputs, settings: LossSettings, batches: int = 0) -> tuple[Tensor, Tensor]:
    """Return the weight of each row, 0 where it is ignored, and the mean's denominator D, in float64.

    The first ``batches`` dimensions are those of batches, each member of which has its own D.
    """
    target = inputs.target
    wide = wide_type(target)
    soft = target.is_floating_point()
    s = torch.ones_like(target.select(settings.dim, 0) if soft else target, dtype=wide)
    if inputs.sample_weight is not None:
        s = s * inputs.sample_weight
    if soft:
        counted = s
    else:
        s = torch.where(target == settings.objective.ignore_index, 0.0, s)
        w = None if inputs.weight is None else inputs.weight.to(wide)
        counted = counted_weights(torch, target, w, s, s == 0)
    rows = tuple(range(batches, s.dim()))
    return s, counted.sum(rows) if rows else counted


def effective(x: Tensor, objective: CrossEntropy, temperatures: Tensor | None) -> Tensor:
    """Return the effective logits ``u = softcap·tanh(x/softcap)/temperature``; temperatures broadcast to x."""
    u = x if objective.softcap is None else objective.softcap * torch.tanh(x / objective.softcap)
    return u / (objective.temperature if temperatures is None else temperatures.to(u.dtype))


def loss(inputs: LossInputs, settings: LossSettings, normalisers: Normalisers = DIFFERENTIABLE) -> Tensor:
    """Return the reduced loss as an expression of logits and soft targets, in the widest type.

    Of that with the normalisers of derivatives only the derivatives are used. Its value may be NaN where that of the
    kernels is not: 0·∞, for a target of 0 at a class of logit −∞.
    """
    objective, dim = settings.objective, settings.dim
    x, target = inputs.input, inputs.target
    wide = wide_type(x)
    shape = [1] * x.dim()
    shape[dim] = C = x.shape[dim]
    s, D = row_weights(inputs, settings)
    if target.is_floating_point():
        t = _measure(target.to(wide), inputs.weight, objective, shape, C)
        valid = torch.ones_like(s, dtype=torch.bool)
        broken = ~torch.isfinite(x.detach().amax(dim)) if not lacks_classes(x, dim) else valid
        without_part = (s == 0) | (broken & (t == 0).all(dim))
    else:
        classes = torch.arange(C, device=x.device).reshape(shape)
        t = _measure((target.unsqueeze(dim) == classes).to(wide), inputs.weight, objective, shape, C)
        valid = ((target >= 0) & (target < C)) | (s == 0)
        without_part = (s == 0) | ((t == 0).all(dim) & valid)
    x = torch.where(without_part.unsqueeze(dim), 0.0, x.to(wide))  # a row that takes no part may hold NaN or inf
    tau = None if inputs.temperatures is None else inputs.temperatures.unsqueeze(dim)
    u = effective(x, objective, tau)
    rows = -normalisers.product(t, normalisers.log_softmax(u, dim), dim)
    if objective.z_loss > 0:
        rows = rows + objective.z_loss * t.sum(dim) * normalisers.logsumexp(u, dim).square()
    rows = torch.where(valid, torch.where(without_part, 0.0, s * rows), torch.nan)
    if objective.reduction == "none":
        return rows
    return mean(rows.sum(), D) if objective.reduction == "mean" else rows.sum()


def mean(total: Tensor, D: Tensor) -> Tensor:
    """Return total/D; the mean of no rows is NaN, and all its derivatives are 0."""
    return torch.where(D != 0, share(total, D), torch.nan)


def share(value: Tensor, D: Tensor) -> Tensor:
    """Return value/D, as derivatives of the mean have it: 0 where there are no rows."""
    return torch.where(D != 0, value / torch.where(D != 0, D, 1.0), 0.0)


def _measure(q: Tensor, weight: Tensor | None, objective: CrossEntropy, shape: list[int], n_classes: int) -> Tensor:
    """Return the target measure t = w·[(1 − ε)·q + ε/C] of soft or one-hot targets q."""
    epsilon = objective.label_smoothing
    t = (1 - epsilon) * q + epsilon / n_classes if epsilon > 0 else q
    return t if weight is None else t * weight.to(q.dtype).reshape(shape)


def gradient(upstream: Tensor, inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the gradient with respect to the logits: an expression of upstream gradient, logits and soft targets."""
    pull = pullback(lambda x: loss(inputs._replace(input=x), settings), inputs.input)
    return pull(upstream.to(wide_type(upstream)))[0]


def target_gradient(upstream: Tensor, inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the gradient with respect to soft targets: an expression of upstream gradient and logits."""
    pull = pullback(lambda q: loss(inputs._replace(target=q), settings), inputs.target)
    return pull(upstream.to(wide_type(upstream)))[0]
