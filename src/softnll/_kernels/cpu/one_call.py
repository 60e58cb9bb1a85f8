"""Whole functions of plain rows, which Python calls once with addresses: of small batches, calls take most time.

Each returns 0 if it has computed all. Else the caller computes all in another way, which also says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu import by_row, by_tile, product_by_row, soft_targets
from softnll._kernels.cpu.parameters import REDUCTIONS
from softnll._kernels.cpu.total import total

Array = Any  # inside Numba, whose types are its own

_NONE, _MEAN = REDUCTIONS["none"], REDUCTIONS["mean"]
_FAR = 1e60  # weights beyond it, or below its inverse, are scaled before they are added up
_total, _products = register_jitable(total), register_jitable(product_by_row.products)


@register_jitable
def _row_weights(y: Array, w: Array, upstream: Array, n_classes: int, ignored: int, s: Array) -> tuple[int, float]:
    """Write 0 for ignored rows and 1 or the upstream gradient for others.

    Return how many have a weight that may differ from 1, and the sum of class weights. The number is negative if a
    target is out of range, a class weight is negative or of extreme size, or an upstream gradient is not finite.
    """
    for k in range(w.shape[0]):
        if w[k] != 0.0 and not 1 / _FAR < w[k] < _FAR:
            return -1, 0.0
    n_weighted, D = upstream.shape[0], 0.0
    for i in range(s.shape[0]):
        s[i] = 1.0 if upstream.shape[0] == 0 else upstream[i]
        if not math.isfinite(s[i]):
            return -1, 0.0
        if y.shape[0] == 0:  # soft targets
            D += 1.0
        elif y[i] == ignored:
            s[i] = 0.0
            n_weighted += 1
        elif not 0 <= y[i] < n_classes:
            return -1, 0.0
        else:
            D += w[y[i]] if w.shape[0] > 0 else 1.0
    return n_weighted, D


@register_jitable
def _itself(w: Array) -> Array:
    return w


@register_jitable
def _nothing(w: Array) -> None:
    return None


def _loss(kernel: Any, weights: Any) -> Callable[..., int]:
    """Return the loss by a kernel, which takes the class weights that ``weights`` returns."""

    def loss(
        x: Array,
        q: Any,
        y: Array,
        w: Array,
        upstream: Array,
        ignored: int,
        reduction: int,
        smoothing: float,
        zeta: float,
        value: Array,
        grad: Any,
    ) -> int:
        """Write the loss, or one a row, and with ``grad`` its gradient times that upstream.

        Without entries, w and upstream gradients are 1. Soft targets q take the place of y.
        """
        n = x.shape[0]
        losses, s, left, ws = np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(w.shape[0])
        for k in range(w.shape[0]):
            ws[k] = w[k]
        n_weighted, D = _row_weights(y, ws, upstream, x.shape[1], ignored, s)
        if n_weighted < 0 or (reduction == _MEAN and not D > 0.0):
            return 1
        if n_weighted == 0:
            s = s[:0]
        if reduction != _MEAN:
            D = 1.0
        each = losses, losses, losses, grad, False, value, 0, n, left
        n_left = kernel(x, None, q, y, weights(ws), s, None, smoothing, zeta, D, *each)
        if n_left > 0:
            return n_left
        if reduction == _NONE:
            for i in range(n):
                value[i] = losses[i]
            return 0
        value[0] = _total(losses) / D
        return 0 if math.isfinite(value[0]) else 1

    return loss


def _normalise(kernel: Any, prob: bool | None) -> Callable[..., int]:
    def normalise(x: Array, out: Array, work: Array) -> int:
        """Write softmax or, if ``prob`` is None, log_softmax."""
        n = x.shape[0]
        return kernel(x, None, None, prob, out, False, work, 0, n, np.empty(n, np.int64))

    return normalise


def product(saved: Array, logits: Any, log: Any, upstream: Array, out: Array, work: Array) -> int:
    """Write products of softmax's or, with ``log``, of log_softmax's Jacobians; ``logits`` says what is saved."""
    n = saved.shape[0]
    return _products(saved, logits, log, upstream, out, False, work, 0, n, np.empty(n, np.int64))


loss_by_tile, loss_by_row = (_loss(register_jitable(each.losses), _itself) for each in (by_tile, by_row))
spread_loss = _loss(register_jitable(soft_targets.losses), _nothing)
softmax_by_tile, softmax_by_row = (_normalise(register_jitable(each.normalise), True) for each in (by_tile, by_row))
log_softmax_by_tile, log_softmax_by_row = (
    _normalise(register_jitable(each.normalise), None) for each in (by_tile, by_row)
)
