"""What the gradient of float16 logits is multiplied by, so that what is rounded to float16 is no subnormal number.

A mean over a batch divides each entry by the batch's size, and a gradient scaler lifts the gradients of features and
head too late for the logits' own, which is rounded before. So it is made 2ᵏ times as large, with the largest k that no
entry leaves the range for, and the products, which are float32, are divided by that.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softnll.problem import Problem

__all__ = ["lift_of"]

_LARGEST = 65504.0


def lift_of(problem: Problem, upstream: Tensor | None, masses: Tensor | None, like: Tensor) -> Tensor:
    """Return 2ᵏ where ``like``, the head, lies, for a Problem without its logits; ``masses``: of soft targets' rows.

    No entry of a row is larger than s·T·(1 + 2ζ·|lse|)/τ·upstream/D, with the mass T = Σ t·w.
    """
    objective, divisor = problem.objective, problem.divisor
    bound = torch.ones((), dtype=torch.float64, device=like.device)
    for each in (problem.w, problem.s, upstream, masses):
        if each is not None:
            bound = bound * _largest(each)
    inverse: Any = 1 / objective.temperature if problem.tau is None else _largest(1 / problem.tau.double())
    reach = _LARGEST if objective.softcap is None else min(objective.softcap, _LARGEST)
    bound = bound * inverse * (1 + 2 * objective.z_loss * (reach * inverse + math.log(like.shape[0]))) / divisor
    exponent = torch.where((bound > 0) & (bound < torch.inf), 15 - torch.frexp(bound)[1], 0)
    return torch.exp2(exponent.double().clamp(-100, 100))  # float32 takes its inverse, too


def _largest(each: Tensor) -> Tensor:
    """Return the largest of finite numbers; others have rows of their own that are lost."""
    return each.double().abs().nan_to_num(0.0, 0.0, 0.0).amax() if each.numel() else each.new_zeros(())
