"""Examine scores and labels of any kind for a report, with the findings of `diagnose`, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from softnll._inspection.diagnose.checks import findings
from softnll._inspection.diagnose.finding import Findings
from softnll._inspection.diagnose.observations import Observations, observe
from softnll._inspection.report.summary import QUANTITIES, Examined, collectors
from softnll._inspection.survey import NONE
from softnll.data.rows import Rows

CHANGES = frozenset({"labels-off-by-one", "classes-permuted", "labels-shifted-rows", "single-column"})


@dataclass(frozen=True, eq=False)
class Given:
    """Scores and labels that were examined, and how they were read.

    Attributes
    ----------
    examined
        The figures of the rows that have a label.
    findings
        The findings of `diagnose`.
    score_kind, scores_are
        What the scores are, as a code and in words that also say how they become logits.
    classes
        How many classes there are: two where the scores had one column.
    changed
        Titles of the findings after which labels or scores were read otherwise than they stand in the files.
    """

    examined: Examined
    findings: Findings
    score_kind: str
    scores_are: str
    classes: int
    changed: tuple[str, ...]


def examine_given(
    scores: Rows,
    labels: Any,
    class_names: tuple[str, ...] | None = None,
    watch: Callable[[int, int], None] | None = None,
    *,
    seed: int = 0,
) -> Given:
    """Return the figures and findings of ``(N, C)`` scores of any kind, with labels that `diagnose` reads.

    Raises
    ------
    ValueError
        For labels that are no classes, labels out of range, and rows that have no softmax.

    Examples
    --------
    >>> from softnll.data.rows import as_rows
    >>> given = examine_given(as_rows([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 1]))
    >>> given.score_kind, round(given.examined.found.mean, 6)
    ('probabilities', 0.490415)
    """
    kept = collectors(scores.shape[0], seed)
    obs = observe(scores, labels, class_names, None, watch, also=QUANTITIES, collectors=kept)
    found = findings(obs)
    _require(obs, found)
    known = obs.everything.y != NONE
    examined = Examined(obs.everything.numbered().only(known), *kept, left_out=int((~known).sum()))
    changed = tuple(each.title for each in obs.readings if each.code in CHANGES or each.code == "scores-negated")
    return Given(examined, found, obs.kind.code, obs.kind.words, obs.C, changed)


def _require(obs: Observations, found: Findings) -> None:
    """Raise for what a report cannot be made of."""
    for finding in found:
        if finding.code == "labels-unreadable":
            raise ValueError(f"{finding.evidence}: these labels are no classes; softnll diagnose says why")
        if finding.code == "labels-out-of-range":
            at = finding.evidence
            raise ValueError(f"label {at['value']} in row {at['first']}; allowed: 0 to {obs.C - 1}")
        if finding.code == "hard-predictions" and obs.C == 1:
            raise ValueError(f"{finding.title}; {finding.evidence}. {finding.remedy}")
    usable = obs.everything["usable"]
    if not usable.all():
        raise ValueError(
            f"row {int(np.argmin(usable))} of the scores has no softmax: it holds NaN, +inf or only -inf; "
            "softnll diagnose tells more"
        )
    if not len(obs.labelled):
        raise ValueError("no row has a label that counts; softnll diagnose tells more")
