"""The classifier's arguments, checked: options in range, labels as positions, class weights as an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data


def checked_data(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, order: str | None, reset: bool, codes: bool = True
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.float64] | None]:
    """Return X, the classes in y, y (with ``codes`` as positions among them) and the row weights."""
    X, y = validate_data(
        estimator,
        X,
        y,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        order=order,
        multi_output=True,
        y_numeric=False,
        reset=reset,
    )
    classes, labels = find_classes(y)
    weights = None
    if sample_weight is not None:
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return X, classes, encode(labels, classes) if codes else labels, weights


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
        return np.arange(y.shape[1]), y if y.dtype.kind == "f" and y.dtype.itemsize <= 8 else y.astype(np.float64)
    y = column_or_1d(y, warn=True)
    check_classification_targets(y)
    return np.unique(y), y


def encode(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Return labels as int64 positions among the classes, which are sorted; distributions as they are."""
    if y.ndim == 2:
        if y.shape[1] != len(classes):
            raise ValueError(f"y has {y.shape[1]} columns; allowed: {len(classes)}, one a class")
        return y
    found, unknown = positions(y, classes)
    if unknown.any():
        raise ValueError(f"y[{np.argmax(unknown)}] is {y[np.argmax(unknown)]!r}, which is not one of the classes")
    return found


def positions(labels: NDArray[Any], classes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels' int64 positions among sorted classes, and which labels are none of them."""
    found = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown: NDArray[np.bool_] = classes[found] != labels
    return found, unknown


def class_weights(
    class_weight: Any, classes: NDArray[Any], targets: NDArray[Any], sample_weight: NDArray[Any] | None
) -> NDArray[np.float64] | None:
    """Return one weight a class; balanced ``Σ_n s_n / (K · Σ_n s_n q_nc)``, with which all classes weigh the same."""
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
    return balanced_weights(mass)


def balanced_weights(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights with which classes of this mass weigh the same; 1 for a class without mass."""
    present = mass > 0
    return np.where(present, mass.sum() / (len(mass) * np.where(present, mass, 1.0)), 1.0)
