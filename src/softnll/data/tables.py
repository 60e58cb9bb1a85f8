"""Tables, of text and .parquet: `open_table` reads the columns, `read_table` makes a `Dataset` of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll.data.arrow_tables import PARQUET_MAGIC, ParquetTable
from softnll.data.column_names import SURE_LABEL_NAMES, label_rank
from softnll.data.columns import AUTOMATIC, Choice, Column, Roles, decide
from softnll.data.dataset import DataError, Dataset
from softnll.data.delimited import is_table
from softnll.data.labels import encode
from softnll.data.rows import Rows
from softnll.data.text import printable
from softnll.data.text_tables import read_text_table

__all__ = ["AnyTable", "is_table", "open_table", "read_label_column", "read_table", "roles_of"]


class AnyTable(Protocol):
    """The columns of a table, whatever its format: `TextTable`, `ParquetTable`, `FrameTable`."""

    where: str
    columns: list[Column]
    names: list[str]
    rows: int
    header: bool | None
    doubt: str
    index: tuple[int, ...]

    def scores(self, columns: Sequence[int], /) -> Rows:
        """Return the ``(N, C)`` numbers of these columns."""

    def features(self, columns: Sequence[int], /) -> NDArray[np.float64]:
        """Return the ``(N, F)`` finite numbers of these columns."""

    def labels(self, k: int, /) -> NDArray[Any]:
        """Return the labels of a column, ``(N,)``: numbers, booleans or text."""

    def words(self, k: int, /) -> list[str]:
        """Return the cells of a column as text, "" where one is empty."""

    def numbers(self, k: int, /) -> NDArray[np.float64] | None:
        """Return the numbers of a column, ``(N,)``, NaN where a cell is empty; None for other columns."""


def open_table(path: Path, *, header: bool | None = None, expected: int | None = None) -> AnyTable:
    r"""Return the columns of a .parquet file, or of a text table, compressed or not.

    ``header`` and ``expected`` are those of :func:`softnll.data.text_tables.read_text_table`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "iris.csv").write_text("width,species\n0.2,setosa\n1.4,\n")
    ...     table = open_table(Path(folder) / "iris.csv")
    ...     table.names, table.numbers(0).tolist(), table.words(1)
    (['width', 'species'], [0.2, 1.4], ['setosa', ''])
    """
    with path.open("rb") as file:
        if file.read(4) == PARQUET_MAGIC:
            return ParquetTable(path)
    return read_text_table(path, header=header, expected=expected)


def roles_of(table: AnyTable, purpose: str, choice: Choice = AUTOMATIC, *, labelled: bool = False) -> Roles:
    """Return the roles of the columns, as :func:`softnll.data.columns.decide`; raise where a header is in doubt."""
    if table.doubt:
        raise DataError(table.doubt)
    return decide(
        table.columns,
        table.rows,
        purpose,
        choice=choice,
        header=table.header,
        where=table.where,
        index=table.index,
        labelled=labelled,
    )


def read_table(
    path: Path,
    labels: Callable[[int | None], NDArray[Any]] | None = None,
    *,
    choice: Choice = AUTOMATIC,
) -> Dataset:
    """Return the examples of a table whose features are numbers.

    The column of labels is found by its name, else it is the last column, or the first one where only that can be
    classes. Columns that name or count the rows are left out. `Dataset.read` states what was decided. With ``labels``,
    which returns the labels from elsewhere and gets the number of rows where it is known, every column is a feature.
    A DataError names line and column of rows of different lengths, empty labels and cells that are no finite numbers.
    """
    given = None if labels is None else labels(None)
    table = open_table(path, header=choice.header, expected=None if given is None else len(given))
    where = table.where
    if labels is not None and given is not None and len(given) != table.rows:
        given = labels(table.rows)
    roles = roles_of(table, "features", choice, labelled=labels is not None)
    if labels is not None:
        named = [name for name in table.names if (rank := label_rank(name)) is not None and rank < SURE_LABEL_NAMES]
        if named:
            name = printable(named[0])
            raise DataError(f"{where}: has a column of labels ({name}); labels= is for one without")
    if table.rows == 0:
        raise DataError(f"{where}: a header and no examples")
    if not roles.values or (roles.label is None and labels is None):
        one = "one column, no features" if len(table.columns) == 1 else "no features beside labels and index"
        raise DataError(f"{where}: {one}; columns are separated by commas (.csv) or tabs (.tsv)")
    features = np.ascontiguousarray(table.features(roles.values))
    if given is not None:
        numbers, names = encode(given, f"labels of {where}")
    else:
        assert roles.label is not None  # noqa: S101 - checked above; for type checkers
        numbers, names = encode(table.labels(roles.label), where)
    return Dataset(features, numbers, names, "all", printable(path.name), read=roles.describe())


def read_label_column(path: Path, *, expected: int | None = None, choice: Choice = AUTOMATIC) -> NDArray[Any]:
    """Return the labels of a table, ``(N,)``: its one column, or the one with a label's name."""
    table = open_table(path, header=choice.header, expected=expected)
    if table.rows == 0:
        raise DataError(f"{table.where}: a header and no labels")
    roles = roles_of(table, "labels", choice)
    if roles.label is None:
        raise DataError(
            f"{table.where}: {counted(len(table.columns), 'column')}, none called label, class, target or y"
        )
    return table.labels(roles.label)
