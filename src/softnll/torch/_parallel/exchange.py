"""The collectives of a vocabulary-parallel call, and the agreement of the ranks about its arguments and errors.

A call takes two: a header of fixed size, which carries shapes, options and a rank's error, and the numbers of the rows.
Each rank takes part in both, whatever its arguments and data, so that no rank waits for another's error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from softnll._core.target_errors import AdvisedError
from softnll.torch._base.errors import InputTypeError, InputValueError

_HEADER = 2048  # bytes


@dataclass(slots=True)
class Exchange:
    """The collectives of one call.

    Attributes
    ----------
    group
        The process group; None for the default one.
    device
        The device of the tensors that are exchanged.
    """

    group: Any
    device: torch.device

    @property
    def size(self) -> int:
        """The number of ranks."""
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """The number of this rank in the group."""
        return dist.get_rank(self.group)

    def agree(self, facts: dict[str, Any], error: Exception | None) -> list[dict[str, Any]]:
        """Return the facts of all ranks; raise on every rank if one has an error or they disagree.

        Facts whose names begin with an underscore may differ.
        """
        every = self._headers(facts, error)
        self._raise_first(every, error)
        for rank, each in enumerate(every):
            for name, value in each.items():
                if not name.startswith("_") and value != every[0][name]:
                    raise InputValueError(
                        f"{name} is {_shown(value)} on rank {rank} and {_shown(every[0][name])} on rank 0; "
                        "allowed: the same on every rank of the group"
                    )
        return every

    def gather(self, numbers: Tensor, error: Exception | None) -> Tensor:
        """Return the numbers ``(N, k)`` of all ranks in rank order, ``(K, N, k)``; raise everywhere if one failed."""
        flags = numbers.new_full((1, numbers.shape[1]), float(error is not None))
        stacked = torch.stack(self.parts(torch.cat([flags, numbers]).contiguous()))
        if bool(stacked[:, 0, 0].any()):
            self._raise_first(self._headers({}, error), error)
        return stacked[:, 1:]

    def parts(self, mine: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which have one shape, in rank order."""
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine, group=self.group)
        return found

    def scatter(self, tensor: Tensor) -> Tensor:
        """Return this rank's part of the sum over the ranks: of as many equal parts as there are ranks."""
        found = tensor.new_empty((len(tensor) // self.size, *tensor.shape[1:]))
        name = (
            "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
        )  # torch ≥ 2.13
        getattr(dist, name)(found, tensor, group=self.group)
        return found

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum over the ranks, in the memory of the tensor."""
        dist.all_reduce(tensor, group=self.group)
        return tensor

    def _headers(self, facts: dict[str, Any], error: Exception | None) -> list[dict[str, Any]]:
        """Return the headers of all ranks."""
        header = facts if error is None else {"_error": _text(error)[: _HEADER // 8], "_type": type(error).__name__}
        text = json.dumps(header).encode()
        if len(text) > _HEADER:
            text = json.dumps({"_error": "the shapes and options of the call take too many characters"}).encode()
        mine = torch.tensor(list(text.ljust(_HEADER)), dtype=torch.uint8, device=self.device)
        parts = self.parts(mine)
        return [json.loads(bytes(each.tolist()).decode()) for each in parts]

    def _raise_first(self, every: list[dict[str, Any]], error: Exception | None) -> None:
        """Raise the error of the first rank that has one, in the type of this rank's own error if it has one."""
        for rank, each in enumerate(every):
            if "_error" in each:
                kind: type[Exception] = InputValueError
                if isinstance(error, AdvisedError):  # which takes other arguments than a message
                    kind = InputTypeError if isinstance(error, TypeError) else InputValueError
                elif isinstance(error, TypeError | ValueError | NotImplementedError):
                    kind = type(error)
                raise kind(f"rank {rank}: {each['_error']}") from error


def _text(error: Exception) -> str:
    """Return an error's message, with advice for tensors if it has any."""
    return error.for_tensors if isinstance(error, AdvisedError) else str(error)


def _shown(value: Any) -> str:
    """Return a value as a message shows it."""
    return str(tuple(value)) if isinstance(value, list) else repr(value)
