"""The losses of a linear layer as expressions of torch's own operations, which compute all logits.

They are for graphs that hold no operators of softnll: those of torch.jit.trace, of torch.export after its
decompositions, and of ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softnll._core.options import CrossEntropy
from softnll._core.targets import rows_without_part
from softnll.torch._base.arguments import LinearInputs, LossInputs, LossSettings
from softnll.torch._base.sparse import densify
from softnll.torch._losses import expressions
from softnll.torch._losses.formulas import effective


def _logits(inputs: LinearInputs, ignore_index: int) -> Tensor:
    """Return the layer's logits as ``(N, C)`` rows; half types are multiplied in float32."""
    features, weight = (each.to(inputs.loss_type) for each in (inputs.input, inputs.linear_weight))
    ignored = None if inputs.target.is_floating_point() else inputs.target == ignore_index
    without_part = rows_without_part(torch, None, None, inputs.sample_weight, ignored, 0.0)
    if without_part is not None:
        features = torch.where(without_part.unsqueeze(-1), 0.0, features)  # it may be NaN there
    bias = None if inputs.linear_bias is None else inputs.linear_bias.to(inputs.loss_type)
    return torch.nn.functional.linear(features, weight, bias).reshape(-1, weight.shape[0])


def _flat(each: Tensor | None) -> Tensor | None:
    """Return one number a row as a vector."""
    return None if each is None else each.reshape(-1)


def cross_entropy(inputs: LinearInputs, settings: LossSettings) -> Tensor:
    """Return the loss of the layer's logits."""
    x, target = _logits(inputs, settings.objective.ignore_index), inputs.target
    if inputs.indices is not None:
        classes = inputs.indices.shape[-1]
        target = densify(inputs.indices.reshape(-1, classes), target.reshape(-1, classes), x.shape[1])
    else:
        target = target.reshape(x.shape) if target.is_floating_point() else target.reshape(-1)
    rows = (_flat(each) for each in (inputs.sample_weight, inputs.temperatures))
    value = expressions.cross_entropy(LossInputs(x, target, inputs.weight, *rows), settings)
    return value.reshape(inputs.input.shape[:-1]) if settings.objective.reduction == "none" else value


def token_stats(inputs: LinearInputs, objective: CrossEntropy) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probability, entropy, argmax and logsumexp of each token; a row of the ignored target is 0, 0, −1, 0.

    A target out of range makes its row's log-probability NaN.
    """
    tau = _flat(inputs.temperatures)
    u = effective(_logits(inputs, objective.ignore_index), objective, None if tau is None else tau.unsqueeze(1))
    y = inputs.target.reshape(-1)
    ignored, valid = y == objective.ignore_index, (y >= 0) & (y < u.shape[1])
    log_p = expressions.log_softmax(u, 1)
    picked = log_p.gather(1, torch.where(valid, y, 0).unsqueeze(1)).squeeze(1)
    entropy = -(log_p.exp() * torch.where(log_p == -torch.inf, 0.0, log_p)).sum(1)
    lse = expressions.logsumexp(u, 1)
    values = [torch.where(ignored, 0.0, each) for each in (torch.where(valid, picked, torch.nan), entropy, lse)]
    largest = torch.where(ignored, -1, u.argmax(1))
    log_prob, entropy, lse = (each.to(inputs.loss_type).reshape(inputs.target.shape) for each in values)
    return log_prob, entropy, largest.reshape(inputs.target.shape), lse
