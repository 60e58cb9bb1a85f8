"""Tables of text, .csv and .tsv: one example a line, numbers in the columns, one column of labels."""

from __future__ import annotations

import csv
import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import numpy as np

from softnll.data.dataset import DataError, Dataset
from softnll.data.labels import LABEL_NAMES, encode_words
from softnll.data.text import place, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["is_number", "read_label_column", "read_table"]

_MAX_LINE = 1 << 24  # characters; longer ones are refused before they are read whole
_MAX_CELL = 1 << 17


@dataclass(frozen=True)
class _Row:
    """The cells of a line, and the number of that line in the file."""

    line: int
    cells: list[str]


def read_table(path: Path, labels: tuple[NDArray[np.int64], tuple[str, ...]] | None = None) -> Dataset:
    """Return the examples of a table.

    The first line is a header where none of its cells is a number, or where one is called label, class, target or y;
    that column then holds the labels, otherwise the last one does. All other cells are finite numbers (float64).

    Parameters
    ----------
    path
        A ``.csv`` (commas) or ``.tsv`` (tabs) file in UTF-8.
    labels
        Class indices and names from elsewhere; then every column is a feature.

    Raises
    ------
    DataError
        For rows of different lengths, empty labels and cells that are not finite numbers, with their line and column.

    """
    where = place(path)
    values, words = array("d"), []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = _rows(file, where, "\t" if path.suffix.lower() == ".tsv" else ",")
        first = next(rows, None)
        if first is None:
            raise DataError(f"{where}: an empty table")
        named = _label_index(first.cells)
        header = first.cells if named is not None or not any(map(is_number, first.cells)) else None
        width = len(first.cells)
        if labels is not None and named is not None:
            raise DataError(
                f"{where}: has a column of labels ({printable(first.cells[named])}); labels= is for one without"
            )
        index = None if labels is not None else width - 1 if named is None else named
        if width - (index is not None) < 1:
            raise DataError(f"{where}: one column, no features; columns are separated by commas (.csv) or tabs (.tsv)")
        for row in rows if header is not None else _chain(first, rows):
            if len(row.cells) != width:
                raise DataError(f"{where}: line {row.line}: {len(row.cells)} columns, expected {width}")
            if index is not None:
                words.append(_label(row, index, where))
            values.extend(_numbers(row, index, header, where))
    if not values:
        raise DataError(f"{where}: a header and no examples")
    features = np.frombuffer(values, dtype=np.float64).reshape(-1, width - (index is not None))
    numbers, names = encode_words(words, where) if labels is None else labels
    return Dataset(features, numbers, names, "all", printable(path.name))


def read_label_column(path: Path) -> NDArray[np.str_]:
    """Return the labels of a .csv or .tsv file, ``(N,)`` text: its one column, or the one that is called so."""
    where = place(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = _rows(file, where, "\t" if path.suffix.lower() == ".tsv" else ",")
        first = next(rows, None)
        if first is None:
            raise DataError(f"{where}: an empty table")
        named = _label_index(first.cells)
        if named is None and len(first.cells) != 1:
            raise DataError(f"{where}: {len(first.cells)} columns, none called {', '.join(LABEL_NAMES)}")
        words = []
        for row in _chain(first, rows) if named is None else rows:
            if len(row.cells) != len(first.cells):
                raise DataError(f"{where}: line {row.line}: {len(row.cells)} columns, expected {len(first.cells)}")
            words.append(_label(row, named or 0, where))
    if not words:
        raise DataError(f"{where}: a header and no labels")
    return np.array(words)


def _rows(file: TextIO, where: str, delimiter: str) -> Iterator[_Row]:
    reader = csv.reader(_lines(file, where), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(len(cell) > _MAX_CELL for cell in cells):
                raise DataError(f"{where}: line {reader.line_num}: a cell of more than {_MAX_CELL} characters")
            if cells:
                yield _Row(reader.line_num, cells)
    except csv.Error as error:
        raise DataError(f"{where}: line {reader.line_num}: {printable(str(error))}") from None
    except UnicodeDecodeError:
        raise DataError(f"{where}: after line {reader.line_num}: not UTF-8 text") from None


def _lines(file: TextIO, where: str) -> Iterator[str]:
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE:
            raise DataError(f"{where}: line {number}: more than {_MAX_LINE} characters")
        yield line


def _chain(first: _Row, rows: Iterable[_Row]) -> Iterator[_Row]:
    yield first
    yield from rows


def _label_index(cells: list[str]) -> int | None:
    """Return which column is called a label, by the surest name."""
    lowered = [cell.strip().lower() for cell in cells]
    return next((lowered.index(name) for name in LABEL_NAMES if name in lowered), None)


def _label(row: _Row, index: int, where: str) -> str:
    word = row.cells[index].strip()
    if not word:
        raise DataError(f"{where}: line {row.line}, column {index + 1}: an empty label")
    return word


def is_number(cell: str) -> bool:
    """Whether a cell is a number as tables write them: Python's own 1_000 is not."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _numbers(row: _Row, skip: int | None, header: list[str] | None, where: str) -> Iterator[float]:
    for column, cell in enumerate(row.cells):
        if column == skip:
            continue
        value = float(cell) if is_number(cell) else math.nan
        if not math.isfinite(value):
            title = "" if header is None else f" ({printable(header[column], 30)})"
            raise DataError(
                f"{where}: line {row.line}, column {column + 1}{title}: {printable(cell, 30)!r} is not a finite number"
            )
        yield value
