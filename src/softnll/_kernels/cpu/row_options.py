"""The options of one row: its temperature, its mask, its weight, and its share of the mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

from softnll._kernels.cpu.exact import remainder
from softnll._kernels.cpu.row_memory import absent, address_of, write_value
from softnll._kernels.cpu.simd import rounded, zero

Array = Any  # inside Numba, whose types are its own
_f8 = np.float64


@register_jitable
def temperature(taus: Any, i: int) -> float:
    """Return a row's temperature from an array of one for all rows, or of one a row; None stands for 1."""
    if taus is None:
        return 1.0
    return taus[i] if taus.shape[0] > 1 else taus[0]


def inverse(taus: Any, tau: float, element: Any) -> Any:
    """Return 1/τ as an unevaluated sum, or (None, None) without temperatures."""
    raise NotImplementedError


def _no_inverse(taus: Any, tau: Any, element: Any) -> Any:
    return None, None


def _inverse_in_two(taus: Any, tau: Any, element: Any) -> Any:
    beta = rounded(1.0 / tau, element)
    return beta, rounded(remainder(1.0, _f8(beta), tau) / tau, element)


@overload(inverse)
def _inverse(taus: Any, tau: Any, element: Any) -> Any:
    return _no_inverse if absent(taus) else _inverse_in_two


def one_for_all(taus: Any, divisor: float, work: Any) -> Any:
    """Return the temperature τ of all rows or 1, τ or None, 1/τ as ``inverse`` does, and τ times the divisor."""
    raise NotImplementedError


def _no_temperature(taus: Any, divisor: float, work: Any) -> Any:
    return 1.0, None, None, None, divisor


def _one_temperature(taus: Any, divisor: float, work: Any) -> Any:
    beta, beta_low = inverse(taus, taus[0], work)
    return taus[0], taus[0], beta, beta_low, taus[0] * divisor


@overload(one_for_all)
def _one_for_all(taus: Any, divisor: float, work: Any) -> Any:
    return _no_temperature if absent(taus) else _one_temperature


def mask_of(where: Any, i: int) -> Any:
    """Return the address of a row's mask, or None without masks."""
    raise NotImplementedError


def _no_mask(where: Any, i: Any) -> Any:
    return None


def _mask_row(where: Any, i: Any) -> Any:
    return address_of(where) + i * where.strides[0]


@overload(mask_of)
def _mask_of(where: Any, i: Any) -> Any:
    return _no_mask if absent(where) else _mask_row


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
