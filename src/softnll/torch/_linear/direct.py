"""The linear loss of plain CPU tensors with few logits: one product of torch's, then the short path of the loss.

The logits of a small batch fit the cache: chunks of rows, and the plan of them, would take longer than all of the loss.
Rows that take no part are in the products too, where they count as 0: that holds only where all logits are finite.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear

from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._losses import direct

_MOST = 1 << 16  # logits


def serves(
    x: Any,
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    weight: Any,
    temperature: Any,
    ignore_index: Any,
    *others: Any,
) -> bool:
    """Return whether the arguments are plain, the others None, and there are few logits."""
    return (
        all(each is None for each in others)
        and not isinstance(temperature, Tensor)
        and type(linear_weight) in (Tensor, Parameter)
        and linear_weight.dim() == 2
        and direct.plain_call(x)
        and x.dim() == 2
        and 0 < x.shape[0] * linear_weight.shape[0] <= _MOST
        and x.shape[1] == linear_weight.shape[1] > 0
        and x.dtype is linear_weight.dtype
        and x.dtype in direct.WIDE  # others are multiplied in float32
        and direct.fits(target, weight, (x.shape[0], linear_weight.shape[0]), x.dtype, _index(ignore_index))
        and (ignore_index is None or target.dtype is torch.int64)  # soft targets take none
        and _is_vector(linear_bias, linear_weight)
        and not torch.is_autocast_enabled("cpu")
        and linear_weight.device == x.device
    )


def _is_vector(linear_bias: Any, linear_weight: Tensor) -> bool:
    """Return whether there is no bias, or one of the weight's type and number of classes."""
    return linear_bias is None or (
        type(linear_bias) in (Tensor, Parameter)
        and linear_bias.shape == linear_weight.shape[:1]
        and linear_bias.dtype is linear_weight.dtype
        and linear_bias.device == linear_weight.device
    )


def _index(ignore_index: Any) -> Any:
    """Return the target that is ignored; None means the default."""
    return -100 if ignore_index is None else ignore_index


def linear_cross_entropy(
    given: tuple[Any, ...], ignore_index: int | None, check: Any, scalars: dict[str, Any]
) -> Tensor | None:
    """Return the loss of the first five arguments of ``serves``, which autograd can differentiate.

    Return None where a logit is not finite.
    """
    x, linear_weight, target, linear_bias, weight = given
    settings = LossSettings.of(*with_defaults(ignore_index=_index(ignore_index), **scalars), 1, check)
    logits = linear(x, linear_weight, linear_bias)
    if not math.isfinite(logits.detach().sum().item()):
        return None
    return direct.cross_entropy(LossInputs(logits, target, weight), settings)
