"""Addresses of rows and of scratch memory; loads and stores of a row, a vector at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from softnll._kernels.cpu.simd import (
    load,
    load_allowed,
    load_allowed_part,
    load_part,
    rounded,
    size_of,
    splat,
    store,
    store_part,
    stream,
)

Array = Any  # inside Numba, whose types are its own


def if_given(otherwise: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator of functions for kernels: a call whose first argument is None is one of ``otherwise``.

    Numba compiles the kernel without the argument then; it would give the result of an ``if`` a type that may be None.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def stub(*_: Any) -> Any:
            raise NotImplementedError

        overload(stub, strict=False)(lambda first, *_: otherwise if first in (None, types.none) else function)
        return stub

    return decorate


@register_jitable
def address_of(array: Array) -> int:
    """Return the address of an array's first entry."""
    return np.intp(array.ctypes.data)  # type: ignore[return-value]


@register_jitable
def aligned(scratch: Array) -> int:
    """Return the first address in a scratch array that is a multiple of 64."""
    return (address_of(scratch) + 63) & -64


@if_given(lambda _wanted, _address: None)
def address_if(wanted: Any, address: int) -> Any:
    """Return an address if ``wanted`` is not None, else None: kernels are compiled without what is None."""
    return address


@register_jitable
def among(c: int, n: int) -> Any:
    """Return whether c is one of n classes, in one comparison: two are a branch, mispredicted if rows are ignored."""
    return np.uint64(c) < np.uint64(n)


@register_jitable
def nearest(c: int, n: int) -> int:
    """Return the class nearest to c, without a branch."""
    return min(max(c, 0), n - 1)


@register_jitable
def out_row(out: Any, i: int) -> int:
    """Return the address of a row of the output; 0 without an output."""
    if out is None:
        return 0
    return address_of(out) + i * out.strides[0]


@register_jitable
def lanes_of(element: Any) -> int:
    """Return how many entries of a type a vector holds."""
    return 8 if size_of(element) == 8 else 16


@register_jitable
def entry(p: int, allowed: Any, k: int, element: Any) -> Any:
    """Return the vector at entry k of a row, −∞ where a class is masked."""
    v = load(p + k * size_of(element), element)
    return v if allowed is None else load_allowed(v, allowed + k)


@register_jitable
def last_entry(p: int, allowed: Any, k: int, count: int, element: Any) -> Any:
    """Return the vector of the last ``count`` entries, from k on; its other lanes are −∞."""
    fill = rounded(-np.inf, element)
    v = load_part(p + k * size_of(element), count, fill, element)
    return v if allowed is None else load_allowed_part(v, allowed + k, count)


@register_jitable
def unaligned(out: int, n: int, element: Any, streamed: bool) -> int:
    """Return how many entries come before the first address that a streaming store can write; 0 without streaming."""
    size = size_of(element)
    return min(n, (-out & (size * lanes_of(element) - 1)) // size) if streamed else 0


@register_jitable
def write_vector(address: int, v: Any, element: Any, streamed: bool) -> None:
    """Write a vector, past the caches if ``streamed``."""
    if streamed:
        stream(address, v, element)
    else:
        store(address, v, element)


@register_jitable
def write_value(n: int, value: Any, out: int, element: Any, streamed: bool) -> None:
    """Write one value n times."""
    lanes, size = lanes_of(element), size_of(element)
    values = splat(value)
    k = unaligned(out, n, element, streamed)
    if k > 0:
        store_part(out, k, values, element)
    while k + lanes <= n:
        write_vector(out + k * size, values, element, streamed)
        k += lanes
    if k < n:
        store_part(out + k * size, n - k, values, element)
