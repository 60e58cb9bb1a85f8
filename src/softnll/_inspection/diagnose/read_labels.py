"""Read labels of any kind (numbers, text, one-hot) as whole numbers, with findings about how they were read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.arrays import as_numpy
from softnll._core.targets import blocks
from softnll._inspection.diagnose.finding import Evidence, Finding, finding
from softnll._inspection.format import short_list
from softnll.data.class_labels import (
    IGNORED,
    as_int64,
    by_name,
    by_sorted_value,
    informative,
    numbers_by_name,
    truth_columns,
    whole_numbers,
)
from softnll.data.frames import label_values
from softnll.data.text import printable
from softnll.data.text_arrays import is_text

__all__ = ["IGNORED", "as_classes", "as_numbers"]

ENTRIES = 1 << 20  # read at a time
MASS = 1e-3  # how far the sum of a label's distribution may be from 1


def as_numbers(
    raw: Any, shape: tuple[int, int], class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Return labels as ``(N,)`` whole numbers, not yet known to be classes, or None; and findings about the reading.

    Labels are columns by name where ``class_names`` name them (also where both are numbers), else by their value, else
    by their rank where there are as many values as columns.

    Raises
    ------
    ValueError
        Where there is not one label for each row of scores.
    """
    N, C = shape
    array, names = label_values(as_numpy(raw))
    if array.ndim == 2 and 1 in array.shape and array.size == N:
        array = array.reshape(N)
    if array.shape == (N, C) and C > 1 and array.dtype.kind in "biuf":
        if names is not None and class_names is not None and (order := by_name(class_names, names)) is not None:
            array = array[:, order]
        return _distributions(array)
    if array.shape != (N,):
        hint = ""
        if array.ndim >= 1 and len(array) == C != N:
            hint = "; as many labels as columns: the scores may be transposed, rows are examples"
        raise ValueError(f"the labels have shape {array.shape}; expected ({N},), one for each row of scores{hint}")
    return _of_kind(array, C, class_names)


def _of_kind(
    array: NDArray[Any], C: int, class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Read ``(N,)`` labels by their type."""
    match array.dtype.kind:
        case "i" | "u":
            return _columns(as_int64(array, C), C, class_names, [])
        case "U" | "O" if is_text(array):
            return _words(array.tolist(), C, class_names)
        case "S":
            return _words([each.decode("utf-8", "replace") for each in array.tolist()], C, class_names)
        case "b":
            columns = np.array(truth_columns(class_names), np.int64)
            return columns[array.astype(np.int64)], [_other_type(array)]
        case "f":
            return _floats(array, C, class_names)
    other = _unreadable(f"the labels have dtype {printable(str(array.dtype))}")
    return None, [_missing(array) if array.dtype == object else other]


def as_classes(
    raw: Any, shape: tuple[int, int], class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], list[Finding]]:
    """Return labels as ``(N,)`` columns, `IGNORED` where one is, and findings about how they were read.

    Labels 1 … C are counted from 1 here: no prediction is at hand that could say otherwise.

    Raises
    ------
    ValueError
        For labels that are no classes; the message says which row holds one.
    """
    y, found = as_numbers(raw, shape, class_names)
    if y is None:
        raise ValueError(f"these labels are no classes: {found[-1].evidence}")
    if (moved := by_sorted_value(y, shape[1], shifted=True)) is not None:
        found.append(_by_value(y))
        y = moved
    bad = ((y < 0) | (y >= shape[1])) & (y != IGNORED)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"label {y[row]} in row {row}; allowed: 0 to {shape[1] - 1}, {IGNORED}, or names of classes")
    return y, found


def _columns(
    numbers: NDArray[np.int64], C: int, class_names: tuple[str, ...] | None, found: list[Finding]
) -> tuple[NDArray[np.int64], list[Finding]]:
    """Return whole numbers as columns: by the columns' names, else as they are, else by rank."""
    named = None if class_names is None else numbers_by_name(numbers, class_names)
    if named is not None:
        return named, found
    ranks = by_sorted_value(numbers, C)
    return (numbers, found) if ranks is None else (ranks, [*found, _by_value(numbers)])


def _by_value(numbers: NDArray[np.int64]) -> Finding:
    """Return the finding of labels that are read by rank."""
    values = np.unique(numbers[numbers != IGNORED])
    shown = short_list(map(str, values.tolist()))
    text = f"{len(values)} different labels for as many columns: {shown}; read in this order as columns 0, 1, ..."
    return finding("labels-by-value", Evidence(text, values=values[:20].tolist()))


def _distributions(array: NDArray[Any]) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Read one-hot rows, or distributions over the classes."""
    N, C = array.shape
    numbers, total, least, most = np.empty(N, np.int64), np.empty(N), np.empty(N), np.empty(N)
    for rows in blocks(array.shape, ENTRIES):
        wide = np.asarray(array[rows], np.float64)
        numbers[rows], total[rows] = wide.argmax(axis=1), wide.sum(axis=1)
        least[rows], most[rows] = wide.min(axis=1), wide.max(axis=1)
    wrong = ~((least >= 0) & (np.abs(total - 1) <= MASS))
    if wrong.any():
        row = int(wrong.argmax())
        counts = {"rows": int(wrong.sum()), "first": row, "sum": float(total[row])}
        text = f"labels of shape {array.shape}, but {counts['rows']} rows, first row {row}, are no distribution"
        return None, [_unreadable(f"{text} (it sums to {counts['sum']:.6g})", **counts)]
    if bool((most == 1).all()):
        return numbers, [
            finding(
                "labels-one-hot",
                Evidence(f"the labels have shape {array.shape}: one 1 in each row of {C}", rows=N, classes=C),
            )
        ]
    text = f"each row of {C} sums to 1; the largest entry is {most.mean():.3f} on average"
    return numbers, [finding("labels-soft", Evidence(text, rows=N, classes=C, mean_largest=float(most.mean())))]


def _words(
    words: list[str], C: int, class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Read text: names of classes, numbers, or as many words as there are classes."""
    distinct = sorted(set(words))
    if class_names is not None and (named := by_name(words, class_names)) is not None:
        return named, []
    if (numbers := whole_numbers(words)) is not None:
        found = [_text("numbers", distinct, "as these numbers")]
        return _columns(np.array(numbers, np.int64), C, class_names, found)
    if {word.lower() for word in distinct} <= {"true", "false"}:
        truth = np.array([word.lower() == "true" for word in words])
        return np.array(truth_columns(class_names), np.int64)[truth.astype(np.int64)], []
    named_classes = class_names is not None and informative(class_names)
    if not named_classes and len(distinct) == C:
        place = {name: c for c, name in enumerate(distinct)}
        numbers_of_words = np.array([place[word] for word in words], np.int64)
        return numbers_of_words, [_text("words", distinct, "by alphabet: the first word as column 0")]
    unknown = distinct if class_names is None else _not_in(distinct, class_names)
    known = f"the class names ({short_list(class_names or (), 30)})" if named_classes else f"{C} columns without names"
    text = f"{len(unknown)} different words, {short_list(unknown, 30)}, do not fit {known}"
    if not named_classes and len(distinct) < C:
        text += ": which column is which cannot be told; class names (--classes) say it"
    return None, [_unreadable(text, words=len(unknown))]


def _not_in(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the words that are no name, one at a time; all of them where each alone is one."""
    return [word for word in words if by_name([word], names) is None] or list(words)


def _text(kind: str, distinct: list[str], how: str) -> Finding:
    """Return the finding of labels that are text."""
    return finding(
        f"labels-strings/{kind}",
        Evidence(f"{len(distinct)} different words: {short_list(distinct, 30)}; read {how}", words=len(distinct)),
    )


def _floats(
    array: NDArray[Any], C: int, class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Read floating-point numbers."""
    wide = array.astype(np.float64)
    wrong = ~(np.isfinite(wide) & (np.rint(wide) == wide) & (np.abs(wide) < 2.0**53))
    if wrong.any():
        row = int(wrong.argmax())
        text = f"{int(wrong.sum())} labels are not whole numbers, the first is {wide[row]} in row {row}"
        return None, [_unreadable(text, rows=int(wrong.sum()), first=row)]
    return _columns(wide.astype(np.int64), C, class_names, [_other_type(array)])


def _other_type(array: NDArray[Any]) -> Finding:
    """Return the finding of labels that are whole, but no integers."""
    return finding(
        "labels-not-integers", Evidence(f"the labels have dtype {array.dtype}, and all are whole", rows=len(array))
    )


def _missing(array: NDArray[Any]) -> Finding:
    """Return the finding of labels of which some are missing, or of several types."""
    missing = np.array([each is None for each in array.tolist()])
    if not missing.any():
        kinds = sorted({type(each).__name__ for each in array.tolist()})
        return _unreadable(f"the labels have dtype object, of {short_list(kinds, 30)}")
    row = int(missing.argmax())
    return _unreadable(f"{int(missing.sum())} labels are missing, the first in row {row}", first=row)


def _unreadable(text: str, **numbers: Any) -> Finding:
    """Return the finding of labels that cannot be read."""
    return finding("labels-unreadable", Evidence(text, **numbers))
