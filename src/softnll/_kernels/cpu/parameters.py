"""Types of the kernels' parameters, by their names, for each type of logits."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll._kernels.cpu.signature import BOOLEAN, FLOAT64, INTP, NONE, Type, array, output

DType = np.dtype[Any]

CAPPED_BLOCK = 1 << 15  # logits of a block whose capped values and slopes are in scratch
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}  # as functions of one call take them

_ELEMENTS = {"float32": "float32", "float64": "float64", "bfloat16": "uint16", "float16": "int16"}
_INTS, _REALS = array("int64", 1), array("float64", 1)
_RESULT = output("float64", 1)
_SPAN = {"first": INTP, "last": INTP, "left": output("int64", 1)}


class Entries(NamedTuple):
    """How kernels take arrays of one type: logits, soft targets, gradients."""

    element: str  # the type of an entry
    bits: type[np.generic] | None  # the type as which an array is passed; None: its own. Half types go in as their bits
    computed: str  # the type of what is computed
    work: NDArray[Any]  # an empty array of that type: the argument that gives it to a kernel

    def view(self, matrix: Any) -> Any:
        """Return an array, or None, as kernels take it."""
        return matrix if self.bits is None or matrix is None else matrix.view(self.bits)


@cache
def entries_of(dtype: DType) -> Entries:
    """Return how kernels take arrays of this type."""
    bits = {"bfloat16": np.uint16, "float16": np.int16}.get(dtype.name)
    element, computed = element_types(dtype.name)
    return Entries(element, bits, computed, np.empty(0, computed))


def element_types(name: str) -> tuple[str, str]:
    """Return the types of an entry and of what is computed, by the name of the arrays' type."""
    return _ELEMENTS[name], "float64" if name == "float64" else "float32"


def _optional(kind: Type, there: bool) -> Type:
    """Return the type of a parameter that may be None: kernels are compiled for just those arrays that are there."""
    return kind if there else NONE


def normalise_types(dtype: DType, masked: bool, tempered: bool, log: bool) -> dict[str, Type]:
    """Return the types of ``normalise``: log-probabilities or, with ``log`` False, probabilities."""
    entries = entries_of(dtype)
    return {
        "x": array(entries.element, 2),
        "where": _optional(array("boolean", 2), masked),
        "taus": _optional(_REALS, tempered),
        "prob": _optional(BOOLEAN, not log),
        "out": output(entries.element, 2),
        "streamed": BOOLEAN,
        "work": output(entries.computed, 1),
        **_SPAN,
    }


def logsumexp_types(dtype: DType, masked: bool) -> dict[str, Type]:
    """Return the types of ``logsumexp``."""
    entries = entries_of(dtype)
    return {
        "x": array(entries.element, 2),
        "where": _optional(array("boolean", 2), masked),
        "lse": _RESULT,
        "work": output(entries.computed, 1),
        **_SPAN,
    }


def loss_types(
    dtype: DType, *, masked: bool, tempered: bool, q: DType | None, w: Type, written: bool, reads: bool
) -> dict[str, Type]:
    """Return the types of ``losses`` or, with ``reads``, of the gradient alone, from m and r and without a loss."""
    entries = entries_of(dtype)
    return {
        "x": array(entries.element, 2),
        "where": _optional(array("boolean", 2), masked),
        "q": NONE if q is None else array(entries_of(q).element, 2),
        "y": _INTS,
        "w": w,
        "s": _REALS,
        "taus": _optional(_REALS, tempered),
        "smoothing": FLOAT64,
        "zeta": FLOAT64,
        "divisor": FLOAT64,
        "loss": _optional(_RESULT, not reads),
        "ms": _REALS if reads else _RESULT,
        "rs": _REALS if reads else _RESULT,
        "grad": _optional(output(entries.element, 2), written),
        "streamed": BOOLEAN,
        "work": output(entries.computed, 1),
        **_SPAN,
    }
