"""The loss of a sliced linear layer: chunks of the slice's logits, merged once, and gradients in a second pass.

The gradient of the features is a sum over the ranks: the backward sums it once, in float32 or wider.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softnll._core.chunked import LinearLoss, Outputs
from softnll._core.plan import NO_GRADIENTS, Wanted
from softnll.torch._base.arguments import LinearInputs, LinearSettings, take
from softnll.torch._linear.compute import forward_bytes
from softnll.torch._parallel.sequence import Parts
from softnll.torch._parallel.sliced import Sliced


def _linear_loss(sliced: Sliced, inputs: LinearInputs, settings: LinearSettings) -> LinearLoss:
    """Return the linear loss of the slice."""
    backend, b = sliced.backend, inputs.linear_bias
    return LinearLoss.of(
        backend.features(inputs.input),
        backend.array(inputs.linear_weight),
        None if b is None else backend.array(b),
        sliced.problem,
        sliced.layout,
        backend,
        compact=backend.reads_sizes(inputs, settings),
    )


def forward(sliced: Sliced, inputs: LinearInputs, settings: LinearSettings) -> None:
    """Compute the numbers of all rows, chunk by chunk, and merge them with those of the other slices."""
    numbers = sliced.blank()
    if sliced.layout.n_classes and sliced.layout.n_rows:
        given = _linear_loss(sliced, inputs, settings)
        plan = given.plan(forward_bytes(given, inputs, settings), NO_GRADIENTS, at_most=settings.at_most)
        for rows, part, _ in given.chunks(plan):
            numbers[_index(rows)] = sliced.summarise(part)
    sliced.merge(numbers)


def backward(
    sliced: Sliced,
    inputs: LinearInputs,
    settings: LinearSettings,
    wanted: Wanted,
    differentiate: Any,
    parts: Parts | None = None,
) -> list[Tensor | None]:
    """Return the gradients of the layer; that of the features, or of this rank's part, is summed over the ranks.

    ``differentiate(rows, part, scale)`` replaces the logits of a chunk by their gradient.
    """
    like = inputs.input
    wide = torch.float64 if torch.float64 in (like.dtype, inputs.linear_weight.dtype) else torch.float32
    types = (wide, inputs.linear_weight.dtype, None if inputs.linear_bias is None else inputs.linear_bias.dtype)
    found = [
        torch.zeros(each.shape, dtype=dtype, device=each.device) if asked and each is not None else None
        for each, asked, dtype in zip(inputs.layer, wanted, types, strict=True)
    ]
    if sliced.layout.n_classes and sliced.layout.n_rows and any(wanted):
        given, array = _linear_loss(sliced, inputs, settings), sliced.backend.array
        plan = given.plan(settings.max_bytes, wanted, at_most=settings.at_most)
        given.pull(plan, Outputs(*(None if each is None else array(each) for each in found)), differentiate)
    if found[0] is not None:
        found[0] = (sliced.exchange.total if parts is None else parts.reduce)(found[0]).to(like.dtype)
    return found


def _index(rows: Any) -> Any:
    """Return the rows of a chunk as an index of tensors."""
    return rows if isinstance(rows, slice | Tensor) else torch.from_numpy(rows)


class _SlicedLinearLoss(torch.autograd.Function):
    """The reduced loss of a sliced layer, whose rows are merged already."""

    @staticmethod
    def forward(
        ctx: Any, sliced: Sliced, settings: LinearSettings, parts: Parts | None, _: Tensor | None, *tensors: Any
    ) -> Tensor:
        """Return the loss; of features in parts, this rank's comes before the tensors, which have those of all."""
        ctx.sliced, ctx.settings, ctx.parts = sliced, settings, parts
        ctx.save_for_backward(*tensors)
        return sliced.loss()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        """Return the gradients with respect to the part, features, weight, bias and soft targets."""
        sliced, inputs = ctx.sliced, LinearInputs(*ctx.saved_tensors)
        needed, wanted = needs(ctx)

        def differentiate(rows: Any, part: Any) -> None:
            sliced.gradient(part, rows, part.x, upstream)

        found = backward(sliced, inputs, ctx.settings, wanted, differentiate, ctx.parts)
        d_target = None
        if needed.target:
            d_target = _target_gradient(sliced, inputs, ctx.settings, upstream)
        return *placed(ctx, found), d_target, None, None, None, None


def needs(ctx: Any) -> tuple[Any, Wanted]:
    """Return which tensors need a gradient, and which gradients of the layer are to be computed."""
    _, _, _, part, *flags = ctx.needs_input_grad
    needed = take(LinearInputs, flags)
    return needed, Wanted(needed.input or part, needed.linear_weight, needed.linear_bias)


def placed(ctx: Any, found: list[Tensor | None]) -> tuple[Any, ...]:
    """Return gradients of the layer in the places of sliced, settings, parts, part, features, weight and bias."""
    features, *others = found
    return (
        (None, None, None, None, features, *others)
        if ctx.parts is None
        else (None, None, None, features, None, *others)
    )


def _target_gradient(sliced: Sliced, inputs: LinearInputs, settings: LinearSettings, upstream: Tensor) -> Tensor:
    """Return the gradient with respect to the slice's soft targets."""
    if inputs.indices is not None:
        raise NotImplementedError("the gradient of sparse targets is not implemented for slices; pass dense ones")
    target = inputs.target
    found = torch.zeros((sliced.layout.n_rows, sliced.layout.n_classes), dtype=target.dtype, device=target.device)
    if found.numel():
        given = _linear_loss(sliced, inputs, settings)
        for rows, part, _ in given.chunks(given.plan(settings.max_bytes, at_most=settings.at_most)):
            piece = torch.empty(part.x.shape, dtype=target.dtype, device=target.device)
            sliced.target_gradient(part, rows, sliced.backend.array(piece), upstream)
            found[_index(rows)] = piece
    return sliced.of_target(found.reshape(sliced.layout.shape), target)


def loss(inputs: LinearInputs, settings: LinearSettings, sliced: Sliced, parts: Parts | None = None) -> Tensor:
    """Return the loss of a sliced layer, and of features in ``parts``, if given."""
    forward(sliced, inputs, settings)
    value: Tensor = _SlicedLinearLoss.apply(sliced, settings, parts, None if parts is None else parts.own, *inputs)
    return value
