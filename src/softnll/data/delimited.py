"""Text tables as rows of cells: the contents decide compression, encoding, delimiter, decimal sign and comments."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import lzma
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from softnll.data.dataset import DataError
from softnll.data.streams import GZIP_MAGIC, Capped, damage_as_data_error, expandable
from softnll.data.text import place, printable

__all__ = ["ENDINGS", "Dialect", "Row", "is_missing", "is_number", "is_table", "read_rows", "sniff"]

#: The endings of text tables; each may be followed by one of compression.
ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".psv")
_COMPRESSED = (".gz", ".bz2", ".xz")
_PREFERRED = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_DELIMITERS = (",", ";", "\t", "|")
_BLANKS = " "  # runs of blanks and tabs, as numpy.savetxt and R's write.table write them

_MAX_LINE = 1 << 24  # characters; longer ones are refused before they are read whole
_MAX_CELL = 1 << 17
_MAX_BYTES = 1 << 34  # of text, after decompression
_SAMPLE_LINES = 1000
_SAMPLE_CHARACTERS = 1 << 20

_MISSING = frozenset({"", "na", "n/a", "#n/a", "null", "none", "nil", "?", "<na>", "-", "."})
_COMMA_NUMBER = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?", re.ASCII)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """The cells of a row, and its line number."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Dialect:
    """How a text table is written."""

    delimiter: str = ","
    decimal: str = "."
    comments: bool = False  # whether lines that begin with # are comments
    skip: int = 0  # lines before the table that are none of its rows
    header: tuple[str, ...] | None = None  # the column names that a comment above the first row holds
    trailing: bool = False  # whether rows end with a delimiter that no column follows


def is_table(path: Path) -> bool:
    """Whether a file's ending is that of a text table, compressed or not."""
    name = path.name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return name.endswith(ENDINGS)


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether a cell is a number as tables write them: Python's own 1_000 is not."""
    if decimal == ",":
        cell = cell.replace(",", ".")
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, or holds one of the usual marks of a missing value."""
    return cell.strip().lower() in _MISSING


def sniff(path: Path) -> Dialect:
    """Return how a text table is written, from its first lines.

    The delimiter is the one that splits the lines into the same number of cells, as many of them numbers as possible.

    Raises
    ------
    DataError
        For text that is not UTF-8 (or UTF-16 with a byte order mark), and damaged compression.
    """
    with _opened(path, measured=True) as lines:
        sample = _sample(lines)
    skip, delimiter = 0, None
    if sample and re.fullmatch(r"sep=.", sample[0].strip(), re.IGNORECASE):  # Excel's own first line
        skip, delimiter = 1, sample[0].strip()[-1]
    comments, above = _comments(sample[skip:])
    kept = [line for line in sample[skip:] if line.strip() and not (comments and line.lstrip().startswith("#"))]
    if delimiter is None:
        delimiter = _delimiter(kept, _preferred(path), loose=not re.search(r"\.[ct]sv", path.name.lower()))
    rows = _split(kept, delimiter)
    body = rows[1:] or rows
    cells = [cell.strip() for row in body for cell in row]
    commas = delimiter != "," or any("," in cell for cell in cells)
    decimal = "," if commas and any(map(_COMMA_NUMBER.fullmatch, cells)) and not any(
        "." in cell and is_number(cell) for cell in cells
    ) else "."  # fmt: skip
    width = len(body[0]) if body else 0
    header = None
    if above is not None:
        named = [cell.strip() for cell in _split([above], delimiter)[0]] if above else []
        if len(named) == width and not any(is_number(cell) for cell in named) and all(named):
            header = tuple(named)
    trailing = width > 1 and all(row and not row[-1].strip() for row in body) and (
        len(rows) == 1 or len(rows[0]) < width or not rows[0][-1].strip()
    )  # fmt: skip
    return Dialect(delimiter, decimal, comments, skip, header, trailing)


def read_rows(path: Path, dialect: Dialect) -> Iterator[Row]:
    """Yield the rows of a text table; lines that are empty, or hold nothing but delimiters, are left out.

    Raises
    ------
    DataError
        For broken quotes, lines and cells that are too long, text that is not UTF-8, and damaged compression.
    """
    where = place(path)
    with _opened(path) as lines:
        numbered = _Numbered(itertools.islice(lines, dialect.skip, None), dialect, dialect.skip)
        reader = csv.reader(numbered, **_options(dialect.delimiter), strict=True)
        try:
            for cells in reader:
                if numbered.size > _MAX_CELL and max(map(len, cells), default=0) > _MAX_CELL:
                    raise DataError(f"{where}: line {numbered.line}: a cell of more than {_MAX_CELL} characters")
                numbered.size = 0
                if dialect.trailing and len(cells) > 1 and not cells[-1].strip():
                    cells.pop()
                if cells and (len(cells) == 1 or any(cells)):
                    yield Row(numbered.line, cells)
        except csv.Error as error:
            raise DataError(f"{where}: line {numbered.line}: {printable(str(error))}") from None


class _Numbered:
    """Lines without comments, with the number of the last one."""

    def __init__(self, lines: Iterable[str], dialect: Dialect, before: int) -> None:
        self._lines, self._comments, self.line = iter(lines), dialect.comments, before
        self.size = 0  # of the lines since the caller set it to 0
        self._blanks = dialect.delimiter == _BLANKS

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.line += 1
            self.size += len(line)
            if self._comments and line.lstrip().startswith("#"):
                continue
            yield _one_blank(line) if self._blanks else line


def _options(delimiter: str) -> dict[str, Any]:
    """Return the options of `csv.reader` for a delimiter."""
    return {"delimiter": delimiter, "skipinitialspace": delimiter == _BLANKS}


def _one_blank(line: str) -> str:
    """Return a line without blanks around it, its tabs as blanks."""
    return line.strip().replace("\t", " ")


def _sample(lines: Iterator[str]) -> list[str]:
    """Return the first lines."""
    sample, length = [], 0
    for line in itertools.islice(lines, _SAMPLE_LINES):
        sample.append(line)
        length += len(line)
        if length > _SAMPLE_CHARACTERS:
            break
    return sample


def _comments(lines: list[str]) -> tuple[bool, str | None]:
    """Return whether lines that begin with # are comments, and the text of the last one above the first row."""
    marked = [line.lstrip().startswith("#") for line in lines if line.strip()]
    if not any(marked) or sum(marked) * 2 > len(marked):
        return False, None  # values that begin with #: colours, tags
    above = None
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if line.strip():
            above = line.strip().lstrip("#").strip()
    return True, above


def _preferred(path: Path) -> str:
    """Return the delimiter that a file's ending stands for."""
    name = path.name.lower()
    return next((mark for ending, mark in _PREFERRED.items() if ending in name), ",")


def _split(lines: list[str], delimiter: str) -> list[list[str]]:
    """Return the cells of lines; none where they cannot be split so."""
    if delimiter == _BLANKS:
        lines = list(map(_one_blank, lines))
    try:
        return [row for row in csv.reader(lines, **_options(delimiter)) if row]
    except csv.Error:
        return []


def _delimiter(lines: list[str], preferred: str, *, loose: bool) -> str:
    """Return the delimiter of a sample of lines; blanks between words count where the ending is ``loose``."""
    best, best_score = preferred, (0.0, 0.0)
    ordered = [preferred, *(each for each in _DELIMITERS if each != preferred), _BLANKS]
    for delimiter in ordered:
        rows = _split(lines, delimiter)
        body = rows[1:] or rows
        width = len(body[0]) if body else 0
        if width < 2:
            continue
        alike = sum(len(row) == width for row in body) / len(body)
        cells = [cell for row in body[:200] for cell in row]
        numbers = sum(is_number(cell) or _COMMA_NUMBER.fullmatch(cell.strip()) is not None for cell in cells)
        share = numbers / len(cells)
        quoted = all('"' in line for line in lines)
        if delimiter == _BLANKS and (alike < 1 or (share <= (0.5 if loose else 0.999) and not (quoted and loose))):
            continue  # words in a cell
        short = len(rows) > 1 and len(rows[0]) < 2 and delimiter != _BLANKS
        if delimiter != preferred and (alike < 0.9 or short):
            continue
        score = (share, alike)
        if score > best_score or (delimiter == preferred and share >= best_score[0]):
            best, best_score = delimiter, score
    return best


@contextmanager
def _opened(path: Path, *, measured: bool = False) -> Iterator[Iterator[str]]:
    """Open a text file, compressed or not; yield its lines, with ``measured`` only where it is not too long."""
    where = place(path)
    with path.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        stream: IO[bytes] = raw
        damage: tuple[type[Exception], ...] = (lzma.LZMAError,)
        if head.startswith(GZIP_MAGIC):
            stream = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
        elif head.startswith(b"BZh"):
            stream = bz2.BZ2File(raw)
            damage += (OSError,)
        elif head.startswith(b"\xfd7zXZ\0"):
            stream = lzma.LZMAFile(raw)  # noqa: SIM115 - closed below
        with damage_as_data_error(where, *damage), stream:
            try:
                if stream is not raw:
                    head = stream.read(6)
                    stream.seek(0)
                encoding = "utf-16" if head.startswith(_UTF16) else "utf-8-sig"
                limit = _MAX_BYTES if stream is raw else min(_MAX_BYTES, _expandable(raw))
                too_much = f"{where}: more than {limit} bytes of text"
                if measured and stream is not raw:  # a tenth of the time that reading its cells takes
                    Capped(stream, limit, too_much).drain()
                    stream.seek(0)
                capped = io.BufferedReader(_Raw(Capped(stream, limit, too_much)), 1 << 20)
                with io.TextIOWrapper(capped, encoding=encoding, newline="") as text:
                    yield _lines(text, where)
            except UnicodeError:
                raise DataError(f"{where}: not UTF-8 text") from None


def _expandable(raw: IO[bytes]) -> int:
    """Return the most bytes that a compressed file may become."""
    return expandable(os.fstat(raw.fileno()).st_size, text=True)


class _Raw(io.RawIOBase):
    """A capped stream as `io` wants it."""

    def __init__(self, stream: Capped) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Read into a buffer; return how many bytes."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _lines(file: IO[str], where: str) -> Iterator[str]:
    """Yield the lines of a file; refuse one that is too long before it is read whole."""
    number = 0
    try:
        while line := file.readline(_MAX_LINE):
            number += 1
            if len(line) == _MAX_LINE:
                raise DataError(f"{where}: line {number}: more than {_MAX_LINE} characters")
            yield line
    except UnicodeError:
        raise DataError(f"{where}: after line {number}: not UTF-8 text") from None
