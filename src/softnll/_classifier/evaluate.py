"""Measure the quality of a trained classifier's scores on test data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._classifier.inputs import positions
from softnll._inspection.survey import Block
from softnll._numpy.functional import cross_entropy
from softnll.data import Dataset

_ROWS = 4096  # rows of features that are multiplied at a time, so that no wide copy of all of them exists
_LARGEST_NLL = 700  # above it, e to its power may overflow


@dataclass(frozen=True)
class Quality:
    """The quality of scores."""

    examples: int
    accuracy: float  # share of rows whose largest score (the first of a tie) is the true class's
    nll: float  # mean negative log-likelihood in nats
    perplexity: float  # e to the power of the NLL: the number of equally likely classes with that NLL
    ece: float  # expected calibration error in 15 bins


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on test data, their true columns, and their quality."""

    class_names: tuple[str, ...]
    logits: NDArray[np.float64]
    targets: NDArray[np.int64]
    quality: Quality


def measure(logits: NDArray[Any], targets: NDArray[np.int64]) -> Quality:
    """Return the quality of the scores.

    Examples
    --------
    >>> measure(np.array([[5.0, 4, 2], [4, 2, 8], [4, 4, 1]]), np.array([0, 2, 1])).nll.__round__(6)
    0.362443
    """
    rows = Block(logits, targets)
    nll = float(cross_entropy(logits, targets))
    perplexity = math.exp(nll) if nll < _LARGEST_NLL else math.inf
    return Quality(len(targets), float(rows.right.mean()), nll, perplexity, rows.reliability().ece)


def evaluate(model: Any, test: Dataset) -> Evaluation:
    """Return a fitted `SoftmaxClassifier`'s scores on test data of the same columns and classes, and their quality."""
    weight, bias, classes = model.coef_, model.intercept_, model.classes_
    features = test.features()
    if features.shape[1] != weight.shape[1]:
        raise ValueError(f"{test.name}: {features.shape[1]} features to test, {weight.shape[1]} to train")
    targets, unknown = positions(test.labels, classes)
    if unknown.any():
        name = test.class_names[test.labels[unknown.argmax()]]
        raise ValueError(f"{test.name}: class {name!r} is in the test data only")
    blocks = [features[start : start + _ROWS] @ weight.T + bias for start in range(0, len(features), _ROWS)]
    logits = np.concatenate(blocks)
    return Evaluation(tuple(test.class_names[c] for c in classes), logits, targets, measure(logits, targets))
