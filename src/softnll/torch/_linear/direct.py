"""The linear loss of plain CPU tensors with few logits: one product of torch's, then the short path of the loss.

The logits of a small batch fit the cache: chunks of rows, and the plan of them, would take longer than all of the loss.
``reduction="none"`` is not served: rows without an upstream gradient take no part in the products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear

from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._losses import direct

__all__ = ["linear_cross_entropy", "serves"]

_MOST = 1 << 16  # logits


def serves(
    x: Any,
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    temperature: Any,
    ignore_index: Any,
    *others: Any,
) -> bool:
    """Return whether the arguments are plain and the others None, there are few logits, and each row takes part."""
    if not (
        all(each is None for each in others)
        and not isinstance(temperature, Tensor)
        and (ignore_index is None or (type(ignore_index) is int and ignore_index < 0))
        and type(linear_weight) in (Tensor, Parameter)
        and linear_weight.dim() == 2
        and direct.serves(x, target, None)
        and 0 < x.shape[0] * linear_weight.shape[0] <= _MOST
        and x.shape[1] == linear_weight.shape[1] > 0
        and x.dtype is linear_weight.dtype
        and _is_vector(linear_bias, linear_weight)
        and not torch.is_autocast_enabled("cpu")
        and linear_weight.device == x.device
    ):
        return False
    classes = target.numpy()
    return bool(classes.min() >= 0 and classes.max() < linear_weight.shape[0])


def _is_vector(linear_bias: Any, linear_weight: Tensor) -> bool:
    """Return whether there is no bias, or one of the weight's type and number of classes."""
    return linear_bias is None or (
        type(linear_bias) in (Tensor, Parameter)
        and linear_bias.shape == linear_weight.shape[:1]
        and linear_bias.dtype is linear_weight.dtype
        and linear_bias.device == linear_weight.device
    )


def linear_cross_entropy(
    x: Tensor, linear_weight: Tensor, target: Any, linear_bias: Tensor | None, check: Any, **scalars: Any
) -> Tensor:
    """Return the loss, which autograd can differentiate."""
    settings = LossSettings.of(*with_defaults(ignore_index=-100, **scalars), 1, check)
    return direct.cross_entropy(LossInputs(linear(x, linear_weight, linear_bias), target), settings)
