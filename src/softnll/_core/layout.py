"""How an array of logits becomes rows: its type, its class axis or axes, and the way back."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "Layout", "as_floating", "as_real", "layout_of", "loss_dtype", "native"]

Axis = int | Sequence[int] | None

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_PLAIN = frozenset(map(np.dtype, (np.float16, np.float32, np.float64)))  # in this byte order: the other is not equal


@lru_cache(maxsize=64)  # a dtype makes its name anew each time: 2 µs
def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one of the floating-point types that are computed with."""
    return dtype.name in _FLOATS


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in this machine's byte order."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_real(value: Any, name: str) -> NDArray[Any]:
    """Return an array of real numbers, in the caller's type and this machine's byte order.

    Raises
    ------
    TypeError
        For bool, complex, object, string and extended types, and for masked arrays.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; pass its data, and the mask as where=~mask")
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and not is_floating(array.dtype):
        raise TypeError(f"{name} has dtype {array.dtype}; allowed: {', '.join(_FLOATS)} and integers")
    return native(array)


def as_floating(value: Any, name: str) -> NDArray[Any]:
    """Return an array of floating-point numbers; integers become float64."""
    if type(value) is np.ndarray and value.dtype in _PLAIN:
        return value  # after 0.15 µs; the rest takes 0.6
    array = as_real(value, name)
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def loss_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which losses of such logits are given: float32 or wider."""
    return _FLOAT64 if dtype == _FLOAT64 else _FLOAT32


@dataclass(frozen=True)
class Layout:
    """Which axes of an array hold its classes, and what follows from that, worked out when it is first asked for.

    Attributes
    ----------
    shape
        The array's shape; a 0-d array counts as one class.
    axes
        The class axes, ascending.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], axis: Axis, several: bool = False) -> Layout:
        """Return the layout of an array of this shape; only some functions allow several class axes."""
        if several and axis is None:
            chosen: tuple[int, ...] = tuple(range(max(len(shape), 1)))
        elif several and isinstance(axis, tuple | list):
            chosen = tuple(operator.index(each) for each in axis)
        elif hasattr(axis, "__index__"):
            return layout_of(shape, operator.index(axis))  # type: ignore[arg-type]
        else:
            raise TypeError(f"axis is {axis!r}; allowed: {'an int, a tuple of ints or None' if several else 'an int'}")
        layout = layout_of(shape, chosen)
        if len(set(layout.axes)) < len(chosen):
            raise ValueError(f"axis is {axis!r}; allowed: each axis once")
        return layout

    @cached_property
    def n_classes(self) -> int:
        """C: how many entries a row has."""
        return math.prod(self.shape[axis] for axis in self.axes) if self.shape else 1

    @cached_property
    def n_rows(self) -> int:
        """N: how many rows there are."""
        return math.prod(self.row_shape)

    @cached_property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of what there is one of a row: the array's without its class axes."""
        return tuple(size for axis, size in enumerate(self.shape) if axis not in self.axes)

    @cached_property
    def kept_shape(self) -> tuple[int, ...]:
        """The shape with each class axis kept as 1."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.shape))

    @cached_property
    def is_rows(self) -> bool:
        """Whether the array is laid out as rows already."""
        return len(self.shape) == 2 and self.axes == (1,)

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """All axes, the class axes last."""
        return (*(axis for axis in range(len(self.shape)) if axis not in self.axes), *self.axes)

    @cached_property
    def _in_order(self) -> bool:
        """Whether the class axes are the last already: then a reshape does, 5 µs cheaper than moving axes about."""
        return len(self.shape) < 2 or self._order == tuple(range(len(self.shape)))

    @cached_property
    def _way_back(self) -> tuple[int, ...]:
        """The permutation that puts axes in ``_order`` back where they were."""
        return tuple(self._order.index(axis) for axis in range(len(self.shape)))

    def rows(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array as ``(N, C)`` rows: a view where its strides allow, else a copy."""
        if self.is_rows:
            return array
        ordered = array if self._in_order else array.transpose(self._order)
        return ordered.reshape(self.n_rows, self.n_classes)

    def restore(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return ``(N, C)`` rows in the array's own shape."""
        if self.is_rows:
            return rows
        if self._in_order:
            return rows.reshape(self.shape)
        moved = rows.reshape([self.shape[axis] for axis in self._order])
        return moved.transpose(self._way_back)


@lru_cache(maxsize=256)  # 0.2 µs for a shape that comes again; the first time takes 8
def layout_of(shape: tuple[int, ...], axis: int | tuple[int, ...]) -> Layout:
    """Return the layout with these class axes, counted from either end: what ``Layout.of`` does once it knows them."""
    chosen = axis if isinstance(axis, tuple) else (axis,)
    ndim = max(len(shape), 1)  # a 0-d array has an axis of one class
    for each in chosen:
        if not -ndim <= each < ndim:
            raise np.exceptions.AxisError(each, ndim)
    return Layout(shape, tuple(sorted(each % ndim for each in chosen)))
