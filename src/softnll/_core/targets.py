"""Checks of targets and weights: what passes here, the kernels may trust."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.layout import Layout, as_real, is_floating, native

__all__ = ["TargetIndexError", "as_targets", "as_weights", "blocks", "check_soft", "first_bad", "hard_rows"]

_INT64, _UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
_BLOCK = 1 << 15  # entries looked at together when soft targets are checked: 256 KiB of float64


class TargetIndexError(ValueError, IndexError):
    """A hard target that is no class: a value that is not allowed, and an index out of range, as torch has it."""


def blocks(shape: tuple[int, ...], entries: int = _BLOCK) -> list[slice]:
    """Return slices of the rows of an ``(N, C)`` array that hold about so many entries each."""
    n_rows, n_columns = shape
    step = max(1, entries // max(1, n_columns))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def first_bad(bad: NDArray[np.bool_], shape: tuple[int, ...]) -> str:
    """Return the position of the first row marked, as the caller indexes it."""
    where = np.unravel_index(int(np.argmax(bad)), shape)
    return "[" + ", ".join(str(int(i)) for i in where) + "]" if shape else "[()]"


def as_weights(value: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return weights as float64: finite, not negative, of exactly this shape."""
    array = as_real(value, name)
    if array.dtype != np.float64:
        with np.errstate(invalid="ignore"):  # a signalling NaN; the message below is clearer
            array = array.astype(np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; allowed: {shape}")
    # The positions of the extremes take 1 µs, for few weights, where comparing all takes 6; a NaN counts as both.
    if array.size and not (array.item(array.argmin()) >= 0 and array.item(array.argmax()) < math.inf):
        bad = ~((array >= 0) & (array < np.inf))
        where = first_bad(bad, shape)
        raise ValueError(f"{name}{where} is {array.ravel()[np.argmax(bad)]}; allowed: finite numbers >= 0")
    return array


def as_targets(targets: Any, layout: Layout) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Tell hard targets from soft ones by type and shape: return ``(y (N,), None)`` or ``(None, q (N, C))``."""
    if type(targets) is np.ndarray:
        if targets.dtype == _INT64 and targets.ndim == 1 and targets.shape == layout.row_shape:
            return targets, None  # by far the most frequent
        array = targets
    else:
        array = _as_array(targets)
    if array.size == 0 and array.shape == layout.row_shape and array.dtype == np.float64:
        array = array.astype(np.int64)  # an empty list has no type of its own
    hard = array.dtype.kind in "iu"
    if hard and array.shape == layout.row_shape:
        array = native(array)
        return (array if array.ndim == 1 else array.reshape(-1)), None
    soft = is_floating(array.dtype)
    if not hard and not soft:
        raise TypeError(f"targets has dtype {array.dtype}; allowed: integers (hard) or {_SOFT} (soft)")
    if soft and array.shape == layout.shape and layout.shape:
        return None, layout.rows(native(array))
    if soft and array.shape == layout.row_shape:
        raise TypeError(f"hard targets have dtype {array.dtype}; allowed: integers")
    raise ValueError(
        f"targets has shape {array.shape} and dtype {array.dtype}, logits have shape {layout.shape} with the classes "
        f"on axis {layout.axes[0]}; allowed: integers of shape {layout.row_shape} or floats of shape {layout.shape}"
    )


_SOFT = "float16, bfloat16, float32, float64"


def _as_array(targets: Any) -> NDArray[Any]:
    """Return targets of any kind, but masked ones, as an array."""
    if isinstance(targets, np.ma.MaskedArray):
        raise TypeError(
            "targets is a masked array; pass its data, and leave rows out with ignore_index or sample_weight"
        )
    return np.asarray(targets)


def hard_rows(
    y: NDArray[Any], layout: Layout, ignore_index: int, where: NDArray[np.bool_] | None, check: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Return hard targets as int64 and which of them are ignored, None for none; check that the others are allowed."""
    C = layout.n_classes
    if y.dtype not in (_INT64, _UINT64):
        y = y.astype(_INT64)
    inside = _all_inside(y, C)
    ignored = None
    if not inside or 0 <= ignore_index < C:  # else there is nothing to ignore
        ignored = y == ignore_index
        ignored = ignored if ignored.any() else None
    if check and not inside:
        _check_range(y, y.view(_UINT64) >= C, layout, ignored, ignore_index)
    if check and where is not None:
        _check_allowed(y, layout, ignored, where)
    # Of the unsigned: what is out of range remains so, and comes within int64.
    return (y if y.dtype == _INT64 else np.minimum(y, np.uint64(C)).view(_INT64)), ignored


def _all_inside(y: NDArray[Any], C: int) -> bool:
    """Whether all targets, int64 or uint64, are in [0, C)."""
    if y.size == 1:
        return bool(0 <= y.item() < C)
    bits = y.view(_UINT64)  # what is negative is among the largest here: one comparison sees both ends
    # argmax, as fast as max for many targets, takes 0.2 µs for a few where max takes 1.3.
    return y.size == 0 or bool(bits.item(bits.argmax()) < C)


def _check_range(
    y: NDArray[Any],
    outside: NDArray[np.bool_],
    layout: Layout,
    ignored: NDArray[np.bool_] | None,
    ignore_index: int,
) -> None:
    """Raise if a target that is not ignored is outside [0, C)."""
    bad = outside if ignored is None else outside & ~ignored
    if bad.any():
        raise TargetIndexError(
            f"targets{first_bad(bad, layout.row_shape)} is {y[np.argmax(bad)]}; "
            f"allowed: 0 <= target < {layout.n_classes} classes, or ignore_index={ignore_index}"
        )


def _check_allowed(
    y: NDArray[Any], layout: Layout, ignored: NDArray[np.bool_] | None, where: NDArray[np.bool_]
) -> None:
    """Raise if a target that is not ignored is a class that where= masks out; all are within [0, C)."""
    chosen = (y if ignored is None else np.where(ignored, 0, y)).astype(np.int64, copy=False)
    bad = ~np.take_along_axis(where, chosen[:, None], axis=1)[:, 0]
    if ignored is not None:
        bad &= ~ignored
    if bad.any():
        at = first_bad(bad, layout.row_shape)
        raise ValueError(f"targets{at} is {y[np.argmax(bad)]}, a class that where= masks out there")


def check_soft(
    q: NDArray[Any], layout: Layout, weight: NDArray[np.float64] | None, where: NDArray[np.bool_] | None
) -> None:
    """Raise unless each row of soft targets that takes part is a distribution over the allowed classes."""
    eps = float(np.finfo(q.dtype).eps) if q.dtype.kind == "f" else 2.0**-7  # bfloat16, whose type NumPy does not know
    tolerance = max(1e-6, 4 * eps)
    for rows in blocks(q.shape):
        with np.errstate(all="ignore"):  # infinite and signalling values are told of below
            block = q[rows].astype(np.float64, copy=False)
            total = block.sum(axis=1)
        signs = ~(block.min(axis=1) >= 0)
        masses = ~(np.abs(total - 1) <= tolerance)
        masked = np.zeros_like(signs) if where is None else ((block != 0) & ~where[rows]).any(axis=1)
        bad = signs | masses | masked
        if weight is not None:
            bad &= weight[rows] != 0  # a row that takes no part may hold anything
        if not bad.any():
            continue
        i = int(np.argmax(bad))
        every = np.zeros(q.shape[0], bool)
        every[rows.start + i] = True
        at = f"targets{first_bad(every, layout.row_shape)}"
        if signs[i]:
            raise ValueError(f"{at} holds {block[i].min()}; allowed: soft targets >= 0 (check=False lets them pass)")
        if masses[i]:
            raise ValueError(
                f"{at} sums to {total[i]}; allowed: 1 within {tolerance:.2g} (check=False lets other masses pass)"
            )
        raise ValueError(f"{at} puts mass on a class that where= masks out there")
