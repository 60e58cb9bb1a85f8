"""Findings about single classes: constant columns, classes never predicted, classes without labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from softnll.diagnosis.case import Case
from softnll.diagnosis.chance import ALPHA, sum_tail
from softnll.diagnosis.finding import Evidence, Finding, percent

__all__ = ["constant", "dead", "unlabelled"]

ENOUGH = 20  # rows, below which a column may be constant by accident
SHOWN = 20


def constant(case: Case) -> Finding | None:
    """Find columns with one value in all rows, where others vary."""
    N = int(case.survey.usable.sum())
    still = case.survey.low == case.survey.high
    if N < ENOUGH or not still.any() or still.all():
        return None
    which = np.flatnonzero(still)
    value = float(case.survey.low[which[0]])
    said = (
        f"{len(which)} of {case.C} columns have one value in all {N} rows: {_some(case, which)} (the first is always "
    )
    said += f"{value:.4g})"
    return Finding(
        "constant-class",
        "warning",
        "Columns that never change",
        Evidence(said, columns=which[:SHOWN].tolist(), count=len(which), value=value),
        "The score of these classes does not depend on the input.",
        "Where they are padding (a vocabulary rounded up) or a reference class fixed at 0, nothing is wrong; otherwise "
        "look for weights that are 0, NaN replaced, or a column written by mistake.",
    )


def dead(case: Case) -> Finding | None:
    """Find classes that are labels far more often than their probabilities say, and never predicted."""
    N = len(case.labelled)
    if N == 0 or case.C < 2:
        return None
    guessed = np.bincount(case.survey.prediction[case.labelled], minlength=case.C)
    # The mass of all usable rows, scaled to those with labels (nearly always the same ones).
    expected = case.survey.mass * (N / max(int(case.survey.usable.sum()), 1))
    candidates = np.flatnonzero((guessed == 0) & (case.support > expected) & (case.support > 0))
    which = [c for c in candidates if sum_tail(case.support[c], expected[c], N) <= ALPHA / case.C]
    which = [c for c in which if case.support[c] >= 2 * expected[c]]
    if not which:
        return None
    c = int(max(which, key=lambda each: case.support[each]))
    said = f"{len(which)} of {case.C} classes are never predicted though they have labels: {_some(case, which)}; "
    said += f"{case.name(c)} has {case.support[c]} of {N} labels, and all its probabilities sum to {expected[c]:.4g}"
    numbers: dict[str, Any] = {"classes": [int(each) for each in which[:SHOWN]], "count": len(which)}
    return Finding(
        "dead-class",
        "warning",
        "Classes that are never predicted, though they occur",
        Evidence(said, **numbers, support=int(case.support[c]), expected=float(expected[c])),
        "All rows of these classes are wrong, and each costs a large loss.",
        "Look for classes missing from the training data, a loss that ignores them (ignore_index), weights of 0, or "
        "labels encoded differently there.",
    )


def unlabelled(case: Case) -> Finding | None:
    """Find classes that are expected and never a label."""
    N = len(case.labelled)
    if N == 0 or case.C < 2:
        return None
    expected = case.survey.mass * (N / max(int(case.survey.usable.sum()), 1))
    which = [c for c in np.flatnonzero(case.support == 0) if sum_tail(0, expected[c], N) <= ALPHA / case.C]
    if not which:
        return None
    c = int(max(which, key=lambda each: expected[each]))
    share = float(expected[which].sum() / N)
    said = f"{len(which)} of {case.C} classes never are a label: {_some(case, which)}; the classifier expects "
    said += f"{expected[c]:.1f} of {N} rows to be {case.name(c)}, and {percent(share)} to be one of all these"
    numbers: dict[str, Any] = {"classes": [int(each) for each in which[:SHOWN]], "count": len(which)}
    return Finding(
        "class-without-labels",
        "warning",
        "Classes that are expected and never occur",
        Evidence(said, **numbers, expected_share=share),
        "Their probability is wasted: each row's loss is higher than it need be.",
        "If the data has only some of the classes, mask the others (where=) or judge on those that occur; otherwise "
        "labels are missing or encoded differently.",
    )


def _some(case: Case, which: Any) -> str:
    """Return the names of a few classes."""
    names = ", ".join(case.name(int(c)) for c in which[:4])
    return names + (f" and {len(which) - 4} more" if len(which) > 4 else "")
