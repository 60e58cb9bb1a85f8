"""Scores of any size, read in blocks of rows: from arrays, tensors or files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softnll._core.arrays import as_numpy
from softnll._core.targets import blocks

__all__ = ["ENTRIES", "ArrayRows", "Rows", "as_rows", "real"]

ENTRIES = 1 << 22  # of a block: 16 MiB of float32


class Rows(Protocol):
    """``(N, C)`` scores that need not fit in memory."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    name: str

    def rows(self, index: Any) -> NDArray[Any]:
        """Return those rows, in memory."""

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield all rows in order."""


class ArrayRows:
    """Rows of an array, which may be memory-mapped, in its type or another one."""

    def __init__(self, array: NDArray[Any], name: str = "scores", dtype: Any = None) -> None:
        self._array = array
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])
        self.dtype: np.dtype[Any] = array.dtype if dtype is None else np.dtype(dtype)
        self.name = name

    def rows(self, index: Any) -> NDArray[Any]:
        """Return those rows, in memory."""
        return np.asarray(self._array[index], self.dtype)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield all rows in order."""
        for rows in blocks(self.shape, ENTRIES):
            yield rows, self.rows(rows)


def as_rows(scores: Any) -> Rows:
    """Return an array, a tensor or `Rows` as `Rows`; raise unless it is ``(N, C)`` real numbers with N, C ≥ 1."""
    if not (hasattr(scores, "rows") and hasattr(scores, "blocks")):
        try:
            array = np.asarray(as_numpy(scores))
        except ValueError as error:  # rows of different lengths
            raise ValueError(f"the scores are not a table: {error}") from None
        if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
            raise TypeError(f"the scores have dtype {array.dtype}; allowed: real numbers")
        if array.ndim != 2:
            raise ValueError(f"the scores have shape {array.shape}; expected (rows, classes)")
        scores = ArrayRows(array)
    if len(scores.shape) != 2 or 0 in scores.shape:
        raise ValueError(f"the scores have shape {tuple(scores.shape)}; expected (rows, classes), at least one of each")
    return scores  # type: ignore[no-any-return]


def real(block: NDArray[Any]) -> NDArray[Any]:
    """Return scores in a type for arithmetic: half types as float32 and integers as float64, which is exact."""
    whole, size = block.dtype.kind in "iu", block.dtype.itemsize
    if not whole and size in (4, 8):
        return block.astype(block.dtype.newbyteorder("="), copy=False)
    return block.astype(np.float32 if not whole and size == 2 else np.float64)
