"""Scores and labels from .parquet files, a group of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll.data.dataset import DataError
from softnll.data.tensors import chosen
from softnll.data.text import place, printable
from softnll.score_rows import ENTRIES, Rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_parquet_column", "read_parquet_scores"]

MAX_LABELS = 1 << 28


class ParquetRows:
    """The rows of a .parquet file, each column a class."""

    def __init__(self, path: Path, file: Any, where: str) -> None:
        self._file, self._where = file, where
        schema = file.schema_arrow
        types = {str(each.type) for each in schema}
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if types <= {"float", "halffloat"} else np.float64)
        self.shape: tuple[int, int] = (file.metadata.num_rows, len(schema))
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
        for batch in _batches(self._file, self._where, batch_size=size):
            columns = [np.asarray(column.to_numpy(zero_copy_only=False), self.dtype) for column in batch.columns]
            yield slice(start, start + len(batch)), np.stack(columns, axis=1)
            start += len(batch)


def read_parquet_scores(path: Path) -> tuple[Rows, tuple[str, ...]]:
    """Return the scores of a file whose every column is a class, and their names."""
    file, where = _open(path), place(path)
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    for field in file.schema_arrow:
        plain = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        if not plain or isinstance(field.type, pa.BaseExtensionType):
            kind = printable(str(field.type), 40)
            raise DataError(f"{where}: column {printable(field.name, 30)!r} has type {kind}; scores are real numbers")
    if file.metadata.num_rows == 0 or not len(file.schema_arrow):
        raise DataError(f"{where}: no scores")
    return ParquetRows(path, file, where), tuple(file.schema_arrow.names)


def read_parquet_column(path: Path, wanted: tuple[str, ...]) -> NDArray[Any]:
    """Return one column of integers or text."""
    file, where = _open(path), place(path)
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    name = chosen(list(file.schema_arrow.names), wanted, where)
    kind = file.schema_arrow.field(name).type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if isinstance(kind, pa.BaseExtensionType) or not (text or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{where}: column {printable(name, 30)!r} has type {printable(str(kind), 40)}; expected labels")
    if not 0 < file.metadata.num_rows <= MAX_LABELS:
        raise DataError(f"{where}: {file.metadata.num_rows} labels; allowed: 1 to {MAX_LABELS}")
    parts = []
    for batch in _batches(file, where, columns=[name]):
        if batch.column(0).null_count:
            raise DataError(f"{where}: column {printable(name, 30)!r} has empty cells")
        values = batch.column(0).to_numpy(zero_copy_only=False)
        parts.append(values.astype(str) if text else values)
    return np.concatenate(parts)


def _open(path: Path) -> Any:
    """Return the file, its schema looked at."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - only .parquet needs it
        import pyarrow.parquet as pq  # noqa: PLC0415 - likewise
    except ImportError:
        raise DataError(f"{place(path)}: .parquet files need pyarrow: pip install 'softnll[app]'") from None
    try:
        return pq.ParquetFile(path, thrift_string_size_limit=1 << 26)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{place(path)}: not a readable .parquet file: {printable(str(error), 160)}") from None


def _batches(file: Any, where: str, **options: Any) -> Iterator[Any]:
    """Yield the file's rows in batches."""
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    try:
        yield from file.iter_batches(**options)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{where}: damaged: {printable(str(error), 160)}") from None
