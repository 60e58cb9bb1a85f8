"""What a classifier minimises: the mean cross-entropy of a linear layer plus a penalty on its weight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.head import Head
from softnll.plan import Plan, Wanted

__all__ = ["Penalised", "pack", "unpack"]

_ROWS = (
    1024  # a chunk: of 50 000 × 3072 by 10, 196 ms instead of 206 with 4096 and 217 whole; of 60 000 × 784 60, 63, 68
)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Penalised:
    """``Σ loss / D + ‖W‖² / (2·C·D)`` and its gradient, as a function of W and b in one vector.

    The data are checked when this is made, not at each call.
    """

    head: Head
    plan: Plan
    strength: float  # 1 / (C·D)
    fit_intercept: bool

    @classmethod
    def check(
        cls, X: NDArray[Any], targets: NDArray[Any], n_classes: int, C: float, fit_intercept: bool, options: Any
    ) -> Penalised:
        """Check features, targets and weights; X is float32 or float64 and stays as it is."""
        weight = np.zeros((n_classes, X.shape[1]), X.dtype)
        bias = np.zeros(n_classes, X.dtype) if fit_intercept else None
        head = Head.check(X, weight, targets, bias, options)
        total = head.problem.divisor
        if not total > 0:
            raise ValueError("the weights of all rows are 0: nothing is left to fit to")
        plan = head.plan(None, Wanted(features=False, weight=True, bias=True))
        if plan.rows > _ROWS:
            plan = replace(plan, rows=_ROWS, chunks=-(-plan.rows * plan.chunks // _ROWS))
        return cls(head, plan, 1.0 / (C * total), fit_intercept)

    @property
    def total(self) -> float:
        """D, the weight of all rows."""
        return self.head.problem.divisor

    def penalty(self, vector: Vector) -> float:
        """Return the penalty's share of the value."""
        weight, _ = unpack(vector, self.head.weight.shape)
        # Not vdot: NumPy's BLAS would wake threads of its own, which spin beside those of the products (decision 6).
        return 0.5 * self.strength * float(np.einsum("kh,kh->", weight, weight))

    def __call__(self, vector: Vector) -> tuple[float, Vector]:
        """Return value and gradient."""
        weight, bias = unpack(vector, self.head.weight.shape)
        dtype = self.head.dtype
        here = replace(
            self.head, weight=weight.astype(dtype, copy=False), bias=bias.astype(dtype) if self.fit_intercept else None
        )
        loss, d_weight, d_bias = here.weight_gradients(self.plan)
        gradient = pack(d_weight + self.strength * weight, d_bias if self.fit_intercept else None)
        return loss + self.penalty(vector), gradient


def pack(weight: NDArray[Any], bias: NDArray[Any] | None) -> Vector:
    """Return W and b, if there is one, as one vector of float64."""
    parts = (weight.ravel(),) if bias is None else (weight.ravel(), bias)
    return np.concatenate(parts, dtype=np.float64)


def unpack(vector: Vector, shape: tuple[int, ...]) -> tuple[Vector, Vector]:
    """Return W and b, which is 0 if there is none."""
    size = shape[0] * shape[1]
    bias = vector[size:] if vector.size > size else np.zeros(shape[0])
    return vector[:size].reshape(shape), bias
