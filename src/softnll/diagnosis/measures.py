"""What losses under other conventions are made from: a few numbers a row, in one pass over all rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softnll.diagnosis.case import Case
from softnll.functional import cross_entropy, softmax
from softnll.score_rows import real

__all__ = ["Measures", "measure"]


@dataclass(frozen=True, eq=False)
class Measures:
    """Numbers of each of n labelled rows, ``(n,)``.

    Attributes
    ----------
    C
        The number of classes.
    y
        The class.
    nll, mean_nll
        The loss at it, and the mean of the losses at all classes (what label smoothing mixes in).
    p, given
        The probability of the class, and its score as given.
    square
        Σ p² over the classes.
    binary
        The sum over the classes of the sigmoids' binary cross-entropies.
    twice
        The loss when softmax is applied once more.
    as_given
        The loss with the scores taken for logits, whatever they are.
    below, above
        The loss at the class before and after, with the ends joined.
    """

    C: int
    y: NDArray[np.int64]
    nll: NDArray[np.float64]
    mean_nll: NDArray[np.float64]
    p: NDArray[np.float64]
    given: NDArray[np.float64]
    square: NDArray[np.float64]
    binary: NDArray[np.float64]
    twice: NDArray[np.float64]
    as_given: NDArray[np.float64]
    below: NDArray[np.float64]
    above: NDArray[np.float64]


def measure(case: Case) -> Measures:
    """Look at all labelled rows once more."""
    n, C = len(case.labelled), case.C
    taking_part = np.zeros(case.scores.shape[0], bool)
    taking_part[case.labelled] = True
    columns = {name: np.empty(n) for name in Measures.__dataclass_fields__ if name not in ("C", "y")}
    y = case.y[case.labelled]
    start = 0
    for rows, block in case.scores.blocks():
        scores = real(block)[taking_part[rows]]
        stop = start + len(scores)
        if stop == start:
            continue
        at = y[start:stop]
        logits = case.kind.logits(scores)
        p = softmax(logits)
        part = {
            "nll": cross_entropy(logits, at, reduction="none"),
            "mean_nll": cross_entropy(logits, at, label_smoothing=1.0, reduction="none"),
            "p": np.take_along_axis(p, at[:, None], axis=1)[:, 0],
            "given": np.take_along_axis(scores, at[:, None], axis=1)[:, 0],
            "square": np.einsum("nc,nc->n", p, p, dtype=np.float64),
            "binary": _binary(logits, at),
            "twice": cross_entropy(p, at, reduction="none"),
            "as_given": cross_entropy(scores, at, reduction="none"),
            "below": cross_entropy(logits, (at - 1) % C, reduction="none"),
            "above": cross_entropy(logits, (at + 1) % C, reduction="none"),
        }
        for name, values in part.items():
            columns[name][start:stop] = values
        start = stop
    return Measures(C=C, y=y, **columns)


def _binary(logits: NDArray[np.floating], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return Σ_c ln(1 + exp(x_c)) − x_y: each class's sigmoid against its own yes or no."""
    with np.errstate(invalid="ignore"):
        total = np.logaddexp(0, logits).sum(axis=1, dtype=np.float64)
        return np.asarray(total - np.take_along_axis(logits, y[:, None], axis=1)[:, 0])
