"""Text as NumPy arrays without a width that one long element sets for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError

__all__ = ["MAX_LABEL", "is_text", "require_short", "require_unicode", "text_array"]

MAX_LABEL = 1024  # characters of a label in a file
_NARROW = 16  # characters
_SMALL = 1 << 24  # characters that an array of wider text may have
_BLOCK = 1 << 22  # characters that are checked at a time
_LAST = 0x10FFFF  # the last code point of Unicode


def text_array(words: Sequence[str]) -> NDArray[Any]:
    """Return text ``(N,)`` of one width; objects where that could take much more memory than the words themselves.

    Examples
    --------
    >>> text_array(["a", "bcd"]).dtype, text_array(["a"] * 100_000 + ["x" * 1000]).dtype
    (dtype('<U3'), dtype('O'))
    """
    width = max(map(len, words), default=0)
    if width <= _NARROW or width * len(words) <= _SMALL:
        return np.array(words)
    array = np.empty(len(words), object)
    array[:] = words
    return array


def is_text(array: NDArray[Any]) -> bool:
    """Whether an array holds text, as `text_array` returns it."""
    return array.dtype.kind == "U" or (
        array.dtype == object and array.size > 0 and all(isinstance(each, str) for each in array.flat)
    )


def require_short(words: Sequence[str], place: Callable[[int], str]) -> None:
    """Raise DataError for the first label of more than 1024 characters; ``place`` returns where a row is."""
    if max(map(len, words), default=0) > MAX_LABEL:
        row = next(row for row, word in enumerate(words) if len(word) > MAX_LABEL)
        raise DataError(f"{place(row)}: a label of {len(words[row])} characters; allowed: at most {MAX_LABEL}")


def require_unicode(array: NDArray[Any], where: str) -> None:
    """Raise DataError for an array of text from a file that holds numbers beyond the last code point."""
    if array.dtype.kind != "U" or array.size == 0:
        return
    rows = array.reshape(-1)
    code, width = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder), array.dtype.itemsize // 4
    step = max(1, _BLOCK // width)
    for start in range(0, len(rows), step):
        codes = np.ascontiguousarray(rows[start : start + step]).view(code)
        bad = codes > _LAST
        if bad.any():
            raise DataError(f"{where}: row {start + int(bad.argmax()) // width} holds a character beyond Unicode")
