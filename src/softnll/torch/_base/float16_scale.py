"""The power of two that the gradient of float16 logits is multiplied by, so that it does not underflow in float16.

A mean over a batch divides each entry by the size of the batch, which may leave only subnormal numbers. A gradient
scaler does not help: it multiplies the gradients of features and head, which are computed from the rounded gradient of
the logits. So the latter is computed 2ᵏ times as large, with the largest k for which no entry overflows, and the
products, which are float32, are divided by 2ᵏ.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softnll._core.problem import Problem
from softnll.torch._base.checks import wide_type

_LARGEST = 65504.0


def scale_of(problem: Problem, upstream: Tensor | None, masses: Tensor | None, like: Tensor) -> Tensor:
    """Return 2ᵏ for a Problem without logits, on the device of the head's weight ``like``.

    No entry of a row is larger than s·T·(1 + 2ζ·|lse|)/τ·upstream/D, with the mass T = Σ t·w; ``masses`` are those of
    soft targets, without the class weights.
    """
    objective, divisor = problem.objective, problem.divisor
    bound = torch.ones((), dtype=wide_type(like), device=like.device)
    for each in (problem.w, problem.s, upstream, masses):
        if each is not None:
            bound = bound * _largest(each)
    inverse: Any = 1 / objective.temperature if problem.tau is None else _largest(1 / problem.tau.to(bound.dtype))
    reach = _LARGEST if objective.softcap is None else min(objective.softcap, _LARGEST)
    bound = bound * inverse * (1 + 2 * objective.z_loss * (reach * inverse + math.log(like.shape[0]))) / divisor
    exponent = torch.where((bound > 0) & (bound < torch.inf), 15 - torch.frexp(bound)[1], 0)
    return torch.exp2(exponent.to(bound.dtype).clamp(-100, 100))  # float32 also holds the inverse


def _largest(each: Tensor) -> Tensor:
    """Return the largest absolute value of the finite numbers; rows with others are inf or NaN anyway."""
    return each.to(wide_type(each)).abs().nan_to_num(0.0, 0.0, 0.0).amax() if each.numel() else each.new_zeros(())
