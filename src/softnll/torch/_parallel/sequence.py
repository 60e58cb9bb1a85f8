"""Features that are sharded along the sequence, over the group that has the classes: gathered in the forward.

The backward sums the gradient of all features over the ranks and leaves each rank its own part: one reduce-scatter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softnll.torch._base.errors import InputTypeError, InputValueError
from softnll.torch._parallel.exchange import Exchange
from softnll.torch._parallel.prepare import exchange_for


@dataclass(slots=True)
class Parts:
    """The features of all ranks, and where each rank's part lies.

    Attributes
    ----------
    own
        This rank's part, in autograd's graph.
    whole
        The features of all ranks, outside of it.
    dim
        The dimension along which the parts lie in rank order.
    sizes
        The sizes of the parts.
    exchange
        The collectives.
    """

    own: Tensor
    whole: Tensor
    dim: int
    sizes: list[int]
    exchange: Exchange

    def reduce(self, gradient: Tensor) -> Tensor:
        """Return this rank's part of the sum of the ranks' gradients of all features."""
        parts = gradient.movedim(self.dim, 0).split(self.sizes)
        padded = torch.cat([_padded(each, max(self.sizes)) for each in parts])
        found = self.exchange.scatter(padded)[: self.sizes[self.exchange.rank]]
        return found.movedim(0, self.dim)


def gather(function: str, group: Any, own: Any, dim: int) -> Parts:
    """Return the features of all ranks, from this rank's part along a dimension; raise on every rank for bad parts."""
    exchange, error = exchange_for(group, own)
    facts: dict[str, Any] = {}
    try:
        at = _sequence_dim(own, dim)
        rest = [*own.shape[:at], *own.shape[at + 1 :]]
        facts = {
            "function": function,
            "sequence_dim": at,
            "the shape of input without sequence_dim": rest,
            "the type of input": str(own.dtype),
            "whether input requires a gradient": torch.is_grad_enabled() and own.requires_grad,
            "_size": own.shape[at],
        }
    except (TypeError, ValueError) as raised:
        error = error or raised
    sizes = [each["_size"] for each in exchange.agree(facts, error)]
    mine = _padded(own.detach().movedim(at, 0), max(sizes))
    parts = [part[:size] for part, size in zip(exchange.parts(mine), sizes, strict=True)]
    return Parts(own, torch.cat(parts).movedim(0, at).contiguous(), at, sizes, exchange)


def _sequence_dim(own: Any, dim: Any) -> int:
    """Return the dimension counted from the front; raise if features cannot be sharded along it."""
    if not isinstance(own, Tensor):
        raise InputTypeError(f"input is a {type(own).__name__}; allowed: a tensor")
    n = own.dim()
    if isinstance(dim, bool) or not isinstance(dim, int) or not -n <= dim < n or dim % n == n - 1:
        raise InputValueError(
            f"sequence_dim is {dim!r}; allowed: a dimension of input, of shape {tuple(own.shape)}, but the last"
        )
    return dim % n


def _padded(part: Tensor, size: int) -> Tensor:
    """Return a part with zeros up to a size along the first dimension."""
    zeros = part.new_zeros((size - len(part), *part.shape[1:]))
    return torch.cat([part, zeros]).contiguous()
