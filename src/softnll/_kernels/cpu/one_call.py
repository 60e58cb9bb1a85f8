"""Whole functions of plain rows and planes, which Python calls once with addresses: calls take most of a small batch.

Each returns 0 or less if it has computed all, minus the number of rows without part. Else the caller computes all in
another way, which also says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu import (
    by_plane,
    by_row,
    by_tile,
    losses_by_plane,
    product_by_plane,
    product_by_row,
    soft_targets,
    spread_by_plane,
)
from softnll._kernels.cpu.parameters import CAPPED_BLOCK, REDUCTIONS
from softnll._kernels.cpu.row_memory import address_of, among, nearest
from softnll._kernels.cpu.simd import hold
from softnll._kernels.cpu.softcap import cap_rows, slopes_for, uncap_rows
from softnll._kernels.cpu.team import in_team
from softnll._kernels.cpu.total import total

Array = Any  # inside Numba, whose types are its own

_NONE, _MEAN = REDUCTIONS["none"], REDUCTIONS["mean"]
_FAR = 1e60  # weights beyond it, or below its inverse, are scaled before they are added up
_total = register_jitable(total)
_hard_planes, _spread_planes = register_jitable(losses_by_plane.losses), register_jitable(spread_by_plane.losses)
_cap, _uncap = register_jitable(cap_rows), register_jitable(uncap_rows)


@register_jitable
def _row_weights(y: Array, w: Array, upstream: Array, n_classes: int, ignored: int, s: Array) -> tuple[int, float]:
    """Write 0 for rows that are ignored or of class weight 0, and 1 or the upstream gradient for others.

    Return how many rows take no part, and the sum of class weights. The number is negative if a target is out of
    range, a class weight is negative, or one or an upstream gradient is of extreme size. If it is 0 and there is no
    upstream gradient, nothing may have been written.
    """
    if w.shape[0] == 0 and upstream.shape[0] == 0:
        return _parts(y, n_classes, ignored, s)
    for k in range(w.shape[0]):
        if w[k] != 0.0 and not 1 / _FAR < w[k] < _FAR:
            return -1, 0.0
    n_without, n_wrong, D = 0, 0, 0.0
    for i in range(s.shape[0]):  # without branches: which rows are ignored is often as good as random
        share = mass = 1.0
        if upstream.shape[0] > 0:
            share = upstream[i]
        if y.shape[0] > 0:  # else soft targets
            given, known = y[i], among(y[i], n_classes)
            none = given == ignored
            n_wrong += not (known | none)
            if w.shape[0] > 0:
                mass = w[nearest(given, n_classes)]
            mass = 0.0 if none else mass
        n_wrong += not abs(share) < _FAR
        share = 0.0 if mass == 0.0 else share
        n_without += share == 0.0
        s[i] = share
        D += mass
    return -1 if n_wrong else n_without, D


@register_jitable
def _parts(y: Array, n_classes: int, ignored: int, s: Array) -> tuple[int, float]:
    """Return the same without weights and upstream gradients: integers are added up in vectors."""
    n_without, n_wrong = 0, 0
    for i in range(y.shape[0]):
        none = y[i] == ignored
        n_without += none
        n_wrong += not (among(y[i], n_classes) | none)
    for i in range(y.shape[0] if n_without else 0):
        s[i] = 0.0 if y[i] == ignored else 1.0
    return -1 if n_wrong else n_without, float(s.shape[0] - n_without)


@register_jitable
def _itself(w: Array) -> Array:
    return w


@register_jitable
def _nothing(w: Array) -> None:
    return None


@register_jitable
def _claims(n: int, step: int) -> Array:
    """Return the claims of ranges of rows, none of which has been made."""
    return np.zeros((n + step - 1) // step, np.int64)


def _rows(kernel: Any) -> Any:
    """Return a kernel of a range of rows: if there is a soft cap on the capped logits, in float64."""

    @register_jitable
    def rows(
        x: Array,
        q: Any,
        y: Array,
        w: Any,
        s: Array,
        taus: Any,
        smoothing: float,
        zeta: float,
        D: float,
        softcap: Any,
        losses: Array,
        grad: Any,
        work: Array,
        left: Array,
        first: int,
        last: int,
    ) -> int:
        if softcap is None:
            values = losses, losses, losses, grad, False, work, first, last, left
            return kernel(x, None, q, y, w, s, taus, smoothing, zeta, D, *values)
        n_left, block = 0, max(1, CAPPED_BLOCK // x.shape[1])
        while first < last:
            stop = min(first + block, last)
            logits, here = x[first:stop], losses[first:stop]
            u, slopes = np.empty(logits.shape), slopes_for(logits, grad)
            _cap(logits, softcap, u, slopes)
            by_u = None if grad is None else u
            values = here, here, here, by_u, False, here, 0, stop - first, left
            n_left += kernel(u, None, q, y[first:stop], w, s[first:stop], taus, smoothing, zeta, D, *values)
            if grad is not None:
                _uncap(logits, softcap, u, slopes, grad[first:stop])
            first = stop
        return n_left

    return rows


@register_jitable
def _rows_of_planes(
    x: Array,
    q: Any,
    y: Array,
    w: Array,
    s: Array,
    taus: Any,
    smoothing: Any,
    zeta: float,
    D: float,
    softcap: Any,
    losses: Array,
    grad: Any,
    work: Array,
    left: Array,
    first: int,
    last: int,
) -> int:
    """Compute a range of rows of planes; a ``smoothing`` of None is that of hard targets."""
    values = losses, losses, losses, grad, work, first, last, left
    if smoothing is None:
        return _hard_planes(x, y, w, s, taus, zeta, D, *values)
    return _spread_planes(x, q, y, w, s, taus, smoothing, zeta, D, *values)


def _loss(rows: Any, weights: Any) -> Callable[..., int]:
    """Return the loss by a kernel of ranges of rows, which takes the class weights that ``weights`` returns."""

    def loss(
        x: Array,
        q: Any,
        y: Array,
        w: Array,
        upstream: Array,
        ignored: int,
        reduction: int,
        smoothing: Any,
        zeta: float,
        temperature: Any,
        softcap: Any,
        value: Array,
        grad: Any,
        step: int,
        parallel: int,
        number: int,
        threads: int,
    ) -> int:
        """Write the loss, or one a row, and with ``grad`` its gradient times that upstream.

        Without entries, w and upstream gradients are 1. Soft targets q take the place of y. None for a temperature or
        a soft cap: there is none. The last four are those of ``in_team``.
        """
        n = x.size // x.shape[1]
        losses, s, left, ws = np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(w.shape[0])
        for k in range(w.shape[0]):
            ws[k] = w[k]
        n_without, D = _row_weights(y, ws, upstream, x.shape[1], ignored, s)
        if n_without < 0 or (reduction == _MEAN and not D > 0.0):
            return 1
        if n_without == 0 and upstream.shape[0] == 0:
            s = s[:0]
        if reduction != _MEAN:
            D = 1.0
        taus = None if temperature is None else np.full(1, temperature)
        given = x, q, y, weights(ws), s, taus, smoothing, zeta, D, softcap, losses, grad, value, left
        claims = _claims(n, step)
        n_left = in_team(rows, given, n, step, address_of(claims), parallel, number, threads)
        hold(claims)
        if n_left > 0:
            return n_left
        if reduction == _NONE:
            for i in range(n):
                value[i] = losses[i]
            return -n_without
        value[0] = _total(losses) / D
        return -n_without if math.isfinite(value[0]) else 1

    return loss


def _normalise(function: Any, prob: bool | None, *, planes: bool = False) -> Callable[..., int]:
    """Return softmax or, if ``prob`` is None, log_softmax, by a kernel of rows or of planes."""
    kernel = register_jitable(function)

    def of_rows(x: Array, out: Array, work: Array, left: Array, first: int, last: int) -> int:
        return kernel(x, None, None, prob, out, False, work, first, last, left)

    def of_planes(x: Array, out: Array, work: Array, left: Array, first: int, last: int) -> int:
        return kernel(x, prob, out, False, work, first, last, left)

    rows = register_jitable(of_planes if planes else of_rows)

    def normalise(x: Array, out: Array, work: Array, step: int, parallel: int, number: int, threads: int) -> int:
        """Write probabilities or their logarithms; the last four are those of ``in_team``."""
        n = x.size // x.shape[1]
        given, claims = (x, out, work, np.empty(n, np.int64)), _claims(n, step)
        n_left = in_team(rows, given, n, step, address_of(claims), parallel, number, threads)
        hold(claims)
        return n_left

    return normalise


def _product(function: Any) -> Callable[..., int]:
    """Return products by a kernel of them."""
    kernel = register_jitable(function)

    @register_jitable
    def rows(
        saved: Array,
        logits: Any,
        log: Any,
        upstream: Array,
        out: Array,
        work: Array,
        left: Array,
        first: int,
        last: int,
    ) -> int:
        return kernel(saved, logits, log, upstream, out, False, work, first, last, left)

    def product(
        saved: Array,
        logits: Any,
        log: Any,
        upstream: Array,
        out: Array,
        work: Array,
        step: int,
        parallel: int,
        number: int,
        threads: int,
    ) -> int:
        """Write products of softmax's or, with ``log``, of log_softmax's Jacobians; ``logits`` says what is saved.

        The last four are those of ``in_team``.
        """
        n = saved.size // saved.shape[1]
        given, claims = (saved, logits, log, upstream, out, work, np.empty(n, np.int64)), _claims(n, step)
        n_left = in_team(rows, given, n, step, address_of(claims), parallel, number, threads)
        hold(claims)
        return n_left

    return product


loss_by_tile, loss_by_row = (_loss(_rows(register_jitable(each.losses)), _itself) for each in (by_tile, by_row))
loss_by_plane = _loss(_rows_of_planes, _itself)
spread_loss = _loss(_rows(register_jitable(soft_targets.losses)), _nothing)
softmax_by_tile, softmax_by_row = (_normalise(each.normalise, True) for each in (by_tile, by_row))
log_softmax_by_tile, log_softmax_by_row = (_normalise(each.normalise, None) for each in (by_tile, by_row))
softmax_by_plane, log_softmax_by_plane = (_normalise(by_plane.normalise, each, planes=True) for each in (True, None))
products_of_rows, products_of_planes = (_product(each.products) for each in (product_by_row, product_by_plane))
