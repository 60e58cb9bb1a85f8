"""Labels beside predictions: off by one, out of range, classes in another order, rows in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from softnll.diagnosis.chance import ALPHA, half_tail
from softnll.diagnosis.finding import Evidence, Finding, percent
from softnll.diagnosis.labels import IGNORED

__all__ = ["NONE", "align"]

NONE = -1  # in place of a label: the row has none that is a class
MOST_CLASSES = 1000  # of which an order is looked for: the assignment takes a second or so then
ROW_SHIFTS = (-3, -2, -1, 1, 2, 3)

Labels = NDArray[np.int64]


def align(numbers: Labels, sample: Labels, prediction: Labels, C: int) -> tuple[Labels, list[Finding]]:
    """Return ``(N,)`` classes, `NONE` where there is none, as they fit the predictions, and what was done to fit them.

    Another reading replaces the labels as they are only where it is right in so many more rows that a calibrated
    classifier shows it with a probability below `ALPHA`, and at least doubles the accuracy or halves the error.

    Parameters
    ----------
    numbers
        ``(N,)`` labels, not yet known to be classes.
    sample, prediction
        ``(n,)`` indices of rows, and the classes predicted there.
    C
        The number of classes.
    """
    ignored = numbers == IGNORED
    y, found = _off_by_one(numbers, ignored, sample, prediction, C)
    reordered, more = _other_order(y, sample, prediction, C)
    if more and found and found[0].evidence["joined"]:  # an order that by accident had many classes one further
        found, (reordered, more) = [], _other_order(_within(numbers, ignored, C), sample, prediction, C)
    y, found = reordered, found + more
    if not found:
        y, found = _other_rows(y, sample, prediction)
    outside = (y == NONE) & ~ignored
    if outside.any():
        found.append(_out_of_range(numbers, outside, C))
    if ignored.any():
        found.append(_ignored(ignored))
    return y, found


def _within(numbers: Labels, ignored: NDArray[np.bool_], C: int) -> Labels:
    """Return the labels that are classes, `NONE` elsewhere."""
    return np.where((numbers >= 0) & (numbers < C) & ~ignored, numbers, NONE)


def _wins(new: Labels, old: Labels, prediction: Labels) -> tuple[int, int, float, float]:
    """Return how often only the one reading is right and only the other, and the accuracies of both."""
    a, b = new == prediction, old == prediction
    n = max(len(prediction), 1)
    return int((a & ~b).sum()), int((b & ~a).sum()), float(a.sum() / n), float(b.sum() / n)


def _clearly(wins: int, losses: int, new: float, old: float, tried: int) -> bool:
    """Whether the new reading is beyond chance, with so many tried, and enough better to matter."""
    return half_tail(wins, losses) <= ALPHA / tried and (new >= 2 * old or 1 - new <= (1 - old) / 2)


def _off_by_one(
    numbers: Labels, ignored: NDArray[np.bool_], sample: Labels, prediction: Labels, C: int
) -> tuple[Labels, list[Finding]]:
    """Try one less and one more, where all labels are classes with the ends joined."""
    old = _within(numbers, ignored, C)
    kept = numbers[~ignored]
    if C < 2 or kept.size == 0:
        return old, []
    low, high = int(kept.min()), int(kept.max())
    for step in (-1, 1):
        ends = low >= 0 and high < C
        if ends and C < 3:
            continue  # two classes off by one are two classes swapped: found below
        moved = np.where(ignored, NONE, np.mod(numbers + step, C)) if ends else _within(numbers + step, ignored, C)
        if not ends and not (low + step >= 0 and high + step < C):
            continue
        wins, losses, new, before = _wins(moved[sample], old[sample], prediction)
        from_one = low == 1 and high == C and step == -1
        # 1 … C is its own evidence, unless the labels as they are fit the predictions clearly better.
        if _clearly(wins, losses, new, before, 2) or (from_one and half_tail(losses, wins) > ALPHA):
            said = (
                f"labels run from {low} to {high} for columns 0 to {C - 1}; predictions agree with {percent(before)} "
            )
            said += f"of them, and with {percent(new)} {'less' if step < 0 else 'plus'} one (of {len(sample)} rows)"
            numbers_ = {
                "low": low,
                "high": high,
                "accuracy": before,
                "accuracy_shifted": new,
                "shift": step,
                "joined": ends,
            }
            return moved, [
                Finding(
                    "labels-off-by-one",
                    "error",
                    f"The labels are off by one: one too {'high' if step < 0 else 'low'}",
                    Evidence(said, **numbers_),
                    "Each row's loss is taken at the wrong class; accuracy is near 0, and training learns shifted "
                    "classes.",
                    f"{'Subtract' if step < 0 else 'Add'} 1{' (modulo C)' if ends else ''}: classes count from 0. "
                    "The rest of this diagnosis does.",
                )
            ]
    return old, []


def _other_order(y: Labels, sample: Labels, prediction: Labels, C: int) -> tuple[Labels, list[Finding]]:
    """Match label values to columns on one half of the sample, and test the match on the other half."""
    present = y[sample] != NONE
    rows, guess = y[sample][present], prediction[present]
    if not 2 <= C <= MOST_CLASSES or len(rows) < 4:
        return y, []
    shuffled = np.random.default_rng(0).permutation(len(rows))
    fit, test = shuffled[::2], shuffled[1::2]
    counts = np.bincount(rows[fit] * C + guess[fit], minlength=C * C).reshape(C, C)
    # Half a row for the diagonal: what the sample says nothing of stays where it is.
    column = linear_sum_assignment(counts + 0.5 * np.eye(C), maximize=True)[1]
    wins, losses, new, before = _wins(column[rows[test]], rows[test], guess[test])
    if not _clearly(wins, losses, new, before, 1):
        return y, []
    moved = [(int(c), int(column[c])) for c in range(C) if column[c] != c and counts[c].sum() > 0]
    examples = ", ".join(f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in moved[:6]) + (", …" if len(moved) > 6 else "")
    said = f"with {len(moved)} label values moved to other columns ({examples}; found on half of the sample), the "
    said += f"accuracy of the other half, {len(test)} rows, is {percent(new)} instead of {percent(before)}"
    return np.where(y == NONE, NONE, column[y]), [
        Finding(
            "classes-permuted",
            "error",
            "Labels and columns have the classes in different orders",
            Evidence(
                said, accuracy=before, accuracy_reordered=new, moved=[list(pair) for pair in moved], rows=len(test)
            ),
            "Loss and accuracy are taken at the wrong classes, although the classifier knows the right ones.",
            "Make labels from the same list of classes that the columns follow (often: sorted by name against the "
            "order of a file). The rest of this diagnosis uses the order that fits.",
        )
    ]


def _other_rows(y: Labels, sample: Labels, prediction: Labels) -> tuple[Labels, list[Finding]]:
    """Try the labels of the rows before and after."""
    for step in ROW_SHIFTS:
        moved = np.roll(y, step)
        wins, losses, new, before = _wins(moved[sample], y[sample], prediction)
        if _clearly(wins, losses, new, before, len(ROW_SHIFTS)):
            where = f"{abs(step)} row{'s' * (abs(step) > 1)} {'earlier' if step > 0 else 'later'}"
            said = f"predictions agree with {percent(before)} of the labels, with {percent(new)} of those {where} "
            said += f"(of {len(sample)} rows)"
            return moved, [
                Finding(
                    "labels-shifted-rows",
                    "error",
                    f"The labels belong to other rows: those {where}",
                    Evidence(said, accuracy=before, accuracy_shifted=new, shift=step, rows=len(sample)),
                    "Loss and accuracy compare each row with another row's label.",
                    "Look for a row lost or doubled on the way (a header, an index column, a batch dropped). "
                    "The rest of this diagnosis shifts them back.",
                )
            ]
    return y, []


def _out_of_range(numbers: Labels, outside: NDArray[np.bool_], C: int) -> Finding:
    """Return the finding of labels that are no class."""
    row, count = int(outside.argmax()), int(outside.sum())
    values = np.unique(numbers[outside])
    shown = ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
    facts: dict[str, Any] = {"rows": count, "first": row, "value": int(numbers[row]), "values": values[:20].tolist()}
    mark = len(values) == 1
    hint = f"if {values[0]} marks rows to leave out, pass ignore_index={values[0]}; otherwise " if mark else ""
    return Finding(
        "labels-out-of-range",
        "error",
        f"Labels outside the {C} columns",
        Evidence(
            f"{count} of {len(numbers)} labels are not in 0 … {C - 1}: {shown}; the first is in row {row}", **facts
        ),
        "A loss raises an error, on a GPU it may read foreign memory or stop the process.",
        f"{hint[:1].upper()}{hint[1:]}{'t' if mark else 'T'}he scores lack columns, or the labels are of other data. "
        "These rows are left out of the rest.",
    )


def _ignored(ignored: NDArray[np.bool_]) -> Finding:
    """Return the finding of rows that the loss ignores."""
    count = int(ignored.sum())
    return Finding(
        "labels-ignored",
        "note",
        f"Some labels are {IGNORED}, which losses ignore",
        Evidence(f"{count} of {len(ignored)} labels are {IGNORED}, {percent(count / len(ignored))}", rows=count),
        "A mean is taken over the other rows; a sum divided by all rows is smaller.",
        "Nothing to mend where it is meant. These rows are left out of the rest.",
    )
