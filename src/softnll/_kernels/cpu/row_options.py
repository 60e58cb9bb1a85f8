"""The options of one row: its temperature, its mask, its weight, and its share of the mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from softnll._kernels.cpu.exact import remainder
from softnll._kernels.cpu.row_memory import address_of, if_given, write_value
from softnll._kernels.cpu.simd import rounded, zero

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64


@register_jitable
def temperature(taus: Any, i: int) -> float:
    """Return a row's temperature from an array of one for all rows, or of one a row; None stands for 1."""
    if taus is None:
        return 1.0
    return taus[i] if taus.shape[0] > 1 else taus[0]


@if_given(lambda _taus, _tau, _element: (None, None))
def inverse(taus: Any, tau: float, element: Any) -> Any:
    """Return 1/τ as an unevaluated sum, or (None, None) without temperatures."""
    beta = rounded(1.0 / tau, element)
    return beta, rounded(remainder(1.0, _f8(beta), tau) / tau, element)


@if_given(lambda _taus, divisor, _work: (1.0, None, None, None, divisor))
def one_for_all(taus: Any, divisor: float, work: Any) -> Any:
    """Return the temperature τ of all rows or 1, τ or None, 1/τ as ``inverse`` does, and τ times the divisor."""
    beta, beta_low = inverse(taus, taus[0], work)
    return taus[0], taus[0], beta, beta_low, taus[0] * divisor


@if_given(lambda _where, _i: None)
def mask_of(where: Any, i: int) -> Any:
    """Return the address of a row's mask, or None without masks."""
    return address_of(where) + i * where.strides[0]


@register_jitable
def masked(where: Any, i: int, c: int) -> bool:
    """Whether a class is masked in a row."""
    if where is None:
        return False
    return not where[i, c]


@register_jitable
def weight_of(s: Array, i: int) -> float:
    """Return a row's weight: 0 for a row that takes no part; 1 where the array of weights has no entries."""
    return s[i] if s.shape[0] > 0 else 1.0


@register_jitable
def mean_share(weight: float, divisor: float) -> float:
    """Return weight / divisor, 0 where the divisor is 0 because no row takes part."""
    return weight / divisor if divisor > 0 else 0.0


@register_jitable
def write_no_part(
    i: int, n: int, loss: Any, ms: Any, rs: Any, grad: Any, out: int, element: Any, streamed: bool
) -> None:
    """Write the results of a row that takes no part: loss 0, m = −∞, r = −1, gradient 0.

    Without ``loss``, m and r are inputs and only the gradient is written.
    """
    if loss is not None:
        ms[i], rs[i] = -np.inf, -1.0
        loss[i] = 0.0
    if grad is not None:
        write_value(n, zero(element), out, element, streamed)
