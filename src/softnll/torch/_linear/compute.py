"""Values and gradients of the loss of a linear layer, outside autograd, by the backend of the tensors' device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.chunked import Differentiate, LinearLoss, Observe, Outputs, check_shapes
from softnll._core.kept import KeptLogits
from softnll._core.layout import Layout
from softnll._core.plan import NO_GRADIENTS, Plan, Wanted
from softnll._core.problem import Problem
from softnll.torch._base.arguments import LinearInputs, LinearSettings
from softnll.torch._base.backend import backend_of
from softnll.torch._base.uncompiled import uncompiled

_MIB, _UNBOUNDED = 1 << 20, 1 << 62


class Gradients(NamedTuple):
    """Gradients with respect to the layer's tensors; None for one that is not computed."""

    input: Tensor | None = None
    linear_weight: Tensor | None = None
    linear_bias: Tensor | None = None


def linear_loss(inputs: LinearInputs, settings: LinearSettings, upstream: Tensor | None = None) -> LinearLoss:
    """Check the inputs and return their ``LinearLoss``, which multiplies its gradients by ``upstream`` (None: by 1)."""
    f, W, b = inputs.layer
    check_shapes(f, W, b)
    backend = backend_of(f)
    layout = Layout((*f.shape[:-1], W.shape[0]), (f.dim() - 1,))
    problem = backend.linear_problem(inputs, settings, layout)
    return LinearLoss.of(
        backend.features(f),
        backend.array(W),
        None if b is None else backend.array(b),
        problem,
        layout,
        backend,
        None if upstream is None else backend.upstream(upstream, problem),
        compact=backend.reads_sizes(inputs, settings),
    )


@dataclass(slots=True)
class ObservedSettings(LinearSettings):
    """The checked options of a linear loss whose forward also shows the logits of each chunk.

    Attributes
    ----------
    observer
        Gets the backend, and then what ``Observe`` gets.
    """

    observer: Callable[[Any, Any, Problem, Any], None] | None = None


def _observer(loss: LinearLoss, settings: LinearSettings) -> Observe | None:
    """Return the function that a forward shows its logits to; None where there is none."""
    if not isinstance(settings, ObservedSettings) or settings.observer is None:
        return None
    return partial(settings.observer, loss.backend)


def forward_bytes(loss: LinearLoss, inputs: LinearInputs, settings: LinearSettings) -> int:
    """Return the limit of the working memory of a forward: by default, with the gradients that its backward returns.

    The product for the logits of few rows is slow: 288 rows of 1024 features and 32 000 classes take 1.4 ms each, 512
    rows 1.0 ms.
    """
    if settings.max_bytes is not None:
        return settings.max_bytes
    return loss.default_bytes(Wanted(*(each is not None and each.requires_grad for each in inputs.layer)))


@uncompiled
def losses(inputs: LinearInputs, settings: LinearSettings) -> Tensor:
    """Return the loss of the layer's logits: a number, or one per row with ``reduction="none"``."""
    return losses_and_logits(NO_GRADIENTS, inputs, settings)[0]


@uncompiled
def losses_and_logits(
    wanted: Wanted, inputs: LinearInputs, settings: LinearSettings
) -> tuple[Tensor, KeptLogits | None]:
    """Return the loss, and the logits for a backward of the wanted gradients if ``max_bytes`` has room for them all."""
    loss = linear_loss(inputs, settings)
    plan = loss.plan(forward_bytes(loss, inputs, settings), at_most=settings.at_most)
    kept = loss.room_for_logits(plan, _plan(loss, inputs, settings, wanted, kept=False)) if any(wanted) else None
    value: Tensor = loss.losses(plan, observe=_observer(loss, settings), kept=kept)
    return value, kept


def kept_type(dtype: torch.dtype, kept: bool) -> torch.dtype:
    """Return the type of a gradient: a kept one of float16 inputs is float32, as it is multiplied and rounded later."""
    return torch.float32 if kept and dtype is torch.float16 else dtype


def _plan(loss: LinearLoss, inputs: LinearInputs, settings: LinearSettings, wanted: Wanted, kept: bool) -> Plan:
    """Return how the rows are cut into chunks."""
    itemsize = kept_type(inputs.linear_weight.dtype, kept).itemsize
    return loss.plan(settings.max_bytes, wanted, at_most=settings.at_most, weight_itemsize=itemsize)


def _empty(inputs: LinearInputs, wanted: Wanted, kept: bool) -> Gradients:
    """Return uninitialised gradients."""
    return Gradients(
        *(
            None
            if each is None or not asked
            else torch.empty_like(each, dtype=kept_type(each.dtype, kept), memory_format=torch.contiguous_format)
            for each, asked in zip(inputs.layer, wanted, strict=True)
        )
    )


def _outputs(loss: LinearLoss, found: Gradients) -> Outputs:
    """Return gradients as arrays of the backend, which share their memory."""
    array = loss.backend.array  # type: ignore[attr-defined]
    return Outputs(*(None if each is None else array(each) for each in found))


def _compute(
    loss: LinearLoss,
    inputs: LinearInputs,
    settings: LinearSettings,
    wanted: Wanted,
    kept: bool,
    logits: KeptLogits | None = None,
) -> tuple[Tensor, Gradients]:
    """Return the loss and the gradients, which are ``kept`` for a backward or returned by one, of known logits."""
    found, observe = _empty(inputs, wanted, kept), _observer(loss, settings) if kept else None
    plan = _plan(loss, inputs, settings, wanted, kept)
    return loss.gradients(plan, _outputs(loss, found), observe=observe, kept=logits), found


def pulled(
    loss: LinearLoss,
    plan: Plan,
    inputs: LinearInputs,
    wanted: Wanted,
    differentiate: Differentiate,
    scale: Any = None,
    logits: KeptLogits | None = None,
) -> Gradients:
    """Return the gradients of the layer from those of the logits, as ``LinearLoss.pull`` does."""
    found = _empty(inputs, wanted, kept=False)
    loss.pull(plan, _outputs(loss, found), differentiate, scale, logits)
    return found


@uncompiled
def with_gradients(wanted: Wanted, inputs: LinearInputs, settings: LinearSettings) -> tuple[Tensor, Gradients]:
    """Return the reduced loss and the gradients for an upstream gradient of 1; those of float16 inputs are float32."""
    return _compute(linear_loss(inputs, settings), inputs, settings, wanted, kept=True)


@uncompiled
def gradients(
    wanted: Wanted,
    upstream: Tensor,
    inputs: LinearInputs,
    settings: LinearSettings,
    logits: KeptLogits | None = None,
) -> Gradients:
    """Return the gradients times the upstream gradient; the forward has checked the inputs, and may know the logits."""
    settings = settings.unchecked()
    _, found = _compute(linear_loss(inputs, settings, upstream), inputs, settings, wanted, kept=False, logits=logits)
    return found


def planned(inputs: LinearInputs, settings: LinearSettings, recording: bool) -> Plan:
    """Return the plan of the loss and, if ``recording``, of the gradients of the inputs that require one.

    It has the plans for a quarter of the limit, for four times as much, and for all logits at once.
    """
    needed = [recording and each is not None and each.requires_grad for each in inputs.layer]
    to_target = recording and inputs.target.requires_grad
    wanted = Wanted(*needed)
    by_row = settings.loss.objective.reduction == "none" and any(wanted)  # its gradients are made by the backward
    asked = [each for each, asked in zip(inputs.layer, needed, strict=True) if asked and each is not None]
    size = sum(each.numel() * kept_type(each.dtype, not by_row).itemsize for each in asked)
    size += inputs.target.nbytes if to_target else 0
    loss = linear_loss(inputs, settings)

    def within(max_bytes: int | None) -> Plan:
        plan = _plan(loss, inputs, replace(settings, max_bytes=max_bytes), wanted, kept=not by_row)
        again = by_row and plan.chunks != 1  # of one chunk, the logits are kept
        return replace(plan, gemms=plan.gemms + again + to_target, gradient_bytes=size)

    plan, limit = within(settings.max_bytes), settings.max_bytes or loss.default_bytes(wanted)
    whole = -(-within(_UNBOUNDED).working_bytes // _MIB) * _MIB
    others = []
    for other in (limit // 4 // _MIB * _MIB, limit * 4 // _MIB * _MIB, whole):
        with suppress(ValueError):  # where not even one row fits
            found = within(other)
            if found.rows != plan.rows and other <= whole:
                others.append((other, found))
    return replace(plan, others=tuple(others))
