"""Sparse targets: soft targets that are 0 except for a few classes of each row, such as a teacher model's top k."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.layout import Layout


class SparseTargets(NamedTuple):
    """Soft targets of K classes a row: ``q[n, indices[n, k]] += probabilities[n, k]``, and 0 elsewhere.

    Attributes
    ----------
    indices
        ``(..., K)`` classes, of any integer type. The probabilities of a class that occurs twice in a row are added.
    probabilities
        ``(..., K)`` floats of any mass; they may require a gradient.

    Examples
    --------
    >>> import torch
    >>> best = torch.tensor([[5.0, 4.0, 2.0, 0.0]]).softmax(1).topk(2)
    >>> SparseTargets(best.indices, best.values / best.values.sum(1, keepdim=True))
    SparseTargets(indices=tensor([[0, 1]]), probabilities=tensor([[0.7311, 0.2689]]))
    """

    indices: Tensor
    probabilities: Tensor


def flat_sparse(indices: Tensor, probabilities: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Return classes and probabilities as ``(N, K)`` and a mask of the classes in range, after checking shapes."""
    shape = tuple(indices.shape)
    if shape != tuple(probabilities.shape) or shape[:-1] != layout.row_shape or not shape or not shape[-1]:
        raise ValueError(
            f"target.indices has shape {shape}, target.probabilities {tuple(probabilities.shape)}; "
            f"allowed: one shape, {(*layout.row_shape, 'K')}, with K >= 1"
        )
    classes = indices.reshape(-1, shape[-1]).to(torch.int64)
    q = probabilities.detach().reshape(-1, shape[-1])
    q = q if q.dtype in (torch.float32, torch.float64) else q.float()
    return classes, q, (classes >= 0) & (classes < layout.n_classes)


def densify(indices: Tensor, probabilities: Tensor, n_classes: int) -> Tensor:
    """Return sparse targets as ``(n, C)`` rows."""
    dense: Any = torch.zeros(len(probabilities), n_classes, dtype=probabilities.dtype, device=probabilities.device)
    return dense.scatter_add_(1, indices, probabilities)
