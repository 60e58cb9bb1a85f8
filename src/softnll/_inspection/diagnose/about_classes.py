"""Findings about single classes: constant columns, classes never predicted, classes without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.diagnose.chance import ALPHA, sum_tail
from softnll._inspection.diagnose.finding import Evidence, Finding, Unseen, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.format import percent, short_list

ENOUGH = 20  # rows, below which a column may be constant by accident
SHOWN = 20
FLOOR = 0.02  # of the other columns' scores


def constant(obs: Observations) -> Finding | Unseen | None:
    """Find columns with one value in all rows, where others vary and do not have that value."""
    N = len(obs.usable)
    if N < ENOUGH:
        return Unseen(f"fewer than {ENOUGH} rows")
    still = obs.columns.low == obs.columns.high
    if not still.any() or still.all():
        return None
    which = np.array([c for c in np.flatnonzero(still) if not _is_floor(obs, still, obs.columns.low[c])], np.int64)
    if not which.size:
        return None
    value = float(obs.columns.low[which[0]])
    text = f"{len(which)} of {obs.C} columns have one value in all {N} rows: {_names(obs, which)} (the first is always "
    text += f"{value:.4g})"
    return finding("constant-class", Evidence(text, columns=which[:SHOWN].tolist(), count=len(which), value=value))


def _is_floor(obs: Observations, still: NDArray[np.bool_], value: float) -> bool:
    """Whether a value is the least of all and frequent elsewhere: the probability 0 of trees and neighbours."""
    varying = obs.sampled[:, ~still]
    return bool(value <= obs.columns.low.min() and (varying == value).mean() >= FLOOR)


def dead(obs: Observations) -> Finding | None:
    """Find classes that occur far more often than their probabilities predict, and are never predicted."""
    N, support, expected = len(obs.labelled), obs.labelled.support, obs.expected()
    guessed = np.bincount(obs.labelled["prediction"], minlength=obs.C)
    which = [c for c in _improbable(obs, (guessed == 0) & (support > expected)) if support[c] >= 2 * expected[c]]
    if not which:
        return None
    c = max(which, key=lambda each: support[each])
    text = f"{len(which)} of {obs.C} classes are never predicted though they have labels: {_names(obs, which)}; "
    text += f"{obs.name(c)} has {support[c]} of {N} labels, and all its probabilities sum to {expected[c]:.4g}"
    numbers: dict[str, Any] = {"classes": which[:SHOWN], "count": len(which)}
    return finding("dead-class", Evidence(text, **numbers, support=int(support[c]), expected=float(expected[c])))


def unlabelled(obs: Observations) -> Finding | None:
    """Find classes with a large expected count and no label."""
    N, expected = len(obs.labelled), obs.expected()
    which = _improbable(obs, obs.labelled.support == 0)
    if not which:
        return None
    c = max(which, key=lambda each: expected[each])
    share = float(expected[which].sum() / N)
    text = f"{len(which)} of {obs.C} classes never are a label: {_names(obs, which)}; the classifier expects "
    text += f"{expected[c]:.1f} of {N} rows to be {obs.name(c)}, and {percent(share)} to be one of all these"
    numbers: dict[str, Any] = {"classes": which[:SHOWN], "count": len(which)}
    return finding("class-without-labels", Evidence(text, **numbers, expected_share=share))


def _improbable(obs: Observations, among: NDArray[np.bool_]) -> list[int]:
    """Return those of these classes whose number of labels is no accident, given their probabilities."""
    N, support, expected = len(obs.labelled), obs.labelled.support, obs.expected()
    return [int(c) for c in np.flatnonzero(among) if sum_tail(support[c], expected[c], N) <= ALPHA / obs.C]


def _names(obs: Observations, which: Any) -> str:
    """Return the names of a few classes."""
    return short_list(obs.name(int(c)) for c in which)
