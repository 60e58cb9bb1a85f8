"""Findings about rows as they are: not finite, infinite losses, repeated."""

from __future__ import annotations

import numpy as np

from softnll.diagnosis.case import Case
from softnll.diagnosis.finding import Evidence, Finding, percent

__all__ = ["duplicates", "infinite_loss", "not_finite"]

MANY = 0.01  # of the rows
DISTINCT = 0.5  # of a column's values, below which whole rows may repeat by accident
LOOKED_AT = 10_000  # rows of which the columns' values are counted
COLUMNS = 256


def not_finite(case: Case) -> Finding | None:
    """Find NaN and infinities, and where."""
    bad = case.survey.bad
    if not bad:
        return None
    lost = int((~case.survey.usable).sum())
    numbers: dict[str, object] = {"rows_without_softmax": lost}
    parts = []
    for name, (count, row, column) in bad.items():
        numbers[name] = {"count": count, "first_row": row, "first_column": column}
        parts.append(f"{count} {name} (the first in row {row}, column {column})")
    said = f"{', '.join(parts)}; {lost} of {case.scores.shape[0]} rows have no softmax"
    if lost:
        return Finding(
            "not-finite",
            "error",
            "Scores that are NaN or infinite",
            Evidence(f"{said}, the first is row {int((~case.survey.usable).argmax())}", **numbers),
            "One such row makes a mean loss NaN, and with it every weight after the next step.",
            "Look for an overflow in half precision, a division by 0 or a learning rate that is too large. These rows "
            "are left out of the rest.",
        )
    return Finding(
        "masked-scores",
        "note",
        "Scores of -inf: classes that are ruled out",
        Evidence(said, **numbers),
        "Their probability is exactly 0. The loss is infinite where such a class is the label, and with label "
        "smoothing.",
        "Nothing to mend where they are masks.",
    )


def infinite_loss(case: Case) -> Finding | None:
    """Find labels at classes with a probability of exactly 0."""
    infinite = np.isposinf(case.survey.nll)
    count = int(infinite.sum())
    if not count:
        return None
    row = int(infinite.argmax())
    said = f"{count} of {len(case.labelled)} rows, the first is row {row} with label {case.name(int(case.y[row]))}"
    return Finding(
        "infinite-loss",
        "error",
        "The label's class has a probability of exactly 0",
        Evidence(said, rows=count, first=row),
        "The loss of these rows, and any mean with them, is infinite.",
        "Where the scores are probabilities, they were rounded to 0: pass logits. Where a mask rules the class "
        "out, the mask or the label is wrong.",
    )


def duplicates(case: Case) -> Finding | None:
    """Find rows that repeat an earlier one, all scores the same."""
    usable = np.flatnonzero(case.survey.usable)
    digest = case.survey.digest[usable]
    distinct, first, counts = np.unique(digest, return_index=True, return_counts=True)
    repeats = len(digest) - len(distinct)
    if repeats == 0 or len(distinct) == 1:  # all alike is another finding
        return None
    by_accident = not _continuous(case, usable[np.sort(first)])
    if by_accident and repeats < MANY * len(digest):
        return None
    largest = int(counts.max())
    numbers = {"repeats": repeats, "rows": len(digest), "largest_group": largest}
    said = f"{repeats} of {len(digest)} rows ({percent(repeats / len(digest))}) repeat an earlier row in all "
    said += f"{case.C} scores; one row is there {largest} times"
    tail = _wrapped(digest)
    if tail:
        numbers["wrapped"] = tail
        said += f"; the last {tail} row{'s repeat' if tail > 1 else ' repeats'} the first"
    if by_accident:
        said += "; the columns have few different values, so that rows may agree by accident"
    severe = not by_accident and (tail > 0 or repeats >= MANY * len(digest))
    return Finding(
        "duplicate-rows",
        "warning" if severe else "note",
        "Rows that are there more than once",
        Evidence(said, **numbers),
        "These examples count several times in every mean, and standard errors are too small.",
        "Look for a sampler that fills its last batch from the start, batches saved twice, or doubles in the data.",
    )


def _wrapped(digest: np.ndarray) -> int:
    """Return how many rows at the end repeat those at the start, in order: what a sampler that pads does."""
    n = len(digest)
    for start in np.flatnonzero(digest[1:] == digest[0]) + 1:
        length = n - int(start)
        if length < n / 2 and bool((digest[start:] == digest[:length]).all()):
            return length
    return 0


def _continuous(case: Case, rows: np.ndarray) -> bool:
    """Whether some column has nearly as many values as there are (distinct) rows: agreement is then no accident."""
    part = case.scores.rows(rows[:LOOKED_AT])[:, :COLUMNS]
    return any(len(np.unique(column)) >= DISTINCT * len(column) for column in part.T)
