"""The public token_stats: statistics of a language model's predictions, without storing the logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from softnll.torch._base.errors import InputTypeError
from softnll.torch._base.scripting import scriptable
from softnll.torch._base.sharded import SERVES, is_sharded
from softnll.torch._linear.api import computed
from softnll.torch._linear.inputs import check_layer, prepare
from softnll.torch._tokens import autograd, compute, ops
from softnll.torch._tokens.compute import TokenStats

__all__ = ["TokenStats", "token_stats"]


@scriptable
def token_stats(
    input: Tensor,  # noqa: A002 - torch's name
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int | None = None,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    max_bytes: int | None = None,
    check: bool | None = None,
) -> TokenStats:
    """Return log-probability, entropy, argmax and logsumexp of each token, in one pass over chunks of logits.

    Of the effective logits ``u = softcap·tanh(z/softcap)/temperature``, ``z = input @ linear_weight.T + linear_bias``,
    with the largest entry m and the rest r: ``log_prob = u_y − m − log1p(r)``,
    ``entropy = log1p(r) + Σ exp(u − m)·(m − u) / (1 + r)``, ``lse = m + log1p(r)``. They are differentiable, to any
    order. A backward computes the logits again, unless ``max_bytes`` has room for all: then the forward keeps them.

    Parameters
    ----------
    input, linear_weight, linear_bias, softcap, temperature, max_bytes
        As in :func:`linear_cross_entropy`.
    target
        Integers in [0, C) of shape ``(...)``: the tokens whose log-probabilities are returned.
    ignore_index
        Rows with this target are not computed: their values are 0, their argmax is −1, their gradient is 0. None means
        −100.
    check
        As in :func:`cross_entropy`.

    Returns
    -------
    TokenStats
        ``log_prob``, ``entropy`` and ``lse`` in nats, float64 if any of input, linear_weight and linear_bias is, else
        float32; ``argmax`` int64.

    Raises
    ------
    TypeError, RuntimeError, ValueError, IndexError, NotImplementedError
        As in :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> features, head = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> stats = token_stats(features, head, torch.tensor([1]))
    >>> stats.log_prob, stats.entropy, stats.argmax
    (tensor([-1.4076]), tensor([0.8324]), tensor([2]))
    """
    tensors = (input, linear_weight, target, linear_bias, temperature)
    keywords: dict[str, Any] = {
        "linear_bias": linear_bias,
        "ignore_index": ignore_index,
        "softcap": softcap,
        "temperature": temperature,
        "max_bytes": max_bytes,
        "check": check,
    }
    if has_torch_function(tensors):
        return handle_torch_function(token_stats, tensors, input, linear_weight, target, **keywords)
    if is_sharded(linear_weight) or is_sharded(input):
        return SERVES["token_stats"](token_stats, input, linear_weight, target, **keywords)
    check_layer(input, linear_weight, linear_bias)
    if not isinstance(target, Tensor):
        raise TypeError(f"target is a {type(target).__name__}; allowed: a tensor of integers")
    inputs, values = prepare(input, linear_weight, target, reduction="none", **keywords)
    if target.is_floating_point():
        raise InputTypeError(
            f"target has dtype {target.dtype}; allowed: integers, of the input's shape without features"
        )
    return TokenStats(*computed(ops.token_stats, autograd.token_stats, compute.token_stats, inputs, values))
