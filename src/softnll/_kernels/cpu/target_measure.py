"""A row's target measure t_j = w_j·[(1 − ε)·q_j + ε/C] in scratch, and its mass T = Σ t_j."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.elementary import accumulate, no_sum
from softnll._kernels.cpu.exact import two_sum
from softnll._kernels.cpu.row_memory import address_of, lanes_of
from softnll._kernels.cpu.simd import (
    align_stack,
    load,
    load_part,
    load_scalar,
    maximum,
    mul_add,
    reduce_max,
    rounded,
    size_of,
    splat,
    store,
    store_scalar,
    zero,
)
from softnll._kernels.cpu.sweep import gathered

_f8 = np.float64
_ABOVE = 64.0  # |t_j| / T beyond which t_j times an exponential may overflow: only where signs cancel in T


@register_jitable
def measure(q: Any, w: Any, k: int, keep: Any, share: Any, work: Any) -> Any:
    """Return the vector of t at entry k, from that of q; there is room for a whole vector of weights."""
    t = mul_add(q, keep, share)
    return t if w is None else t * load(w + k * size_of(work), work)


@register_jitable
def write_measure(q: int, kq: Any, w: Any, n: int, keep: float, share: float, t: int, work: Any) -> float:
    """Write a row's t to scratch, 0 beyond it; return T, NaN where t of both signs is far larger than T."""
    align_stack()
    lanes, size = lanes_of(work), size_of(work)
    nothing = splat(zero(work))
    top = nothing
    kept, shared = splat(rounded(keep, work)), splat(rounded(share, work))
    acc = no_sum()
    k = 0
    while k + lanes <= n:
        v = measure(load(q + k * size_of(kq), kq), w, k, kept, shared, work)
        store(t + k * size, v, work)
        acc = accumulate(acc, v)
        top = maximum(top, maximum(v, nothing - v))
        k += lanes
    if k < n:
        last = load_part(q + k * size_of(kq), n - k, zero(work), kq)
        store(t + k * size, measure(last, w, k, kept, shared, work), work)
        v = load_part(t + k * size, n - k, zero(work), work)
        store(t + k * size, v, work)
        acc = accumulate(acc, v)
        top = maximum(top, maximum(v, nothing - v))
    mass = gathered(acc, 0.0)
    return mass if _f8(reduce_max(top)) <= _ABOVE * mass else np.nan


@register_jitable
def share_of(w: Any, c: int, share: float, work: Any) -> Any:
    """Return what a share of a class weighs."""
    return rounded(share if w is None else share * _f8(load_scalar(w + c * size_of(work), work)), work)


@register_jitable
def put_target(w: Any, c: int, share: float, t: int, work: Any) -> float:
    """Write one entry of a measure; return it."""
    value = share_of(w, c, share, work)
    store_scalar(t + c * size_of(work), value, work)
    return _f8(value)


@register_jitable
def soft_or_hard(
    q: Any, y: Any, w: Any, i: int, n: int, keep: float, share: float, shares: float, t: int, work: Any
) -> float:
    """Write a row's measure to scratch and return its mass; NaN for a hard target that is no class.

    For hard targets the scratch holds what smoothing gives each class, of sum ``shares``: only one entry differs.
    """
    if q is not None:
        return write_measure(address_of(q) + i * q.strides[0], q.dtype, w, n, keep, share, t, work)
    c = y[i]
    if c < 0 or c >= n:
        return np.nan
    target = put_target(w, c, keep + share, t, work)
    return target if n == 1 else shares + target - _f8(share_of(w, c, share, work))


@register_jitable
def write_shares(w: Any, n: int, share: float, t: int, work: Any) -> float:
    """Write what smoothing gives each class to scratch, 0 beyond; return the sum."""
    mass = lost = 0.0
    for c in range(n):
        mass, error = two_sum(mass, put_target(w, c, share, t, work))
        lost += error
    for c in range(n, n + lanes_of(work)):
        store_scalar(t + c * size_of(work), zero(work), work)
    return mass + lost
