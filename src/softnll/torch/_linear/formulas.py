"""The loss of a linear layer as a differentiable expression, a few rows at a time.

As ``_losses.formulas`` does for losses of logits: the kernels compute values and gradients, this module computes every
other derivative. Features and weight are multiplied in their own type, half types in float32; the rest is float64.
Unless autograd records the derivatives, only a few rows of logits are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from softnll._core import equation
from softnll._core.problem import Problem
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossInputs, LossSettings
from softnll.torch._base.backend import backend_of
from softnll.torch._base.checks import wide_type
from softnll.torch._base.inputs import autocasts
from softnll.torch._base.sparse import densify
from softnll.torch._linear import derivatives
from softnll.torch._linear.derivatives import RowFunction
from softnll.torch._linear.pieces import Named, Pieces, Upstreams
from softnll.torch._losses import formulas

DIFFERENTIABLE = ("input", "linear_weight", "linear_bias", "target")


def _without_autocast(inputs: LinearInputs) -> AbstractContextManager[Any]:
    """Return a context without autocast, which would multiply in a narrower type."""
    device = inputs.input.device.type
    return torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()


def _losses(z: Tensor, inputs: LinearInputs, settings: LossSettings) -> tuple[Tensor]:
    """Return the losses of some rows of logits in float64."""
    target = inputs.target
    if inputs.indices is not None:
        target = densify(inputs.indices, target.to(wide_type(z)), z.shape[1])
    given = LossInputs(z, target, inputs.weight, inputs.sample_weight, inputs.temperatures)
    return (formulas.loss(given, settings),)


def _hessian_products(
    z: Tensor, v: Tensor, inputs: LinearInputs, settings: LossSettings, upstream: tuple[Tensor, ...]
) -> tuple[tuple[Tensor], Tensor, Tensor]:
    """Return, of some rows, the derivative of the loss along v, its gradient and the Hessian times v."""
    backend, (up,) = backend_of(z), upstream
    target = inputs.target
    if inputs.indices is not None:
        target = densify(inputs.indices, target.to(up.dtype), z.shape[1])
    w = None if inputs.weight is None else inputs.weight.to(up.dtype)
    tau = None if inputs.temperatures is None else inputs.temperatures.to(up.dtype)
    y, q = (None, target) if target.is_floating_point() else (target, None)
    arrays = (y, q, w, inputs.sample_weight, None, tau)
    problem = Problem(
        backend.array(z), settings.objective, *(None if each is None else backend.array(each) for each in arrays)
    )
    rows = equation.normalise(problem)
    dz = backend.tensor(equation.gradient(problem, rows))
    product = backend.tensor(equation.hessian_product(problem, rows, rows.arithmetic.wide(backend.array(v))))
    along = torch.where(dz == 0, 0.0, dz * v).sum(1)
    assert inputs.sample_weight is not None  # noqa: S101 - 0 where a row is ignored
    factor = torch.where(inputs.sample_weight == 0, 0.0, up).unsqueeze(1)  # up may be infinite in such a row
    return (along,), dz.mul_(factor), product.mul_(factor)


LOSS = RowFunction(_losses, 1, _hessian_products)


def push(function: RowFunction, inputs: LinearInputs, settings: LinearSettings, tangents: Named) -> tuple[Tensor, ...]:
    """Return the derivatives of a function's results along tangents."""
    with _without_autocast(inputs):
        pieces = Pieces(inputs, settings, *tangents.values())
        moved = derivatives.along(function, pieces, pieces.flatten(tangents))
        return tuple(pieces.reduce(each, inputs.input.shape[:-1]) for each in moved)


def pull(
    function: RowFunction, inputs: LinearInputs, settings: LinearSettings, upstream: Upstreams, names: Sequence[str]
) -> tuple[Tensor, ...]:
    """Return the gradients with respect to the inputs of these names, for one upstream gradient a result."""
    with _without_autocast(inputs):
        pieces = Pieces(inputs, settings, *upstream)
        return derivatives.first(function, pieces, pieces.spread(upstream), names)


def second(
    function: RowFunction,
    inputs: LinearInputs,
    settings: LinearSettings,
    upstream: Upstreams,
    tangents: Named,
    names: Sequence[str],
    upstream_tangents: Upstreams = (),
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the derivatives along tangents of a function's results, and of its gradients as ``pull`` returns them."""
    with _without_autocast(inputs):
        pieces = Pieces(inputs, settings, *upstream, *upstream_tangents, *tangents.values())
        moving = pieces.spread(upstream_tangents) if upstream_tangents else None
        flat = pieces.flatten(tangents)
        moved, found = derivatives.second(function, pieces, pieces.spread(upstream), flat, names, moving)
        return tuple(pieces.reduce(each, inputs.input.shape[:-1]) for each in moved), found
