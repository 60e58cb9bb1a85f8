"""Products of the Jacobians of softmax and log_softmax with an upstream gradient v, one row at a time.

    softmax      p⊙(v − ⟨p, v⟩), from v minus its entry at the largest p
    log_softmax  v − p·Σv = v⊙(1 − p) − p⊙(Σv − v)

The subtraction keeps the small product of a confident row, and 1 − p, computed from log p, is not 0 where p rounds to
1. A row is read from the forward's result or, in half types, from the logits: the result is then computed again in
scratch. NaN and infinities go through the arithmetic; only logits that ``by_row.py`` leaves are left here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.elementary import accumulate, no_sum, with_complement
from softnll._kernels.cpu.row_memory import address_of, aligned, lanes_of, unaligned, write_vector
from softnll._kernels.cpu.simd import (
    align_stack,
    equal,
    fence,
    hold,
    less,
    load,
    load_part,
    maximum,
    mul_add,
    prefetch,
    reduce_max,
    rounded,
    select,
    size_of,
    splat,
    store,
    store_part,
    zero,
)
from softnll._kernels.cpu.sweep import GROUP, gathered, in_two, ordinary, product, swept

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
AHEAD = 4096  # bytes ahead of the first pass over a row that are prefetched


@register_jitable
def part(p: int, k: int, n: int, element: Any) -> Any:
    """Return the vector of the last entries of a row of n, from k on; its lanes beyond the row are 0."""
    return load_part(p + k * size_of(element), n - k, zero(element), element)


@register_jitable
def at_largest(a: int, kind: Any, g: int, element: Any, n: int) -> Any:
    """Return v where p is largest."""
    lanes, size, wide = lanes_of(element), size_of(element), size_of(kind)
    top, there = splat(rounded(-1.0, kind)), splat(zero(kind))
    more, beside = top, there
    k = 0
    while k + 2 * lanes <= n:
        prefetch(a + k * wide + AHEAD)
        prefetch(g + k * size + AHEAD)
        prefetch(a + (k + lanes) * wide + AHEAD)
        prefetch(g + (k + lanes) * size + AHEAD)
        p, v = load(a + k * wide, kind), load(g + k * size, element)
        there, top = select(less(top, p), v, there), maximum(p, top)
        k += lanes
        p, v = load(a + k * wide, kind), load(g + k * size, element)
        beside, more = select(less(more, p), v, beside), maximum(p, more)
        k += lanes
    while k < n:
        p, v = part(a, k, n, kind), part(g, k, n, element)
        there, top = select(less(top, p), v, there), maximum(p, top)
        k += lanes
    there, top = select(less(top, more), beside, there), maximum(more, top)
    here = equal(top, splat(reduce_max(top)))
    return reduce_max(select(here, there, splat(rounded(-np.inf, kind))))


@register_jitable
def inner(a: int, kind: Any, g: int, element: Any, n: int, c: Any) -> float:
    """Return ⟨p, v − c⟩."""
    align_stack()
    lanes, size, wide = lanes_of(element), size_of(element), size_of(kind)
    at = splat(c)
    acc = no_sum()
    k = 0
    while k + GROUP * lanes <= n:
        total = splat(zero(kind))
        for _ in range(GROUP // 2):
            one = load(a + k * wide, kind) * (load(g + k * size, element) - at)
            k += lanes
            total = total + mul_add(load(a + k * wide, kind), load(g + k * size, element) - at, one)
            k += lanes
        acc = accumulate(acc, total)
    total = splat(zero(kind))
    other = splat(zero(kind))
    while k < n:
        total, other = other, mul_add(part(a, k, n, kind), part(g, k, n, element) - at, total)
        k += lanes
    return gathered(accumulate(acc, total + other), 0.0)


@register_jitable
def summed(g: int, element: Any, n: int) -> float:
    """Return Σv."""
    align_stack()
    lanes, size = lanes_of(element), size_of(element)
    acc = no_sum()
    k = 0
    while k + GROUP * lanes <= n:
        total = splat(zero(element))
        for _ in range(GROUP // 2):
            prefetch(g + k * size + AHEAD)
            prefetch(g + (k + lanes) * size + AHEAD)
            total = total + (load(g + k * size, element) + load(g + (k + lanes) * size, element))
            k += 2 * lanes
        acc = accumulate(acc, total)
    total = splat(zero(element))
    other = splat(zero(element))
    while k < n:
        total, other = other, total + part(g, k, n, element)
        k += lanes
    return gathered(accumulate(acc, total + other), 0.0)


@register_jitable
def finite_low(total: float, high: Any) -> float:
    """Return what the rounding of a total to ``high`` lost; 0 for an infinite total."""
    return total - _f8(high) if abs(_f8(high)) < np.inf else 0.0


@register_jitable
def log_entry(log_p: Any, v: Any, high: Any, low: Any) -> Any:
    """Return v·(1 − p) − p·(Σv − v), Σv in two parts."""
    p, complement = with_complement(log_p)
    return v * complement - p * ((high - v) + low)


@register_jitable
def shared_entry(p: Any, v: Any, high: Any, low: Any, share: Any) -> Any:
    """Return the same from p, in float32, and from 1 − p of an entry above ½; below, 1 − p loses nothing."""
    return v * select(less(splat(_HALF), p), share, _ONE - p) - p * ((high - v) + low)


@register_jitable
def entry(log: Any, logits: Any, p: Any, v: Any, high: Any, low: Any, share: Any) -> Any:
    """Return the product of a vector of probabilities or, if they are the saved results, of log-probabilities.

    The rest is of the rows: what ``write_products`` sums, and 1 − p of the largest p.
    """
    if log is None:
        return p * ((v - high) - low)
    if logits is None:
        return log_entry(p, v, high, low)
    return shared_entry(p, v, high, low, share)


@register_jitable
def write_products(
    a: int, kind: Any, log: Any, logits: Any, share: float, g: int, element: Any, n: int, out: int, streamed: bool
) -> None:
    """Write one row of products from its results or, with ``logits``, from probabilities and 1 − p of the largest."""
    align_stack()
    rest = splat(rounded(share, kind))
    lanes, size, wide = lanes_of(element), size_of(element), size_of(kind)
    if log is None:
        c = at_largest(a, kind, g, element, n)
        high, low = splat(c), splat(rounded(inner(a, kind, g, element, n, c), kind))
    else:
        total = summed(g, element, n)
        above = rounded(total, kind)
        high, low = splat(above), splat(rounded(finite_low(total, above), kind))
    k = unaligned(out, n, element, streamed)
    if k > 0:
        value = entry(log, logits, part(a, 0, k, kind), part(g, 0, k, element), high, low, rest)
        store_part(out, k, value, element)
    while k + lanes <= n:
        p, v = load(a + k * wide, kind), load(g + k * size, element)
        value = entry(log, logits, p, v, high, low, rest)
        write_vector(out + k * size, value, element, streamed)
        k += lanes
    if k < n:
        value = entry(log, logits, part(a, k, n, kind), part(g, k, n, element), high, low, rest)
        store_part(out + k * size, n - k, value, element)


@register_jitable
def normalised(p: int, element: Any, n: int, w: int, work: Any) -> float:
    """Write probabilities of a row of logits to scratch at w; return 1 − p of the largest, −1 for a row left."""
    lanes, wide = lanes_of(element), size_of(work)
    m, big, rest, _, _ = swept(p, None, n, element, None, None, w, work)
    if not ordinary(m, big, rest):
        return -1.0
    factor = in_two(1.0, big, rest, 0.0, work)
    high, low = splat(factor[0]), splat(factor[1])
    for k in range(0, n, lanes):
        store(w + k * wide, product(load(w + k * wide, work), high, low), work)
    return rest / (big + rest)


def products(
    saved: Array,
    logits: Any,
    log: Any,
    upstream: Array,
    out: Array,
    streamed: bool,
    work: Array,
    first: int,
    last: int,
    left: Array,
) -> int:
    """Write products of softmax or, unless ``log`` is None, of log_softmax; return how many rows are left.

    ``saved`` has the results, in the compute type, if ``logits`` is None, else the logits.
    """
    align_stack()
    n = saved.shape[1]
    element, kind = upstream.dtype, work.dtype
    scratch = np.empty(n + 64, kind)
    w = aligned(scratch)
    n_left = 0
    for i in range(first, last):
        g, o = address_of(upstream) + i * upstream.strides[0], address_of(out) + i * out.strides[0]
        a = address_of(saved) + i * saved.strides[0]
        share = 0.0
        if logits is not None:
            share = normalised(a, saved.dtype, n, w, kind)
            if share < 0:
                left[n_left] = i
                n_left += 1
                continue
            a = w
        write_products(a, kind, log, logits, share, g, element, n, o, streamed)
    if streamed:
        fence()
    hold(scratch)
    return n_left
