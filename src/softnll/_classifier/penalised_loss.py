"""The classifier's objective: the mean cross-entropy of a linear layer plus a penalty on its weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from softnll._classifier.sparse import sparse_loss
from softnll._core.chunked import LinearLoss
from softnll._core.plan import Plan, Wanted
from softnll._numpy.linear import checked_loss

# Rows of a chunk. An evaluation with 50 000 × 3072 features and 10 classes takes 196 ms, with 4096 rows 206, unchunked
# 217; with 60 000 × 784 features 60, 63 and 68 ms.
_ROWS = 1024
_LOGITS = 64 << 20  # bytes of the logits of sparse features that are always allowed

Vector = NDArray[np.float64]


class Objective(ABC):
    """``Σ loss / D + ‖W‖² / (2·C·D)`` and its gradient, as a function of W and b in one vector."""

    shape: tuple[int, int]  # (K, H) of W
    total: float  # D, the weight of all rows
    strength: float  # 1 / (C·D)
    fit_intercept: bool

    @abstractmethod
    def mean_loss(self, weight: Vector, bias: Vector) -> tuple[float, Any, Any]:
        """Return ``Σ loss / D`` and its gradients by W and b."""

    def penalty(self, vector: Vector) -> float:
        """Return the penalty, which is part of the value."""
        weight, _ = unpack(vector, self.shape)
        # Not vdot: NumPy's BLAS would start threads of its own, which compete with those of the products (decision 6).
        return 0.5 * self.strength * float(np.einsum("kh,kh->", weight, weight))

    def __call__(self, vector: Vector) -> tuple[float, Vector]:
        """Return value and gradient."""
        weight, bias = unpack(vector, self.shape)
        loss, d_weight, d_bias = self.mean_loss(weight, bias)
        gradient = pack(d_weight + self.strength * weight, d_bias if self.fit_intercept else None)
        return loss + self.penalty(vector), gradient


@dataclass(frozen=True, slots=True)
class RowLoss:
    """The loss of rows in memory and its gradients by W and b.

    The data are checked by `check`, not at each call.
    """

    head: LinearLoss
    plan: Plan

    @classmethod
    def check(cls, X: Any, targets: NDArray[Any], n_classes: int, fit_intercept: bool, options: Any) -> RowLoss:
        """Return the loss of checked features, targets and weights; X is not copied.

        X is float32 or float64, an array or a CSR matrix.
        """
        weight = np.zeros((n_classes, X.shape[1]), X.dtype)
        bias = np.zeros(n_classes, X.dtype) if fit_intercept else None
        head = (sparse_loss if issparse(X) else checked_loss)(X, weight, targets, bias, options)
        wanted = Wanted(features=False, weight=True, bias=True)
        if issparse(X):  # each chunk transposes W: as few chunks as memory allows
            logits = len(weight) * X.shape[0] * X.dtype.itemsize
            most = 2 * weight.nbytes + max(_LOGITS, min(logits, X.data.nbytes))
            return cls(head, head.plan(most, wanted))
        plan = head.plan(None, wanted)
        if plan.rows > _ROWS:
            plan = replace(plan, rows=_ROWS, chunks=-(-plan.rows * plan.chunks // _ROWS))
        return cls(head, plan)

    def gradients(self, weight: Vector, bias: Vector) -> tuple[float, Any, Any]:
        """Return the loss and its gradients by W and b."""
        dtype, given = self.head.dtype, self.head.bias
        head = replace(
            self.head, weight=weight.astype(dtype, copy=False), bias=None if given is None else bias.astype(dtype)
        )
        return head.weight_gradients(self.plan)


@dataclass(frozen=True, slots=True)
class Penalised(Objective):
    """The objective of rows in memory."""

    rows: RowLoss
    shape: tuple[int, int]
    total: float
    strength: float
    fit_intercept: bool

    @classmethod
    def check(
        cls, X: Any, targets: NDArray[Any], n_classes: int, C: float, fit_intercept: bool, options: Any
    ) -> Penalised:
        """Return the objective of checked features, targets and weights; see `RowLoss.check`."""
        rows = RowLoss.check(X, targets, n_classes, fit_intercept, options)
        total = float(rows.head.problem.divisor)
        return cls(rows, (n_classes, X.shape[1]), total, strength(C, total), fit_intercept)

    @property
    def head(self) -> LinearLoss:
        """The loss of the rows."""
        return self.rows.head

    def mean_loss(self, weight: Vector, bias: Vector) -> tuple[float, Any, Any]:
        """Return ``Σ loss / D`` and its gradients by W and b."""
        return self.rows.gradients(weight, bias)


def strength(C: float, total: float) -> float:
    """Return 1 / (C·D), by which the penalty is multiplied; D is the weight of all rows."""
    if not total > 0:
        raise ValueError("the weights of all rows are 0: there is nothing to fit")
    return 1.0 / (float(C) * total)


def pack(weight: NDArray[Any], bias: NDArray[Any] | None) -> Vector:
    """Return W and b (None for no intercept) as one vector of float64."""
    parts = (weight.ravel(),) if bias is None else (weight.ravel(), bias)
    return np.concatenate(parts, dtype=np.float64)


def unpack(vector: Vector, shape: tuple[int, ...]) -> tuple[Vector, Vector]:
    """Return W and b of a vector; b is 0 where the vector holds none."""
    size = shape[0] * shape[1]
    bias = vector[size:] if vector.size > size else np.zeros(shape[0])
    return vector[:size].reshape(shape), bias
