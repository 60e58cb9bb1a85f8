"""Sharded tensors (DTensors) at the door of the ordinary losses and token_stats.

Logits sharded over the classes, and a head's weight sharded over its rows, have vocabulary-parallel losses. Logits
sharded over a dimension of rows have the loss of the rank's rows; ``"mean"`` and ``"sum"`` are those of all ranks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.sharded import SERVES, is_sharded
from softnll.torch._base.sparse import SparseTargets
from softnll.torch._losses import formulas
from softnll.torch._parallel import api as parallel
from softnll.torch._parallel.exchange import Exchange
from softnll.torch._parallel.placements import local, place, refuse, sharded_dim, whole


def loss(name: str, function: Any, input: Any, target: Any, weight: Any, **options: Any) -> Tensor:  # noqa: A002
    """Return the loss of logits, or log-probabilities, in a DTensor; ``function`` is the ordinary one of that name."""
    class_dim = 1 if input.dim() > 1 else 0
    at = sharded_dim("input", input)
    mesh_dim, dim = at if at is not None else (0, None)
    x = input.to_local()
    if dim is None:
        tensors = {name: local(each) for name, each in options.items()}
        return function(x, local(target), local(weight), **tensors)
    group = input.device_mesh.get_group(mesh_dim)
    if dim == class_dim:
        tensors = {name: local(each) for name, each in options.items()}
        value: Tensor = getattr(parallel, name)(x, local(target, mesh_dim), local(weight), group=group, **tensors)
        return value
    rows = dim if dim < class_dim else dim - 1
    y = _rows_of(input, mesh_dim, dim, target, dim if target.is_floating_point() else rows)
    tensors = {key: _rows_of(input, mesh_dim, dim, each, rows) for key, each in options.items()}
    return _of_all_rows(function, group, (x, y, local(weight)), class_dim, tensors)


def _rows_of(input: Any, mesh_dim: int, dim: int, each: Any, along: int) -> Any:  # noqa: A002
    """Return the rank's rows of a tensor that has one entry a row of the input, and anything else itself."""
    if isinstance(each, SparseTargets):
        return SparseTargets(*(_rows_of(input, mesh_dim, dim, tensor, along) for tensor in each))
    sharded = is_sharded(each) and any(placed.is_shard() for placed in each.placements)
    each = local(each, mesh_dim)
    if sharded or not isinstance(each, Tensor) or each.dim() <= along or each.shape[along] != input.shape[dim]:
        return each
    return each.narrow(along, *place(input, mesh_dim, dim))


def _of_all_rows(
    function: Any, group: Any, tensors: tuple[Any, Any, Any], class_dim: int, options: dict[str, Any]
) -> Tensor:
    """Return the loss of the rows of all ranks, with the gradient of this rank's; ``"none"``: of this rank's rows.

    ``tensors``: logits or features, targets, class weights.
    """
    x, y, weight = tensors
    exchange = Exchange(group, x.device)
    reduction, error = options.get("reduction", "mean"), None
    try:
        mine = function(x, y, weight=weight, **(options | {"reduction": "none" if reduction == "none" else "sum"}))
        ignored = options.get("ignore_index")
        scalars = with_defaults(ignore_index=-100 if ignored is None else ignored, reduction=reduction)
        settings = LossSettings.of(*scalars, class_dim, None)
        counted = y.probabilities if isinstance(y, SparseTargets) else y
        _, D = formulas.row_weights(LossInputs(x, counted, weight, options.get("sample_weight")), settings)
        numbers = torch.stack([mine.detach().sum().to(D.dtype), D])[None]
    except Exception as raised:  # noqa: BLE001 - every rank raises it
        error, numbers = raised, torch.zeros(1, 2, dtype=torch.float64, device=x.device)
    parts = exchange.gather(numbers, error)
    if reduction == "none":
        return mine
    total, D = parts[:, 0].sum(0)
    D = D if reduction == "mean" else torch.ones_like(D)
    value: Tensor = _OverAllRows.apply(mine, formulas.mean(total, D).to(mine.dtype), D)
    return value


class _OverAllRows(torch.autograd.Function):
    """The loss of the rows of all ranks, with the derivative of this rank's sum over D, also where that is infinite."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, value: Tensor, D: Tensor) -> Tensor:  # noqa: ARG004 - its gradient counts
        """Return the value."""
        ctx.save_for_backward(D)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient with respect to this rank's sum; 0 where D is 0."""
        (D,) = ctx.saved_tensors
        return torch.where(D != 0, upstream / torch.where(D != 0, D, 1.0), 0.0).to(upstream.dtype), None, None


def layer(name: str, function: Any, input: Any, linear_weight: Any, target: Any, **options: Any) -> Any:  # noqa: A002
    """Return loss or statistics of a head whose weight is a DTensor; ``function`` is the ordinary one of that name.

    Features may be sharded over rows on another dimension of the mesh; then the loss is of all rows, statistics and
    losses of ``reduction="none"`` are of the rank's rows.
    """
    classes, rows = _layer_dims(input, linear_weight)
    in_parts = {}
    if rows is not None and classes is not None and rows[0] == classes[0]:  # rows and classes over the same ranks
        in_parts, rows = {"sequence_dim": rows[1]}, None
        target, options = whole(target), {key: whole(each) for key, each in options.items()}
    dims = [each[0] for each in (classes, rows) if each is not None]
    bias, weight = options.pop("linear_bias", None), local(options.pop("weight", None))
    if rows is not None and isinstance(bias, Tensor) and bias.requires_grad and not is_sharded(bias):
        raise NotImplementedError("linear_bias is a plain tensor beside sharded rows; allowed: a DTensor")
    bias = local(bias, *dims)
    if classes is not None and bias is not None and len(bias) == len(linear_weight):
        bias = bias.narrow(0, *place(linear_weight, *classes))
    if classes is not None:
        group = linear_weight.device_mesh.get_group(classes[0])
        function = partial(getattr(parallel, name), group=group, **in_parts)
    head = local(linear_weight, *dims)

    def call(x: Any, y: Any, weight: Any = None, **others: Any) -> Any:
        return function(x, head, y, linear_bias=bias, **others, **({} if weight is None else {"weight": weight}))

    x = local(input)
    if rows is None:
        return call(x, local(target, *dims), weight, **{key: local(each) for key, each in options.items()})
    mesh_dim, dim = rows
    y = _rows_of(input, mesh_dim, dim, target, dim)
    given = {key: _rows_of(input, mesh_dim, dim, each, dim) for key, each in options.items()}
    if name == "token_stats":
        return call(x, y, **given)
    return _of_all_rows(call, input.device_mesh.get_group(mesh_dim), (x, y, weight), x.dim() - 1, given)


def _layer_dims(input: Any, linear_weight: Any) -> tuple[Any, Any]:  # noqa: A002
    """Return dimensions of mesh and tensor that are sharded, of the weight and of the input; raise for others."""
    classes = sharded_dim("linear_weight", linear_weight) if is_sharded(linear_weight) else None
    rows = sharded_dim("input", input) if is_sharded(input) else None
    if classes is not None and classes[1] != 0:
        refuse("linear_weight", linear_weight, "Shard(0), its rows, or Replicate()")
    if rows is not None and not is_sharded(linear_weight):
        refuse("input", input, "a plain tensor, or Replicate(), beside a plain linear_weight")
    if rows is not None and rows[1] == input.dim() - 1:
        refuse("input", input, "Replicate(), such as input.redistribute(placements=[Replicate()])")
    return classes, rows


SERVES["cross_entropy"] = partial(loss, "cross_entropy")
SERVES["nll_loss"] = partial(loss, "nll_loss")
SERVES["linear_cross_entropy"] = partial(layer, "linear_cross_entropy")
SERVES["token_stats"] = partial(layer, "token_stats")
