"""The tokens' stats as operators of torch's library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.torch import token_autograd, token_compute
from softnll.torch.autograd import refuse_constants
from softnll.torch.errors import raise_as_torch
from softnll.torch.function import refuse_tangents
from softnll.torch.linear_compute import LinearLoss
from softnll.torch.linear_inputs import NAMES, Inputs, Options

__all__ = ["token_stats"]

_ARGUMENTS = (
    "Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target, Tensor? temperature, float? softcap, "
    "float temperature_number, int ignore_index, bool? check, int? max_bytes"
)


def _given(
    input: Tensor,  # noqa: A002 - torch's name
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    temperature: Tensor | None,
    softcap: float | None,
    number: float,
    ignore_index: int,
    check: bool | None,
    max_bytes: int | None,
) -> tuple[Any, ...]:
    """Return an operator's arguments as everything else takes them."""
    what = LinearLoss.of(0.0, 0.0, softcap, number, ignore_index, "none", check, max_bytes, None, None)
    return input, linear_weight, linear_bias, target, None, None, temperature, None, what


def token_stats(inputs: Inputs, options: Options) -> token_compute.TokenStats:
    """Return the stats, from an operator in a graph."""
    _, _, softcap, number, ignored, _, check, max_bytes, *_ = options
    results = _token_stats(*inputs[:4], inputs[6], softcap, number, ignored, check, max_bytes)
    return token_compute.TokenStats(*results)


@torch.library.custom_op(
    "softnll::token_stats", mutates_args=(), schema=f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)"
)
def _token_stats(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the stats."""
    refuse_tangents(*arguments[:5])
    try:
        return tuple(token_compute.token_stats(*_given(*arguments)))  # type: ignore[return-value]
    except (TypeError, ValueError) as error:
        raise_as_torch(error, NAMES)


@torch.library.custom_op(
    "softnll::token_stats_backward",
    mutates_args=(),
    schema=f"(Tensor? to_log_prob, Tensor? to_entropy, Tensor? to_lse, {_ARGUMENTS}, bool[3] wanted) "
    "-> (Tensor, Tensor, Tensor)",
)
def _backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients that are wanted; else empty tensors."""
    *given, wanted = arguments
    at = tuple(i for i in range(3) if wanted[i])
    values = iter(token_autograd.pullback(_given(*given[3:]), tuple(given[:3]), at))
    return tuple(next(values).contiguous() if each else given[3].new_empty(0) for each in wanted)  # type: ignore[return-value]


@_token_stats.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = arguments[:3]
    wide = any(each is not None and each.dtype == torch.float64 for each in inputs)
    dtype = torch.float64 if wide else torch.float32
    return tuple(inputs[0].new_empty(inputs[0].shape[:-1], dtype=torch.int64 if i == 2 else dtype) for i in range(4))


@_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    inputs, wanted = arguments[3:6], arguments[-1]
    return tuple(
        torch.empty_like(each, memory_format=torch.contiguous_format) if asked else inputs[0].new_empty(0)
        for each, asked in zip(inputs, wanted, strict=True)
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward reads."""
    refuse_constants((None, None, ctx.needs_input_grad[4]))
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.options = inputs[5:]
    ctx.save_for_backward(*inputs[:5])


def _gradients(ctx: Any, to_log_prob: Any, to_entropy: Any, _: Any, to_lse: Any) -> tuple[Any, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    if not any(wanted) or all(each is None for each in (to_log_prob, to_entropy, to_lse)):
        return (None,) * 10
    made = _backward(to_log_prob, to_entropy, to_lse, *ctx.saved_tensors, *ctx.options, wanted)
    return *(each if asked else None for each, asked in zip(made, wanted, strict=True)), *[None] * 7


_token_stats.register_autograd(_gradients, setup_context=_keep)
