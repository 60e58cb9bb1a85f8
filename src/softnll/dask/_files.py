"""The rows of many files, a file a partition: what a file holds, and its rows by one recipe for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll._classifier.prepare import held_out_rows
from softnll._classifier.recipe import MOST_CATEGORIES, FeatureRecipe, numbers_of, words_of
from softnll.data import DataError, Dataset
from softnll.data.arrays import as_inputs, read_npy
from softnll.data.columns import Choice
from softnll.data.labels import encode
from softnll.data.score_files import open_labels
from softnll.data.tables import open_table
from softnll.data.text import place, printable

if TYPE_CHECKING:
    from softnll.data.tables import AnyTable


@dataclass(frozen=True)
class Source:
    """A file, its labels, and its number, by which its rows are held out."""

    path: Path
    labels: Path | None
    number: int
    choice: Choice
    columns: tuple[int, ...] = ()  # of a table: the features
    label: int | None = None
    names: tuple[str, ...] = ()  # of a table: of all columns, which each file has

    def table(self) -> AnyTable:
        """Return the table; raise DataError unless it has the columns of the first file."""
        table = open_table(self.path, header=self.choice.header)
        if len(table.columns) != len(self.names) or (table.header is not False and [*table.names] != [*self.names]):
            shown = ", ".join(printable(name, 30) for name in self.names[:6])
            raise DataError(
                f"{table.where}: {len(table.columns)} columns; the first file has {len(self.names)}: {shown}"
            )
        return table

    def inputs(self) -> Dataset:
        """Return the array of a .npy file, with labels by their position among the file's own classes."""
        where = place(self.path)
        rows = as_inputs(read_npy(self.path), where)
        labels, names = self.label_codes(None, len(rows))
        return Dataset(rows, labels, names, "all", printable(self.path.name))

    def label_codes(self, table: Any, rows: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return the labels by their position among the file's own classes, and the names of these."""
        if self.labels is None:
            found = encode(table.labels(self.label), table.where)
        else:
            found = encode(open_labels(self.labels), place(self.labels))
        if len(found[0]) != rows:
            where = place(self.path if self.labels is None else self.labels)
            raise DataError(f"{place(self.path)}: {rows} rows but {len(found[0])} labels in {where}")
        return found


class ColumnScan(NamedTuple):
    """What a file has in one column: words, or numbers with their median where some are missing."""

    categories: tuple[str, ...] | None
    empty: int
    median: float


class FileScan(NamedTuple):
    """What a file holds: its rows, classes with their counts, and of a table its columns."""

    rows: int
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    columns: tuple[ColumnScan, ...]
    shape: tuple[int, ...]  # of a row
    images: bool


def scan(source: Source, words: frozenset[int]) -> FileScan:
    """Return what a file holds; columns in ``words`` are words also where this file has numbers only."""
    if not source.names:
        data = source.inputs()
        counts = np.bincount(data.labels, minlength=len(data.class_names))
        return FileScan(len(data.labels), data.class_names, counts, (), data.inputs.shape[1:], data.has_images)
    table = source.table()
    labels, names = source.label_codes(table, table.rows)
    columns = tuple(_column(table, k, words) for k in source.columns)
    return FileScan(table.rows, names, np.bincount(labels, minlength=len(names)), columns, (len(columns),), False)


def _column(table: AnyTable, k: int, words: frozenset[int]) -> ColumnScan:
    """Return what a table has in one column."""
    if table.columns[k].kind != "number" or k in words:
        found = sorted(set(words_of(table, k)))
        return ColumnScan(tuple(found[: MOST_CATEGORIES + 1]), 0, 0.0)
    numbers = numbers_of(table, k)
    missing = np.isnan(numbers)
    median = float(np.nan if missing.all() else np.median(numbers[~missing]))
    return ColumnScan(None, int(missing.sum()), median)


class FileRows(NamedTuple):
    """Features and labels."""

    X: NDArray[Any]
    y: NDArray[np.int64]


def features_and_labels(
    source: Source,
    recipe: FeatureRecipe,
    share: float,
    seed: int,
    *,
    held: bool = False,
    step: int = 1,
    scaled: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> FileRows:
    """Return the training rows of a file, or the rows held out: each ``step``-th, labels by the recipe's classes.

    ``scaled`` has a mean and a scale of each column, by which features are standardised.
    """
    if source.names:
        table = source.table()
        labels, names = source.label_codes(table, table.rows)
        X: NDArray[Any] = recipe.encode(table, source.columns)
    else:
        data = source.inputs()
        X, labels, names = data.features(), data.labels, data.class_names
    at = {name: k for k, name in enumerate(recipe.class_names)}
    y = np.array([at[name] for name in names], np.int64)[labels]
    chosen = held_out_rows(labels, share, np.random.default_rng((seed, source.number)))
    rows = np.flatnonzero(chosen == held)[::step]
    X = X[rows]
    if scaled is not None:
        X = ((X - scaled[0]) / scaled[1]).astype(X.dtype)
    return FileRows(X, y[rows])


class Spread(NamedTuple):
    """The number of rows, and of each column the mean and the sum of squared distances to it."""

    rows: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    def merged(self, other: Spread) -> Spread:
        """Return that of both.

        Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance", The American Statistician 37, 242.
        """
        n = self.rows + other.rows
        if n == 0:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.rows / n)
        return Spread(n, mean, self.squares + other.squares + apart**2 * (self.rows * other.rows / n))


def moments_of(source: Source, recipe: FeatureRecipe, share: float, seed: int) -> Spread:
    """Return the spread of a file's training rows."""
    X = features_and_labels(source, recipe, share, seed).X
    mean = X.mean(axis=0, dtype=np.float64) if len(X) else np.zeros(X.shape[1])
    return Spread(len(X), mean, np.square(X - mean).sum(axis=0, dtype=np.float64))
