"""Placeholders for NumPy's objects while a pickle is read: none of them can be called."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GLOBALS", "MAX_BYTES", "ArrayStandIn", "RefusedError", "build", "finished", "reduce"]

MAX_BYTES = 40 << 20  # an official batch has 31.0 MB


class RefusedError(Exception):
    """A pickle that is refused; file and position are added where the error is caught."""


class _Global(enum.Enum):
    RECONSTRUCT = enum.auto()
    NDARRAY = enum.auto()
    DTYPE = enum.auto()


#: The only globals that a pickle may name: NumPy's of 2009, and the first one's module since NumPy 2.
GLOBALS = {
    "numpy.core.multiarray _reconstruct": _Global.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Global.RECONSTRUCT,
    "numpy ndarray": _Global.NDARRAY,
    "numpy dtype": _Global.DTYPE,
}


@dataclass(eq=False)
class _DtypeStandIn:
    """Placeholder for dtype("u1"), the only one allowed; ``checked`` once its state was read."""

    checked: bool = False


@dataclass(eq=False)
class ArrayStandIn:
    """Placeholder for an ndarray until its state is read."""

    value: NDArray[np.uint8] | None = None


def reduce(function: object, arguments: object) -> object:
    """Return the placeholder for the result of one of the two calls in an array's pickle."""
    if function is _Global.RECONSTRUCT and arguments == (_Global.NDARRAY, (0,), b"b"):
        return ArrayStandIn()
    if function is _Global.DTYPE and arguments in ((b"u1", 0, 1), (b"|u1", 0, 1)):
        return _DtypeStandIn()
    raise RefusedError("calls something else than an array of bytes (dtype u1, the only one allowed)")


def build(target: object, state: object) -> None:
    """Set the state of a dtype or an array; sizes are compared before memory is allocated."""
    match target, state:
        case _DtypeStandIn(), (3, b"|", None, None, None, -1, -1, 0):
            target.checked = True
        case ArrayStandIn(value=None), (
            1,
            tuple() as shape,
            _DtypeStandIn(checked=True),
            bool() as fortran,
            bytes() as raw,
        ):
            sizes = [size for size in shape if type(size) is int and 0 <= size <= MAX_BYTES]
            if not len(sizes) == len(shape) <= 4 or math.prod(sizes) != len(raw):
                raise RefusedError(f"has an array whose shape does not fit its {len(raw)} bytes")
            target.value = np.frombuffer(raw, dtype=np.uint8).reshape(sizes, order="F" if fortran else "C")
        case _:
            raise RefusedError("sets the state of something else than one array of bytes")


def finished(array: ArrayStandIn) -> NDArray[np.uint8]:
    """Return the array of a placeholder."""
    if array.value is None:
        raise RefusedError("has an array without its contents")
    return array.value
