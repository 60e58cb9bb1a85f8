"""The functions of an explanation's rows: the public ones, and for few rows the equation, which compiles no kernel.

The first call of a compiled kernel takes seconds on a new machine; a handful of rows takes the equation a millisecond.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.problem import loss_problem, prepare
from softnll._kernels import reference
from softnll._numpy import functional
from softnll._numpy.output import reduce, write

FEW = 1 << 16  # numbers; the equation takes 10 ms for them


class FewRows:
    """Functions of ``softnll._numpy.functional`` by the equation, with the options used here."""

    @staticmethod
    def softmax(logits: NDArray[Any]) -> NDArray[Any]:
        """Return the probabilities of rows."""
        return _filled(reference.softmax, logits)

    @staticmethod
    def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
        """Return the log-probabilities of rows."""
        return _filled(reference.log_softmax, logits)

    @staticmethod
    def cross_entropy(logits: NDArray[Any], targets: NDArray[Any], *, reduction: str = "mean") -> Any:
        """Return the losses of rows, or their mean or sum."""
        problem, layout = loss_problem(logits, targets, reduction=reduction)
        return reduce(problem, layout, reference.losses(problem), total=_total)

    @staticmethod
    def cross_entropy_and_grad(
        logits: NDArray[Any], targets: NDArray[Any], *, reduction: str = "mean"
    ) -> tuple[Any, NDArray[Any]]:
        """Return the loss of rows and its gradient."""
        problem, layout = loss_problem(logits, targets, reduction=reduction)
        gradient, losses = write(problem, layout, None, reference.forward_backward)
        return reduce(problem, layout, losses, total=_total), gradient


def functions(size: int) -> type[FewRows] | ModuleType:
    """Return the functions for so many numbers."""
    return FewRows if size <= FEW else functional


def _filled(fill: Any, logits: NDArray[Any]) -> NDArray[Any]:
    """Return what a reference function writes for rows of logits."""
    problem, layout = prepare(logits)
    return write(problem, layout, None, fill)[0]


def _total(losses: NDArray[np.float64]) -> float:
    """Return the sum of losses, rounded once."""
    return math.fsum(losses) if np.isfinite(losses).all() else float(losses.sum())
