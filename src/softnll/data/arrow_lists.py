"""Columns of lists in .parquet files, as frameworks write scores: each place of the lists becomes a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from softnll.data.dataset import DataError
from softnll.data.rows import ENTRIES
from softnll.data.text import printable

__all__ = ["ListsAsColumns"]

_MOST_PLACES = 1 << 19  # numbers in a list
_FEW_NUMBERS = 1 << 22  # numbers that any file may hold
_NUMBERS_A_BYTE = 64
_SAMPLE = 16  # rows whose lists are measured


class ListsAsColumns:
    """A .parquet file whose lists of equally many numbers, at least two, become columns: ``scores_0``, ``scores_1``.

    Attributes
    ----------
    schema_arrow
        The names and types of these columns and of all others.
    metadata
        The file's own.
    """

    def __init__(self, file: Any, schema: Any, where: str, size: int) -> None:
        import pyarrow as pa  # noqa: PLC0415 - loaded already

        self._file, self._where, self.metadata = file, where, file.metadata
        self._places: dict[str, tuple[str, int, int]] = {}  # column, place and length by name
        fields = []
        for field in schema:
            length = self._length(field, size)
            names = [f"{field.name}_{place}" for place in range(length)]
            if not names or set(names) & set(schema.names):
                fields.append(field)
                continue
            fields += [pa.field(name, field.type.value_type) for name in names]
            self._places |= {name: (field.name, place, length) for place, name in enumerate(names)}
        self.schema_arrow = pa.schema(fields, metadata=schema.metadata) if self._places else schema

    def iter_batches(self, columns: Sequence[str], batch_size: int) -> Iterator[Any]:
        """Yield the rows of some columns in batches."""
        if not any(name in self._places for name in columns):
            yield from self._file.iter_batches(columns=columns, batch_size=batch_size)
            return
        needed = list(dict.fromkeys(self._places[name][0] if name in self._places else name for name in columns))
        longest = max(self._places[name][2] for name in columns if name in self._places)
        for batch in self._file.iter_batches(columns=needed, batch_size=min(batch_size, max(1, ENTRIES // longest))):
            batch.validate(full=True)
            yield self._expanded(batch, columns)

    def _expanded(self, batch: Any, columns: Sequence[str]) -> Any:
        """Return a batch with these columns."""
        import pyarrow as pa  # noqa: PLC0415 - loaded already

        by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
        lists: dict[str, Any] = {}
        arrays = []
        for name in columns:
            column, place, length = self._places.get(name, (name, 0, 0))
            if length and column not in lists:
                lists[column] = _matrix(by_name[column], length, f"{self._where}: column {printable(column, 30)!r}")
            arrays.append(pa.array(lists[column][:, place].copy()) if length else by_name[column])
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _length(self, field: Any, size: int) -> int:
        """Return how many numbers the lists of a column have; 0 for columns that are not read so."""
        import pyarrow as pa  # noqa: PLC0415 - loaded already

        types, rows = pa.types, self.metadata.num_rows
        lists = types.is_list(field.type) or types.is_large_list(field.type) or types.is_fixed_size_list(field.type)
        if not rows or not lists or not _is_number(field.type.value_type):
            return 0
        # A damaged description raises an error here, and ends the process where `column` below meets it first.
        self._file.scan_contents(columns=[field.name])
        paths = [self.metadata.schema.column(k).path for k in range(self.metadata.num_columns)]
        leaf = next(k for k, path in enumerate(paths) if path.startswith(f"{field.name}."))
        numbers = sum(self.metadata.row_group(g).column(leaf).num_values for g in range(self.metadata.num_row_groups))
        length, rest = divmod(numbers, rows)
        if rest or not 2 <= length <= _MOST_PLACES or numbers > max(_FEW_NUMBERS, _NUMBERS_A_BYTE * size):
            return 0
        first = next(self._file.iter_batches(columns=[field.name], batch_size=_SAMPLE), None)
        return length if first is not None and _lengths_are(first.column(0), length) else 0


def _is_number(kind: Any) -> bool:
    """Whether an Arrow type is of integers or floats."""
    import pyarrow as pa  # noqa: PLC0415 - loaded already

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _lengths_are(values: Any, length: int) -> bool:
    """Whether all lists have this length, and none is missing."""
    if values.null_count:
        return False
    return hasattr(values.type, "list_size") or bool(
        (values.value_lengths().to_numpy(zero_copy_only=False) == length).all()
    )


def _matrix(values: Any, length: int, where: str) -> Any:
    """Return a column of lists as ``(n, length)`` numbers."""
    flat = values.flatten()
    if flat.null_count or not _lengths_are(values, length) or len(flat) != length * len(values):
        raise DataError(f"{where}: lists with a missing number, or of another length than {length}")
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), length)
