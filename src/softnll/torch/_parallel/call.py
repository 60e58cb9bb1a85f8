"""Check the arguments of a call on this rank, and run it on the slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from softnll._core.layout import Layout, layout_of
from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossSettings
from softnll.torch._base.errors import LINEAR_NAMES, NAMES, InputTypeError, InputValueError, raise_as_torch
from softnll.torch._base.inputs import as_logits
from softnll.torch._linear.inputs import prepare as prepare_linear
from softnll.torch._losses.inputs import class_dim, loss_input, row_temperatures
from softnll.torch._parallel.prepare import Given, prepare
from softnll.torch._parallel.sliced import Sliced

Returned = TypeVar("Returned")


def given_loss(
    tensors: tuple[Any, ...], temperature: Any, check: bool | None, options: dict[str, Any], *, hard: bool = False
) -> Given:
    """Return the function that checks the arguments of a loss; ``tensors``: input, target, weight, sample_weight."""
    weight, samples = tensors[2:]

    def given() -> tuple[LinearInputs, LinearSettings, Layout]:
        x, y, dim = loss_input(tensors, None, None)
        ignore_index, soft = options["ignore_index"], y.is_floating_point()
        if hard and soft:
            shape = "integers, of the input's shape without classes"
            raise InputTypeError(f"target has dtype {y.dtype}; allowed: {shape}")
        if isinstance(ignore_index, int) and ignore_index >= 0 and soft:
            raise InputValueError(f"ignore_index is {ignore_index}; allowed: >= 0 only with hard targets")
        tau, number = (
            (row_temperatures(temperature, x, dim), 1.0) if isinstance(temperature, Tensor) else (None, temperature)
        )
        settings = LinearSettings(LossSettings.of(*with_defaults(temperature=number, **options), dim, check))
        return LinearInputs(x, x, None, y, weight, samples, tau), settings, layout_of(tuple(x.shape), dim)

    return given


def given_scores(input: Any, dim: int) -> Given:  # noqa: A002 - torch's name
    """Return the function that checks the arguments of softmax, log_softmax and logsumexp."""

    def given() -> tuple[LinearInputs, LinearSettings, Layout]:
        x = as_logits(input)
        if x.dim() == 0:
            raise InputValueError("input has no dimensions; allowed: at least one")
        at = class_dim(x, dim)
        layout = layout_of(tuple(x.shape), at)
        y = torch.zeros(layout.row_shape, dtype=torch.int64, device=x.device)
        settings = LinearSettings(LossSettings.of(*with_defaults(reduction="none"), at, None))
        return LinearInputs(x, x, None, y), settings, layout

    return given


def given_layer(input: Any, linear_weight: Any, target: Any, options: dict[str, Any], *, hard: bool = False) -> Given:  # noqa: A002
    """Return the function that checks the arguments of a linear loss."""

    def given() -> tuple[LinearInputs, LinearSettings, Layout]:
        inputs, values = prepare_linear(input, linear_weight, target, **options)
        x, head = inputs.input, inputs.linear_weight
        bias = inputs.linear_bias
        if head.dim() != 2 or x.dim() < 1 or x.shape[-1] != head.shape[-1]:
            shapes = f"input has shape {tuple(x.shape)}, linear_weight {tuple(head.shape)}"
            raise InputValueError(f"{shapes}; allowed: (..., H) and (C, H) of one H")
        if bias is not None and tuple(bias.shape) != (len(head),):
            raise InputValueError(f"linear_bias has shape {tuple(bias.shape)}; allowed: {(len(head),)}")
        if hard and inputs.target.is_floating_point():
            raise InputTypeError(f"target has dtype {inputs.target.dtype}; allowed: integers")
        return inputs, LinearSettings.of(*values), Layout((*x.shape[:-1], len(head)), (x.dim() - 1,))

    return given


def run(
    function: str,
    group: Any,
    start: int | None,
    tensor: Any,
    given: Given,
    compute: Callable[[LinearInputs, LinearSettings, Sliced], Returned],
) -> Returned:
    """Return what ``compute`` returns for the slice of checked arguments."""
    try:
        return compute(*prepare(function, group, start, tensor, given))
    except (TypeError, ValueError) as error:
        raise_as_torch(error, LINEAR_NAMES if "linear" in function or "token" in function else NAMES)
