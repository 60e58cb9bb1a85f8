"""Types of the kernels' parameters: what a kernel is compiled for, and found by in the cache."""

from __future__ import annotations

from typing import NamedTuple


class Type(NamedTuple):
    """The type of a parameter or of a result. Arrays may have any strides."""

    scalar: str  # Numba's name of the type of an entry, or of the value itself
    ndim: int = 0
    written: bool = False


BOOLEAN, FLOAT64, INT64, INTP = Type("boolean"), Type("float64"), Type("int64"), Type("intp")
NONE = Type("none")  # of an argument that is None: the kernel is compiled without it
VOID = Type("void")


def array(scalar: str, ndim: int) -> Type:
    """Return the type of an array that is read."""
    return Type(scalar, ndim)


def output(scalar: str, ndim: int) -> Type:
    """Return the type of an array that is written."""
    return Type(scalar, ndim, written=True)
