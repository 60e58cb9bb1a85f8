"""Scores whose smallest entry is the best: negated scores, distances, losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.diagnose.align_labels import align
from softnll._inspection.diagnose.chance import ALPHA, half_tail, related
from softnll._inspection.diagnose.finding import Evidence, Finding, finding
from softnll._inspection.diagnose.score_kind import ScoreKind
from softnll._inspection.format import percent

Labels = NDArray[np.int64]


def read_together(
    numbers: Labels, sample: Labels, logits: NDArray[Any], kind: ScoreKind, C: int
) -> tuple[ScoreKind, Labels, list[Finding]]:
    """Return the kind of scores and the ``(N,)`` classes that fit each other, and findings about what was changed.

    The sign of scores is turned only where their smallest entry is the label so much more often than the largest that a
    calibrated classifier shows it with a probability below `ALPHA`, twice as often or with half the errors, and clearly
    more often than if labels and scores had nothing to do with each other. Two classes turned around are two classes
    swapped: `align` finds them.
    """
    if not len(sample):
        return kind, *align(numbers, sample, np.zeros(0, np.int64), C)
    largest = logits.argmax(axis=1)
    y, found = align(numbers, sample, largest, C)
    changed = {each.code for each in found} & {"labels-off-by-one", "classes-permuted", "labels-shifted-rows"}
    if kind.code != "logits" or C < 3 or (related(y[sample], largest, C) and not changed):
        return kind, y, found
    smallest = logits.argmin(axis=1)
    turned, more = align(numbers, sample, smallest, C)
    after, before = turned[sample] == smallest, y[sample] == largest
    wins, losses = int((after & ~before).sum()), int((before & ~after).sum())
    new, old = float(after.mean()), float(before.mean())
    better = new >= 2 * old or 1 - new <= (1 - old) / 2
    if not better or half_tail(wins, losses) > ALPHA or not related(turned[sample], smallest, C):
        return kind, y, found
    low = float(logits.min())
    text = f"the smallest score is the label in {percent(new)} of {len(sample)} rows, the largest in {percent(old)}; "
    text += f"the smallest of all scores is {low:.4g}"
    evidence = Evidence(text, accuracy=old, accuracy_negated=new, smallest=low, rows=len(sample))
    turn = finding("scores-negated/distances" if low >= 0 else "scores-negated", evidence)
    return ScoreKind("negated"), turned, [turn, *more]
