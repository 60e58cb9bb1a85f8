"""The backend of NumPy arrays: the selected kernels and SciPy's BLAS."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._core.targets import rows_without_part
from softnll._kernels.cpu.memory import scratch_bytes
from softnll._kernels.select import kernels
from softnll._numpy import blas
from softnll._numpy.output import reduce


def _selected(name: str) -> Callable[..., Any]:
    """Return a method that calls the selected kernel of this name; upstream gradients are in the row weights."""

    def call(backend: NumpyBackend, *arguments: Any, upstream: None = None) -> Any:  # noqa: ARG001
        return getattr(backend.kernels(), name)(*arguments)

    return call


class NumpyBackend:
    """``_core.backend.Backend`` on NumPy arrays. Half types are multiplied in float32."""

    xp = np
    multiple = 1
    mixed_products = False
    softmax = _selected("softmax")
    log_softmax = _selected("log_softmax")
    logsumexp = _selected("logsumexp")
    losses = _selected("losses")
    forward = _selected("forward")
    forward_backward = _selected("forward_backward")
    backward = _selected("backward")
    pick = _selected("pick")
    multiply = staticmethod(blas.multiply)
    cast = staticmethod(np.ascontiguousarray)
    nonzero = staticmethod(np.flatnonzero)
    reduce: Any = staticmethod(reduce)
    scratch_bytes = staticmethod(scratch_bytes)

    def __init__(self) -> None:
        self.kernels = kernels  # the function that selects them, when they are first used

    def wide(self, _: Any) -> np.dtype[Any]:
        """Return float64."""
        return np.dtype(np.float64)

    def with_upstream(self, problem: Problem, upstream: Any) -> tuple[Problem, None]:
        """Return the Problem with an upstream gradient, a float or an array with one a row, in its row weights."""
        return (problem if upstream is None else problem.with_upstream(upstream)), None

    def rows_without_part(self, problem: Problem) -> NDArray[np.bool_] | None:
        """Return one bool a row, True for rows that contribute exactly 0; None if there are none."""
        smoothing = problem.objective.label_smoothing  # the weight of an ignored row is 0 already
        mask: Any = rows_without_part(np, problem.y, problem.w, problem.s, None, smoothing)
        return mask if mask is not None and mask.any() else None

    def product_types(self, *arrays: Any) -> tuple[np.dtype[Any], np.dtype[Any]]:
        """Return ``(dtype, dtype)``: float64 if any of the arrays is float64 or has integers, else float32."""
        wide = any(each is not None and (each.dtype.kind in "iu" or each.dtype == np.float64) for each in arrays)
        dtype = np.dtype(np.float64 if wide else np.float32)
        return dtype, dtype

    def affine(self, x: Any, weight: Any, bias: Any, out: Any) -> None:
        """Write ``x @ weight.T + bias``."""
        self.multiply(x, weight.T, out)
        if bias is not None:
            out += bias

    def column_sums(self, matrix: Any) -> NDArray[np.float64]:
        """Return the sums over the rows in float64."""
        return matrix.sum(0, dtype=np.float64)  # type: ignore[no-any-return]

    def empty(self, shape: Any, dtype: Any, like: Any) -> Any:
        """Return an uninitialised array, or Planes like others."""
        return like.empty_like() if isinstance(like, Planes) else np.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: Any, like: Any) -> NDArray[Any]:  # noqa: ARG002
        """Return zeros."""
        return np.zeros(shape, dtype)

    def feature_rows(self, features: Any, rows: Any, dtype: Any) -> NDArray[Any]:
        """Return some rows of the features: a view if they are contiguous and of the type, else a copy."""
        lead, H = features.shape[:-1], features.shape[-1]
        if isinstance(rows, slice) and features.dtype == dtype and features.flags.c_contiguous:
            view: NDArray[Any] = features.reshape(math.prod(lead), H)[rows]
            return view
        indices = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        gathered = features[np.unravel_index(indices, lead) if lead else ...]
        chosen: NDArray[Any] = gathered.reshape(len(indices), H).astype(dtype, copy=False)
        return chosen

    def scales(self, _: Any) -> bool:
        """Return False: the logits' gradient is float32 or wider here."""
        return False

    def gradient_scale(self, *_: Any) -> None:
        """Return None, which means 1."""


NUMPY = NumpyBackend()
