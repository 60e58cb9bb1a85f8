"""The objective of a table's partitions: prepared in two passes, then one pass for each evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask import delayed
from numpy.typing import NDArray

from softnll._classifier.inputs import balanced_weights, class_weights
from softnll._classifier.penalised_loss import Objective, strength
from softnll._classifier.precondition import draws, preconditioner, sample_size
from softnll._classifier.scaling import moments, row_step, scaling
from softnll.dask._scheduler import Scheduler
from softnll.dask._tasks import Draw, Facts, LossSums, Point, Sample, add, evaluate, examine, prepare, sample

_TOGETHER = 8  # partitions whose sums one task adds

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class TableFacts:
    """Partitions that hold rows, their facts, and what all of them have in common."""

    partitions: Sequence[Any]
    facts: Sequence[Facts]
    classes: NDArray[Any]
    dtype: np.dtype[Any]
    width: int

    @property
    def nbytes(self) -> int:
        """The bytes that the rows take as arrays."""
        rows = sum(each.rows for each in self.facts)
        targets = len(self.classes) * 8 if self.facts[0].soft else 8
        return rows * (self.width * self.dtype.itemsize + targets + 8)


@dataclass(frozen=True)
class PartitionedObjective(Objective):
    """The objective of rows that lie in partitions; see `Objective` for its attributes."""

    scheduler: Scheduler
    parts: Sequence[Any]
    dtype: np.dtype[Any]  # of the rows
    options: dict[str, Any]
    shape: tuple[int, int]
    total: float
    strength: float
    fit_intercept: bool

    def mean_loss(self, weight: Vector, bias: Vector) -> tuple[float, Any, Any]:
        """Return ``Σ loss / D`` and its gradients by W and b."""
        point = delayed(Point(weight, bias, self.fit_intercept, self.options), traverse=False)
        task = delayed(evaluate, pure=False)
        total: LossSums = self.scheduler.compute(_added([task(part, point) for part in self.parts]))
        return total.loss / self.total, total.weight / self.total, total.bias / self.total


def _added(sums: list[Any]) -> Any:
    """Return the task of a sum: neighbours are added in a tree that depends on the number of partitions only."""
    task = delayed(add, pure=False)
    while len(sums) > 1:
        sums = [task(sums[start : start + _TOGETHER]) for start in range(0, len(sums), _TOGETHER)]
    return sums[0]


def examined(
    scheduler: Scheduler, partitions: Sequence[Any], options: dict[str, Any], check: bool | None
) -> TableFacts:
    """Return what one pass over the partitions finds; raise where they do not fit each other."""
    task = delayed(examine, pure=False)
    facts: list[Facts] = scheduler.compute(delayed(list)([task(each, options, check) for each in partitions]))
    found = [(k, each) for k, each in enumerate(facts) if each.rows]
    if not found:
        raise ValueError("X holds no rows")
    number, first = found[0]
    for k, each in found:
        _require_same(f"partition {k} (0 first)", f"partition {number}", each, first)
    if first.width == 0:
        raise ValueError("X holds no features")
    classes = np.unique(np.concatenate([each.classes for _, each in found]))
    if len(classes) < 2:
        raise ValueError(f"y holds one class, {classes[0]!r}; SoftmaxClassifier needs samples of at least 2 classes")
    kept = [partitions[k] for k, _ in found]
    return TableFacts(kept, [each for _, each in found], classes, first.dtype, first.width)


def _require_same(place: str, other: str, facts: Facts, first: Facts) -> None:
    """Raise unless two partitions have rows of one kind."""
    if facts.width != first.width:
        raise ValueError(f"{place}: X has {facts.width} features, {first.width} in {other}")
    if facts.dtype != first.dtype:
        raise TypeError(f"{place}: X is {facts.dtype}, {first.dtype} in {other}; convert it: X.astype({first.dtype})")
    if facts.soft != first.soft or (facts.soft and len(facts.classes) != len(first.classes)):
        raise ValueError(f"{place}: y has other columns than in {other}")
    if _kind(facts.classes) != _kind(first.classes):
        raise TypeError(f"{place}: y holds {_kind(facts.classes)}, {_kind(first.classes)} in {other}")


def _kind(classes: NDArray[Any]) -> str:
    """Return what labels are: of several kinds no order, and no common type, is theirs."""
    if classes.dtype.kind == "O":
        return "numbers" if isinstance(classes[0], int | float) else "text"
    return {"U": "text", "T": "text", "M": "dates", "m": "durations"}.get(classes.dtype.kind, "numbers")


@np.errstate(over="ignore")  # a sum of weights that is infinite is refused
def prepared(
    scheduler: Scheduler, table: TableFacts, C: float, class_weight: Any, label_smoothing: float, *, fit_intercept: bool
) -> tuple[PartitionedObjective, Any]:
    """Return the objective and the change of variables for L-BFGS, or None for none."""
    soft, n_classes = table.facts[0].soft, len(table.classes)
    mass = np.zeros(n_classes)
    for each in table.facts:
        mass[np.searchsorted(table.classes, each.classes)] += each.mass
    weights: Vector | None
    if isinstance(class_weight, str):
        weights = balanced_weights(mass)
    else:
        weights = class_weights(class_weight, table.classes, np.empty(0), None)
    counts = [_weight(table.classes, each, weights) for each in table.facts]
    total = sum(each.weight for each in table.facts) if soft else sum(counts)
    if not total < math.inf:
        raise ValueError("the sum of the weights is infinite; divide sample_weight by a constant")
    shape = (n_classes, table.width)
    options = {"class_weight": weights, "label_smoothing": label_smoothing}
    per_row = strength(C, total)
    bare = PartitionedObjective(scheduler, (), table.dtype, options, shape, total, per_row, fit_intercept)
    variables, dtype = _variables(bare, table, counts)
    task = delayed(prepare, pure=False)
    parts = [task(each, table.classes, dtype) for each in table.partitions]
    if table.nbytes * dtype.itemsize // table.dtype.itemsize <= scheduler.memory():
        parts = scheduler.keep(parts)
    return PartitionedObjective(scheduler, parts, dtype, options, shape, total, per_row, fit_intercept), variables


def _weight(classes: NDArray[Any], facts: Facts, class_weight: Vector | None) -> float:
    """Return the weight of a partition's rows, by which they are drawn: Σ s·w_y, of soft y Σ s."""
    if facts.soft or class_weight is None:
        return facts.weight
    return float(np.sum(class_weight[np.searchsorted(classes, facts.classes)] * facts.mass))


def _variables(problem: PartitionedObjective, table: TableFacts, counts: Sequence[float]) -> tuple[Any, np.dtype[Any]]:
    """Return the change of variables that the local estimator takes, from the same sample, and the type of the rows."""
    counted = sum(each.counted for each in table.facts)
    size = sample_size(counted, problem.shape, table.dtype)
    ends = np.cumsum(counts)
    shares = np.zeros(0) if size is None else draws(size) * ends[-1]
    inside = np.minimum(np.searchsorted(ends, shares, side="right"), np.flatnonzero(counts)[-1])
    step, before, tasks = row_step(counted, table.width), 0, []
    task = delayed(sample, pure=False)
    for k, (partition, facts) in enumerate(zip(table.partitions, table.facts, strict=True)):
        draw = Draw(-before % step, step, shares[inside == k] - (ends[k] - counts[k]))
        tasks.append(task(partition, table.classes, table.dtype, problem.options["class_weight"], draw))
        before += facts.counted
    found: list[Sample] = problem.scheduler.compute(delayed(list)(tasks))
    weights = [each.weight for each in found if each.weight is not None]
    weight = np.concatenate(weights) if weights else None
    centre = problem.fit_intercept
    of_rows = moments(np.concatenate([each.even for each in found]), weight, centre=centre)
    dtype = np.dtype(np.float64) if of_rows.needs_float64(centre=centre) else table.dtype
    if of_rows.badly_scaled(centre=centre):
        return scaling(problem, of_rows), dtype
    if size is None:
        return None, dtype
    drawn = np.empty((size.rows, table.width), table.dtype)
    for k, each in enumerate(found):
        drawn[inside == k] = each.drawn
    return preconditioner(problem, drawn, size), dtype
