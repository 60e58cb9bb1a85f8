"""The numbers of an explanation, apart from how they are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.explain.contributions import contributions

FEW_ROWS = 6  # so many are shown in their order, and so many have a sentence


class Losses(NamedTuple):
    """The numbers of an explanation that need true classes."""

    targets: NDArray[np.int64]
    nll: NDArray[Any]
    gradient: NDArray[Any]
    total: float
    mean: float


@dataclass(frozen=True, eq=False, repr=False)
class ExplanationNumbers:
    """The numbers of an `Explanation`, whose documentation describes the attributes."""

    logits: NDArray[Any]
    class_names: tuple[str, ...]
    targets: NDArray[np.int64] | None
    probabilities: NDArray[Any]
    log_probabilities: NDArray[Any]
    prediction: NDArray[np.int64]
    confidence: NDArray[Any]
    margin: NDArray[Any]
    entropy: NDArray[Any]
    ties: NDArray[np.bool_]
    nll: NDArray[Any] | None
    gradient: NDArray[Any] | None
    total: float | None
    mean: float | None

    @property
    def losses(self) -> Losses | None:
        """The five attributes that need true classes, together, or None."""
        if self.targets is None or self.nll is None or self.gradient is None or self.total is None or self.mean is None:
            return None
        return Losses(self.targets, self.nll, self.gradient, self.total, self.mean)

    @property
    def order(self) -> NDArray[np.int64]:
        """``(N,)`` the rows in the order in which they are shown: of many with true classes, the unhappiest first."""
        N = len(self.logits)
        return np.arange(N) if self.nll is None or N <= FEW_ROWS else np.argsort(-self.nll, kind="stable")

    @property
    def nll_bits(self) -> NDArray[Any] | None:
        """``(N,)`` losses in bits: nats / ln 2."""
        return None if self.nll is None else self.nll / math.log(2)

    @property
    def contributions(self) -> NDArray[np.float64] | None:
        """``(N, C)`` nats by which the loss falls when that class is removed; 0 at the true class.

        Without class k the true class has p_y/(1 − p_k), so the loss is lower by −ln(1 − p_k).
        """
        return None if self.targets is None else contributions(self.logits, self.targets)

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        """Whether each prediction is the true class."""
        return None if self.targets is None else self.prediction == self.targets
