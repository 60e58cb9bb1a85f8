"""The Adam optimiser, for gradients of minibatches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adam"]

_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8  # as in the paper


@dataclass(slots=True)
class Adam:
    """Running means of the gradient and of its square, from which `step` computes the change of the parameters.

    Notes
    -----
    Kingma, Ba (2015), "Adam: a method for stochastic optimization", ICLR, algorithm 1.
    """

    size: int
    steps: int = 0
    mean: NDArray[Any] = field(init=False)
    square: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        """Set both means to 0; `step` corrects the bias that this causes."""
        self.mean, self.square = np.zeros((2, self.size))

    def step(self, gradient: NDArray[np.float64], learning_rate: float) -> NDArray[np.float64]:
        """Update the means with a gradient and return the step, which is to be subtracted from the parameters."""
        self.steps += 1
        self.mean += (1 - _DECAY) * (gradient - self.mean)
        self.square += (1 - _SQUARE_DECAY) * (gradient**2 - self.square)
        mean = self.mean / (1 - _DECAY**self.steps)
        square = self.square / (1 - _SQUARE_DECAY**self.steps)
        step: NDArray[np.float64] = learning_rate * mean / (np.sqrt(square) + _EPSILON)
        return step
