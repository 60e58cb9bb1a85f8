"""The placements of sharded tensors (DTensors): which dimension is sharded, and where this rank's part lies."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from softnll.torch._base.sharded import is_sharded


def local(tensor: Any, *summed: int) -> Any:
    """Return the rank's part of a DTensor, and anything else itself.

    The gradient of a replica is summed over the ``summed`` dimensions of the mesh, whose ranks use different parts.
    """
    if not is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import Partial  # noqa: PLC0415 - there is a DTensor, so that it is loaded

    placed = [Partial() if i in summed and each.is_replicate() else each for i, each in enumerate(tensor.placements)]
    return tensor.to_local(grad_placements=placed)


def whole(tensor: Any) -> Any:
    """Return a sharded DTensor as a plain tensor with the parts of all ranks, and anything else itself."""
    sharded = is_sharded(tensor) and any(each.is_shard() for each in tensor.placements)
    return tensor.full_tensor() if sharded else tensor


def sharded_dim(name: str, tensor: Any) -> tuple[int, int] | None:
    """Return the dimension of the mesh and that of the tensor which is sharded over it; None for replicas."""
    found = [(i, each.dim % tensor.dim()) for i, each in enumerate(tensor.placements) if each.is_shard()]
    others = [each for each in tensor.placements if not (each.is_shard() or each.is_replicate())]
    if len(found) > 1 or others:
        refuse(name, tensor, "one Shard, and Replicate on the other dimensions of the mesh")
    return found[0] if found else None


def place(tensor: Any, mesh_dim: int, dim: int) -> tuple[int, int]:
    """Return where the rank's part of a sharded dimension begins, and its size."""
    ranks, rank, full = (
        tensor.device_mesh.size(mesh_dim),
        tensor.device_mesh.get_local_rank(mesh_dim),
        tensor.shape[dim],
    )
    step = -(-full // ranks)
    start = min(rank * step, full)
    return start, min(step, full - start)


def of_placements(part: Tensor, mesh: Any, placements: Any, shape: tuple[int, ...]) -> Tensor:
    """Return the DTensor of this shape whose part on this rank is ``part``."""
    from torch.distributed.tensor import DTensor  # noqa: PLC0415 - there is one already, so that it is loaded

    strides = torch.empty(shape, device="meta").stride()
    value: Tensor = DTensor.from_local(
        part.contiguous(), mesh, placements, run_check=False, shape=torch.Size(shape), stride=strides
    )
    return value


def refuse(name: str, tensor: Any, allowed: str) -> NoReturn:
    """Raise for a placement that is not served."""
    raise NotImplementedError(f"{name} is a DTensor with placements {tensor.placements}; allowed: {allowed}")
