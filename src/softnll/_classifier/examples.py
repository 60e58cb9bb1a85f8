"""Examples to train and to test, from a name, a file or a folder, with the recipe of their features."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softnll._classifier.prepare import hold_out, test_rows
from softnll._classifier.recipe import FeatureRecipe, column_recipe
from softnll.data import DataError, Dataset, load
from softnll.data.arrow_tables import PARQUET_MAGIC
from softnll.data.column_names import label_rank
from softnll.data.columns import AUTOMATIC, Choice, Roles
from softnll.data.labels import encode
from softnll.data.score_files import open_labels
from softnll.data.tables import AnyTable, is_table, open_table, roles_of
from softnll.data.text import place, printable

_MAX_BYTES = 8 << 30  # of all features
_REMEDY = "; name the column of labels: --label-column"


@dataclass(frozen=True)
class Examples:
    """The examples to train and to test, how their features are made, and notes about both."""

    train: Dataset
    test: Dataset
    recipe: FeatureRecipe  # the class names are those of the data, whether the training part has them or not
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the data."""
        return self.train.name

    @property
    def count(self) -> int:
        """The number of examples to train."""
        return len(self.train.labels)


def load_examples(
    source: str,
    seed: int,
    *,
    labels: Path | None = None,
    choice: Choice = AUTOMATIC,
    cache: Path | None = None,
    download: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Examples:
    """Return the examples of what :func:`softnll.data.load` reads; a fifth is held out where there is no test part.

    Raises
    ------
    DataError, DownloadError
        As `softnll.data.load` and `read_examples`.
    """
    path = Path(source).expanduser()
    if is_table_file(path):
        return read_examples(path, seed, choice, labels)
    train, test = load(source, labels=labels, choice=choice, cache=cache, download=download, progress=progress)
    notes = (train.read,) if train.read else ()
    if len(train.class_names) < 2:
        raise DataError(f"{train.name}: the labels hold one class, {train.class_names[0]!r}; allowed: two and more")
    if test is None:
        train, test = hold_out(train, seed)
    shape = train.inputs.shape[1:] if train.has_images else ()
    return Examples(train, test, FeatureRecipe(train.class_names, shape=shape, scale=train.scale), notes)


def files_of(source: str) -> list[Path]:
    """Return the files that a pattern with ``*``, ``?`` or ``[`` matches, sorted; [] for what is no pattern.

    Raises
    ------
    DataError
        Where no file matches.
    """
    if not glob.has_magic(source) or os.path.lexists(source):
        return []
    found = [path for path in map(Path, sorted(glob.glob(os.path.expanduser(source)))) if path.is_file()]  # noqa: PTH207, PTH111 - absolute patterns too
    if not found:
        raise DataError(f"{printable(source, 80)}: no file matches")
    return found


def is_table_file(path: Path) -> bool:
    """Whether a path is a table of text or a .parquet file."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) == PARQUET_MAGIC or is_table(path)
    except (OSError, ValueError):  # no path at all: too long, with a null
        return False


def read_examples(path: Path, seed: int, choice: Choice = AUTOMATIC, beside: Path | None = None) -> Examples:
    """Return the examples of a text table or .parquet file, a fifth of them held out for the test.

    `softnll.data.columns.decide` finds the label and leaves index columns out. Numbers are features, and words are
    one-hot; medians and categories are those of the training rows. With ``beside``, a file of labels, every column is a
    feature.

    Raises
    ------
    DataError
        For a table without a label or features, with cells that are no finite numbers, and for one class only.
    """
    table = open_table(path, header=choice.header)
    roles = roles_of(table, "features", choice, labelled=beside is not None)
    if table.rows == 0:
        raise DataError(f"{table.where}: a header and no examples")
    if not roles.values or (roles.label is None and beside is None):
        few = "one column" if len(table.columns) == 1 else "no column beside labels and index"
        raise DataError(f"{table.where}: {few}, no features; columns are separated by commas (.csv) or tabs (.tsv)")
    labels, names, column = _labels(table, roles, beside)
    notes = [] if roles.plain else [roles.describe()]
    if len(names) < 2:
        raise DataError(f"{column} holds one class, {printable(names[0], 30)!r}; allowed: two and more{_REMEDY}")
    held = test_rows(labels, seed)
    if not held.any():
        raise DataError(f"{column} has no class of two examples, so that none can be held out for the test{_REMEDY}")
    recipe, features, more = _features(table, roles.values, np.flatnonzero(~held), names, roles.label)
    name = printable(path.name)
    train = Dataset(features[~held], labels[~held], names, "train", name)
    return Examples(train, Dataset(features[held], labels[held], names, "test", name), recipe, (*notes, *more))


def _labels(table: AnyTable, roles: Roles, beside: Path | None) -> tuple[NDArray[np.int64], tuple[str, ...], str]:
    """Return the labels, the classes' names, and where they are from, as the beginning of a sentence."""
    if beside is None:
        assert roles.label is not None  # noqa: S101 - the caller checked; for type checkers
        name = table.names[roles.label]
        column = repr(printable(name, 30)) if name else str(roles.label + 1)
        return *encode(
            table.labels(roles.label), table.where
        ), f"{table.where}: column {column} is taken for the labels"
    named = roles_of(table, "features").label if table.header is not False else None
    if named is not None and label_rank(table.names[named]) is not None:
        name = printable(table.names[named])
        raise DataError(f"{table.where}: has a column of labels ({name}); --labels is for a table without one")
    labels, names = encode(open_labels(beside), place(beside))
    if len(labels) != table.rows:
        raise DataError(f"{table.where}: {table.rows} rows but {len(labels)} labels in {place(beside)}")
    return labels, names, f"{place(beside)}"


def _features(
    table: AnyTable, columns: tuple[int, ...], train: NDArray[np.intp], names: tuple[str, ...], label: int | None
) -> tuple[FeatureRecipe, NDArray[np.float64], list[str]]:
    """Return the recipe, the features of all rows, and notes."""
    recipes, blocks, notes = [], [], []
    for k in columns:
        made, values, note = column_recipe(table, k, train)
        notes += [note] if note else []
        if made is not None:
            recipes.append(made)
            blocks.append(values)
    width = sum(made.width for made in recipes)
    if width == 0:
        raise DataError(f"{table.where}: no column is left for the features: {'; '.join(notes)}")
    if 8 * width * table.rows > _MAX_BYTES:
        raise DataError(f"{table.where}: {table.rows} rows of {width} features; allowed: {_MAX_BYTES >> 30} GiB")
    features, at = np.empty((table.rows, width)), 0
    for made, values in zip(recipes, blocks, strict=True):
        features[:, at : at + made.width] = made.encode(values)
        at += made.width
    named = table.header is not False and any(table.names)
    return (
        FeatureRecipe(names, tuple(recipes), named, table.names[label] if named and label is not None else ""),
        features,
        notes,
    )
