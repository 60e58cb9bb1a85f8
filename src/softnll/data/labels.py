"""Labels as they come, numbers or words, made into class indices and class names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from softnll.data.dataset import DataError
from softnll.data.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LABEL_NAMES", "as_class_names", "encode", "encode_words"]

#: What a column (or an array) of labels is called, the surest name first.
LABEL_NAMES = ("label", "class", "target", "y", "labels", "targets")

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def encode(
    values: NDArray[np.generic], where: str, class_names: tuple[str, ...] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return class indices ``(N,)`` and class names for labels ``(N,)`` of any type.

    Without ``class_names`` the classes are the distinct values, sorted: 3 … 8 makes six classes named "3" … "8", and
    -1, +1 makes two; 0 … C - 1 stays as it is. With ``class_names`` the values are indices into them.

    Raises
    ------
    DataError
        For labels that are not ``(N,)``, neither whole numbers nor text, or outside the class names.

    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"{where}: labels of shape {values.shape}, expected (N,)")
    if values.dtype.kind == "S":
        values = np.char.decode(values.astype(np.bytes_), "utf-8", "replace")
    if values.dtype.kind == "U":
        return encode_words(values.tolist(), where, class_names)
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
    if words and all(_INTEGER.fullmatch(word) for word in words):
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
    if values.dtype.kind == "S":
        values = np.char.decode(values.astype(np.bytes_), "utf-8", "replace")
    names = tuple(printable(name) for name in values.tolist())
    if len(set(names)) != len(names):
        raise DataError(f"{where}: one class name twice")
    return names


def _whole(values: NDArray[np.generic], where: str) -> NDArray[np.generic]:
    """Return floating-point labels as integers, where all of them are."""
    floats = values.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(floats) & (np.rint(floats) == floats) & (np.abs(floats) < 2**53)))
    if wrong.size:
        raise DataError(f"{where}: label {floats[wrong[0]]} (row {wrong[0]}) is not a whole number, so not a class")
    return floats.astype(np.int64)
