"""The functions that run where a partition lies: check, sample, convert, evaluate; no data leaves it but small sums."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_array
from threadpoolctl import ThreadpoolController

from softnll._classifier.inputs import encode, find_classes
from softnll._classifier.penalised_loss import RowLoss

Vector = NDArray[np.float64]

# The filters of warnings belong to the process: tasks in several threads that set and restore them, as scikit-learn's
# check_array does, would leave each other's.
_WARNINGS = threading.Lock()


class Partition(NamedTuple):
    """A partition as it was given, and its number, by which errors name it. ``weight`` may be None."""

    number: int
    X: Any
    y: Any
    weight: Any


class Facts(NamedTuple):
    """What is known of a partition."""

    rows: int
    width: int
    dtype: np.dtype[Any]
    counted: int  # rows whose weight is not 0
    soft: bool
    classes: NDArray[Any]  # of this partition, sorted; of soft y 0 … K−1
    mass: Vector  # of each class: Σ s, of soft y Σ s·q
    weight: float  # Σ s


class PreparedPartition(NamedTuple):
    """A partition as the loss takes it; ``weight`` may be None."""

    X: NDArray[Any]
    targets: NDArray[Any]
    weight: Vector | None


class Sample(NamedTuple):
    """Rows for the moments with their weights, and rows drawn for the directions."""

    even: NDArray[Any]
    weight: Vector | None
    drawn: NDArray[Any]


class LossSums(NamedTuple):
    """The loss of some rows and its gradients, summed."""

    loss: float
    weight: Vector
    bias: Vector


class Point(NamedTuple):
    """Where the loss is evaluated, with its options."""

    weight: Vector
    bias: Vector
    fit_intercept: bool
    options: dict[str, Any]


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Put the partition's number in front of what was wrong with it."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"partition {number} (0 first): {error}") from None


def features(X: Any, *, finite: bool = True) -> NDArray[Any]:
    """Return the features of a partition as a C-contiguous array, float32 or float64."""
    if issparse(X):
        raise TypeError("X is sparse; allowed: dense features, or softnll.SoftmaxClassifier in memory")
    with _WARNINGS:
        array = check_array(
            X,
            dtype=[np.float64, np.float32],
            order="C",
            ensure_all_finite=finite,
            ensure_min_samples=0,
            ensure_min_features=0,
            input_name="X",
        )
    return np.asarray(array)


def _weights(weight: Any, rows: int) -> Vector | None:
    """Return the row weights of a partition."""
    if weight is None:
        return None
    array: Vector = np.asarray(weight, np.float64).reshape(-1)
    if len(array) != rows:
        raise ValueError(f"X has {rows} rows, sample_weight {len(array)}")
    if not ((array >= 0) & (array < np.inf)).all():
        raise ValueError("sample_weight holds negative, infinite or missing numbers; allowed: finite numbers >= 0")
    return array


def _labels(y: Any, rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the classes of a partition, and its labels or distributions."""
    y = np.asarray(y)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if len(y) != rows:
        raise ValueError(f"X has {rows} rows, y {len(y)}")
    if y.ndim == 1 and pd.isna(y).any():
        raise ValueError("y holds missing labels")
    if rows == 0:
        return (np.arange(y.shape[1]), y) if y.ndim == 2 else (y[:0], y)
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # scikit-learn's, that a few rows of many classes may be regression
        return find_classes(y)


@np.errstate(over="ignore")  # infinite sums of weights are refused later
def examine(partition: Partition, options: dict[str, Any], check: bool | None) -> Facts:
    """Return the facts of a partition after checking all of it."""
    with _named(partition.number):
        X = features(partition.X)
        classes, y = _labels(partition.y, len(X))
        weight = _weights(partition.weight, len(X))
        total = float(len(X) if weight is None else weight.sum())
        if y.ndim == 2:
            if len(X):
                given = options | {"sample_weight": weight, "check": check, "reduction": "sum"}
                RowLoss.check(X, y, y.shape[1], fit_intercept=False, options=given)
            mass = (y.sum(axis=0) if weight is None else weight @ y).astype(np.float64)
        else:
            mass = np.bincount(encode(y, classes) if len(y) else [], weight, len(classes)).astype(np.float64)
    counted = len(X) if weight is None else int(np.count_nonzero(weight))
    return Facts(len(X), X.shape[1], X.dtype, counted, y.ndim == 2, classes, mass, total)


def prepare(partition: Partition, classes: NDArray[Any], dtype: Any) -> PreparedPartition:
    """Return a partition as the loss takes it."""
    with _named(partition.number):
        X = features(partition.X, finite=False).astype(dtype, copy=False)
        _, y = _labels(partition.y, len(X))
        return PreparedPartition(X, encode(y, classes), _weights(partition.weight, len(X)))


class Draw(NamedTuple):
    """Which rows of a partition are sampled."""

    first: int  # the first row for the moments, of those whose weight is not 0
    step: int  # the distance to the next one
    shares: Vector  # sums of row weights, where the rows for the directions lie


def sample(partition: Partition, classes: NDArray[Any], dtype: Any, class_weight: Vector | None, draw: Draw) -> Sample:
    """Return rows of a partition for the moments, and rows for the directions."""
    part = prepare(partition, classes, dtype)
    s = part.weight
    at = np.arange(len(part.X)) if s is None else np.flatnonzero(s)
    even = at[draw.first :: draw.step]
    weight = np.ones(len(part.X)) if s is None else s
    if class_weight is not None and part.targets.ndim == 1:
        weight = weight * class_weight[part.targets]
    drawn = np.zeros(0, np.int64)
    if len(draw.shares):
        drawn = np.minimum(np.searchsorted(np.cumsum(weight), draw.shares, side="right"), np.flatnonzero(weight)[-1])
    return Sample(part.X[even], None if s is None else s[even], part.X[drawn])


def evaluate(part: PreparedPartition, point: Point) -> LossSums:
    """Return the loss of a partition's rows and its gradients at a point, the same bits for any number of threads."""
    options = point.options | {"sample_weight": part.weight, "check": False, "reduction": "sum"}
    rows = RowLoss.check(part.X, part.targets, len(point.weight), point.fit_intercept, options)
    with ONE_THREAD:
        loss, weight, bias = rows.gradients(point.weight, point.bias)
    return LossSums(loss, np.asarray(weight, np.float64), np.asarray(bias, np.float64))


def add(sums: Sequence[LossSums]) -> LossSums:
    """Return the sums of some partitions together, added in their order."""
    loss, weight, bias = sums[0].loss, sums[0].weight.copy(), sums[0].bias.copy()
    for each in sums[1:]:
        loss += each.loss
        weight += each.weight
        bias += each.bias
    return LossSums(loss, weight, bias)


class _OneThread:
    """A context in which BLAS has one thread: with more it adds in another order, and Dask computes parts in parallel.

    The limit is one of the process; it ends when the last of its threads has left the context.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._limits = ExitStack()
        self._controller: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                if self._controller is None:
                    self._controller = ThreadpoolController()
                self._limits.enter_context(self._controller.limit(limits=1, user_api="blas"))
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._limits.close()


ONE_THREAD = _OneThread()


def predicted(X: Any, model: Any, method: str) -> NDArray[Any]:
    """Return what a method of a local model returns for a partition, which may have no rows."""
    array = features(X)
    if len(array):
        return np.asarray(getattr(model, method)(array))
    return np.asarray(getattr(model, method)(np.zeros((1, array.shape[1]), array.dtype))[:0])


def right(partition: Partition, model: Any) -> tuple[float, float]:
    """Return the weight of the rows that a local model predicts right, and that of all rows."""
    with _named(partition.number):
        X = features(partition.X)
        _, y = _labels(partition.y, len(X))
        weight = _weights(partition.weight, len(X))
        if y.ndim != 1:
            raise ValueError(f"y has shape {y.shape}; allowed: labels, (N,)")
        weight = np.ones(len(X)) if weight is None else weight
        return float(weight[predicted(X, model, "predict") == y].sum()), float(weight.sum())
