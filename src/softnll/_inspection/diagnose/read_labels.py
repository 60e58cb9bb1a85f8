"""Labels as they come: numbers, text, one-hot; read as whole numbers, with a finding where that took a guess."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.data.text import printable
from softnll.diagnosis.finding import Evidence, Finding, Severity
from softnll.targets import blocks

__all__ = ["IGNORED", "as_numbers"]

IGNORED = -100  # the default ignore_index of the loss
ENTRIES = 1 << 20  # looked at together
MASS = 1e-3  # how far the sum of a label's distribution may be from 1

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}(\.0*)?\s*", re.ASCII)


def as_numbers(
    raw: Any, shape: tuple[int, int], class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Return labels as ``(N,)`` whole numbers, not yet known to be classes, or None; and how they were read.

    Raises
    ------
    ValueError
        Where there is not one label for each row of scores.

    """
    N, C = shape
    array = np.asarray(raw.detach().cpu() if hasattr(raw, "detach") else raw)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape == (N, C) and C > 1 and array.dtype.kind in "biuf":
        return _distributions(array)
    if array.shape != (N,):
        hint = ""
        if array.ndim >= 1 and len(array) == C != N:
            hint = "; as many labels as columns: the scores may be transposed, rows are examples"
        raise ValueError(f"the labels have shape {array.shape}; expected ({N},), one for each row of scores{hint}")
    if array.dtype.kind in "iu":
        return np.minimum(array, np.iinfo(np.int64).max).astype(np.int64), []
    if array.dtype.kind in "USO" and all(isinstance(each, str | bytes) for each in array.tolist()):
        words = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in array.tolist()]
        return _words(words, C, class_names)
    if array.dtype.kind not in "bf":
        return None, [_unreadable(f"the labels have dtype {printable(str(array.dtype))}")]
    return _floats(array)


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
        said = f"labels of shape {array.shape}, but {counts['rows']} rows, first row {row}, are no distribution"
        return None, [_unreadable(f"{said} (it sums to {counts['sum']:.6g})", **counts)]
    if bool((most == 1).all()):
        return numbers, [
            Finding(
                "labels-one-hot",
                "warning",
                "The labels are one-hot rows",
                Evidence(f"the labels have shape {array.shape}: one 1 in each row of {C}", rows=N, classes=C),
                "Losses that take class indices refuse them, or read them as distributions, which is slower and rules "
                "out ignore_index.",
                "Pass labels.argmax(axis=1). The rest of this diagnosis does.",
            )
        ]
    said = f"each row of {C} sums to 1; the largest entry is {most.mean():.3f} on average"
    return numbers, [
        Finding(
            "labels-soft",
            "note",
            "The labels are distributions over the classes",
            Evidence(said, rows=N, classes=C, mean_largest=float(most.mean())),
            "A loss against them is their cross-entropy; it cannot fall below their own entropy.",
            "Nothing to mend. The rest of this diagnosis uses each row's likeliest class.",
        )
    ]


def _words(
    words: list[str], C: int, class_names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Read text: names of classes, numbers, or as many words as there are classes."""
    distinct = sorted(set(words))
    if class_names is not None and set(distinct) <= set(class_names):
        place = {name: c for c, name in enumerate(class_names)}
        return np.array([place[word] for word in words], np.int64), []
    if all(_INTEGER.fullmatch(word) for word in distinct):
        numbers = np.array([int(float(word)) if "." in word else int(word) for word in words], np.int64)
        return numbers, [_words_found("note", "The labels are numbers written as text", distinct, "as these numbers")]
    if class_names is None and len(distinct) <= C:
        place = {name: c for c, name in enumerate(distinct)}
        numbers = np.array([place[word] for word in words], np.int64)
        title = "The labels are text, and nothing says which column is which"
        return numbers, [_words_found("warning", title, distinct, "by alphabet: the first word as column 0")]
    unknown = [word for word in distinct if class_names is None or word not in class_names]
    known = f"{C} columns" if class_names is None else f"the class names ({_some(list(class_names))})"
    said = f"{len(unknown)} different words, {_some(unknown)}, do not fit {known}"
    return None, [_unreadable(said, words=len(unknown))]


def _words_found(severity: Severity, title: str, distinct: list[str], how: str) -> Finding:
    """Return the finding of labels that are text."""
    return Finding(
        "labels-strings",
        severity,
        title,
        Evidence(f"{len(distinct)} different words: {_some(distinct)}; read {how}", words=len(distinct)),
        "Losses take class indices; in another order than that of the columns every number below would be wrong.",
        "Pass indices, or give class_names (--classes) in the order of the columns.",
    )


def _floats(array: NDArray[Any]) -> tuple[NDArray[np.int64] | None, list[Finding]]:
    """Read floating-point numbers and booleans."""
    wide = array.astype(np.float64)
    wrong = ~(np.isfinite(wide) & (np.rint(wide) == wide) & (np.abs(wide) < 2.0**53))
    if wrong.any():
        row = int(wrong.argmax())
        said = f"{int(wrong.sum())} labels are not whole numbers, the first is {wide[row]} in row {row}"
        return None, [_unreadable(said, rows=int(wrong.sum()), first=row)]
    return wide.astype(np.int64), [
        Finding(
            "labels-not-integers",
            "note",
            "The labels are whole numbers of another type",
            Evidence(f"the labels have dtype {array.dtype}, and all are whole", rows=len(array)),
            "Losses that tell hard from soft targets by their type refuse them.",
            "Convert them to int64. The rest of this diagnosis does.",
        )
    ]


def _unreadable(said: str, **numbers: Any) -> Finding:
    """Return the finding of labels without a meaning."""
    return Finding(
        "labels-unreadable",
        "error",
        "The labels cannot be read as classes",
        Evidence(said, **numbers),
        "No loss or accuracy can be computed; what needs labels was not looked for.",
        "Pass one whole number in [0, C) a row, one-hot rows, or names together with class_names (--classes).",
    )


def _some(words: list[str]) -> str:
    """Return a few words."""
    shown = ", ".join(printable(word, 30) for word in words[:4])
    return shown + (f" and {len(words) - 4} more" if len(words) > 4 else "")
