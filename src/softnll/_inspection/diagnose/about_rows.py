"""Findings about rows: scores that are not finite, infinite losses, repeated rows."""

from __future__ import annotations

import numpy as np

from softnll._inspection.diagnose.finding import Evidence, Finding, Unseen, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.diagnose.repeats import distinct_values, in_order, in_pairs, wrapped
from softnll._inspection.format import percent

MANY = 0.01  # of the rows


def not_finite(obs: Observations) -> Finding | None:
    """Find NaN and infinities, with the row and column of the first."""
    bad = obs.columns.bad
    if not bad:
        return None
    lost = len(obs.everything) - len(obs.usable)
    numbers: dict[str, object] = {"rows_without_softmax": lost}
    parts = []
    for name, (count, row, column) in bad.items():
        numbers[name] = {"count": count, "first_row": row, "first_column": column}
        parts.append(f"{count} {name} (the first in row {row}, column {column})")
    text = f"{', '.join(parts)}; {lost} of {obs.scores.shape[0]} rows have no softmax"
    if lost:
        text += f", the first is row {int((~obs.everything['usable']).argmax())}"
        return finding("not-finite", Evidence(text, **numbers))
    return finding("masked-scores", Evidence(text, **numbers))


def infinite_loss(obs: Observations) -> Finding | None:
    """Find labels at classes with a probability of exactly 0."""
    infinite = np.isposinf(obs.everything["nll"])
    count = int(infinite.sum())
    if not count:
        return None
    row = int(infinite.argmax())
    label = obs.name(int(obs.everything.y[row]))
    text = f"{count} of {len(obs.labelled)} rows, the first is row {row} with label {label}"
    return finding("infinite-loss", Evidence(text, rows=count, first=row))


def duplicates(obs: Observations) -> Finding | Unseen | None:
    """Find rows whose scores are all equal to those of an earlier row; a warning where that is no accident."""
    digest = obs.usable["digest"]
    if len(digest) < 2:
        return Unseen("one row")
    usable = np.flatnonzero(obs.everything["usable"])
    distinct, first, group, counts = np.unique(digest, return_index=True, return_inverse=True, return_counts=True)
    repeats = len(digest) - len(distinct)
    if repeats == 0 or len(distinct) == 1:  # all alike is another finding
        return None
    share = repeats / len(digest)
    tail = wrapped(digest, group, counts)
    ordered = tail > 0 or in_order(group, counts)
    values_differ = distinct_values(obs.scores, usable[np.sort(first)])
    if not (ordered or values_differ) and share < MANY:
        return None
    largest = int(counts.max())
    numbers = {"repeats": repeats, "rows": len(digest), "largest_group": largest}
    text = f"{repeats} of {len(digest)} rows ({percent(share)}) repeat an earlier row in all "
    text += f"{obs.C} scores; one row occurs {largest} times"
    if tail:
        numbers["wrapped"] = tail
        text += f"; the last {tail} row{'s repeat' if tail > 1 else ' repeats'} the first"
    elif ordered:
        text += "; they repeat in order, or all equally often"
    elif not values_differ:
        text += "; trees, neighbours, votes and rounding give equal rows to different inputs"
    severe = ordered or (values_differ and share >= MANY and in_pairs(counts))
    return finding("duplicate-rows", Evidence(text, **numbers), severity="warning" if severe else None)
