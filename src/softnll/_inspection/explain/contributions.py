"""The share of the loss that each other class causes, and the entropy of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core import equation
from softnll._core.problem import prepare
from softnll._core.targets import blocks
from softnll._inspection.explain.few_rows import functions


def contributions(logits: NDArray[Any], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``(N, C)`` nats by which each loss falls when that class is removed; 0 at the true class.

    Without class k the true class has p_y/(1 − p_k), so the loss is lower by ``−ln(1 − p_k)``. The logits are
    ``(N, C)``, each row with a softmax; the targets ``(N,)`` true classes; the result float64.

    Examples
    --------
    >>> import numpy as np
    >>> contributions(np.array([[5.0, 4.0, 2.0]]), np.array([0])).round(4)
    array([[0.    , 0.3004, 0.0358]])
    """
    parts = equation.normalise(prepare(logits)[0])
    p = equation.probabilities(parts)
    with np.errstate(divide="ignore"):
        lower: NDArray[np.float64] = np.where(
            p <= 0.5, -np.log1p(-np.minimum(p, 0.5)), -np.log(equation.complements(parts))
        )
    lower[np.arange(len(lower)), targets] = 0.0
    return lower + 0.0


def entropy(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``(N,)`` −Σ p·ln p in nats, 0 to ln C: each row's cross-entropy with its own probabilities, in float64.

    The logits are ``(N, C)``, each row with a softmax.

    Examples
    --------
    >>> import numpy as np
    >>> entropy(np.array([[0.0, 0.0], [17.0, 0.0]])).round(9).tolist()
    [0.693147181, 7.45e-07]
    """
    found, compute = np.empty(len(logits)), functions(logits.size)
    for rows in blocks(logits.shape):
        wide = logits[rows].astype(np.float64)
        found[rows] = compute.cross_entropy(wide, compute.softmax(wide), reduction="none")
    return found
