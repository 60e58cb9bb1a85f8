"""How an array of logits becomes rows: its type, its class axis or axes, and the way back."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "Layout", "as_floating", "as_real", "loss_dtype", "native"]

Axis = int | Sequence[int] | None

_FLOATS = ("float16", "bfloat16", "float32", "float64")


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
    array = as_real(value, name)
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def loss_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which losses of such logits are given: float32 or wider."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axes of an array hold its classes.

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
    def of(cls, shape: tuple[int, ...], axis: Axis, *, several: bool = False) -> Layout:
        """Return the layout of an array of this shape; only some functions allow several class axes."""
        ndim = max(len(shape), 1)  # a 0-d array has an axis of one class
        if several and axis is None:
            chosen: tuple[int, ...] = tuple(range(ndim))
        elif several and isinstance(axis, tuple | list):
            chosen = tuple(operator.index(each) for each in axis)
        elif hasattr(axis, "__index__"):
            chosen = (operator.index(axis),)  # type: ignore[arg-type]
        else:
            raise TypeError(f"axis is {axis!r}; allowed: {'an int, a tuple of ints or None' if several else 'an int'}")
        for each in chosen:
            if not -ndim <= each < ndim:
                raise np.exceptions.AxisError(each, ndim)
        axes = tuple(sorted(each % ndim for each in chosen))
        if len(set(axes)) < len(axes):
            raise ValueError(f"axis is {axis!r}; allowed: each axis once")
        return cls(shape, axes)

    @property
    def n_classes(self) -> int:
        """C: how many entries a row has."""
        return math.prod(self.shape[axis] for axis in self.axes) if self.shape else 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of what there is one of a row: the array's without its class axes."""
        return tuple(size for axis, size in enumerate(self.shape) if axis not in self.axes)

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """The shape with each class axis kept as 1."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(self.shape))

    def _order(self) -> tuple[int, ...]:
        """All axes, the class axes last."""
        return (*(axis for axis in range(len(self.shape)) if axis not in self.axes), *self.axes)

    def rows(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array as ``(N, C)`` rows: a view where its strides allow, else a copy."""
        if len(self.shape) == 2 and self.axes == (1,):
            return array
        if not self.shape:
            return array.reshape(1, 1)
        return array.transpose(self._order()).reshape(math.prod(self.row_shape), self.n_classes)

    def restore(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return ``(N, C)`` rows in the array's own shape."""
        if len(self.shape) == 2 and self.axes == (1,):
            return rows
        if not self.shape:
            return rows.reshape(())
        order = self._order()
        moved = rows.reshape([self.shape[axis] for axis in order])
        return moved.transpose(np.argsort(order))
