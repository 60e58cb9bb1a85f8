"""The linear loss of plain CPU tensors with few logits: one product of torch's, then the loss in one call of a kernel.

The logits of a small batch fit the cache: chunks of rows, and the plan of them, would take longer than all of the loss.
Rows that take no part are in the products too, where they count as 0: that holds only where their features are finite.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Parameter
from torch.nn.functional import linear

from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.autograd_base import applied, in_batch, of_transform, records
from softnll.torch._losses import compute, direct, plain
from softnll.torch._losses.autograd import loss_gradients

_MOST = 1 << 16  # logits


def serves(
    x: Any,
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    weight: Any,
    temperature: Any = 1.0,
    ignore_index: Any = None,
) -> bool:
    """Return whether the arguments are plain, and there are few logits."""
    if isinstance(temperature, Tensor) or not (
        plain.plain_call(x) and x.dim() == 2 and x.is_contiguous() and _is_parameter(linear_weight, 2)
    ):
        return False
    (n_rows, width), (n_classes, of_weight), dtype = x.shape, linear_weight.shape, x.dtype
    return (
        0 < n_rows * n_classes <= _MOST
        and width == of_weight > 0
        and dtype in plain.WIDE  # others are multiplied in float32
        and linear_weight.dtype is dtype
        and plain.fits(target, weight, _form(n_rows, n_classes), dtype, index_of(ignore_index))
        and (ignore_index is None or target.dtype is torch.int64)  # soft targets take none
        and (
            linear_bias is None
            or (_is_parameter(linear_bias, 1) and linear_bias.dtype is dtype and len(linear_bias) == n_classes)
        )
        and not torch.is_autocast_enabled("cpu")
    )


def _form(n_rows: int, n_classes: int) -> plain.Form:
    """Return the form of logits that torch has multiplied, of which there are some."""
    form = plain.form_of((n_rows, n_classes), (n_classes, 1), 1)
    assert form is not None  # noqa: S101 - they are rows
    return form


def _is_parameter(tensor: Any, n_dims: int) -> bool:
    """Return whether this is a tensor in the CPU's memory, or a parameter, of so many dimensions."""
    own = type(tensor) in (Tensor, Parameter) and not of_transform(tensor)
    return own and tensor.is_cpu and tensor.dim() == n_dims


def index_of(ignore_index: Any) -> Any:
    """Return the target that is ignored; None means the default."""
    return -100 if ignore_index is None else ignore_index


def linear_cross_entropy(
    x: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    settings: LossSettings,
) -> Tensor | None:
    """Return the loss of plain arguments, which autograd can differentiate; None where not all rows are served."""
    head = x, linear_weight, linear_bias
    required = x.requires_grad or linear_weight.requires_grad or (linear_bias is not None and linear_bias.requires_grad)
    tracked = required and torch.is_grad_enabled()
    form = _form(len(x), len(linear_weight))
    call = direct.call_of(x.dtype, form, target, weight, settings, written=tracked)
    if call is None:
        return _in_two_steps(linear(*head), target, weight, settings, form)
    if tracked:
        torch._C._set_grad_enabled(False)  # noqa: SLF001 - as torch.no_grad, which takes 2 µs
    try:
        logits = linear(*head)
    finally:
        if tracked:
            torch._C._set_grad_enabled(True)  # noqa: SLF001
    found = direct.computed(call, logits, target, weight, form, written=tracked)
    if found is None:
        return _in_two_steps(linear(*head) if tracked else logits, target, weight, settings, form)
    if not tracked:
        return found.value
    if found.without_part and not math.isfinite(x.detach().sum().item()):
        return None
    value: Tensor = _linear_cross_entropy(*head, _Computed(target, weight, settings, logits, found))
    return value


class _Computed(NamedTuple):
    """What a loss was computed from, beside the head, and what was computed."""

    target: Tensor
    weight: Tensor | None
    settings: LossSettings
    logits: Tensor
    found: direct.InOneCall


def _in_two_steps(
    logits: Tensor, target: Tensor, weight: Tensor | None, settings: LossSettings, form: plain.Form
) -> Tensor | None:
    """Return the loss of logits, which autograd records; None where one is not finite."""
    if not math.isfinite(logits.detach().sum().item()):
        return None
    return direct.cross_entropy(logits, target, weight, settings, form)


class DirectLinearCrossEntropy(Function):
    """The loss of features, weight and bias that has been computed, with its gradient by the logits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, computed: _Computed) -> Tensor:
        """Return the loss."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, linear_weight, linear_bias, computed.target, computed.weight)
        ctx.settings, ctx.logits, ctx.gradient = computed.settings, computed.logits, computed.found.gradient
        return computed.found.value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients by the features, the weight and the bias."""
        if upstream is None:
            return None, None, None, None
        x, linear_weight, linear_bias, target, weight = ctx.saved_tensors
        gradient = None
        if not (in_batch(upstream) or records()):
            gradient = _gradient(ctx, target, weight, upstream)
        if gradient is None:
            logits = linear(x, linear_weight, linear_bias)
            gradient = _general_gradient(LossInputs(logits, target, weight), ctx.settings, upstream)
        by_features, by_weight, by_bias, *_ = ctx.needs_input_grad
        return (
            gradient @ linear_weight if by_features else None,
            gradient.mT @ x if by_weight else None,
            gradient.sum(0) if by_bias else None,
            None,
        )


_linear_cross_entropy = applied(DirectLinearCrossEntropy)


def _gradient(ctx: Any, target: Tensor, weight: Tensor | None, upstream: Tensor) -> Tensor | None:
    """Return the gradient by the logits, from the forward if upstream gradients are 1, else from one call or None."""
    if direct.is_one(upstream):
        kept: Tensor = ctx.gradient
        return kept
    rows, form = upstream.expand(len(ctx.logits)), _form(*ctx.logits.shape)
    found = direct.in_one_call(ctx.logits, target, weight, ctx.settings, form, written=True, upstream=rows)
    return None if found is None else found.gradient


def _general_gradient(inputs: LossInputs, settings: LossSettings, upstream: Tensor) -> Tensor:
    """Return the gradient by the logits, which autograd can differentiate if it records."""
    _, kept = compute.forward(inputs._replace(input=inputs.input.detach()), settings)
    saved = SimpleNamespace(saved_tensors=tuple(inputs), settings=settings, kept=kept, gradient=None)
    gradient, _ = loss_gradients(saved, upstream, for_input=True, for_target=False)
    assert gradient is not None  # noqa: S101 - there is an upstream gradient
    return gradient
