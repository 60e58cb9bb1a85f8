"""``softnll train`` on many files: a pass over them for their columns, C chosen on a sample, the fit on all rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import distributed
import numpy as np
from dask import delayed
from distributed.system import MEMORY_LIMIT
from sklearn.exceptions import ConvergenceWarning

from softnll._classifier.examples import files_of
from softnll._classifier.options import Settings
from softnll._classifier.prepare import column_scale
from softnll._classifier.recipe import ColumnRecipe, FeatureRecipe, most_categories
from softnll._classifier.train import Trained, TrainingStep, failure_of, folded, interruptions, train
from softnll.dask._estimator import SoftmaxClassifier
from softnll.dask._files import FileRows, FileScan, Source, Spread, features_and_labels, moments_of, scan
from softnll.dask._scheduler import Scheduler
from softnll.data import DataError, Dataset
from softnll.data.arrays import NPY_MAGIC
from softnll.data.columns import Choice
from softnll.data.tables import open_table, roles_of
from softnll.data.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLUSTER = 0.1  # share of the memory from which files are read by processes, not by threads of this one
_HELD_OUT, _MOST_HELD_OUT = 0.2, 250_000  # share of the rows that is held out for the test, and the most rows
_TEST_BYTES, _SAMPLE_BYTES = 256 << 20, 128 << 20  # of the features held out, and of the sample that C is chosen on
_SAMPLE = 50_000  # rows of that sample


@contextmanager
def workers(files: Sequence[Path]) -> Iterator[str]:
    """Yield where the tasks run: a cluster that DASK_SCHEDULER_ADDRESS names, processes for large files, or threads."""
    size = sum(path.stat().st_size for path in files)
    if address := dask.config.get("scheduler-address", None):
        with distributed.Client(address):
            yield f"on the cluster at {address}"
    elif size <= _CLUSTER * MEMORY_LIMIT:
        with dask.config.set(scheduler="threads"):
            yield f"in this process ({size >> 20} MiB)"
    else:
        options = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
        count = dask.system.CPU_COUNT
        with distributed.LocalCluster(n_workers=count, **options) as cluster, distributed.Client(cluster):
            yield f"in {count} processes ({size >> 20} MiB)"


@dataclass(frozen=True)
class FileExamples:
    """Examples to train, which stay in their files, those to test, and the recipe of all features."""

    name: str
    count: int  # examples to train
    test: Dataset
    recipe: FeatureRecipe
    notes: tuple[str, ...]
    spread: Spread
    scale: NDArray[np.float64]
    task: Callable[..., Any]  # of a file's number and the options of `features_and_labels`
    lengths: tuple[int, ...]

    def sample(self) -> Dataset:
        """Return evenly spaced examples to train, unscaled."""
        most = max(1, min(_SAMPLE, _SAMPLE_BYTES // (8 * len(self.scale))))
        tasks = [self.task(k, step=-(-self.count // most)) for k in range(len(self.lengths))]
        return _dataset(_computed(tasks), self.recipe, "train", self.name)

    def table(self) -> tuple[Any, Any]:
        """Return the standardised examples as Dask arrays X and y, a partition a file."""
        dtype, width = self.test.features().dtype, len(self.scale)
        parts = [self.task(k, scaled=(self.spread.mean, self.scale)) for k in range(len(self.lengths))]
        sized = list(zip(parts, self.lengths, strict=True))
        X = da.concatenate([da.from_delayed(each[0], (n, width), dtype) for each, n in sized])
        return X, da.concatenate([da.from_delayed(each[1], (n,), np.int64) for each, n in sized])

    def train(self, settings: Settings, watch: Callable[[TrainingStep], None], stage: Callable[[str], None]) -> Trained:
        """Choose C on a sample, as for data in memory, and fit all examples from what it found."""
        stage("reading a sample of the examples")
        sample = self.sample()
        first = train(sample, settings, watch, stage)
        classes = np.arange(len(self.recipe.class_names))
        if first.interrupted:
            return first
        stage(f"fitting {self.count} examples in {len(self.lengths)} files with C = {first.model.C:g}")
        model = SoftmaxClassifier(
            C=first.model.C,
            **{name: getattr(settings, name) for name in ("tol", "max_iter", "label_smoothing")},
            warm_start=True,
        )
        if np.array_equal(first.model.classes_, classes):  # a sample may lack rare ones
            coef = first.model.coef_ * self.scale
            model.start_at(classes, coef, first.model.intercept_ + first.model.coef_ @ self.spread.mean)
        history = list(first.history)
        features = (sample.features() - self.spread.mean) / self.scale

        with interruptions() as interrupted, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)

            def note(_: int, loss: float, coef: NDArray[Any], intercept: NDArray[Any]) -> None:
                accuracy = float(((features @ coef.T + intercept).argmax(axis=1) == sample.labels).mean())
                history.append(TrainingStep(len(history) + 1, float(loss), accuracy, model.C))
                watch(history[-1])
                if interrupted:
                    raise StopIteration

            model.fit(*self.table(), callback=note)
        local = folded(model.to_local(), self.spread.mean, self.scale)
        return Trained(local, tuple(history), bool(interrupted), failure_of(caught), first.choice)


def read_files(pattern: str, files: Sequence[Path], seed: int, choice: Choice, labels: str | None) -> FileExamples:
    """Return the examples of files with the same columns, or of .npy files with files of labels.

    The first file decides which column is what, as `softnll._classifier.examples.read_examples` does. Numbers are
    features, their empty cells the median of the files' medians; words are one-hot. A fifth of the rows is held out for
    the test, at most 250 000 or 256 MiB.

    Raises
    ------
    DataError
        For files that do not fit each other, and as for one file.
    """
    name = printable(pattern, 60)
    sources, notes = _sources(files, choice, _matching(labels, len(files)))
    scans = _scanned(sources)
    classes, counts = _classes(scans)
    if len(classes) < 2:
        raise DataError(f"{name}: the labels hold one class, {classes[0]!r}; allowed: two and more")
    total = sum(each.rows for each in scans)
    images = scans[0].images
    recipe = FeatureRecipe(classes, shape=scans[0].shape if images else ())
    columns: tuple[int, ...] = ()
    if sources[0].names:
        recipe, columns, more = _recipe(sources[0], scans, classes, total)
        sources = [replace(each, columns=columns) for each in sources]
        notes += more
    width = sum(each.width for each in recipe.columns) or int(np.prod(scans[0].shape))
    share = min(_HELD_OUT, _MOST_HELD_OUT / total, _TEST_BYTES / (8 * width) / total)
    if counts.max() < 2:
        raise DataError(f"{name}: no class has two examples, so that none can be held out for the test")

    def task(k: int, **options: Any) -> Any:
        return delayed(features_and_labels, pure=False)(sources[k], recipe, share, seed, **options)

    moments = delayed(moments_of, pure=False)
    spreads: list[Spread] = _computed([moments(each, recipe, share, seed) for each in sources])
    spread = reduce(Spread.merged, spreads)
    scale, _ = column_scale(spread.mean, np.sqrt(spread.squares / spread.rows))
    scale = np.ones(width) if images else scale
    test = _dataset(_computed([task(k, held=True) for k in range(len(sources))]), recipe, "test", name)
    lengths = tuple(each.rows for each in spreads)
    return FileExamples(name, spread.rows, test, recipe, (*notes,), spread, scale, task, lengths)


def _computed(tasks: list[Any]) -> list[Any]:
    """Return the results of tasks."""
    found: list[Any] = Scheduler.current().compute(delayed(list)(tasks))
    return found


def _matching(labels: str | None, count: int) -> list[Path | None]:
    """Return the files of labels, one for each file of rows."""
    if labels is None:
        return [None] * count
    found: list[Path | None] = [*files_of(labels)] or [Path(labels)]
    if len(found) != count:
        raise DataError(f"{printable(labels, 60)}: {len(found)} files of labels for {count} files")
    return found


def _sources(files: Sequence[Path], choice: Choice, labels: list[Path | None]) -> tuple[list[Source], list[str]]:
    """Return the files with the roles that the columns of the first one have, and notes."""
    with files[0].open("rb") as file:
        is_array = file.read(len(NPY_MAGIC)) == NPY_MAGIC
    if is_array:
        if labels[0] is None:
            raise DataError(
                f"{printable(str(files[0]), 60)}: .npy files have no labels; name theirs: --labels 'y/*.npy'"
            )
        return [Source(path, each, k, choice) for k, (path, each) in enumerate(zip(files, labels, strict=True))], []
    table = open_table(files[0], header=choice.header)
    roles = roles_of(table, "features", choice, labelled=labels[0] is not None)
    if not roles.values or (roles.label is None and labels[0] is None):
        raise DataError(f"{table.where}: no features beside labels and index, or no labels")
    sources = [
        Source(path, each, k, choice, roles.values, roles.label, tuple(table.names))
        for k, (path, each) in enumerate(zip(files, labels, strict=True))
    ]
    return sources, [] if roles.plain else [roles.describe()]


def _scanned(sources: list[Source]) -> list[FileScan]:
    """Return what each file holds; a column of words in one file is one of words in all."""
    task, none = delayed(scan, pure=False), frozenset[int]()
    scans: list[FileScan] = _computed([task(each, none) for each in sources])
    for source, each in zip(sources, scans, strict=True):
        if each.shape != scans[0].shape or each.images != scans[0].images:
            raise DataError(f"{source.path}: rows of shape {each.shape}; the first file has {scans[0].shape}")
    kinds = [[column.categories is not None for column in each.columns] for each in scans]
    mixed = {sources[0].columns[k] for k, found in enumerate(zip(*kinds, strict=True)) if len(set(found)) > 1}
    if mixed:
        scans = _computed([task(each, frozenset(mixed)) for each in sources])
    return scans


def _classes(scans: list[FileScan]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of all classes, numbers by their size, and how many rows each has."""
    found: dict[str, int] = {}
    for each in scans:
        for name, count in zip(each.classes, each.counts.tolist(), strict=True):
            found[name] = found.get(name, 0) + count
    numbers = all(name.removeprefix("-").isdecimal() for name in found)
    names = tuple(sorted(found, key=int if numbers else None))
    return names, np.array([found[name] for name in names])


def _recipe(
    source: Source, scans: list[FileScan], classes: tuple[str, ...], total: int
) -> tuple[FeatureRecipe, tuple[int, ...], list[str]]:
    """Return the recipe of a table's features, the columns that it takes, and notes."""
    recipes, kept, notes = [], [], []
    for at, k in enumerate(source.columns):
        name = source.names[k] or f"column {k + 1}"
        found = [each.columns[at] for each in scans]
        if found[0].categories is not None:
            words = sorted({word for each in found for word in each.categories or ()})
            if len(words) > most_categories(total):
                notes.append(f"left out: {printable(name, 40)} (more than {len(words) - 1} different texts)")
                continue
            recipes.append(ColumnRecipe(name, categories=tuple(words)))
        else:
            medians = [each.median for each in found if not np.isnan(each.median)]
            empty = sum(each.empty for each in found)
            if not medians:
                notes.append(f"left out: {printable(name, 40)} (all cells are empty)")
                continue
            fill = float(median(medians)) if empty else 0.0
            if empty:
                what = f"{empty} empty cells of {printable(name, 40)}"
                notes.append(f"{what} become the median of the files' medians, {fill:g}")
            recipes.append(ColumnRecipe(name, fill))
        kept.append(k)
    if not kept:
        raise DataError(f"{printable(str(source.path), 60)}: no column is left for the features: {'; '.join(notes)}")
    named = any(source.names)
    label = source.names[source.label] if named and source.label is not None else ""
    return FeatureRecipe(classes, tuple(recipes), named, label), tuple(kept), notes


def _dataset(parts: list[FileRows], recipe: FeatureRecipe, split: str, name: str) -> Dataset:
    """Return rows of several files as one data set of features."""
    X, y = np.concatenate([each.X for each in parts]), np.concatenate([each.y for each in parts])
    return Dataset(X, y, recipe.class_names, split, name)
