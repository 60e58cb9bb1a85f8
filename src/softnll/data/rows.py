"""Scores of any size, row by row: arrays, tensors, or what stays in a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softnll.targets import blocks

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
    """Rows of an array, which may be memory-mapped."""

    def __init__(self, array: NDArray[Any], name: str = "scores") -> None:
        self._array = array
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])
        self.dtype: np.dtype[Any] = array.dtype
        self.name = name

    def rows(self, index: Any) -> NDArray[Any]:
        """Return those rows, in memory."""
        return np.asarray(self._array[index])

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield all rows in order."""
        for rows in blocks(self.shape, ENTRIES):
            yield rows, self.rows(rows)


def as_rows(scores: Any) -> Rows:
    """Return scores of any kind as rows, checked: two dimensions, real numbers, at least one of each."""
    if not (hasattr(scores, "rows") and hasattr(scores, "blocks")):
        try:
            array = _array(scores)
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
    """Return scores in a type to compute with: half types as float32 and integers as float64, which is exact."""
    whole, size = block.dtype.kind in "iu", block.dtype.itemsize
    if not whole and size in (4, 8):
        return block.astype(block.dtype.newbyteorder("="), copy=False)
    return block.astype(np.float32 if not whole and size == 2 else np.float64)


def _array(values: Any) -> NDArray[Any]:
    """Return an array of what may be a tensor on any device."""
    if hasattr(values, "detach"):  # torch's: NumPy knows neither its gradients nor its bfloat16
        values = values.detach().cpu()
        if "bfloat16" in str(values.dtype):
            import ml_dtypes  # noqa: PLC0415 - comes with the torch extra

            return np.asarray(values.float().numpy().astype(ml_dtypes.bfloat16))
        values = values.numpy()
    return np.asarray(values)
