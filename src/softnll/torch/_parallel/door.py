"""Sharded tensors (DTensors) at the door of the ordinary losses.

Logits sharded over the classes, and a head's weight sharded over its rows, have vocabulary-parallel losses. Logits
sharded over a dimension of rows have the loss of the rank's rows; ``"mean"`` and ``"sum"`` are those of all ranks.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.sharded import SERVES, is_sharded
from softnll.torch._losses import formulas
from softnll.torch._parallel import api as parallel
from softnll.torch._parallel.exchange import Exchange

__all__ = ["cross_entropy", "linear_cross_entropy"]


def cross_entropy(function: Any, input: Any, target: Any, weight: Any, **options: Any) -> Tensor:  # noqa: A002
    """Return the loss of logits in a DTensor; ``function`` is the ordinary cross_entropy."""
    class_dim = 1 if input.dim() > 1 else 0
    at = _sharded_dim("input", input)
    mesh_dim, dim = at if at is not None else (0, None)
    x = input.to_local()
    if dim is None:
        tensors = {name: _local(each) for name, each in options.items()}
        return function(x, _local(target), _local(weight), **tensors)
    group = input.device_mesh.get_group(mesh_dim)
    if dim == class_dim:
        tensors = {name: _local(each) for name, each in options.items()}
        loss: Tensor = parallel.cross_entropy(x, _local(target), _local(weight), group=group, **tensors)
        return loss
    start, size = _place(input, mesh_dim, dim)
    rows = dim if dim < class_dim else dim - 1

    def mine(each: Any, along: int, full: int) -> Any:
        """Return the rank's rows of a tensor that has one number a row."""
        if not isinstance(each, Tensor) or each.dim() == 0:
            return each
        if is_sharded(each):
            return _local(each)
        return each.narrow(along, start, size) if each.shape[along] == full else each

    soft = target.is_floating_point()
    y = mine(target, dim if soft else rows, input.shape[dim])
    tensors = {name: mine(each, rows, input.shape[dim]) for name, each in options.items()}
    return _of_all_rows(function, group, x, y, _local(weight), class_dim, tensors)


def _of_all_rows(
    function: Any, group: Any, x: Tensor, y: Tensor, weight: Any, class_dim: int, options: dict[str, Any]
) -> Tensor:
    """Return the loss of the rows of all ranks, with the gradient of this rank's; ``"none"``: of this rank's rows."""
    exchange = Exchange(group, x.device)
    reduction, error = options.get("reduction", "mean"), None
    try:
        local = function(x, y, weight, **(options | {"reduction": "none" if reduction == "none" else "sum"}))
        scalars = with_defaults(ignore_index=options.get("ignore_index", -100), reduction=reduction)
        settings = LossSettings.of(*scalars, class_dim, None)
        _, D = formulas.row_weights(LossInputs(x, y, weight, options.get("sample_weight")), settings)
        numbers = torch.stack([local.detach().sum().to(D.dtype), D])[None]
    except Exception as raised:  # noqa: BLE001 - every rank raises it
        error, numbers = raised, torch.zeros(1, 2, dtype=torch.float64, device=x.device)
    parts = exchange.gather(numbers, error)
    if reduction == "none":
        return local
    total, D = parts[:, 0].sum(0)
    D = D if reduction == "mean" else torch.ones_like(D)
    own = torch.where(D != 0, (local - local.detach()) / torch.where(D != 0, D, 1.0), 0.0)
    value: Tensor = (formulas.mean(total, D) + own.nan_to_num()).to(local.dtype)
    return value


def linear_cross_entropy(function: Any, input: Any, linear_weight: Any, target: Any, **options: Any) -> Tensor:  # noqa: A002
    """Return the loss of a head whose weight is a DTensor; ``function`` is the ordinary linear_cross_entropy."""
    if not is_sharded(linear_weight):
        _refuse("input", input, "a plain tensor, or Replicate(), beside a plain linear_weight")
    at = _sharded_dim("linear_weight", linear_weight)
    if is_sharded(input) and _sharded_dim("input", input) is not None:
        _refuse("input", input, "Replicate(), such as input.redistribute(placements=[Replicate()])")
    head, x = linear_weight.to_local(), _local(input)
    given = {name: _local(each) for name, each in options.items()}
    if at is None:
        return function(x, head, _local(target), **given)
    mesh_dim, dim = at
    if dim != 0:
        _refuse("linear_weight", linear_weight, "Shard(0), its rows, or Replicate()")
    start, size = _place(linear_weight, mesh_dim, dim)
    bias = given.get("linear_bias")
    if bias is not None and len(bias) != size:
        given["linear_bias"] = bias.narrow(0, start, size)
    group = linear_weight.device_mesh.get_group(mesh_dim)
    loss: Tensor = parallel.linear_cross_entropy(x, head, _local(target), group=group, **given)
    return loss


def _local(tensor: Any) -> Any:
    """Return the rank's part of a DTensor, and anything else itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def _sharded_dim(name: str, tensor: Any) -> tuple[int, int] | None:
    """Return the dimension of the mesh and that of the tensor which is sharded over it; None for replicas."""
    found = [(i, each.dim % tensor.dim()) for i, each in enumerate(tensor.placements) if each.is_shard()]
    if len(found) > 1 or any(each.is_partial() for each in tensor.placements):
        _refuse(name, tensor, "one Shard, and Replicate on the other dimensions of the mesh")
    return found[0] if found else None


def _place(tensor: Any, mesh_dim: int, dim: int) -> tuple[int, int]:
    """Return where the rank's part of a sharded dimension begins, and its size."""
    ranks, rank, full = (
        tensor.device_mesh.size(mesh_dim),
        tensor.device_mesh.get_local_rank(mesh_dim),
        tensor.shape[dim],
    )
    step = -(-full // ranks)
    start = min(rank * step, full)
    return start, min(step, full - start)


def _refuse(name: str, tensor: Any, allowed: str) -> NoReturn:
    """Raise for a placement that is not served."""
    raise NotImplementedError(f"{name} is a DTensor with placements {tensor.placements}; allowed: {allowed}")


SERVES["cross_entropy"] = cross_entropy
SERVES["linear_cross_entropy"] = linear_cross_entropy
