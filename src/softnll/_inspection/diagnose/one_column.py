"""Scores of one column: probabilities or scores of class 1, predictions, and swapped arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.arrays import as_numpy
from softnll._inspection.diagnose.finding import Evidence, Finding, finding
from softnll._inspection.format import percent
from softnll.data.rows import ArrayRows, Rows, as_rows, real

MOST_VALUES = 1000  # different whole numbers that still may be predicted classes
KNOWN = 0.9  # of the predictions that are also labels
IGNORED = -100


def as_table(given: Any, labels: Any) -> tuple[Rows, list[Finding]]:
    """Return scores as ``(N, C)`` rows, and findings about scores that have one column.

    One number a row beside labels of two values becomes two columns: ``(1 − p, p)`` for p in [0, 1], else
    ``(−x/2, x/2)``.

    Raises
    ------
    ValueError, TypeError
        As `as_rows`; and for swapped arguments.

    Examples
    --------
    >>> rows, found = as_table(np.array([0.9, 0.2, 0.4]), np.array([1, 0, 1]))
    >>> rows.rows(slice(0, 2)).round(1).tolist(), found[0].code
    ([[0.1, 0.9], [0.8, 0.2]], 'single-column')
    """
    y = _array(labels)
    scores = _column(given, y)
    N, C = scores.shape
    if C == N == 1 or (C != 1 and not (N == 1 and y is not None and len(y) == C)):
        return scores, []
    if N == 1:  # a file of one number a row is read as one row
        scores = ArrayRows(scores.rows(slice(None)).reshape(-1, 1), scores.name)
    x = real(scores.rows(slice(None)))[:, 0]
    if y is None or len(y) != len(x):
        return scores, []
    whole = bool(np.isfinite(x).all() and (np.rint(x) == x).all())
    if whole and ((y.ndim == 2 and y.shape[1] > 1) or _fractions(y)):
        raise ValueError(
            f"scores and labels are swapped: the scores are {len(x)} whole numbers, the labels have shape {y.shape} "
            f"and type {y.dtype.name}; scores come first"
        )
    if y.ndim == 2 and y.shape[1] > 1:
        return scores, []
    flat = y.reshape(-1)
    if whole and (predicted := _predictions(x, flat)) is not None:
        return scores, [predicted]
    if len(_classes(flat)) != 2:
        return scores, []
    return _two_columns(scores, x)


def _array(values: Any) -> NDArray[Any] | None:
    """Return values as an array of one axis or more; None where they are none."""
    try:
        array = np.asarray(as_numpy(values))
    except ValueError:
        return None
    return array if array.ndim >= 1 else None


def _column(given: Any, y: NDArray[Any] | None) -> Rows:
    """Return scores as rows; one number for each label is a column."""
    if hasattr(given, "rows") and hasattr(given, "blocks"):
        return as_rows(given)
    array = _array(given)
    if array is not None and array.ndim == 1 and y is not None and len(y) == len(array) > 1:
        if array.dtype.kind in "USO" and all(isinstance(each, str | bytes) for each in array.tolist()):
            raise TypeError("the scores are words, perhaps predicted classes; a loss needs scores, (rows, classes)")
        return as_rows((array.astype(np.int64) if array.dtype.kind == "b" else array)[:, None])
    return as_rows(given)


def _fractions(y: NDArray[Any]) -> bool:
    """Whether values are numbers of which some are not whole."""
    return y.dtype.kind == "f" and bool((np.isfinite(y) & (np.rint(y) != y)).any())


def _classes(y: NDArray[Any]) -> set[Any]:
    """Return the values of labels that losses do not ignore."""
    return set(np.unique(y).tolist() if y.dtype.kind in "biufU" else y.tolist()) - {IGNORED, str(IGNORED)}


def _predictions(x: NDArray[Any], y: NDArray[Any]) -> Finding | None:
    """Find whole numbers that are labels nearly everywhere: predicted classes."""
    numeric = y.dtype.kind in "biuf"
    values = np.unique(x)
    known = {float(each) for each in _classes(y)} if numeric else set()
    if len(values) > MOST_VALUES or (numeric and np.isin(x, list(known)).mean() < KNOWN):
        return None
    text = f"each of {len(x)} rows has one whole number, {len(values)} different ones"
    facts: dict[str, Any] = {"rows": len(x), "values": len(values)}
    if numeric:
        facts["agreement"] = float((x == y).mean())
        text += f", of which {percent(facts['agreement'])} are the label"
    return finding("hard-predictions", Evidence(text, **facts))


def _two_columns(scores: Rows, x: NDArray[Any]) -> tuple[Rows, list[Finding]]:
    """Return the two columns that one number a row stands for, and the finding that says so."""
    finite = x[np.isfinite(x)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    probability = low >= 0 and high <= 1
    # (-x/2, x/2) has the softmax of (0, x), and no column that never changes.
    table = np.stack([1 - x, x] if probability else [-x / 2, x / 2], axis=1)
    text = (
        f"the scores are one number in each of {len(x)} rows, from {low:.4g} to {high:.4g}, beside labels of two values"
    )
    evidence = Evidence(text, rows=len(x), classes=2, smallest=low, largest=high)
    name = "single-column/probability" if probability else "single-column/score"
    return ArrayRows(table, scores.name), [finding(name, evidence)]
