"""Align labels with predictions: off by one, out of range, classes or rows in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from softnll._inspection.diagnose.chance import ALPHA, half_tail, related
from softnll._inspection.diagnose.finding import Evidence, Finding, finding
from softnll._inspection.diagnose.read_labels import IGNORED
from softnll._inspection.format import percent
from softnll._inspection.survey import NONE

MOST_CLASSES = 1000  # of which an order is looked for: the assignment takes a second or so then
FEW_CLASSES = 100  # of which an order is looked for in the labels of other rows as well
ROW_SHIFTS = (-3, -2, -1, 1, 2, 3)

Labels = NDArray[np.int64]


def align(numbers: Labels, sample: Labels, prediction: Labels, C: int) -> tuple[Labels, list[Finding]]:
    """Return ``(N,)`` classes, `NONE` where there is none, as they fit the predictions, and findings about changes.

    Another reading replaces the labels as they are only where it is right in so many more rows that a calibrated
    classifier shows it with a probability below `ALPHA`, at least doubles the accuracy or halves the error, and is
    right beyond what labels without any relation to the predictions would give.
    ``numbers`` are ``(N,)`` labels, not yet known to be classes; ``sample`` and ``prediction`` are ``(n,)`` rows and
    the classes predicted there.
    """
    ignored = numbers == IGNORED
    y, found = _off_by_one(numbers, ignored, sample, prediction, C)
    reordered, more = _other_order(y, sample, prediction, C)
    if more and found and found[0].evidence["joined"]:  # an order that by accident had many classes one further
        found, (reordered, more) = [], _other_order(_within(numbers, ignored, C), sample, prediction, C)
    y, found = reordered, found + more
    y, more = _other_rows(y, sample, prediction, C)
    found += more
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
    """Test labels one lower and one higher, modulo C where all of them are classes."""
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
        fits = _clearly(wins, losses, new, before, 2) and related(moved[sample], prediction, C)
        if fits or (from_one and half_tail(losses, wins) > ALPHA):
            text = (
                f"labels run from {low} to {high} for columns 0 to {C - 1}; predictions agree with {percent(before)} "
            )
            text += f"of them, and with {percent(new)} {'less' if step < 0 else 'plus'} one (of {len(sample)} rows)"
            evidence = Evidence(
                text, low=low, high=high, accuracy=before, accuracy_shifted=new, shift=step, joined=ends
            )
            direction, correction = ("high", "Subtract 1") if step < 0 else ("low", "Add 1")
            correction += " (modulo C)" * ends
            return moved, [finding("labels-off-by-one", evidence, direction=direction, correction=correction)]
    return old, []


def _other_order(y: Labels, sample: Labels, prediction: Labels, C: int) -> tuple[Labels, list[Finding]]:
    """Match label values to columns on one half of the sample, and test the match on the other half."""
    present = y[sample] != NONE
    rows, guess = y[sample][present], prediction[present]
    if not 2 <= C <= MOST_CLASSES or len(rows) < 4:
        return y, []
    match = _match(rows, guess, C, 1)
    if match is None:
        return y, []
    column, before, new, n, counts = match
    moved = [(int(c), int(column[c])) for c in range(C) if column[c] != c and counts[c] > 0]
    examples = ", ".join(f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in moved[:6]) + (", …" if len(moved) > 6 else "")
    text = f"with {len(moved)} label values moved to other columns ({examples}; found on half of the sample), the "
    text += f"accuracy of the other half, {n} rows, is {percent(new)} instead of {percent(before)}"
    return np.where(y == NONE, NONE, column[y]), [
        finding(
            "classes-permuted/two" if C == 2 else "classes-permuted",
            Evidence(text, accuracy=before, accuracy_reordered=new, moved=[list(pair) for pair in moved], rows=n),
        )
    ]


def _match(
    rows: Labels, guess: Labels, C: int, tried: int
) -> tuple[Labels, float, float, int, NDArray[np.int64]] | None:
    """Return the column of each label value, matched on one half of the rows, if it is clearly better on the other.

    Also the accuracies of that half before and after, its size, and how often each value occurs in the first half.
    """
    shuffled = np.random.default_rng(0).permutation(len(rows))
    fit, test = shuffled[::2], shuffled[1::2]
    counts = np.bincount(rows[fit] * C + guess[fit], minlength=C * C).reshape(C, C)
    # Half a row for the diagonal: classes that the sample does not show keep their column.
    column = linear_sum_assignment(counts + 0.5 * np.eye(C), maximize=True)[1]
    read = column[rows[test]]
    wins, losses, new, before = _wins(read, rows[test], guess[test])
    if not (_clearly(wins, losses, new, before, tried) and related(read, guess[test], C)):
        return None
    return column, before, new, len(test), counts.sum(axis=1)


def _other_rows(y: Labels, sample: Labels, prediction: Labels, C: int) -> tuple[Labels, list[Finding]]:
    """Test the labels of the rows before and after, also in another order of classes."""
    for step in ROW_SHIFTS:
        moved = np.roll(y, step)
        wins, losses, new, before = _wins(moved[sample], y[sample], prediction)
        if _clearly(wins, losses, new, before, len(ROW_SHIFTS)) and related(moved[sample], prediction, C):
            return moved, [_shifted(step, before, new, len(sample))]
    if not 3 <= C <= FEW_CLASSES or related(y[sample], prediction, C):
        return y, []
    for step in ROW_SHIFTS:
        moved = np.roll(y, step)
        present = moved[sample] != NONE
        rows, guess = moved[sample][present], prediction[present]
        if len(rows) >= 4 and _match(rows, guess, C, len(ROW_SHIFTS)) is not None:
            reordered, more = _other_order(moved, sample, prediction, C)
            if more:
                before, new = more[0].evidence["accuracy"], more[0].evidence["accuracy_reordered"]
                return reordered, [_shifted(step, before, new, len(sample)), *more]
    return y, []


def _shifted(step: int, before: float, new: float, n: int) -> Finding:
    """Return the finding of labels that belong to other rows."""
    where = f"{abs(step)} row{'s' * (abs(step) > 1)} {'earlier' if step > 0 else 'later'}"
    text = f"predictions agree with {percent(before)} of the labels, with {percent(new)} of those {where} (of {n} rows)"
    return finding(
        "labels-shifted-rows",
        Evidence(text, accuracy=before, accuracy_shifted=new, shift=step, rows=n),
        where=where,
    )


def _out_of_range(numbers: Labels, outside: NDArray[np.bool_], C: int) -> Finding:
    """Return the finding of labels that are no class."""
    row, count = int(outside.argmax()), int(outside.sum())
    values = np.unique(numbers[outside])
    shown = ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
    facts: dict[str, Any] = {"rows": count, "first": row, "value": int(numbers[row]), "values": values[:20].tolist()}
    name = "labels-out-of-range/one-value" if len(values) == 1 else "labels-out-of-range"
    return finding(
        name,
        Evidence(
            f"{count} of {len(numbers)} labels are not in 0 … {C - 1}: {shown}; the first is in row {row}", **facts
        ),
        columns=C,
    )


def _ignored(ignored: NDArray[np.bool_]) -> Finding:
    """Return the finding of rows that the loss ignores."""
    count = int(ignored.sum())
    return finding(
        "labels-ignored",
        Evidence(f"{count} of {len(ignored)} labels are {IGNORED}, {percent(count / len(ignored))}", rows=count),
        ignored=IGNORED,
    )
