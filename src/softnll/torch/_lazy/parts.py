"""The functions that cut lazy logits into several parts: the index of each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

Indices = list[tuple[Any, ...]] | None


def _slices(shape: torch.Size, dim: int, sizes: Sequence[int]) -> Indices:
    """Return the indices of consecutive parts of these sizes; None where they do not add up."""
    at = range(len(shape))[dim]
    edges = [0, *accumulate(sizes)]
    if edges[-1] != shape[at] or min(sizes, default=0) < 0:
        return None
    return [(*[slice(None)] * at, slice(start, stop)) for start, stop in pairwise(edges)]


def _split(shape: torch.Size, split_size_or_sections: Any, dim: int = 0) -> Indices:
    size, whole = split_size_or_sections, shape[range(len(shape))[dim]]
    if isinstance(size, int) and not isinstance(size, bool):
        if size <= 0 or not whole:
            return None
        size = [min(size, whole - start) for start in range(0, whole, size)]
    return _slices(shape, dim, size) if isinstance(size, (list, tuple)) else None


def _tensor_split(shape: torch.Size, split_size: Any, dim: int = 0) -> Indices:
    return _split(shape, split_size, dim)


def _chunk(shape: torch.Size, chunks: int, dim: int = 0) -> Indices:
    whole = shape[range(len(shape))[dim]]
    return _split(shape, -(-whole // chunks), dim) if whole and chunks > 0 else None


def _unbind(shape: torch.Size, dim: int = 0) -> Indices:
    at = range(len(shape))[dim]
    return [(*[slice(None)] * at, i) for i in range(shape[at])]


PARTS: dict[Any, Callable[..., Indices]] = {
    torch.split: _split,
    Tensor.split: _tensor_split,
    torch.chunk: _chunk,
    Tensor.chunk: _chunk,
    torch.unbind: _unbind,
    Tensor.unbind: _unbind,
    Tensor.__iter__: _unbind,
}
