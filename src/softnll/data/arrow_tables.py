"""Tables of .parquet files, a group of rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll.data.arrow_lists import ListsAsColumns
from softnll.data.column_facts import Column, column_of_numbers
from softnll.data.dataset import DataError
from softnll.data.rows import ENTRIES
from softnll.data.text import place, printable
from softnll.data.text_arrays import require_short, text_array

__all__ = ["PARQUET_MAGIC", "ParquetTable", "arrow_kind"]

PARQUET_MAGIC = b"PAR1"
MAX_LABELS = 1 << 28
_MAX_METADATA = 1 << 24  # bytes of a text in the file's description
MOST_ROWS = 32  # rows a byte: a file may say that one value is in all rows
_FEW_ROWS = 1 << 22  # rows that any file may have
MOST_WORDS = 1 << 20  # different words that are counted
MOST_READ = 64  # columns of whole numbers that are read to decide what they are; more of them are scores


class ParquetTable:
    """The columns of a .parquet file; see `softnll.data.text_tables.TextTable` for its attributes."""

    header: bool | None = None
    doubt = ""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, place(path)
        self._file, self._schema = _open(path)
        self._require_names(self._schema.names)
        self.rows = int(self._file.metadata.num_rows)
        if self.rows == 0 or not self._schema.names:
            raise DataError(
                f"{self.where}: no scores or labels: {counted(self.rows, 'row')} of "
                f"{counted(len(self._schema.names), 'column')}"
            )
        size = path.stat().st_size
        if self.rows > max(_FEW_ROWS, MOST_ROWS * size):
            raise DataError(
                f"{self.where}: {counted(self.rows, 'row')} in {size} bytes; allowed: {MOST_ROWS} rows a byte"
            )
        with _damage(self.where):
            self._file = ListsAsColumns(self._file, self._schema, self.where, size)
        self._schema = self._file.schema_arrow
        self.names = list(self._schema.names)
        self.index = self._pandas_index()
        whole = self._begin_whole([k for k in range(len(self.names)) if self._kind(k) == "number"])
        self._counted = set(whole if len(whole) <= MOST_READ else [*whole[:4], *whole[-4:]])
        self.columns = [self._column(k) for k in range(len(self.names))]

    def scores(self, columns: Sequence[int]) -> ParquetRows:
        """Return the ``(N, C)`` numbers of these columns; they stay in the file."""
        for k in columns:
            self._require_number(k)
        return ParquetRows(self.path, self._file, self.where, [self.names[k] for k in columns])

    def features(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """Return the ``(N, F)`` finite numbers of these columns."""
        rows = self.scores(columns)
        matrix = np.asarray(rows.rows(slice(None)), np.float64)
        bad = np.argwhere(~np.isfinite(matrix))
        if len(bad):
            name = printable(self.names[columns[int(bad[0][1])]], 30)
            fault = f"row {bad[0][0]} (0 first), column {name!r}: {matrix[tuple(bad[0])]} is not a finite number"
            raise DataError(f"{self.where}: {fault}")
        return matrix

    def labels(self, k: int) -> NDArray[Any]:
        """Return the labels of a column, ``(N,)``: numbers, booleans or text."""
        if self._kind(k) == "other":
            kind = printable(str(self._schema.field(k).type), 40)
            raise DataError(f"{self.where}: column {self._named(k)} has type {kind}; expected labels")
        if self.rows > MAX_LABELS:
            raise DataError(f"{self.where}: {counted(self.rows, 'label')}; allowed: 1 to {MAX_LABELS}")
        where = f"{self.where}: column {self._named(k)}"
        if self._is_text(k):
            words = self.words(k, where)
            require_short(words, lambda row: f"{where}, row {row} (0 first)")
            return text_array(words)
        return np.concatenate([_labels(batch.column(0), where) for batch in self._batches([k])])

    def words(self, k: int, required: str = "") -> list[str]:
        """Return the cells of a column as text, "" where one is empty: equal ones are one object.

        Where ``required`` names the column, an empty cell is an error.
        """
        found: list[str] = []
        known: dict[str | None, str] = {None: ""}
        for batch in self._batches([k]):
            words = _words(batch.column(0))
            if required and None in words:
                raise DataError(f"{required} has empty cells: a label is missing")
            found.extend([known.setdefault(word, word or "") for word in words])
        return found

    def numbers(self, k: int) -> NDArray[np.float64] | None:
        """Return the numbers of a column, ``(N,)``, NaN where a cell is empty; None for other columns."""
        if self._kind(k) != "number":
            return None
        return np.concatenate(
            [np.asarray(batch.column(0).to_numpy(zero_copy_only=False), np.float64) for batch in self._batches([k])]
        )

    def _column(self, k: int) -> Column:
        """Return what is known of a column."""
        name, kind = self.names[k], self._kind(k)
        if kind == "number":
            values = self.numbers(k) if k in self._counted else None
            if values is None:
                return Column(name, "number")
            return column_of_numbers(name, values, int(np.isnan(values).sum()))
        if kind not in ("word", "truth"):
            return Column(name, kind)
        import pyarrow as pa  # noqa: PLC0415 - loaded already
        import pyarrow.compute as pc  # noqa: PLC0415 - likewise

        seen: set[Any] = set()
        missing = 0
        for batch in self._batches([k]):
            values = batch.column(0)
            missing += values.null_count
            if pa.types.is_dictionary(values.type):
                values = values.dictionary.take(pc.unique(values.indices))
            seen.update(pc.unique(values).to_pylist())
            if len(seen) > MOST_WORDS:  # names of rows, not classes
                return Column(name, kind, distinct=self.rows, unique=True, missing=missing)
        seen.discard(None)
        return Column(name, kind, distinct=len(seen), unique=len(seen) == self.rows, missing=missing)

    def _require_names(self, names: Sequence[str]) -> None:
        """Raise DataError where two columns have one name."""
        if len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise DataError(f"{self.where}: two columns are called {printable(twice, 30)!r}")

    def _is_text(self, k: int) -> bool:
        """Whether a column, or the dictionary of its categories, is text."""
        kind = self._schema.field(k).type
        return arrow_kind(getattr(kind, "value_type", kind)) == "word"

    def _kind(self, k: int) -> str:
        """Return the kind of a column's type."""
        return arrow_kind(self._schema.field(k).type)

    def _begin_whole(self, columns: list[int]) -> list[int]:
        """Return the columns of numbers whose first values are whole."""
        batch = next(self._batches(columns, 256), None) if columns else None
        if batch is None:
            return []
        found = []
        with np.errstate(invalid="ignore"):
            for k, column in zip(columns, batch.columns, strict=True):
                values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
                if ((np.rint(values) == values) | np.isnan(values)).all():
                    found.append(k)
        return found

    def _pandas_index(self) -> tuple[int, ...]:
        """Return the columns that pandas wrote as index."""
        try:
            metadata = self._schema.pandas_metadata or {}
            names = [each for each in metadata.get("index_columns", ()) if isinstance(each, str)]
        except (ValueError, TypeError, AttributeError, RecursionError):  # metadata is text from a stranger
            return ()
        return tuple(k for k, name in enumerate(self.names) if name in names)

    def _require_number(self, k: int) -> None:
        """Raise DataError for a column that holds no real numbers."""
        if self._kind(k) != "number":
            kind = printable(str(self._schema.field(k).type), 40)
            raise DataError(f"{self.where}: column {self._named(k)} has type {kind}; scores are real numbers")

    def _named(self, k: int) -> str:
        """Return a column's name as messages show it."""
        return repr(printable(self.names[k], 30))

    def _batches(self, columns: Sequence[int], size: int = 1 << 16) -> Iterator[Any]:
        """Yield the rows of some columns in batches."""
        names = [self.names[k] for k in columns]
        yield from _batches(self._file, self.where, columns=names, batch_size=size)


class ParquetRows:
    """The rows of some columns of a .parquet file, each column a class."""

    def __init__(self, path: Path, file: Any, where: str, names: Sequence[str]) -> None:
        self._file, self._where, self._names = file, where, list(names)
        schema = file.schema_arrow  # made anew at each access
        types = {str(schema.field(name).type) for name in names}
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if types <= {"float", "halffloat"} else np.float64)
        self.shape: tuple[int, int] = (file.metadata.num_rows, len(self._names))
        self.name = str(path)

    def rows(self, index: Any) -> NDArray[Any]:
        """Return those rows, in memory; the file is read once from front to back."""
        wanted = np.arange(self.shape[0])[index]
        found = np.empty((len(wanted), self.shape[1]), self.dtype)
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        for rows, block in self.blocks():
            here = slice(*np.searchsorted(ordered, (rows.start, rows.stop)))
            found[order[here]] = block[ordered[here] - rows.start]
        return found

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield all rows in order."""
        start = 0
        size = max(1, ENTRIES // self.shape[1])
        for batch in _batches(self._file, self._where, columns=self._names, batch_size=size):
            by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns = [np.asarray(by_name[name].to_numpy(zero_copy_only=False), self.dtype) for name in self._names]
            yield slice(start, start + len(batch)), np.stack(columns, axis=1)
            start += len(batch)


def arrow_kind(kind: Any) -> str:
    """Return "number", "word", "truth" or "other" for an Arrow type."""
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    if isinstance(kind, pa.BaseExtensionType):
        return "other"
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_boolean(kind):
        return "truth"
    if types.is_dictionary(kind):
        inner = arrow_kind(kind.value_type)
        return "word" if inner in ("number", "truth", "word") else "other"
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    return "word" if text or getattr(types, "is_string_view", lambda _: False)(kind) else "other"


def _labels(values: Any, where: str) -> NDArray[Any]:
    """Return an Arrow array of labels as NumPy's: numbers or booleans."""
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.null_count:
        raise DataError(f"{where} has empty cells: a label is missing")
    if pa.types.is_decimal(values.type):
        return np.array([float(value) for value in values.to_pylist()])
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array


def _words(values: Any) -> list[Any]:
    """Return an Arrow array as a list of text and None; equal words of a dictionary are one object."""
    if hasattr(values, "dictionary"):
        words = [*_words(values.dictionary), None]
        return [words[-1 if index is None else index] for index in values.indices.to_pylist()]
    listed: list[Any] = values.to_pylist()
    return [value if value is None else _word(value) for value in listed]


def _word(value: Any) -> str:
    """Return a cell as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _open(path: Path) -> tuple[Any, Any]:
    """Open a file; return it and its schema."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - only .parquet needs it
        import pyarrow.parquet as pq  # noqa: PLC0415 - only .parquet needs it
    except ImportError:
        raise DataError(f"{place(path)}: .parquet files need pyarrow: pip install 'softnll[app]'") from None
    try:
        file = pq.ParquetFile(path, thrift_string_size_limit=_MAX_METADATA)
        schema = file.schema_arrow
        # A dictionary keeps a long word once, however many rows have it.
        words = [field.name for field in schema if arrow_kind(field.type) == "word"]
        options = {"read_dictionary": words} if words else {}
        return pq.ParquetFile(path, thrift_string_size_limit=_MAX_METADATA, metadata=file.metadata, **options), schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{place(path)}: not a readable .parquet file: {printable(str(error), 160)}") from None


def _batches(file: Any, where: str, **options: Any) -> Iterator[Any]:
    """Yield the file's rows in batches."""
    with _damage(where):
        for batch in file.iter_batches(**options):
            batch.validate(full=True)  # text that is UTF-8, places within dictionaries
            yield batch


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Raise DataError in place of Arrow's errors."""
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{where}: damaged: {printable(str(error), 160)}") from None
