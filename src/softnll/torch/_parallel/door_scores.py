"""softmax, log_softmax and logsumexp of sharded tensors (DTensors): the result is a DTensor.

Rows that lie on different ranks need no communication; classes that do are normalised over their ranks.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from softnll.torch._base.sharded import SERVES
from softnll.torch._losses.inputs import one_class_dim
from softnll.torch._parallel import api as parallel
from softnll.torch._parallel.placements import of_placements, refuse


def normalised(function: Any, name: str, input: Any, dim: int) -> Tensor:  # noqa: A002 - torch's name
    """Return softmax or log_softmax with the placements of the input; ``function`` is the ordinary one."""
    mesh_dim = _mesh_dim(input, (dim,))
    x = input.to_local()
    part = function(x, dim) if mesh_dim is None else getattr(parallel, name)(x, dim, group=_group(input, mesh_dim))
    return of_placements(part, input.device_mesh, input.placements, tuple(input.shape))


def logsumexp(function: Any, input: Any, dims: list[int], keepdim: bool) -> Tensor:  # noqa: A002
    """Return logsumexp over dimensions, the same on the ranks that have shares of a row."""
    from torch.distributed.tensor import Replicate, Shard  # noqa: PLC0415 - there is a DTensor, so that it is loaded

    mesh_dim = _mesh_dim(input, tuple(dims))
    x = input.to_local()
    kept = [each for each in range(input.dim()) if keepdim or each not in dims]  # the dimensions of the result
    sizes = [[1 if each in dims else of.shape[each] for each in kept] for of in (x, input)]
    if mesh_dim is None:
        part = function(x, tuple(dims))
    else:
        part = parallel.logsumexp(*one_class_dim(x, dims), group=_group(input, mesh_dim))
    placements = [
        Shard(kept.index(each.dim % input.dim())) if each.is_shard() and i != mesh_dim else Replicate()
        for i, each in enumerate(input.placements)
    ]
    return of_placements(part.reshape(sizes[0]), input.device_mesh, placements, tuple(sizes[1]))


def _mesh_dim(input: Any, dims: tuple[int, ...]) -> int | None:  # noqa: A002
    """Return the dimension of the mesh over which classes are sharded; None if each rank has whole rows."""
    classes = [i for i, each in enumerate(input.placements) if each.is_shard() and each.dim % input.dim() in dims]
    others = [each for each in input.placements if not (each.is_shard() or each.is_replicate())]
    if len(classes) > 1 or others:
        refuse("input", input, "Shard and Replicate, and at most one Shard of the classes")
    return classes[0] if classes else None


def _group(input: Any, mesh_dim: int) -> Any:  # noqa: A002
    """Return the group of a dimension of the mesh."""
    return input.device_mesh.get_group(mesh_dim)


SERVES["normalised"] = normalised
SERVES["logsumexp"] = logsumexp
