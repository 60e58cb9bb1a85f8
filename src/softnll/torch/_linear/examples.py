"""Linear losses and gradients of each example of torch.vmap, all examples of one layer in the same chunks of logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softnll._core.options import unreduced
from softnll._core.plan import Wanted
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossInputs, LossSettings
from softnll.torch._base.autograd_base import batched
from softnll.torch._base.checks import wide_type
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._linear import compute
from softnll.torch._losses import formulas

_SHARED = ("linear_weight", "linear_bias", "weight")


def in_front(inputs: LinearInputs, dims: LinearInputs, size: int) -> LinearInputs | None:
    """Return the inputs with vmap's batch dimension first; None if vmap maps over the layer or the class weights."""
    if any(getattr(dims, name) is not None for name in _SHARED):
        return None
    moved = {
        name: batched(each, getattr(dims, name), size)
        for name, each in zip(inputs._fields, inputs, strict=True)
        if each is not None and name not in _SHARED
    }
    return inputs._replace(**moved)


def by_example(settings: LinearSettings) -> LinearSettings:
    """Return the settings for inputs of several examples, with ``reduction="none"``."""
    loss = settings.loss
    return LinearSettings(
        LossSettings(unreduced(loss.objective), loss.dim, loss.check),
        settings.max_bytes,
        settings.at_most,
        settings.compact,
    )


def _denominator(inputs: LinearInputs, settings: LinearSettings) -> Tensor:
    """Return the mean's denominator of each example."""
    given = LossInputs(inputs.input, inputs.target, inputs.weight, inputs.sample_weight)
    _, D = formulas.row_weights(given, LossSettings(settings.loss.objective, inputs.target.dim() - 1), 1)
    return D


def reduced(rows: Tensor, inputs: LinearInputs, settings: LinearSettings) -> Tensor:
    """Return the reduced loss of each example; ``settings`` are those of an example."""
    reduction = settings.loss.objective.reduction
    if reduction == "none":
        return rows
    value = rows.to(wide_type(rows)).reshape(len(rows), -1).sum(1)
    if reduction == "mean":
        value = formulas.mean(value, _denominator(inputs, settings))
    return value.to(rows.dtype)


def upstream_of_rows(upstream: Tensor, inputs: LinearInputs, settings: LinearSettings) -> Tensor:
    """Return the upstream gradients of the rows' losses from those of the examples' reduced losses."""
    reduction, shape = settings.loss.objective.reduction, inputs.input.shape[:-1]
    if reduction == "none":
        return upstream
    upstream = upstream.to(wide_type(upstream))
    if reduction == "mean":
        upstream = formulas.share(upstream, _denominator(inputs, settings))
    return upstream.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)


@uncompiled
def layer_gradients(
    upstream: Tensor, inputs: LinearInputs, settings: LinearSettings, names: Sequence[str]
) -> dict[str, Tensor]:
    """Return the gradients of weight and bias of each example, stacked, by name.

    ``upstream`` are those of the rows. The logits' gradient of a chunk of rows is multiplied example by example.
    """
    W, examples = inputs.linear_weight, len(inputs.input)
    settings = settings.unchecked()
    settings.compact = False  # each example keeps all of its rows
    loss = compute.linear_loss(inputs, settings, upstream)
    backend: Any = loss.backend
    each = max(1, loss.layout.n_rows // max(1, examples))  # rows of an example
    plan = loss.plan(settings.max_bytes, Wanted(False, True, True), at_most=settings.at_most)
    dtype = backend.tensor(backend.empty((0,), loss.sum_dtype, loss.weight)).dtype
    found: dict[str, Tensor] = {}
    if "linear_weight" in names:
        found["linear_weight"] = torch.zeros(examples, *W.shape, dtype=dtype, device=W.device)
    if "linear_bias" in names:
        found["linear_bias"] = torch.zeros(examples, len(W), dtype=wide_type(W), device=W.device)
    scale = backend.gradient_scale(loss.problem, loss.upstream, loss.dtype, loss.weight)
    all_rows = loss.upstream if scale is None else loss.upstream * scale
    for rows, part, x in loss.chunks(plan):
        up = None if all_rows is None else all_rows[rows]
        backend.forward_backward(part, part.x, upstream=up)
        dz, f = backend.tensor(part.x).to(dtype), backend.tensor(x).to(dtype)
        _add(found, dz, f, rows.start, each)
    if scale is not None:
        found = {name: value.div_(scale) for name, value in found.items()}
    return {name: value.to(getattr(inputs, name).dtype) for name, value in found.items()}


def _add(found: dict[str, Tensor], dz: Tensor, x: Tensor, start: int, each: int) -> None:
    """Add the products of some rows, of which the first is number ``start``, to the gradients of their examples."""
    stop, at = start + len(dz), start
    while at < stop:
        example, whole = at // each, (stop - at) // each if at % each == 0 else 0
        n = whole * each or min(stop, (example + 1) * each) - at
        of_rows, features = dz[at - start : at - start + n], x[at - start : at - start + n]
        k = max(1, whole)
        at += n
        if "linear_bias" in found:
            found["linear_bias"][example : example + k] += of_rows.reshape(k, n // k, -1).sum(1)
        if "linear_weight" not in found:
            continue
        total = found["linear_weight"][example : example + k]
        if whole and each == 1:
            torch.mul(of_rows.unsqueeze(2), features.unsqueeze(1), out=total)
        else:
            left = of_rows.reshape(k, n // k, -1).transpose(1, 2)
            total.baddbmm_(left, features.reshape(k, n // k, -1))
