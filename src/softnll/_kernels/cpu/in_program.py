"""Kernels as XLA's compiled programs call them: arrays in a program's types, all rows in one thread.

Each returns how many rows it leaves. If there is one, the caller computes all rows in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu import by_row, by_tile

Array = Any  # inside Numba, whose types are its own


@register_jitable
def _as_doubles(values: Any) -> Any:
    """Return numbers as float64; an empty array for None."""
    if values is None:
        return np.empty(0)
    found = np.empty(values.shape[0])
    for k in range(values.shape[0]):
        found[k] = values[k]
    return found


def _losses(kernel: Any) -> Callable[..., int]:
    def losses(x: Array, y: Array, w: Any, s: Any, D: Any, loss: Any, grad: Any) -> int:
        """Write losses, if asked for, and gradients over D, if asked for."""
        n = x.shape[0]
        found, ms, rs, left = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
        ys = np.empty(n, np.int64)
        for i in range(n):
            ys[i] = y[i]
        ws, ss, d = _as_doubles(w), _as_doubles(s), 1.0
        if D is not None:
            d = np.float64(D)
        n_left = kernel(x, None, None, ys, ws, ss, None, 0.0, 0.0, d, found, ms, rs, grad, False, x[0], 0, n, left)
        if loss is not None:
            for i in range(n):
                loss[i] = found[i]
        return n_left

    return losses


def _normalise(kernel: Any, prob: bool | None) -> Callable[..., int]:
    def normalise(x: Array, out: Array) -> int:
        """Write softmax or, if ``prob`` is None, log_softmax."""
        n = x.shape[0]
        return kernel(x, None, None, prob, out, False, x[0], 0, n, np.empty(n, np.int64))

    return normalise


def _logsumexp(kernel: Any) -> Callable[..., int]:
    def logsumexp(x: Array, out: Array) -> int:
        """Write logsumexp."""
        n = x.shape[0]
        found = np.empty(n)
        n_left = kernel(x, None, found, x[0], 0, n, np.empty(n, np.int64))
        for i in range(n):
            out[i, 0] = found[i]
        return n_left

    return logsumexp


losses_by_tile, losses_by_row = (_losses(register_jitable(each.losses)) for each in (by_tile, by_row))
softmax_by_tile, softmax_by_row = (_normalise(register_jitable(each.normalise), True) for each in (by_tile, by_row))
log_softmax_by_tile, log_softmax_by_row = (
    _normalise(register_jitable(each.normalise), None) for each in (by_tile, by_row)
)
logsumexp_by_tile, logsumexp_by_row = (_logsumexp(register_jitable(each.logsumexp)) for each in (by_tile, by_row))
