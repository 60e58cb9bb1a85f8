"""Scores and true classes as the command line is given them: written out, or in files."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll.data.arrays import read_npy
from softnll.data.dataset import DataError
from softnll.data.tables import is_number, read_label_column
from softnll.data.text import place, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_class_names", "read_names", "read_scores", "read_targets"]

_FILES = (".npy", ".csv", ".tsv", ".npz", ".parquet", ".safetensors", ".pt", ".pth")
_SIMPLE = _FILES[:3]
_LARGEST_NAMES = 1 << 24  # bytes of a file of class names
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def read_scores(given: str) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Return ``(N, C)`` scores, and class names where the file has a line of them.

    Parameters
    ----------
    given
        Rows apart by ``;``, numbers by ``,``; or the name of a file that :func:`softnll.data.score_files.open_scores`
        reads.

    Raises
    ------
    DataError
        For what is not a table of numbers; the message says where.

    Examples
    --------
    >>> read_scores("5,4,2; 4,2,8")[0].tolist()
    [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0]]
    """
    path = _file(given)
    if path is None:
        lines = [row.split(",") for row in given.strip().strip(";").split(";")]
        return _table(lines, "--scores", "row", 0), None
    if path.suffix.lower() not in _SIMPLE:
        from softnll.data.score_files import open_scores  # noqa: PLC0415 - which reads tables through this module

        rows, names = open_scores(path)
        return rows.rows(slice(None)), names
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        if array.ndim not in (1, 2) or array.dtype.kind not in "iuf" or array.size == 0:
            wanted = "expected real numbers, (rows, classes)"
            raise DataError(f"{place(path)}: scores of shape {array.shape} and type {array.dtype.name}; {wanted}")
        return np.atleast_2d(array), None
    lines = _lines(path)
    if lines and not any(is_number(cell) for cell in lines[0]):
        return _table(lines[1:], place(path), "line", 2), read_names(",".join(lines[0]))
    return _table(lines, place(path), "line", 1), None


def read_targets(given: str, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return true classes from numbers or names apart by ``,``, or from a file of them.

    What is a class's name counts as that name; everything else must be an index into the classes.

    Raises
    ------
    DataError
        For a target that is neither.

    Examples
    --------
    >>> read_targets("horse, 0", ("cat", "dog", "horse")).tolist()
    [2, 0]
    """
    path = _file(given)
    if path is None:
        return _indices([word.strip() for word in given.split(",")], class_names, "--target")
    where = place(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _indices(read_label_column(path).tolist(), class_names, where)
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
    else:
        from softnll.data.score_files import open_labels  # noqa: PLC0415 - which reads tables through this module

        array = open_labels(path)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise DataError(
            f"{where}: targets of shape {array.shape} and type {array.dtype.name}; expected (N,) whole numbers"
        )
    return _indices([str(value) for value in array.tolist()], class_names, where)


def read_names(given: str) -> tuple[str, ...]:
    """Return class names apart by ``,``."""
    names = tuple(name.strip() for name in given.split(","))
    if "" in names or len(set(names)) != len(names):
        raise DataError(f"class names {printable(given)!r}: one is empty or there twice")
    return names


def read_class_names(given: str) -> tuple[str, ...]:
    """Return class names from a file, one a line, or written out, apart by commas."""
    path = Path(given)
    if "," in given or not path.is_file():
        return read_names(given)
    if path.stat().st_size > _LARGEST_NAMES:
        raise DataError(f"{place(path)}: {path.stat().st_size} bytes; class names have at most {_LARGEST_NAMES}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{place(path)}: class names must be UTF-8 text, one a line") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) != len(names):
        raise DataError(f"{place(path)}: one class name twice")
    return names


def _file(given: str) -> Path | None:
    """Return the file that is meant, or None where the numbers are written out."""
    path = Path(given)
    if path.suffix.lower() not in _FILES:
        return None
    if not path.is_file():
        raise DataError(f"{place(path)}: no such file")
    return path


def _lines(path: Path) -> list[list[str]]:
    """Return the cells of a table of text, empty lines left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            return [cells for cells in csv.reader(file, delimiter=delimiter, strict=True) if cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{place(path)}: not a table of text: {printable(str(error))}") from None


def _table(lines: list[list[str]], where: str, unit: str, first: int) -> NDArray[np.float64]:
    """Return numbers from cells; ``unit`` and ``first`` say how positions are told."""
    if not lines:
        raise DataError(f"{where}: no scores")
    for number, cells in enumerate(lines, first):
        if len(cells) != len(lines[0]):
            raise DataError(f"{where}: {unit} {number} has {len(cells)} scores, the first one {len(lines[0])}")
        for cell in cells:
            if not is_number(cell):
                raise DataError(f"{where}: {unit} {number}: {printable(cell.strip(), 30)!r} is not a number")
    return np.array([[float(cell) for cell in cells] for cells in lines])


def _indices(words: list[str], class_names: tuple[str, ...], where: str) -> NDArray[np.int64]:
    """Return class indices from names or numbers."""
    place_of = {name: c for c, name in enumerate(class_names)}
    found = []
    for word in words:
        index = place_of.get(word)
        if index is None and _INTEGER.fullmatch(word):
            index = int(word)
        if index is None or not 0 <= index < len(class_names):
            known = ", ".join(class_names[:6]) + (", …" if len(class_names) > 6 else "")
            numbers = f"0 to {len(class_names) - 1}"
            raise DataError(f"{where}: {printable(word, 30)!r} is neither a class ({printable(known)}) nor {numbers}")
        found.append(index)
    return np.array(found, dtype=np.int64)
