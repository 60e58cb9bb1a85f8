"""All that findings look at: scores as logits, labels as classes, one pass over all rows, a seeded sample of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll.data.text import printable
from softnll.diagnosis.alignment import NONE, align
from softnll.diagnosis.finding import Finding
from softnll.diagnosis.kinds import Kind, kind_of
from softnll.diagnosis.labels import as_numbers
from softnll.diagnosis.printed import Printed
from softnll.diagnosis.survey import Survey, survey, usable_rows
from softnll.score_rows import Rows, as_rows, real

__all__ = ["Case", "open_case"]

MOST_ROWS = 50_000  # of the sample
MOST_ENTRIES = 1 << 24  # of the sample: 64 MiB of float32
SEED = 0


@dataclass(frozen=True, eq=False)
class Case:
    """What there is to look at.

    Attributes
    ----------
    scores
        ``(N, C)`` as they were given.
    class_names
        ``C`` names, or None.
    kind
        What the scores are; `logits` are made from them accordingly.
    y
        ``(N,)`` classes as they fit the scores, `NONE` where there is none.
    label_findings
        What was found while the labels were read and fitted.
    survey
        What one pass over all rows saw.
    sample
        ``(n,)`` rows of the seeded sample that have a softmax; all of them where there are few.
    sampled, logits
        ``(n, C)`` their scores as given, and the logits that they stand for.
    printed
        The loss that a framework printed, if it was given.
    """

    scores: Rows
    class_names: tuple[str, ...] | None
    kind: Kind
    y: NDArray[np.int64]
    label_findings: tuple[Finding, ...]
    survey: Survey
    sample: NDArray[np.int64]
    sampled: NDArray[Any]
    logits: NDArray[Any]
    printed: Printed | None

    @property
    def C(self) -> int:  # noqa: N802 - the name that a number of classes has everywhere
        """The number of classes."""
        return self.scores.shape[1]

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """The rows that have a softmax and a class."""
        return np.flatnonzero(self.survey.usable & (self.y != NONE))

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """``(C,)`` labelled rows of each class."""
        return np.bincount(self.y[self.labelled], minlength=self.C)

    @cached_property
    def accuracy(self) -> float:
        """Share of the labelled rows that are predicted right."""
        return float((self.survey.prediction[self.labelled] == self.y[self.labelled]).mean())

    def of_sample(self) -> str:
        """Say what the sample is, for evidence that rests on it."""
        n, N = len(self.sample), self.scores.shape[0]
        return f"all {n} rows" if n == N else f"{n} of {N} rows (a sample with seed {SEED})"

    def name(self, c: int) -> str:
        """Return what a class is called."""
        return f"class {c}" if self.class_names is None else printable(self.class_names[c], 40)


def open_case(
    given: Any,
    labels: ArrayLike,
    class_names: Sequence[str] | None,
    printed: Printed | None,
    watch: Callable[[int, int], None],
) -> Case:
    """Read labels, find out what the scores are on a sample, fit the labels to the predictions, look at all rows."""
    scores = as_rows(given)
    N, C = scores.shape
    names = None if class_names is None else tuple(map(str, class_names))
    if names is not None and len(names) != C:
        raise ValueError(f"class_names has {len(names)} names; the scores have {C} columns")
    numbers, found = as_numbers(labels, scores.shape, names)

    size = min(N, MOST_ROWS, max(1, MOST_ENTRIES // C))
    chosen = np.arange(N) if size == N else np.sort(np.random.default_rng(SEED).choice(N, size, replace=False))
    sampled = real(scores.rows(slice(0, N) if size == N else chosen))
    kind = kind_of(sampled[usable_rows(sampled)])
    logits = kind.logits(sampled)
    usable = usable_rows(logits)
    sample, sampled, logits = chosen[usable], sampled[usable], logits[usable]

    y = np.full(N, NONE, np.int64)
    if numbers is not None:
        prediction = logits.argmax(axis=1) if len(sample) else np.zeros(0, np.int64)
        y, more = align(numbers, sample, prediction, C)
        found += more
    return Case(scores, names, kind, y, tuple(found), survey(scores, kind, y, watch), sample, sampled, logits, printed)
