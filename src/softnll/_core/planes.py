"""Rows whose class dimension has a stride: entries of one class lie side by side, as in images (N, C, H, W)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.layout import Layout

LEAST = 8  # rows side by side from which planes are used: fewer leave most of a vector empty


class Planes:
    """``(N, C)`` rows of an array ``(A, C, B)`` without a copy: row a·B + b is ``array[a, :, b]``.

    It has what a matrix of rows has, as far as the kernels need it.
    """

    __slots__ = ("array", "dtype", "shape")

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.dtype = array.dtype
        outer, n_classes, inner = array.shape
        self.shape: tuple[int, int] = (outer * inner, n_classes)

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return int(self.array.nbytes)

    def _place(self, rows: Any) -> tuple[Any, Any]:
        """Return the first and the last index of rows, given as a slice, as numbers, or in a tuple with ``...``."""
        rows = rows[0] if isinstance(rows, tuple) else rows
        numbers = np.arange(self.shape[0])[rows] if isinstance(rows, slice) else rows
        return np.divmod(numbers, self.array.shape[2])

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return some rows, ``(n, C)``: a view of those of a slice within one plane, else a copy."""
        rows = rows[0] if isinstance(rows, tuple) else rows
        inner_size = self.array.shape[2]
        if isinstance(rows, slice) and rows.start // inner_size == (rows.stop - 1) // inner_size:
            at, first = divmod(rows.start, inner_size)
            view: NDArray[Any] = self.array[at, :, first : first + rows.stop - rows.start].T
            return view
        outer, inner = self._place(rows)
        chosen: NDArray[Any] = self.array[outer, :, inner]
        return chosen

    def __setitem__(self, rows: Any, values: NDArray[Any]) -> None:
        """Write some rows."""
        outer, inner = self._place(rows)
        self.array[outer, :, inner] = values

    def empty_like(self) -> Planes:
        """Return planes of this shape and type in one piece, uninitialised."""
        return Planes(np.empty(self.array.shape, self.dtype))

    def matrix(self) -> NDArray[Any]:
        """Return the rows as a matrix, ``(N, C)``, a copy."""
        rows: NDArray[Any] = self.array.transpose(0, 2, 1).reshape(self.shape)
        return rows

    def astype(self, dtype: Any) -> Planes:
        """Return planes of a type: these if they have it, else a copy."""
        return self if dtype == self.dtype else Planes(self.array.astype(dtype))


def planes_of(array: NDArray[Any], layout: Layout) -> Planes | None:
    """Return an array's rows as planes, or None if its strides or its shape do not allow it.

    The dimensions after the class dimension must lie in one piece, those before it must have one stride together.
    """
    if len(layout.axes) != 1:
        return None
    axis, shape, strides = layout.axes[0], array.shape, array.strides
    inner = math.prod(shape[axis + 1 :])
    if inner < LEAST or array.size == 0 or not array.flags.aligned:
        return None
    outer = math.prod(shape[:axis])
    if array.flags.c_contiguous:
        return Planes(array.reshape(outer, shape[axis], inner))
    beside, apart = _merged(shape[axis + 1 :], strides[axis + 1 :]), _merged(shape[:axis], strides[:axis])
    if beside != array.itemsize or apart is None:
        return None
    steps = (apart, strides[axis], array.itemsize)
    view = np.lib.stride_tricks.as_strided(array, (outer, shape[axis], inner), steps, writeable=array.flags.writeable)
    return Planes(view)


def _merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """Return the stride of axes taken together as one, 0 if they have one entry; None if they cannot be."""
    found = step = 0
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size == 1:
            continue
        if step == 0:
            found, step = stride, stride * size
        elif stride == step:
            step *= size
        else:
            return None
    return found


def rows_as(x: Any, array: NDArray[Any], layout: Layout) -> Any:
    """Return an array of the layout's shape as rows in the form of x: as Planes, if need be of a copy, or a matrix."""
    if not isinstance(x, Planes):
        return layout.rows(array)
    return planes_of(array, layout) or planes_of(np.ascontiguousarray(array), layout)


def empty_like(x: Any) -> Any:
    """Return rows in the form of x, uninitialised: Planes or a matrix."""
    return x.empty_like() if isinstance(x, Planes) else np.empty(x.shape, x.dtype)


def memory_of(rows: Any) -> NDArray[Any]:
    """Return the array of rows."""
    array: NDArray[Any] = rows.array if isinstance(rows, Planes) else rows
    return array


def restored(rows: Any, layout: Layout) -> Any:
    """Return rows, Planes or a matrix, in the layout's shape."""
    return rows.array.reshape(layout.shape) if isinstance(rows, Planes) else layout.restore(rows)
