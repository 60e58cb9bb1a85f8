"""Soft targets that are 0 but for a few classes of each row, as a larger model's best guesses are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softnll.layout import Layout
from softnll.problem import Problem, prepare_targets
from softnll.targets import TargetIndexError, as_weights, check_soft, first_bad
from softnll.torch.views import as_array

__all__ = ["SparseTargets", "sparse_problem"]


class SparseTargets(NamedTuple):
    """Soft targets of K classes a row: ``q[n, indices[n, k]] += probabilities[n, k]``, and 0 elsewhere.

    Attributes
    ----------
    indices
        ``(..., K)`` classes, of any integer type. A class that comes twice in a row has the sum.
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


class _Rows:
    """Soft targets that a Problem takes for an ``(N, C)`` array: rows are made when they are asked for."""

    def __init__(self, indices: Tensor, probabilities: Tensor, n_classes: int) -> None:
        self.indices, self.probabilities, self.n_classes = indices, probabilities, n_classes
        self.row_bytes = 2 * n_classes * probabilities.itemsize  # those before are still held
        self.nbytes = probabilities.nbytes

    def __getitem__(self, place: tuple[Any, ...]) -> NDArray[Any]:
        """Return some rows."""
        rows = torch.from_numpy(place[0]) if isinstance(place[0], np.ndarray) else place[0]
        q = self.probabilities[rows]
        dense = np.zeros((len(q), self.n_classes), as_array(q).dtype)
        torch.from_numpy(dense).scatter_add_(1, self.indices[rows], q)
        return dense


def sparse_problem(
    problem: Problem,
    layout: Layout,
    indices: Tensor,
    probabilities: Tensor,
    weight: Any,
    sample_weight: Any,
    check: bool,
) -> Problem:
    """Check sparse targets and weights and return the Problem that holds them, as ``prepare_targets`` does.

    The classes are always checked: a kernel writes where they say.
    """
    shape = tuple(indices.shape)
    if shape != tuple(probabilities.shape) or shape[:-1] != layout.row_shape or not shape or not shape[-1]:
        raise ValueError(
            f"target.indices has shape {shape}, target.probabilities {tuple(probabilities.shape)}; "
            f"allowed: one shape, {(*layout.row_shape, 'K')}, with K >= 1"
        )
    C = layout.n_classes
    classes = indices.to(torch.int64)
    bad = as_array((classes < 0) | (classes >= C)).reshape(-1)
    if bad.any():
        value = classes.reshape(-1)[int(np.argmax(bad))].item()
        raise TargetIndexError(f"target.indices{first_bad(bad, shape)} is {value}; allowed: 0 <= class < {C}")
    nobody = np.zeros(layout.row_shape, np.int64)  # for row weights and the mean's denominator, which are those of any
    rows = prepare_targets(problem, layout, nobody, None, sample_weight, check=False)
    q = probabilities.detach().reshape(-1, shape[-1])
    q = q if q.dtype in (torch.float32, torch.float64) else q.float()
    if check:
        check_soft(as_array(q), layout, rows.s, None)
    w = None if weight is None else as_weights(weight, "class_weight", (C,))
    return replace(rows, y=None, q=_Rows(classes.reshape(-1, shape[-1]), q, C), w=w)
