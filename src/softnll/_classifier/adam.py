"""The Adam optimiser, for gradients of minibatches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8  # as in the paper


class Adam:
    """Running means of the gradient and of its square, from which `step` computes the change of the parameters.

    Notes
    -----
    Kingma, Ba (2015), "Adam: a method for stochastic optimization", ICLR, algorithm 1.
    """

    def __init__(self, size: int) -> None:
        self.steps = 0
        self.mean, self.square = np.zeros((2, size))  # `step` corrects the bias that these zeros cause

    def step(self, gradient: NDArray[np.float64], learning_rate: float) -> NDArray[np.float64]:
        """Update the means with a gradient and return the step, which is to be subtracted from the parameters."""
        self.steps += 1
        self.mean += (1 - _DECAY) * (gradient - self.mean)
        self.square += (1 - _SQUARE_DECAY) * (gradient**2 - self.square)
        mean = self.mean / (1 - _DECAY**self.steps)
        square = self.square / (1 - _SQUARE_DECAY**self.steps)
        step: NDArray[np.float64] = learning_rate * mean / (np.sqrt(square) + _EPSILON)
        return step
