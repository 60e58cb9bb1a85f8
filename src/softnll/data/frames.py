"""Data frames of pandas, polars and pyarrow as tables, without importing these libraries."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.data.column_facts import Column, Roles, column_of_numbers
from softnll.data.columns import decide
from softnll.data.dataset import DataError
from softnll.data.rows import ArrayRows, Rows, as_rows
from softnll.data.text_arrays import text_array

__all__ = ["FrameTable", "is_frame", "is_series", "label_values", "named_rows", "score_frame", "series_values"]


def is_frame(value: Any) -> bool:
    """Whether a value is a data frame: it has named columns, and a number of rows."""
    return hasattr(value, "columns") and hasattr(value, "__getitem__") and getattr(value, "ndim", 2) == 2 and (
        _library(value) in ("pandas", "polars", "pyarrow", "modin", "cudf")
    )  # fmt: skip


def is_series(value: Any) -> bool:
    """Whether a value is a column of a data frame."""
    return _library(value) in ("pandas", "polars", "pyarrow", "modin", "cudf") and not is_frame(value)


def series_values(series: Any) -> NDArray[Any]:
    """Return a column of a data frame as an array: numbers, booleans or text.

    Categories become their values; nullable and Arrow types lose their wrapper; a missing number becomes NaN, and a
    missing word None, in an array of objects.
    """
    library = _library(series)
    if library == "polars" and str(series.dtype).partition("(")[0] in ("Categorical", "Enum", "String", "Utf8"):
        return _words(series.to_list())
    if library == "pyarrow":
        chunk = series.combine_chunks() if hasattr(series, "combine_chunks") else series
        if "dictionary" in str(chunk.type):
            chunk = chunk.dictionary_decode()
        series, library = chunk, "arrow"
    if library == "arrow":
        array = series.to_numpy(zero_copy_only=False)
    else:
        dtype = str(getattr(series, "dtype", ""))
        if not hasattr(series, "cat") and dtype == "category":  # pandas' Categorical is no Series
            return series_values(_library_module(series).Series(series))
        if dtype == "category":
            series = series.astype(series.cat.categories.dtype)
            dtype = str(series.dtype)
        array = series.to_numpy()
    if array.dtype != object:
        return np.asarray(array)
    return _objects(array.tolist())


def label_values(raw: Any) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Return labels of any kind as an array, and the columns' names of a frame with several (one-hot) columns.

    Arrays of objects become numbers, booleans or text, where all objects are such; else they hold None for what is
    missing.
    """
    if is_series(raw):
        return series_values(raw), None
    if is_frame(raw):
        table = FrameTable(raw)
        if len(table.columns) == 1:
            return table.labels(0), None
        roles = decide(table.columns, table.rows, "labels", where="the labels")
        if roles.label is not None:
            return table.labels(roles.label), None
        return np.column_stack([table.labels(k) for k in roles.values]), tuple(table.names[k] for k in roles.values)
    array = np.asarray(raw)
    if array.dtype == object and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return (_objects(array.tolist()) if array.dtype == object and array.ndim == 1 else array), None


def named_rows(scores: Any) -> tuple[Rows, tuple[str, ...] | None]:
    """Return scores as `Rows`, and the names of the columns that are scores, where they are a data frame with names."""
    if not is_frame(scores):
        return as_rows(scores), None
    rows, names, _, _ = score_frame(scores)
    return as_rows(rows), names


def _objects(values: list[Any]) -> NDArray[Any]:
    """Return objects as numbers, booleans or text, where all of them are such."""
    present = [value for value in values if not _absent(value)]
    if present and all(isinstance(value, bool | np.bool_) for value in present) and len(present) == len(values):
        return np.array(values, bool)
    if present and all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in present):
        if len(present) == len(values):
            return np.array(values)
        return np.array([np.nan if _absent(value) else float(value) for value in values])
    if present and all(isinstance(value, int | float | np.number) for value in present):
        return np.array([np.nan if _absent(value) else float(value) for value in values])
    return _words(values)


def _absent(value: Any) -> bool:
    """Whether an object marks a missing value: None, NaN, pandas' NA and NaT."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (
        isinstance(value, float | np.floating) and bool(np.isnan(value))
    )  # fmt: skip


def _words(values: list[Any]) -> NDArray[Any]:
    """Return text as an array of text, or of objects where something else is among it."""
    if values and all(isinstance(value, str | bytes) for value in values):
        return text_array([value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values])
    array = np.empty(len(values), object)
    array[:] = [None if _absent(value) else value for value in values]
    return array


class FrameTable:
    """The columns of a data frame; see `softnll.data.text_tables.TextTable` for its attributes."""

    header: bool | None = None
    doubt = ""
    where = "the frame"
    index: tuple[int, ...] = ()

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        names = list(frame.column_names if _library(frame) == "pyarrow" else frame.columns)
        self.rows = int(frame.num_rows if _library(frame) == "pyarrow" else len(frame))
        #: Whether the columns have names of their own: pandas numbers those that have none.
        self.named = names != list(range(len(names)))
        self.names = [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names]
        self._values = [self._column_values(k, name) for k, name in enumerate(names)]
        self.columns = [
            _column(name if self.named else "", v) for name, v in zip(self.names, self._values, strict=True)
        ]

    def _column_values(self, k: int, name: Any) -> NDArray[Any]:
        """Return the values of a column."""
        if _library(self._frame) == "pandas":
            return series_values(self._frame.iloc[:, k])  # two columns may have one name
        if _library(self._frame) == "pyarrow":
            return series_values(self._frame.column(k))  # likewise
        return series_values(self._frame[name])

    def scores(self, columns: Sequence[int]) -> ArrayRows:
        """Return the ``(N, C)`` numbers of these columns."""
        for k in columns:
            if self._values[k].dtype.kind not in "iuf":
                kind = self._values[k].dtype
                raise TypeError(f"the scores' column {self.names[k]!r} has dtype {kind}; allowed: real numbers")
        return ArrayRows(np.column_stack([self._values[k] for k in columns]))

    def labels(self, k: int) -> NDArray[Any]:
        """Return the labels of a column."""
        return self._values[k]


def _column(name: str, values: NDArray[Any]) -> Column:
    """Return what is known of a column."""
    if values.dtype.kind in "iuf":
        return column_of_numbers(name, values if values.dtype.itemsize >= 4 else values.astype(np.float64))
    if values.dtype.kind == "b":
        return Column(name, "truth", distinct=len(np.unique(values)))
    if values.dtype.kind in "US":
        distinct = len(set(values.tolist()))
        return Column(name, "word", distinct=distinct, unique=distinct == len(values))
    if values.dtype.kind == "O" and all(value is None or isinstance(value, str) for value in values.tolist()):
        distinct = len({value for value in values.tolist() if value is not None})
        return Column(name, "word", distinct=distinct, missing=sum(value is None for value in values.tolist()))
    return Column(name, "other")


def score_frame(frame: Any) -> tuple[ArrayRows, tuple[str, ...] | None, NDArray[Any] | None, Roles]:
    """Return the scores of a data frame, its classes' names, its labels if it holds some, and the columns' roles.

    Raises
    ------
    ValueError
        For a frame without scores.
    TypeError
        For scores that are no real numbers.
    """
    table = FrameTable(frame)
    roles = decide(table.columns, table.rows, "scores", where=table.where)
    if not roles.values:
        raise DataError(f"{table.where}: no scores among the columns {', '.join(table.names[:10])}")
    names = tuple(table.names[k] for k in roles.values) if table.named else None
    labels = None if roles.label is None else table.labels(roles.label)
    return table.scores(roles.values), names, labels, roles


def _library_module(value: Any) -> Any:
    """Return the package that a value's type is from: who has the value has imported it."""
    return sys.modules[_library(value)]


def _library(value: Any) -> str:
    """Return the name of the package that a value's type is from."""
    return type(value).__module__.partition(".")[0]
