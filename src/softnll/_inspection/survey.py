"""Collect the quantities of explanations, diagnoses and reports in one pass over scores and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.calibration import Reliability, reliability
from softnll._numpy import functional
from softnll.data.rows import Rows, real

NONE = -1  # in place of a label: the row has no class
Vector = NDArray[Any]


class Block:
    """Some rows of scores with their labels; each quantity is computed when it is first read.

    Quantities that need a label are NaN in rows without one; in rows that are not `usable`, no quantity has a meaning.

    Attributes
    ----------
    logits
        ``(n, C)`` logits.
    y
        ``(n,)`` true classes, or None; a row without a class has 0 here and False in `labelled`.
    scores
        ``(n, C)`` the scores as given, from which the logits were computed.
    usable, labelled
        ``(n,)`` which rows have a softmax, and which of these a label; None: all of them.
    functions
        Whose ``softmax`` and ``cross_entropy`` compute: the public functions' module, or what has the same functions.
    """

    def __init__(
        self,
        logits: Any,
        y: Any = None,
        *,
        scores: Vector | None = None,
        usable: NDArray[np.bool_] | None = None,
        functions: Any = functional,
    ) -> None:
        self.logits, self.y, self.functions = logits, y, functions
        self.scores: Vector = logits if scores is None else scores
        self.usable = self.labelled = None
        if usable is not None:
            self.usable = usable
            if y is not None and not (labelled := usable & (y != NONE)).all():
                self.labelled, self.y = labelled, np.where(labelled, y, 0)

    @cached_property
    def probabilities(self) -> Vector:
        """``(n, C)`` the softmax of each row, in the type of the logits."""
        return np.asarray(self.functions.softmax(self.logits))

    @cached_property
    def prediction(self) -> Vector:
        """``(n,)`` the class of the largest logit, the first one of a tie."""
        return np.asarray(np.argmax(self.logits, axis=1))

    @cached_property
    def confidence(self) -> Vector:
        """``(n,)`` the largest probability."""
        return np.asarray(self.probabilities.max(axis=1))

    @cached_property
    def right(self) -> Vector:
        """``(n,)`` whether the prediction is the label."""
        return np.asarray(self.prediction == self.y)

    @cached_property
    def p_true(self) -> Vector:
        """``(n,)`` the probability of the label."""
        return self.at_label(self.probabilities)

    @cached_property
    def nll(self) -> Vector:
        """``(n,)`` the loss at the label, in nats."""
        return self.loss()

    @cached_property
    def margin(self) -> Vector:
        """``(n,)`` the probability of the label minus that of the likeliest other class."""
        others = self.probabilities.copy()
        others[np.arange(len(others)), self.y] = 0 if others.shape[1] == 1 else -1
        return np.asarray(self.p_true.astype(np.float64) - others.max(axis=1))

    @cached_property
    def square(self) -> Vector:
        """``(n,)`` Σ p² over the classes."""
        return np.asarray(np.einsum("nc,nc->n", self.probabilities, self.probabilities, dtype=np.float64))

    def loss(self, logits: Vector | None = None, y: Vector | None = None, **options: Any) -> Vector:
        """Return ``(n,)`` cross-entropies, by default of the logits at the label; options as in `cross_entropy`."""
        x, at = self.logits if logits is None else logits, self.y if y is None else y
        return self.where_labelled(self.functions.cross_entropy(x, at, reduction="none", **options))

    def at_label(self, values: Vector) -> Vector:
        """Return the entry of each row ``(n, C)`` at its label."""
        return self.where_labelled(np.take_along_axis(values, np.asarray(self.y)[:, None], axis=1)[:, 0])

    def where_labelled(self, values: Any) -> Vector:
        """Return ``(n,)`` values with NaN in the rows that have no label."""
        return np.asarray(values if self.labelled is None else np.where(self.labelled, values, np.nan))

    def require_softmax(self, row: str = "row {}", start: int = 0) -> None:
        """Raise ValueError for the first row that has no softmax."""
        lost = np.isnan(self.probabilities).any(axis=1)
        if lost.any():
            name = row.format(start + int(lost.argmax()))
            raise ValueError(f"{name} has no softmax: it holds NaN, only -inf, or +inf more than once")

    def reliability(self, bins: int = 15) -> Reliability:
        """Return mean confidence and accuracy in bins of confidence."""
        return reliability(np.minimum(self.confidence, 1), self.right, bins=bins)


Quantity = str | tuple[str, Callable[[Block], Vector]]  # an attribute of a block, or a name and a function of a block


class Collector(Protocol):
    """An object that `survey` passes each block to."""

    def add(self, start: int, block: Block) -> None:
        """Collect from a block, whose first row has the number ``start``."""


@dataclass
class LargestRows:
    """The rows with the largest values of a quantity: ``values``, ``rows`` (their numbers) and ``(k, C)`` ``logits``.

    The largest value comes first, of equal ones that of the first row.
    """

    most: int  # rows to keep
    value: Callable[[Block], Vector]  # returns the quantity of each row of a block
    values: Vector = field(default_factory=lambda: np.empty(0))
    rows: Vector = field(default_factory=lambda: np.empty(0, np.int64))
    logits: Vector = field(default_factory=lambda: np.empty((0, 0)))

    def add(self, start: int, block: Block) -> None:
        """Keep those rows of a block that are among the largest so far."""
        values = self.value(block).astype(np.float64)
        best = np.argsort(-values, kind="stable")[: self.most]  # NaN comes last
        best = best[~np.isnan(values[best])]  # a row without a softmax or a label
        if len(self.rows) == self.most:
            best = best[values[best] > self.values[-1]]
        if not best.size:
            return
        rows = np.concatenate([self.rows, start + best])
        merged = np.concatenate([self.values, values[best]])
        whole = np.concatenate([self.logits.reshape(len(self.rows), block.logits.shape[1]), block.logits[best]])
        order = np.lexsort((rows, -merged))[: self.most]
        self.values, self.rows, self.logits = merged[order], rows[order], whole[order]


class Chosen:
    """The logits of given rows, in ascending order."""

    def __init__(self, rows: Vector) -> None:
        self.rows = rows
        self._parts: list[Vector] = []

    def add(self, start: int, block: Block) -> None:
        """Keep the chosen rows of a block."""
        first, last = np.searchsorted(self.rows, (start, start + len(block.logits)))
        self._parts.append(block.logits[self.rows[first:last] - start])

    @property
    def logits(self) -> Vector:
        """``(k, C)`` logits of the chosen rows."""
        return np.concatenate(self._parts)


@dataclass(frozen=True, eq=False)
class Survey:
    """The quantities collected from ``N`` rows of ``C`` scores, read by name: ``found["nll"]``.

    The properties, and the methods after `only`, need labels in all rows.
    """

    classes: int  # C
    y: Vector  # (N,) true classes, `NONE` in rows without one
    columns: Mapping[str, Vector]  # (N,) values of each quantity, by its name

    def __getitem__(self, name: str) -> Vector:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.y)

    def only(self, chosen: NDArray[np.bool_]) -> Survey:
        """Return the survey of the chosen rows."""
        if chosen.all():
            return self
        return Survey(self.classes, self.y[chosen], {name: each[chosen] for name, each in self.columns.items()})

    @cached_property
    def rows(self) -> Vector:
        """``(N,)`` the number of each row in the scores, where some rows were left out."""
        return self.columns["row"] if "row" in self.columns else np.arange(len(self))

    def numbered(self) -> Survey:
        """Return this survey with the number of each row, which `only` then keeps."""
        return Survey(self.classes, self.y, {**self.columns, "row": np.arange(len(self))})

    def place(self, row: int) -> int:
        """Return at which place a row of the scores is."""
        return int(np.searchsorted(self.rows, row))

    @cached_property
    def right(self) -> Vector:
        """``(N,)`` whether each prediction is the true class."""
        return np.asarray(self["prediction"] == self.y)

    @cached_property
    def accuracy(self) -> float:
        """The share of rows that are predicted right."""
        return float(self.right.mean())

    @cached_property
    def mean(self) -> float:
        """The mean loss."""
        return float(self["nll"].mean())

    @cached_property
    def brier(self) -> float:
        """The Brier score: the mean of ``Σ_c (p_c − [c = y])²``."""
        return float((self["square"] - 2 * self["p_true"] + 1).mean())

    @cached_property
    def support(self) -> Vector:
        """``(C,)`` rows of each true class."""
        return np.bincount(self.y, minlength=self.classes)

    @cached_property
    def prior_nll(self) -> float:
        """The loss of always predicting the frequencies of the classes: the entropy of the labels."""
        share = self.support[self.support > 0] / len(self)
        return float(-(share * np.log(share)).sum())

    @cached_property
    def reliability(self) -> Reliability:
        """Mean confidence and accuracy in 15 bins of confidence."""
        return reliability(np.minimum(self["confidence"], 1), self.right)

    def per_class(self, values: Vector) -> Vector:
        """Return ``(C,)`` means of a quantity over the rows of each true class; NaN where there are none."""
        with np.errstate(invalid="ignore"):
            return np.bincount(self.y, weights=values, minlength=self.classes) / self.support

    def confusions(self) -> tuple[Vector, Vector, Vector]:
        """Return true class, predicted class and count of each pair of confused classes, the most frequent first."""
        wrong = ~self.right
        keys, counts = np.unique(self.y[wrong] * self.classes + self["prediction"][wrong], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return keys[order] // self.classes, keys[order] % self.classes, counts[order]


def survey(
    scores: Rows,
    y: Vector,
    quantities: Iterable[Quantity],
    collectors: Iterable[Collector] = (),
    *,
    to_logits: Callable[[Vector], Vector] | None = None,
    usable: Callable[[Vector], NDArray[np.bool_]] | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Survey:
    """Read all ``(N, C)`` scores once, a block of rows at a time, and return the quantities asked for.

    ``y`` are ``(N,)`` true classes in [0, C), or `NONE`; ``quantities`` names of attributes of a `Block`, or names with
    functions of a block; each block is added to the ``collectors``. ``to_logits`` returns the logits of a block (None:
    the scores are logits), ``usable`` which of its rows have a softmax (None: ValueError for one that has none: NaN,
    only −∞, or +∞ more than once; and every row must have a label). ``watch`` is called after each block with the
    number of rows done, and of all.

    Examples
    --------
    >>> from softnll.data.rows import as_rows
    >>> found = survey(as_rows([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0]]), np.array([0, 2]), ["nll"])
    >>> found["nll"].round(6).tolist()
    [0.349012, 0.020581]
    """
    N, C = scores.shape
    columns: dict[str, Vector] = {}
    for here, given in scores.blocks():
        x = real(given)
        logits = x if to_logits is None else to_logits(x)
        block = Block(logits, y[here], scores=x, usable=None if usable is None else usable(logits))
        if usable is None:
            block.require_softmax("row {} of the scores", here.start)
        for quantity in quantities:
            name, compute = (quantity, attrgetter(quantity)) if isinstance(quantity, str) else quantity
            values = compute(block)
            if name not in columns:
                columns[name] = np.empty(N, np.float64 if values.dtype.kind == "f" else values.dtype)
            columns[name][here] = values
        for collector in collectors:
            collector.add(here.start, block)
        if watch is not None:
            watch(here.stop, N)
    return Survey(C, y, columns)


def worst_share(nll: Vector) -> float:
    """Return the largest hundredth of the losses as a share of their sum; NaN where the sum is 0 or not finite."""
    total = float(nll.sum())
    if not 0 < total < math.inf:
        return math.nan
    count = max(1, len(nll) // 100)
    return float(np.sort(np.partition(nll, len(nll) - count)[-count:]).sum() / total)


def largest_bin(nll: Vector) -> float:
    """Return the upper end of a histogram of losses, their 99.9 % quantile; the last bin holds larger ones too."""
    finite = nll[np.isfinite(nll)]
    return max(float(np.quantile(finite, 0.999)) if finite.size else 0.0, 1e-12)


def confusion_counts(y: Vector, prediction: Vector, classes: int) -> NDArray[np.int64]:
    """Return ``(C, C)`` how many rows of each true class have each prediction."""
    return np.bincount(y.astype(np.int64) * classes + prediction, minlength=classes * classes).reshape(classes, classes)
