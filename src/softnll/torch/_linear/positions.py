"""Linear losses of several positions, each of which has its own layer over the same features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softnll.torch._base.checks import denominator, near_one, wide_type
from softnll.torch._base.errors import InputTypeError, InputValueError
from softnll.torch._base.inputs import check_tensor, class_indices
from softnll.torch._base.sparse import SparseTargets
from softnll.torch._losses.formulas import mean


def over_positions(
    loss: Callable[..., Tensor],
    input: Any,  # noqa: A002 - torch's name
    linear_weight: Tensor,
    target: Any,
    **keywords: Any,
) -> Tensor:
    """Return the loss over all positions of ``(N, H)`` features and a weight ``(C, d1, …, dK, H)``.

    ``loss`` is ``linear_cross_entropy``, which is called once for each position, and the others are its arguments. The
    target is ``(N, d1, …, dK)``, or ``(N, C, d1, …, dK)`` if it is soft.
    """
    shape, reduction = tuple(linear_weight.shape[1:-1]), keywords["reduction"]
    n, soft = math.prod(shape), _check(input, linear_weight, target, keywords)
    target = class_indices(target)
    given = {name: keywords.pop(name) for name in ("linear_bias", "sample_weight", "temperature")}
    ignored = None if soft else target == (-100 if keywords["ignore_index"] is None else keywords["ignore_index"])
    if reduction == "mean":  # no product or sum of weights leaves the range
        keywords["reduction"] = "sum"
        given["sample_weight"] = near_one(given["sample_weight"], ignored)
        keywords["weight"] = keywords["weight"] if soft else near_one(keywords["weight"])

    def positions(each: Any, lead: int) -> Any:
        """Return an argument's part for each position; itself for each where it is a number or None."""
        whole = not isinstance(each, Tensor) or each.dim() == 0
        return [each] * n if whole else each.flatten(lead).unbind(lead)

    losses = [
        loss(input, W, y, linear_bias=b, sample_weight=s, temperature=tau, **keywords)
        for W, y, b, s, tau in zip(
            linear_weight.flatten(1, -2).unbind(1),
            positions(target, 2 if soft else 1),
            *(positions(each, 1) for each in given.values()),
            strict=True,
        )
    ]
    if reduction == "none":
        return torch.stack(losses, 1).reshape(input.shape[0], *shape)
    total = torch.stack(losses).sum()
    if reduction != "mean":
        return total
    y, rows = None if soft else target, input.shape[0] * n
    D = denominator(y, keywords["weight"], given["sample_weight"], ignored, rows)
    return mean(total, torch.as_tensor(D, dtype=wide_type(total), device=total.device)).to(total.dtype)


def _check(input: Any, linear_weight: Tensor, target: Any, keywords: dict[str, Any]) -> bool:  # noqa: A002
    """Check types and shapes; return whether the targets are soft."""
    C, *places, H = linear_weight.shape
    shape, known = tuple(places), f"with linear_weight {tuple(linear_weight.shape)}"
    if isinstance(target, SparseTargets):
        raise InputTypeError(f"target is SparseTargets; allowed {known}: a tensor")
    named = {"input": input, "target": target}
    named |= {name: keywords[name] for name in ("linear_bias", "sample_weight") if keywords[name] is not None}
    for name, each in named.items():
        check_tensor(name, each)
    if 0 in shape:
        raise InputValueError(f"linear_weight has shape {tuple(linear_weight.shape)}; allowed: at least one position")
    if input.dim() != 2:
        raise InputValueError(f"input has shape {tuple(input.shape)}; allowed {known}: (N, {H})")
    soft: bool = target.is_floating_point()
    N, tau = input.shape[0], keywords["temperature"]
    if isinstance(tau, Tensor) and tau.dim():
        named["temperature"] = tau
    wanted = {"target": (N, C, *shape) if soft else (N, *shape), "linear_bias": (C, *shape)}
    for name, each in named.items():
        right = wanted.get(name, (N, *shape))
        if name != "input" and tuple(each.shape) != right:
            raise InputValueError(f"{name} has shape {tuple(each.shape)}; allowed: {right}")
    return soft
