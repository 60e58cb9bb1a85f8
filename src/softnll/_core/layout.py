"""The layout of logits: their type, their class axes, and how they become ``(N, C)`` rows and their shape again."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axis = int | Sequence[int] | None

_FAR = 2**63 - 1  # Python writes no integers of any length

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_NATIVE = frozenset(map(np.dtype, (np.float16, np.float32, np.float64)))  # a dtype of the other byte order is not equal


@lru_cache(maxsize=64)  # dtype.name takes 2 µs
def is_floating(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is a supported floating-point type."""
    return dtype.name in _FLOATS


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in this machine's byte order."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_real(value: Any, name: str) -> NDArray[Any]:
    """Return an array of real numbers, in the caller's type and this machine's byte order.

    Raise TypeError for bool, complex, object, string and extended types, and for masked arrays.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; allowed: a plain one, such as its filled(value)")
    array = np.asarray(value)
    if array.dtype == object:
        array = _nullable(value, name, array)
    if array.dtype.kind not in "iu" and not is_floating(array.dtype):
        raise TypeError(f"{name} has dtype {array.dtype}; allowed: {', '.join(_FLOATS)} and integers")
    return native(array)


def _nullable(value: Any, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers of a pandas frame or series of nullable or Arrow types, which is an array of objects else."""
    if not hasattr(value, "to_numpy") or not hasattr(value, "dtypes"):
        return array
    types = [value.dtypes] if array.ndim == 1 else list(value.dtypes)
    numbers = [getattr(each, "numpy_dtype", each) for each in types]
    if not numbers or not all(isinstance(each, np.dtype) and each.kind in "iuf" for each in numbers):
        return array
    missing = np.asarray(value.isna(), bool)
    if missing.any():
        at = [int(i) for i in np.unravel_index(int(missing.argmax()), missing.shape)]
        raise ValueError(f"{name}{at} is missing; allowed: numbers")
    return np.asarray(value.to_numpy(dtype=np.result_type(*numbers)))


def as_floating(value: Any, name: str) -> NDArray[Any]:
    """Return an array of floating-point numbers; integers become float64."""
    if type(value) is np.ndarray and value.dtype in _NATIVE:
        return value  # this takes 0.15 µs, the general path 0.6
    array = as_real(value, name)
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def loss_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the losses of such logits: float32 or wider."""
    return _FLOAT64 if dtype == _FLOAT64 else _FLOAT32


@dataclass(frozen=True)
class Layout:
    """The class axes of an array, and the sizes and permutations that follow, which are computed at first use."""

    shape: tuple[int, ...]  # that of the array; a 0-d array counts as one class
    axes: tuple[int, ...]  # the class axes, ascending

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
        """C, the number of entries of a row."""
        return math.prod(self.shape[axis] for axis in self.axes) if self.shape else 1

    @property
    def axes_named(self) -> str:
        """The class axes as messages show them."""
        return f"axis {self.axes[0]}" if len(self.axes) == 1 else f"axes {self.axes}"

    @cached_property
    def n_rows(self) -> int:
        """N, the number of rows."""
        return math.prod(self.row_shape)

    @cached_property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of arrays with one number a row: that of the array without its class axes."""
        return tuple(size for axis, size in enumerate(self.shape) if axis not in self.axes)

    @cached_property
    def kept_shape(self) -> tuple[int, ...]:
        """The shape of the array with each class axis replaced by 1."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.shape))

    @cached_property
    def is_rows(self) -> bool:
        """Whether the array has the shape ``(N, C)``."""
        return len(self.shape) == 2 and self.axes == (1,)

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """All axes, the class axes last."""
        return (*(axis for axis in range(len(self.shape)) if axis not in self.axes), *self.axes)

    @cached_property
    def _in_order(self) -> bool:
        """Whether the class axes are the last: then a reshape suffices, which takes 5 µs less than a permutation."""
        return len(self.shape) < 2 or self._order == tuple(range(len(self.shape)))

    @cached_property
    def _inverse_order(self) -> tuple[int, ...]:
        """The inverse of the permutation ``_order``."""
        return tuple(self._order.index(axis) for axis in range(len(self.shape)))

    def rows(self, array: Any) -> Any:
        """Return an array of any library as ``(N, C)`` rows: a view where its strides allow, else a copy."""
        if self.is_rows:
            return array
        ordered = array if self._in_order else _permuted(array, self._order)
        return ordered.reshape(self.n_rows, self.n_classes)

    def restore(self, rows: Any) -> Any:
        """Return ``(N, C)`` rows in the shape of the array."""
        if self.is_rows:
            return rows
        if self._in_order:
            return rows.reshape(self.shape)
        moved = rows.reshape([self.shape[axis] for axis in self._order])
        return _permuted(moved, self._inverse_order)


def _permuted(array: Any, order: tuple[int, ...]) -> Any:
    """Return an array with its axes in another order."""
    return array.permute(order) if hasattr(array, "permute") else array.transpose(order)


@lru_cache(maxsize=256)  # 0.2 µs for a shape that has occurred before, 8 µs for a new one
def layout_of(shape: tuple[int, ...], axis: int | tuple[int, ...]) -> Layout:
    """Return the layout with these class axes, counted from either end, as ``Layout.of`` does for valid types."""
    chosen = axis if isinstance(axis, tuple) else (axis,)
    ndim = max(len(shape), 1)  # a 0-d array has an axis of one class
    for each in chosen:
        if not -ndim <= each < ndim:
            raise np.exceptions.AxisError(max(min(each, _FAR), -_FAR), ndim)
    return Layout(shape, tuple(sorted(each % ndim for each in chosen)))
