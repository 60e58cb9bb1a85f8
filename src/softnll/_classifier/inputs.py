"""What a classifier is given, checked: labels become positions, class weights an array, options are in range."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

__all__ = ["check_options", "class_weights", "encode", "find_classes"]

# What each option may be: a type, the lowest value and whether that itself is allowed, the highest.
_OPTIONS: dict[str, tuple[Any, float, bool, float]] = {
    "C": (Real, 0, False, math.inf),
    "label_smoothing": (Real, 0, True, 1),
    "tol": (Real, 0, True, math.inf),
    "max_iter": (Integral, 1, True, math.inf),
    "batch_size": (Integral, 1, True, math.inf),
    "learning_rate": (Real, 0, False, math.inf),
}


def check_options(options: dict[str, Any]) -> None:
    """Raise unless each option is of its type and in its range."""
    for name, (kind, lowest, closed, highest) in _OPTIONS.items():
        value: Any = options[name]
        allowed = f"{'integers' if kind is Integral else 'numbers'} {'>=' if closed else '>'} {lowest}"
        allowed += "" if highest == math.inf else f" and <= {highest}"
        if not isinstance(value, kind) or isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} is {value!r}; allowed: {allowed}")
        if not ((value >= lowest if closed else value > lowest) and value <= highest):
            raise ValueError(f"{name} is {value!r}; allowed: {allowed}")
    for name in ("fit_intercept", "warm_start"):
        if not isinstance(options[name], bool | np.bool_):
            raise TypeError(f"{name} is {options[name]!r}; allowed: True or False")
    weight = options["class_weight"]
    if weight is not None and not isinstance(weight, dict) and not (isinstance(weight, str) and weight == "balanced"):
        raise ValueError(f"class_weight is {weight!r}; allowed: None, 'balanced' or a dict of class: weight")


def find_classes(y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the classes, and y as labels of ``(N,)`` or distributions of ``(N, K)``.

    Two columns and more are distributions over the classes 0 … K−1; one column is labels, and scikit-learn's
    DataConversionWarning says so.
    """
    if issparse(y):
        raise TypeError("y is sparse; allowed: labels of shape (N,) or dense distributions of shape (N, K)")
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1:
        if y.dtype.kind not in "biuf":
            raise TypeError(f"soft y has dtype {y.dtype}; allowed: numbers, each row a distribution over the columns")
        return np.arange(y.shape[1]), y if y.dtype in (np.float32, np.float64) else y.astype(np.float64)
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    return np.unique(y), y


def encode(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Return labels as int64 positions among the classes, which are sorted; distributions as they are."""
    if y.ndim == 2:
        if y.shape[1] != len(classes):
            raise ValueError(f"y has {y.shape[1]} columns; allowed: {len(classes)}, one a class")
        return y
    positions = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    unknown = classes[positions] != y
    if unknown.any():
        raise ValueError(f"y[{np.argmax(unknown)}] is {y[np.argmax(unknown)]!r}, which is not one of the classes")
    return positions


def class_weights(
    class_weight: Any, classes: NDArray[Any], targets: NDArray[Any], sample_weight: NDArray[Any] | None
) -> NDArray[np.float64] | None:
    """Return one weight a class. Balanced: ``Σ_n s_n / (K · Σ_n s_n q_nc)``, a class then weighs as much as another."""
    if class_weight is None:
        return None
    if not isinstance(class_weight, str):
        return np.asarray(compute_class_weight(class_weight, classes=classes, y=classes), np.float64)
    if targets.ndim == 1:
        mass = np.bincount(targets, weights=sample_weight, minlength=len(classes)).astype(np.float64)
    elif sample_weight is None:
        mass = targets.sum(axis=0, dtype=np.float64)
    else:
        mass = sample_weight @ targets
    present = mass > 0
    return np.where(present, mass.sum() / (len(classes) * np.where(present, mass, 1.0)), 1.0)
