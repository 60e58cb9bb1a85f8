"""Linear losses of few logits: one product, then the loss of all rows. A plan of chunks would take longer than both.

Rows that take no part are in these products as zeros, where a feature that is NaN would not be: such losses, and all
arguments that need another form, are left to the general path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll._core.layout import Layout, layout_of
from softnll._core.options import LinearOptions, split
from softnll._core.problem import Problem, prepare_targets
from softnll._kernels.select import are_distributions
from softnll._numpy.backend import NUMPY

_MOST = 1 << 16  # logits
_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


class FewLogits(NamedTuple):
    """A linear layer's loss with its logits. All inputs have been checked."""

    features: NDArray[Any]
    weight: NDArray[Any]
    problem: Problem
    layout: Layout

    def loss(self) -> Any:
        """Return the reduced loss."""
        return self._reduced(NUMPY.losses(self.problem))

    @np.errstate(all="ignore")  # products that overflow are inf
    def gradients(self, to_features: NDArray[Any], to_weight: NDArray[Any], to_bias: NDArray[Any] | None) -> Any:
        """Return the reduced loss, and write the gradients; that of the logits replaces them."""
        dz = self.problem.x
        losses = NUMPY.forward_backward(self.problem, dz)
        if to_bias is not None:
            to_bias[...] = NUMPY.column_sums(dz)
        NUMPY.multiply(dz.T, self.features, to_weight)
        NUMPY.multiply(dz, self.weight, to_features)
        return self._reduced(losses)

    def _reduced(self, losses: NDArray[Any]) -> Any:
        return NUMPY.reduce(self.problem, self.layout, losses, self.problem.x.dtype)


@np.errstate(all="ignore")  # logits that overflow are inf
def few_logits(features: Any, weight: Any, targets: Any, bias: Any, options: LinearOptions) -> FewLogits | None:
    """Return the logits and checked arguments of a loss, if there are few and each row takes part; else None."""
    if not (_fits(features, (features, weight, bias)) and _is_layer(features, weight, bias)):
        return None
    objective, per_row, arrays = split(options)
    if per_row is not None or arrays:
        return None
    shape = len(features), len(weight)
    logits, layout = np.empty(shape, features.dtype), layout_of(shape, 1)
    problem = prepare_targets(Problem(logits, objective), layout, targets, certain=are_distributions)
    if problem.s is not None:
        return None
    NUMPY.affine(features, weight, bias, logits)
    return FewLogits(features, weight, problem, layout)


def _fits(features: Any, arrays: tuple[Any, ...]) -> bool:
    """Return whether all are arrays in one piece of the features' type, which products have; None is left out."""
    for each in arrays:
        if each is not None and not (
            type(each) is np.ndarray and each.dtype is features.dtype in _TYPES and each.flags.c_contiguous
        ):
            return False
    return True


def _is_layer(features: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None) -> bool:
    """Return whether these are the matrices and the vector of a layer with few logits."""
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1] or features.size == 0:
        return False
    return 0 < len(features) * len(weight) <= _MOST and (bias is None or bias.shape == weight.shape[:1])
