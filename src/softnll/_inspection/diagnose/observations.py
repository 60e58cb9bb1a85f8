"""The input of the checks of `diagnose`: scores as logits, labels as classes, a pass over all rows, and a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.words import counted
from softnll._inspection.diagnose.along_rows import along_rows
from softnll._inspection.diagnose.finding import Finding
from softnll._inspection.diagnose.negated import read_together
from softnll._inspection.diagnose.one_column import as_table
from softnll._inspection.diagnose.printed_loss import Printed
from softnll._inspection.diagnose.quantities import LABELLED, LOSSES, ROWS, Columns, RoundedToZero, usable_rows
from softnll._inspection.diagnose.read_labels import as_numbers
from softnll._inspection.diagnose.score_kind import ScoreKind, score_kind
from softnll._inspection.survey import NONE, Collector, Quantity, Survey, survey
from softnll.data.frames import is_frame, named_rows
from softnll.data.rows import Rows, real
from softnll.data.text import printable

MOST_ROWS = 50_000  # of the sample
MOST_ENTRIES = 1 << 24  # of the sample: 64 MiB of float32
SEED = 0


@dataclass(frozen=True, eq=False)
class Observations:
    """Scores and labels, and the quantities that one pass over them collected."""

    scores: Rows  # (N, C) as given
    class_names: tuple[str, ...] | None
    kind: ScoreKind  # logits, probabilities, or their logarithms
    readings: tuple[Finding, ...]  # from reading scores and labels, and aligning the two
    has_classes: bool  # whether the labels could be read as classes
    everything: Survey  # of all rows,
    usable: Survey  # of those that have a softmax,
    labelled: Survey  # and of those that also have a class
    columns: Columns
    zeros: RoundedToZero
    sample: NDArray[np.int64]  # (n,) rows with a softmax of the seeded sample, which is all rows where these are few
    y: NDArray[np.int64]  # (n,) classes of the sample, `NONE` in rows without one
    sampled: NDArray[Any]  # (n, C) scores of the sample as given,
    logits: NDArray[Any]  # and their logits
    printed: Printed | None  # the loss that a framework printed

    @property
    def C(self) -> int:  # noqa: N802 - the name that a number of classes has everywhere
        """The number of classes."""
        return self.scores.shape[1]

    def expected(self) -> NDArray[np.float64]:
        """Return ``(C,)`` how many labelled rows of each class the probabilities predict.

        The probabilities of all usable rows, scaled to those with labels (nearly always the same rows).
        """
        expected: NDArray[np.float64] = self.columns.mass * (len(self.labelled) / max(len(self.usable), 1))
        return expected

    def of_sample(self) -> str:
        """Return a description of the sample, for evidence that rests on it."""
        n, N = len(self.sample), self.scores.shape[0]
        return f"all {n} rows" if n == N else f"{n} of {N} rows (a sample with seed {SEED})"

    def name(self, c: int) -> str:
        """Return the name of a class."""
        return f"class {c}" if self.class_names is None else printable(self.class_names[c], 40)


def observe(
    given: Any,
    labels: ArrayLike,
    class_names: Sequence[str] | None,
    printed: Printed | None,
    watch: Callable[[int, int], None] | None = None,
    *,
    also: Iterable[Quantity] = (),
    collectors: Iterable[Collector] = (),
) -> Observations:
    """Read the labels, find the kind of scores, align the labels, survey all rows, and return the observations.

    ``also`` are quantities collected besides those of the checks, where there are labels; ``collectors`` see each
    block then.
    """
    table, own_names = named_rows(given) if is_frame(given) else (given, None)
    scores, found = as_table(table, labels)
    N, C = scores.shape
    names = own_names if class_names is None else tuple(map(str, class_names))
    if found and names is not None and len(names) == 1:
        names = None  # one column became two
    if names is not None and len(names) != C:
        raise ValueError(f"class_names has {counted(len(names), 'name')}; the scores have {counted(C, 'column')}")
    numbers, more = as_numbers(labels, scores.shape, names)
    found += more if C > 1 else []

    size = min(N, MOST_ROWS, max(1, MOST_ENTRIES // C))
    chosen = np.arange(N) if size == N else np.sort(np.random.default_rng(SEED).choice(N, size, replace=False))
    sampled = real(scores.rows(slice(0, N) if size == N else chosen))
    given_rows = sampled[usable_rows(sampled)]
    kind = score_kind(given_rows)
    if kind.code == "logits":
        kind = along_rows(scores, given_rows) or kind
    logits = kind.logits(sampled)
    usable = usable_rows(logits)
    sample, sampled, logits = chosen[usable], sampled[usable], logits[usable]

    y = np.full(N, NONE, np.int64)
    if C == 1:
        y = np.where(numbers == 0, 0, NONE) if numbers is not None and not found else y
    elif numbers is not None:
        before = kind
        kind, y, more = read_together(numbers, sample, logits, kind, C)
        logits = logits if kind is before else kind.logits(sampled)
        found += more
    has_labels = bool((y != NONE).any())
    columns, zeros = Columns(C), RoundedToZero()
    everything = survey(
        scores,
        y,
        _once(ROWS, *((LABELLED, LOSSES if printed is not None else (), also) if has_labels else ())),
        (columns, *((zeros, *collectors) if has_labels else ())),
        to_logits=kind.logits,
        usable=usable_rows,
        watch=watch,
    )
    return Observations(
        scores=scores,
        class_names=names,
        kind=kind,
        readings=tuple(found),
        has_classes=numbers is not None,
        everything=everything,
        usable=everything.only(everything["usable"]),
        labelled=everything.only(everything["usable"] & (y != NONE)),
        columns=columns,
        zeros=zeros,
        sample=sample,
        y=y[sample],
        sampled=sampled,
        logits=logits,
        printed=printed,
    )


def _once(*groups: Iterable[Quantity]) -> list[Quantity]:
    """Return the quantities of all groups, each once."""
    return list(dict.fromkeys(quantity for group in groups for quantity in group))
