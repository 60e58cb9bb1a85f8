"""Class indices from labels that are numbers or words, class names, and the choice of a file's array by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError
from softnll.data.text import place, printable
from softnll.data.text_arrays import is_text

__all__ = [
    "INTEGER",
    "as_class_names",
    "checked_names",
    "choose",
    "encode",
    "encode_words",
    "listed",
    "read_class_names",
    "split_names",
]

INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)  # a whole number of at most 64 bits

_MAX_NAMES_BYTES = 1 << 24  # of a file of class names


def encode(
    values: NDArray[np.generic], where: str, class_names: tuple[str, ...] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class indices ``(N,)`` and class names for labels ``(N,)`` of any type.

    Without ``class_names`` the classes are the distinct values, sorted: 3 … 8 are six classes named "3" … "8", and
    -1, +1 are two; 0 … C - 1 stays as it is. With ``class_names`` the values are indices into them. Raise DataError for
    labels that are not ``(N,)``, neither whole numbers nor text, or outside the class names.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"{where}: labels of shape {values.shape}, expected (N,)")
    if values.dtype.kind == "S" or is_text(values):
        return encode_words(_as_words(values), where, class_names)
    if values.dtype.kind == "f":
        values = _whole(values, where)
    if values.dtype.kind not in "iub":
        raise DataError(f"{where}: labels of type {values.dtype.name}; allowed are whole numbers and text")
    if values.dtype == np.uint64 and values.max(initial=0) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: label {values.max()} does not fit 64 bits with sign")
    numbers = values.astype(np.int64)
    if class_names is not None:
        return numbers, class_names  # Dataset checks the range
    distinct, indices = np.unique(numbers, return_inverse=True)
    return indices.astype(np.int64).reshape(-1), tuple(map(str, distinct.tolist()))


def encode_words(
    words: list[str], where: str, class_names: tuple[str, ...] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class indices and names for labels given as text; whole numbers written out count as numbers."""
    if words and all(INTEGER.fullmatch(word) for word in words):
        return encode(np.array([int(word) for word in words], dtype=np.int64), where, class_names)
    names = tuple(sorted(set(words))) if class_names is None else class_names
    index = {name: number for number, name in enumerate(names)}
    unknown = next((word for word in words if word not in index), None)
    if unknown is not None:
        raise DataError(f"{where}: label {printable(unknown)!r} is not one of the {len(names)} class names")
    return np.array([index[word] for word in words], dtype=np.int64), tuple(printable(name) for name in names)


def as_class_names(values: NDArray[np.generic], where: str) -> tuple[str, ...]:
    """Return class names from an array of text ``(C,)``."""
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise DataError(f"{where}: class names must be text of shape (C,), got {values.dtype.name} {values.shape}")
    return checked_names([printable(name) for name in _as_words(values)], where, allow_empty=True)


def split_names(text: str) -> tuple[str, ...]:
    """Return class names that are separated by ``,``."""
    return checked_names(text.split(","), f"class names {printable(text)!r}")


def read_class_names(given: str) -> tuple[str, ...]:
    """Return class names from a file, one a line, or from text in which ``,`` separates them."""
    path = Path(given)
    if "," in given or not path.is_file():
        return split_names(given)
    if path.stat().st_size > _MAX_NAMES_BYTES:
        raise DataError(f"{place(path)}: {path.stat().st_size} bytes; class names have at most {_MAX_NAMES_BYTES}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{place(path)}: class names must be UTF-8 text, one a line") from None
    return checked_names([line for line in lines if line.strip()], place(path))


def checked_names(names: Iterable[str], where: str, *, allow_empty: bool = False) -> tuple[str, ...]:
    """Return class names without blanks around them; raise DataError where one is empty or there are two of it."""
    stripped = tuple(names) if allow_empty else tuple(name.strip() for name in names)
    if "" in stripped and not allow_empty:
        raise DataError(f"{where}: one class name is empty")
    if len(set(stripped)) != len(stripped):
        raise DataError(f"{where}: one class name twice")
    return stripped


def choose(names: Sequence[str], wanted: tuple[str, ...], where: str, others: tuple[str, ...] = ()) -> str:
    """Return the name of the array to use: the first wanted name that exists, in any case, or the only one.

    An array in a group, ``outputs.logits``, is called ``logits`` as well. One of the ``others`` is never used.
    """
    lower = {name.lower().rpartition(".")[2]: name for name in reversed(names)}
    lower |= {name.lower(): name for name in names}
    for each in wanted:
        if each in lower:
            return lower[each]
    rest = [name for name in names if name.lower().rpartition(".")[2] not in others]
    if len(rest) == 1:
        return rest[0]
    raise DataError(f"{where}: holds {listed(names)}; expected one array, or one called {', '.join(wanted)}")


def listed(names: Sequence[str]) -> str:
    """Return the first ten names as a message shows them."""
    return ", ".join(printable(name, 30) for name in names[:10]) or "nothing"


def _as_words(values: NDArray[np.generic]) -> list[str]:
    """Return the elements of an array of text or bytes as text."""
    if values.dtype.kind == "S":
        values = np.char.decode(values.astype(np.bytes_), "utf-8", "replace")
    words: list[str] = values.tolist()
    return words


def _whole(values: NDArray[np.generic], where: str) -> NDArray[np.generic]:
    """Return floating-point labels as integers, where all of them are."""
    floats = values.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(floats) & (np.rint(floats) == floats) & (np.abs(floats) < 2**53)))
    if wrong.size:
        raise DataError(f"{where}: label {floats[wrong[0]]} (row {wrong[0]}) is not a whole number, so not a class")
    return floats.astype(np.int64)
