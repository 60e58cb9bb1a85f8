"""A text table read once, in blocks of lines: numbers as float64, words as codes; faults keep their place."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll.data.column_facts import Column, column_of_numbers
from softnll.data.dataset import DataError
from softnll.data.delimited import Dialect, Row, is_missing, is_number, read_rows, sniff
from softnll.data.headers import header_state
from softnll.data.rows import ArrayRows
from softnll.data.text import place, printable
from softnll.data.text_arrays import require_short, text_array

__all__ = ["TextTable", "read_text_table"]

_BLOCK_CELLS = 1 << 16  # cells that are text at a time
_MOST_COLUMNS = 1 << 19  # what is known of a column takes about a kilobyte
_MOST_SAMPLE = 2048  # rows that decide about the header and which columns are numbers
_MOST_WORDS = 1 << 20  # different words of a column; one with more is no column of classes
_TRUTH = {"true": True, "false": False}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class TextTable:
    """The columns of a text table.

    Attributes
    ----------
    where
        The file as messages show it.
    columns
        What is known of each column.
    rows
        The number of rows.
    header
        Whether the first line is a header.
    doubt
        Why that could be wrong, or "".
    index
        The columns that the format marks as an index: R's row names, which have no name of their own.
    """

    def __init__(self, path: Path, dialect: Dialect, header: bool, names: list[str], index: tuple[int, ...]) -> None:
        self.path, self.where, self.dialect = path, place(path), dialect
        self.header: bool | None = header
        self.names, self.index, self.doubt = names, index, ""
        self.columns: list[Column] = []
        self.rows = 0
        self._numbers: NDArray[np.floating] = np.empty((0, 0))
        self._at: dict[int, int] = {}  # the place of a column among the numbers
        self._words: dict[int, tuple[array[int], dict[str, int]]] = {}
        self._faults: dict[int, tuple[int, str, int]] = {}  # line and text of the first cell that is no number, count
        self._missing: dict[int, tuple[int, int]] = {}  # line of the first empty cell, and their number

    def scores(self, columns: Sequence[int]) -> ArrayRows:
        """Return the ``(N, C)`` numbers of these columns; raise DataError where a cell is none."""
        self._require_numbers(columns, empty=True)
        return ArrayRows(self._matrix(columns), str(self.path), np.float64)

    def _matrix(self, columns: Sequence[int]) -> NDArray[np.floating]:
        """Return the numbers of these columns, ``(N, C)``; a view where they are neighbours."""
        at = [self._at[k] for k in columns]
        if at == list(range(at[0], at[0] + len(at))):
            return self._numbers[:, at[0] : at[0] + len(at)]
        return self._numbers[:, at]

    def features(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """Return the ``(N, F)`` finite numbers of these columns; raise DataError where a cell is none."""
        self._require_numbers(columns, empty=True, what="a finite number")
        matrix = self._matrix(columns).astype(np.float64, copy=False)
        bad = np.argwhere(~np.isfinite(matrix))
        if len(bad):
            row, k = int(bad[0][0]), columns[int(bad[0][1])]
            line, cell = self._cell(row, k)
            raise DataError(f"{self._place(line, k)}: {printable(cell.strip(), 30)!r} is not a finite number")
        return matrix

    def labels(self, k: int) -> NDArray[Any]:
        """Return the labels of a column, ``(N,)``: int64 or bool where all cells are such, otherwise text."""
        if k in self._missing:
            raise DataError(f"{self._place(self._missing[k][0], k)}: an empty label")
        column = self.columns[k]
        if k in self._at and k not in self._faults and column.whole and max(-column.low, column.high) < 2**53:
            return self._numbers[:, self._at[k]].astype(np.int64)
        if k in self._at and k not in self._faults and not column.whole:
            return self._numbers[:, self._at[k]].astype(np.float64)
        words = self.words(k)
        distinct = {word.lower() for word in set(words)}
        if distinct <= set(_TRUTH):
            return np.array([_TRUTH[word.lower()] for word in words])
        if all(map(_WHOLE.fullmatch, distinct)):
            return np.array([int(word) for word in words], np.int64)
        require_short(words, lambda row: self._place(self._cell(row, k)[0], k))
        return text_array(words)

    def words(self, k: int) -> list[str]:
        """Return the cells of a column as text without blanks around them."""
        if k in self._words:
            codes, vocabulary = self._words[k]
            names = list(vocabulary)
            return [names[code] for code in codes]
        return [row.cells[k].strip() for row in self._again()]

    def numbers(self, k: int) -> NDArray[np.float64] | None:
        """Return the numbers of a column, ``(N,)``, NaN where a cell is empty; None for a column of words."""
        if k not in self._at or k in self._faults:
            return None
        return self._numbers[:, self._at[k]].astype(np.float64)

    def read(self, rows: Iterator[Row], sample: list[Row]) -> None:
        """Read all rows."""
        width = len(self.names)
        numeric = [self._mostly_numbers([row.cells[k] for row in sample]) for k in range(width)]
        self._at = {k: place for place, k in enumerate(k for k in range(width) if numeric[k])}
        self._words = {k: (array("q"), {}) for k in range(width) if not numeric[k]}
        values: array[float] = array("f")  # as long as all numbers fit it exactly: whole ones, of two characters
        rows = chain(sample, rows)
        while block := list(islice(rows, _block(width))):
            for row in block:
                if len(row.cells) != width:
                    message = f"line {row.line}: {counted(len(row.cells), 'column')}, expected {width}"
                    raise DataError(f"{self.where}: {message}")
            found = self._all_floats(block) if all(numeric) else None
            if found is None:
                found = np.empty((len(block), len(self._at)))
                for k, cells in enumerate(zip(*(row.cells for row in block), strict=True)):
                    if numeric[k]:
                        found[:, self._at[k]] = self._floats(k, cells, block)
                    else:
                        self._codes(k, cells, block)
            if values.typecode == "f":
                with np.errstate(over="ignore"):
                    exact = np.array_equal(found.astype(np.float32), found, equal_nan=True)
                values = values if exact else array("d", values)
            values.frombytes(found.astype(values.typecode, copy=False).tobytes())
            self.rows += len(block)
        self._numbers = np.frombuffer(values, values.typecode).reshape(self.rows, len(self._at))
        self.columns = [self._column(k) for k in range(width)]

    def _all_floats(self, block: list[Row]) -> NDArray[np.float64] | None:
        """Return rows as numbers, at once; None where a cell is none."""
        cells = list(chain.from_iterable(row.cells for row in block))
        if self.dialect.decimal != "." or "_" in "".join(cells):
            return None
        try:
            return np.fromiter(map(float, cells), np.float64, len(cells)).reshape(len(block), -1)
        except ValueError:
            return None

    def _floats(self, k: int, cells: Sequence[str], block: list[Row]) -> Any:
        """Return the cells of a column as numbers, NaN where one is empty or none; note the first of these."""
        decimal = self.dialect.decimal
        if decimal == ".":
            try:
                found = list(map(float, cells))
            except ValueError:
                pass
            else:
                if "_" not in "".join(cells):
                    return found
        found = []
        for row, cell in zip(block, cells, strict=True):
            if is_number(cell, decimal):
                found.append(float(cell.replace(",", ".") if decimal == "," else cell))
                continue
            found.append(np.nan)
            if is_missing(cell):
                line, count = self._missing.get(k, (row.line, 0))
                self._missing[k] = (line, count + 1)
            else:
                line, first, count = self._faults.get(k, (row.line, cell.strip(), 0))
                self._faults[k] = (line, first, count + 1)
        return found

    def _codes(self, k: int, cells: Sequence[str], block: list[Row]) -> None:
        """Append the cells of a column of words as codes."""
        if k not in self._words:
            return
        codes, vocabulary = self._words[k]
        codes.extend([vocabulary.setdefault(cell.strip(), len(vocabulary)) for cell in cells])
        if "" in vocabulary and k not in self._missing:
            line = next(row.line for row, cell in zip(block, cells, strict=True) if not cell.strip())
            self._missing[k] = (line, 1)
        if len(vocabulary) > _MOST_WORDS:
            del self._words[k]  # read again, should it be needed

    def _column(self, k: int) -> Column:
        """Return what is known of a column."""
        name, missing = self.names[k], self._missing.get(k, (0, 0))[1]
        if k in self._at and self._faults.get(k, (0, "", 0))[2] * 2 <= self.rows:
            return column_of_numbers(name, self._numbers[:, self._at[k]], missing)
        if k not in self._words:
            return Column(name, "word", distinct=self.rows, unique=True, missing=missing)
        vocabulary = self._words[k][1]
        kind = "truth" if {word.lower() for word in vocabulary} <= set(_TRUTH) else "word"
        return Column(name, kind, distinct=len(vocabulary), unique=len(vocabulary) == self.rows, missing=missing)

    def _mostly_numbers(self, cells: list[str]) -> bool:
        """Whether most of the cells that are not empty are numbers, or all are empty."""
        present = [cell for cell in cells if not is_missing(cell)]
        return sum(is_number(cell, self.dialect.decimal) for cell in present) * 2 >= len(present)

    def _require_numbers(self, columns: Sequence[int], *, empty: bool, what: str = "a number") -> None:
        """Raise DataError for the first cell of these columns that is no number, or empty."""
        faults = [(self._faults[k][0], k, self._faults[k][1]) for k in columns if k in self._faults]
        faults += [(self._missing[k][0], k, "") for k in columns if empty and k in self._missing]
        for k in columns:
            if k not in self._at:
                row = next(self._again())
                faults.append((row.line, k, row.cells[k]))
        if faults:
            line, k, cell = min(faults)
            if k in self._missing and line == self._missing[k][0]:
                cell = self._cell_at(line, k)
            raise DataError(f"{self._place(line, k)}: {printable(cell.strip(), 30)!r} is not {what}")

    def _place(self, line: int, k: int) -> str:
        """Return a cell's place as messages show it."""
        name = f" ({printable(self.names[k], 30)})" if self.header and self.names[k].strip() else ""
        return f"{self.where}: line {line}, column {k + 1}{name}"

    def _cell(self, row: int, k: int) -> tuple[int, str]:
        """Return line and text of a cell."""
        found = next(islice(self._again(), row, None))
        return found.line, found.cells[k]

    def _cell_at(self, line: int, k: int) -> str:
        """Return the text of the cell in a line."""
        return next(row.cells[k] for row in self._again() if row.line == line)

    def _again(self) -> Iterator[Row]:
        """Yield the rows once more."""
        return _body(self.path, self.dialect, header=bool(self.header), index=bool(self.index))


def read_text_table(path: Path, *, header: bool | None = None, expected: int | None = None) -> TextTable:
    """Return the columns of a text table.

    Parameters
    ----------
    path
        The file; :func:`softnll.data.delimited.sniff` finds out how it is written.
    header
        Whether the first line is a header; None: decided from the contents.
    expected
        How many rows there are by another file; it decides where the contents do not.

    Raises
    ------
    DataError
        For an empty table, rows of different lengths, and what :func:`softnll.data.delimited.read_rows` refuses.
    """
    where, dialect = place(path), sniff(path)
    rows = read_rows(path, dialect)
    start = list(islice(rows, 1))
    if not start:
        raise DataError(f"{where}: an empty table")
    if len(start[0].cells) > _MOST_COLUMNS:
        raise DataError(
            f"{where}: line {start[0].line}: {counted(len(start[0].cells), 'column')}; allowed: {_MOST_COLUMNS}"
        )
    start += islice(rows, _block(len(start[0].cells)))
    first, body = start[0].cells, start[1:]
    named = len(body) > 0 and all(len(row.cells) == len(first) + 1 for row in body)
    index = (0,) if named and not any(is_number(cell, dialect.decimal) for cell in first) else ()
    if dialect.header is not None:
        return _read(path, dialect, list(dialect.header), chain(start, rows), header=True)
    if index:
        return _read(path, dialect, ["", *first], chain(body, rows), header=True, index=index)
    state = header_state(first, [row.cells for row in body], dialect.decimal)
    if header is not None:
        state = "yes" if header else "no"
    if state == "no":
        return _read(path, dialect, [""] * len(first), chain(start, rows), header=False)
    table = _read(path, dialect, [cell.strip() for cell in first], chain(body, rows), header=True)
    if state != "yes":
        fits = {table.rows: "yes", table.rows + 1: "no"}.get(-1 if expected is None else expected)
        sure = fits is not None
        fits = fits or {"likely": "yes", "unlikely": "no"}.get(state, "either")
        if fits == "no":
            return _read(path, dialect, [""] * len(first), read_rows(path, dialect), header=False)
        if not sure and fits == "either":
            shown = printable(", ".join(first[:6]), 60)
            table.doubt = f"{where}: line 1 ({shown}) may be a header or a row; say which: --header or --no-header"
    return table


def _block(width: int) -> int:
    """Return how many rows are text at a time."""
    return min(max(2, _BLOCK_CELLS // width), _MOST_SAMPLE)


def _read(
    path: Path, dialect: Dialect, names: list[str], rows: Iterator[Row], *, header: bool, index: tuple[int, ...] = ()
) -> TextTable:
    """Return a table of these rows."""
    table = TextTable(path, dialect, header, names, index)
    width = len(names)
    sample = list(islice(rows, _block(width)))
    for row in sample:
        if len(row.cells) != width:
            raise DataError(f"{table.where}: line {row.line}: {counted(len(row.cells), 'column')}, expected {width}")
    table.read(rows, sample)
    return table


def _body(path: Path, dialect: Dialect, *, header: bool, index: bool) -> Iterator[Row]:
    """Yield the rows below the header."""
    rows = read_rows(path, dialect)
    return islice(rows, int((header and dialect.header is None) or index), None)
