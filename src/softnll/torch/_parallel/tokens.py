"""Token statistics of a sliced linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softnll._core import slices
from softnll._core.arithmetic import arithmetic_of
from softnll.torch._base.arguments import LinearInputs, LinearSettings
from softnll.torch._parallel import linear
from softnll.torch._parallel.sequence import Parts
from softnll.torch._parallel.sliced import Sliced
from softnll.torch._tokens.compute import TokenStats


class _Stats(torch.autograd.Function):
    """The statistics of rows that are merged already."""

    @staticmethod
    def forward(
        ctx: Any, sliced: Sliced, settings: LinearSettings, parts: Parts | None, _: Tensor | None, *tensors: Any
    ) -> tuple[Tensor, ...]:
        """Return log_prob, entropy, argmax and lse."""
        ctx.sliced, ctx.settings, ctx.parts = sliced, settings, parts
        inputs = LinearInputs(*tensors)
        ctx.save_for_backward(*inputs)
        whole, s = sliced.whole, sliced.problem.s
        xp, backend = arithmetic_of(whole.m).xp, sliced.backend
        absent = s == 0

        def result(values: Any, fill: float, dtype: torch.dtype) -> Tensor:
            found: Tensor = backend.tensor(xp.where(absent, fill, values)).reshape(sliced.layout.row_shape).to(dtype)
            return found

        argmax = result(whole.argmax, -1.0, torch.int64)
        ctx.mark_non_differentiable(argmax)
        kind = inputs.loss_type
        return result(-whole.nll, 0.0, kind), result(whole.entropy, 0.0, kind), argmax, result(whole.lse, 0.0, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_log_prob: Tensor, to_entropy: Tensor, _: Any, to_lse: Tensor) -> tuple[Any, ...]:
        """Return the gradients with respect to the part, features, weight and bias."""
        sliced, inputs = ctx.sliced, LinearInputs(*ctx.saved_tensors)
        array = sliced.backend.array
        upstream = [array(each.detach().double().reshape(-1)) for each in (to_log_prob, to_entropy, to_lse)]

        def differentiate(rows: Any, part: Any) -> None:
            sliced.write(
                part,
                rows,
                part.x,
                lambda piece, whole, at: slices.token_gradient(
                    piece, sliced.n_classes, whole, tuple(each[at] for each in upstream)
                ),
            )

        found = linear.backward(sliced, inputs, ctx.settings, linear.needs(ctx)[1], differentiate, ctx.parts)
        return *linear.placed(ctx, found), None, None, None, None, None


def token_stats(
    inputs: LinearInputs, settings: LinearSettings, sliced: Sliced, parts: Parts | None = None
) -> TokenStats:
    """Return the statistics of a sliced layer's tokens."""
    linear.forward(sliced, inputs, settings)
    own = None if parts is None else parts.own
    return TokenStats(*_Stats.apply(sliced, settings, parts, own, *inputs))
