"""Checks of targets and weights, so that kernels need none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.layout import Layout, as_real, is_floating, native
from softnll._core.planes import Planes, rows_as
from softnll._core.target_errors import float_error, shape_error
from softnll._core.words import counted

_INT64, _UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
_FEW = 64  # classes up to which NumPy adds up rows faster class by class
_BLOCK = 1 << 15  # entries of soft targets that are checked together: 256 KiB of float64


class TargetIndexError(ValueError, IndexError):
    """A hard target out of range: a ValueError, and an IndexError as in torch."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """Soft targets ``(N, C)`` with K nonzero classes a row; a Problem's ``take`` computes the dense rows it needs.

    Attributes
    ----------
    indices, probabilities
        ``(N, K)`` classes and their probabilities; those of a class that occurs twice in a row are added.
    n_classes
        C, the number of classes.
    densify
        The function of ``(n, K)`` indices, probabilities and C that returns dense ``(n, C)`` rows.
    """

    indices: Any
    probabilities: Any
    n_classes: int
    densify: Callable[[Any, Any, int], Any]

    def take(self, rows: Any) -> Any:
        """Return some rows as dense ``(n, C)`` soft targets."""
        return self.densify(self.indices[rows], self.probabilities[rows], self.n_classes)

    @property
    def row_bytes(self) -> int:
        """Bytes of a dense row in a chunk; the previous chunk is still in memory while the next is computed."""
        return 2 * self.n_classes * int(self.probabilities.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of the probabilities."""
        return int(self.probabilities.nbytes)


def picked(w: Any, y: Any) -> Any:
    """Return ``w[y]``; torch reads the value of a single index, which a graph does not have."""
    return w[y.reshape(-1)].reshape(y.shape)


def _class_weights(xp: Any, y: Any, w: Any, inside: bool = False) -> Any:
    """Return the class weight of each row's hard target; 1 for a target out of range."""
    if inside:
        return picked(w, y)
    valid = (y >= 0) & (y < w.shape[0])
    return xp.where(valid, picked(w, xp.where(valid, y, 0)), 1.0)


def counted_weights(xp: Any, y: Any, w: Any, s: Any, ignored: Any, *, inside: bool = False) -> Any:
    """Return the weight of each row in the mean's denominator; None if all are 1.

    ``s·w_y`` for hard targets, ``s`` for soft ones, 0 where a row is ignored. ``xp`` is NumPy or torch, the library of
    the arrays; y, w, s and ignored may be None. ``inside`` says that all targets are known to be in range.
    """
    weight = s
    if y is not None and w is not None:
        of_class = _class_weights(xp, y, w, inside)
        weight = of_class if s is None else s * of_class
    if ignored is None:
        return weight
    return xp.where(ignored, 0.0, 1.0 if weight is None else weight)


def rows_without_part(xp: Any, y: Any, w: Any, s: Any, ignored: Any, label_smoothing: float) -> Any:
    """Return one bool a row, True for rows that contribute exactly 0 whatever their logits; None if there can be none.

    They are ignored rows, rows of weight 0, and rows whose hard target has class weight 0 and is not smoothed. The
    arrays are as in ``counted_weights``.
    """
    without_part = ignored
    if s is not None:
        without_part = s == 0 if without_part is None else without_part | (s == 0)
    if y is not None and w is not None and label_smoothing == 0:
        massless = _class_weights(xp, y, w) == 0
        without_part = massless if without_part is None else without_part | massless
    return without_part


def blocks(shape: tuple[int, ...], entries: int = _BLOCK) -> list[slice]:
    """Return slices of the rows of an ``(N, C)`` array, with about ``entries`` entries each."""
    n_rows, n_columns = shape
    step = max(1, entries // max(1, n_columns))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def _blocks_of(q: Any) -> list[slice]:
    """Return slices of rows, each within one plane if they are Planes: then a slice of them is a view."""
    if not isinstance(q, Planes):
        return blocks(q.shape)
    outer, n_columns, inner = q.array.shape
    parts = blocks((inner, n_columns))
    return [slice(first + part.start, first + part.stop) for first in range(0, outer * inner, inner) for part in parts]


def first_bad(bad: NDArray[np.bool_], shape: tuple[int, ...]) -> str:
    """Return the index of the first True as text, such as ``[1, 3]``, in an array of the caller's shape."""
    where = np.unravel_index(int(np.argmax(bad)), shape)
    return "[" + ", ".join(str(int(i)) for i in where) + "]" if shape else "[()]"


def as_weights(
    value: Any,
    name: str,
    shape: tuple[int, ...],
    ignored: NDArray[np.bool_] | None = None,
    *,
    signed: bool = False,
) -> NDArray[np.float64]:
    """Return weights as float64; raise for another shape and, unless ``signed``, for a negative or non-finite one.

    ``ignored`` is None or has one bool a weight, True for those that may be anything.
    """
    array = as_real(value, name)
    if array.dtype != np.float64:
        with np.errstate(invalid="ignore"):  # of a signalling NaN, for which the error below is clearer
            array = array.astype(np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; allowed: {shape}")
    # For few weights, argmin and argmax take 1 µs and a comparison of all takes 6. Both return the index of a NaN.
    if not signed and array.size and not (array.item(array.argmin()) >= 0 and array.item(array.argmax()) < math.inf):
        bad = ~((array >= 0) & (array < np.inf))
        if ignored is not None:
            bad &= ~ignored.reshape(shape)
        if bad.any():
            where = first_bad(bad, shape)
            raise ValueError(f"{name}{where} is {array.ravel()[np.argmax(bad)]}; allowed: finite numbers >= 0")
    return array


def as_targets(targets: Any, layout: Layout, x: Any) -> tuple[NDArray[Any] | None, Any]:
    """Return ``(y, None)``, hard targets ``(N,)``, or ``(None, q)``, soft ones in the form of x; the type decides."""
    if type(targets) is np.ndarray:
        if targets.dtype == _INT64 and targets.ndim == 1 and targets.shape == layout.row_shape:
            return targets, None  # the most frequent case
        array = targets
    else:
        array = _as_array(targets)
    if array.size == 0 and array.shape == layout.row_shape and array.dtype == np.float64:
        array = array.astype(np.int64)  # an empty list becomes float64
    hard = array.dtype.kind in "iu"
    if hard and array.shape == layout.row_shape:
        array = native(array)
        return (array if array.ndim == 1 else array.reshape(-1)), None
    soft = is_floating(array.dtype)
    if not hard and not soft:
        raise TypeError(f"targets has dtype {array.dtype}; allowed: integers (hard) or {_SOFT} (soft)")
    if soft and array.shape == layout.shape and layout.shape:
        return None, rows_as(x, native(array), layout)
    if soft and array.shape == layout.row_shape:
        raise float_error(array.dtype)
    raise shape_error(array.shape, array.dtype, layout, hard=hard)


_SOFT = "float16, bfloat16, float32, float64"


def _as_array(targets: Any) -> NDArray[Any]:
    """Return targets as an array; raise for a masked array."""
    if isinstance(targets, np.ma.MaskedArray):
        raise TypeError(
            "targets is a masked array; pass its data, and leave rows out with ignore_index or sample_weight"
        )
    return np.asarray(targets)


def hard_rows(
    y: NDArray[Any], layout: Layout, ignore_index: int
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, bool]:
    """Return hard targets as int64 or uint64, the mask of ignored ones or None, and whether all are in [0, C)."""
    C = layout.n_classes
    if y.dtype not in (_INT64, _UINT64):
        y = y.astype(_INT64)
    inside = all_inside(y, C)
    ignored = None
    if not inside or 0 <= ignore_index < C:  # else no row is ignored
        ignored = y == ignore_index
        ignored = ignored if ignored.any() else None
    return y, ignored, inside


def as_int64(y: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Return int64 or uint64 targets as int64; uint64 ones are clipped to C, which is out of range as well."""
    return y if y.dtype == _INT64 else np.minimum(y, np.uint64(n_classes)).view(_INT64)


def all_inside(y: NDArray[Any], C: int) -> bool:
    """Return whether all targets, int64 or uint64, are in [0, C)."""
    if y.size == 1:
        return bool(0 <= y.item() < C)
    bits = y.view(_UINT64)  # negative numbers become the largest: one comparison checks both bounds
    # For few targets argmax takes 0.2 µs and max 1.3; for many they are equally fast.
    return y.size == 0 or bool(bits.item(bits.argmax()) < C)


def check_hard(
    y: NDArray[Any],
    layout: Layout,
    ignore_index: int,
    s: NDArray[np.float64] | None,
    where: NDArray[np.bool_] | None,
    inside: bool,
) -> None:
    """Raise if the target of a row that takes part is outside [0, C), or masked; rows of weight 0 take no part."""
    C = layout.n_classes
    outside = np.zeros(y.shape, bool) if inside else y.view(_UINT64) >= C
    bad = outside if s is None else outside & (s != 0)
    if not inside and bad.any():
        raise TargetIndexError(
            f"targets{first_bad(bad, layout.row_shape)} is {y[np.argmax(bad)]}; "
            f"allowed: 0 <= target < {counted(C, 'class')}, or ignore_index={ignore_index}"
        )
    if where is None:
        return
    chosen = np.where(outside, 0, y).astype(np.int64, copy=False)
    bad = ~np.take_along_axis(where, chosen[:, None], axis=1)[:, 0] & ~outside
    if s is not None:
        bad &= s != 0
    if bad.any():
        at = first_bad(bad, layout.row_shape)
        raise ValueError(f"targets{at} is {y[np.argmax(bad)]}, a class that where= masks out there")


def mass_tolerance(dtype_name: str, C: int) -> float:
    """Return how far from 1 the sum of C probabilities of this type may be.

    The sum of a softmax that was computed in float32 is off by 3e-5 at 256 000 classes in PyTorch, by 4e-4 where its
    sum is added up one by one, whatever its type is now. float16 rounds probabilities below 6e-5 to multiples of 6e-8.
    """
    half = {"float16": 2.0**-8 + C * 2.0**-25, "bfloat16": 2.0**-5}.get(dtype_name, 0.0)  # 4 units, and the subnormals
    return half + max(1e-6, 2.0**-22 * math.sqrt(C), 2.0**-28 * C)


def check_soft(
    q: Any,
    layout: Layout,
    weight: NDArray[np.float64] | None,
    where: NDArray[np.bool_] | None,
    certain: Callable[[Any, float], bool] | None = None,
) -> None:
    """Raise unless each row of soft targets that takes part is a distribution over the allowed classes.

    ``certain(q, tolerance)`` returns whether all rows certainly are distributions: then no row is looked at here.
    """
    tolerance = mass_tolerance(q.dtype.name, layout.n_classes)
    if certain is not None and where is None and certain(q, tolerance):
        return
    few = layout.n_classes <= _FEW
    for rows in _blocks_of(q):
        with np.errstate(all="ignore"):  # infinities and NaN raise below
            block = q[rows].astype(np.float64, copy=False)
            columns = np.ascontiguousarray(block.T) if few else block.T  # of few classes, sums of many rows at a time
            total = columns.sum(axis=0)
        signs = ~(columns.min(axis=0) >= 0)
        masses = ~(np.abs(total - 1) <= tolerance)
        masked = np.zeros_like(signs) if where is None else ((block != 0) & ~where[rows]).any(axis=1)
        bad = signs | masses | masked
        if weight is not None:
            bad &= weight[rows] != 0  # a row that takes no part may have any targets
        if not bad.any():
            continue
        i = int(np.argmax(bad))
        every = np.zeros(q.shape[0], bool)
        every[rows.start + i] = True
        at = f"targets{first_bad(every, layout.row_shape)}"
        if signs[i]:
            raise ValueError(f"{at} holds {block[i].min()}; allowed: soft targets >= 0 unless check is False")
        if masses[i]:
            raise ValueError(f"{at} sums to {total[i]}; allowed: 1 within {tolerance:.2g} unless check is False")
        raise ValueError(f"{at} puts mass on a class that where= masks out there")
