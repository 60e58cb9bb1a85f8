"""The arithmetic of the equation on the arrays of one library and device: its widest type, exact differences, sums.

The widest type is float64, or float32 where the device or the library has no float64. Sums in float32 are compensated;
in float64 they need not be. Sources: Knuth, *The Art of Computer Programming* 2, 4.2.2 (two-sum); Dekker, "A
floating-point technique for extending the available precision" (1971).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

WITHOUT_FLOAT64 = frozenset({"mps", "hpu"})  # device types, as torch names them


class Limits(NamedTuple):
    """Numbers that depend on the range and the digits of a floating-point type.

    Attributes
    ----------
    normal
        The smallest normal number.
    tiny
        A rest r below this may lose digits to subnormal exponentials: it is summed again, scaled by exp(lift).
    lift
        The exponent of that scale.
    small
        An exponential below this is multiplied by a factor in two halves, so that no subnormal number occurs.
    splitter
        The constant 2ᵏ + 1 that splits a number into two halves of its digits (Dekker).
    most
        Factors beyond it, and below its reciprocal, are multiplied with their exponents apart.
    power
        An exponent k such that 2ᵏ and 2⁻ᵏ are normal numbers.
    """

    normal: float
    tiny: float
    lift: float
    small: float
    splitter: float
    most: float
    power: int


_FLOAT64 = Limits(2.0**-1022, tiny=1e-280, lift=600.0, small=1e-290, splitter=2.0**27 + 1, most=1e250, power=1000)
_FLOAT32 = Limits(2.0**-126, tiny=1e-28, lift=60.0, small=1e-30, splitter=2.0**12 + 1, most=1e25, power=120)


def is_tensor(x: Any) -> bool:
    """Return whether an array is a torch tensor: of the supported arrays, only tensors lack ``__array_namespace__``."""
    return not hasattr(x, "__array_namespace__")


def namespace(x: Any) -> Any:
    """Return the array API of an array's library; torch's is array-api-compat's."""
    if not is_tensor(x):
        return x.__array_namespace__()
    import array_api_compat  # noqa: PLC0415 - only tensors need it

    return array_api_compat.array_namespace(x)


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return a + b rounded, and the rounding error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The array API of some arrays, with the operations that depend on their device and its widest type.

    Attributes
    ----------
    xp
        The array API of the library.
    dtype
        The widest type: float64 or float32.
    limits
        The numbers that depend on the range and the digits of that type.
    device
        The device of new arrays, or None for the library's default.
    """

    xp: Any
    dtype: Any
    limits: Limits
    device: Any

    @property
    def compensates(self) -> bool:
        """Whether sums and constants are computed with more digits than the type has: in float32."""
        return self.limits is _FLOAT32

    def wide(self, x: Any) -> Any:
        """Return an array in the widest floating-point type of its device."""
        return self.xp.astype(x, self.dtype, copy=False)

    def known_false(self, mask: Any) -> bool:
        """Return True if a mask is known to be False everywhere; False on devices: reading it would synchronise."""
        return self.xp is np and not mask.any()

    def range(self, n: int) -> Any:
        """Return the integers 0 to n − 1."""
        return self.xp.arange(n) if self.device is None else self.xp.arange(n, device=self.device)

    def constant(self, value: float) -> tuple[Any, float]:
        """Return a number rounded to the widest type, and the rounding error."""
        if not self.compensates:
            return value, 0.0
        rounded = self.xp.full((), value, dtype=self.dtype, **({} if self.device is None else {"device": self.device}))
        return rounded, value - float(np.float32(value))

    def row_sums(self, v: Any, *, exact: bool = False) -> Any:
        """Return the sums over the second axis as ``(N, 1)``; ``exact``: compensated in float64 as well."""
        if not (self.compensates or exact) or v.shape[1] == 0:
            return self.xp.sum(v, axis=1, keepdims=True)
        low = self.xp.zeros_like(v)
        while (n := v.shape[1]) > 1:  # the halves are added to each other until one column is left
            half = (n + 1) // 2
            total, lost = two_sum(v[:, : n - half], v[:, half:])
            lost = lost + low[:, : n - half] + low[:, half:]
            v = self.xp.concat([total, v[:, n - half : half]], axis=1)
            low = self.xp.concat([lost, low[:, n - half : half]], axis=1)
        return self.xp.where(self.xp.isfinite(low), v + low, v)

    def product(self, *factors: Any, over: tuple[Any, ...] = ()) -> Any:
        """Return a product of arrays and numbers divided by others, where partial products may overflow."""
        value: Any = 1.0
        power: Any = 0.0
        for factor in factors:
            mantissa, exponent = self._parts(factor)
            value, power = value * mantissa, power + exponent
        for divisor in over:
            mantissa, exponent = self._parts(divisor)
            value, power = value / mantissa, power - exponent
        most = float(self.limits.power)
        first = self.xp.clip(power, -most, most)
        second = self.xp.clip(power - first, -most, most)
        return (value * 2.0**first) * 2.0**second

    def _parts(self, x: Any) -> tuple[Any, Any]:
        """Return a mantissa and an exponent of 2, whose product is x; 0 and infinities have the exponent 0."""
        if isinstance(x, float | int):
            mantissa, whole = math.frexp(x)
            return mantissa, float(whole)
        size = self.xp.abs(x)
        ordinary = (size > 0) & self.xp.isfinite(x)
        exponent = self.xp.floor(self.xp.log2(self.xp.where(ordinary, size, 1.0)))
        half = self.xp.floor(exponent / 2)
        return (x * 2.0**-half) * 2.0 ** (half - exponent), exponent

    def remainder(self, d: Any, q: Any, tau: Any) -> Any:
        """Return d − q·τ without the rounding error of the product (Dekker), for q whose split does not overflow."""

        def split(a: Any) -> tuple[Any, Any]:
            big = a * self.limits.splitter
            high = big - (big - a)
            return high, a - high

        product = q * tau
        (qh, ql), (th, tl) = split(q), split(tau)
        low = ((qh * th - product) + qh * tl + ql * th) + ql * tl
        return (d - product) - low


def arithmetic_of(x: Any) -> Arithmetic:
    """Return the arithmetic for an array's library and device."""
    if isinstance(x, np.ndarray):
        return _NUMPY
    xp = namespace(x)
    tensor = is_tensor(x)
    kind = LIBRARIES.get(xp.__name__, Arithmetic)
    double = _tensors_have_float64(xp, x) if tensor else _has_float64(xp)
    device = x.device if tensor else None
    return kind(xp, xp.float64, _FLOAT64, device) if double else kind(xp, xp.float32, _FLOAT32, device)


LIBRARIES: dict[str, type[Arithmetic]] = {}  # of libraries whose front door has an Arithmetic of its own, by name
_NUMPY = Arithmetic(np, np.float64, _FLOAT64, None)


def _has_float64(xp: Any, **where: Any) -> bool:
    """Return whether a library has float64 (on a device)."""
    return "float64" in xp.__array_namespace_info__().dtypes(kind="real floating", **where)


def _tensors_have_float64(xp: Any, x: Any) -> bool:
    """Return whether the device of a tensor has float64."""
    return x.device.type not in WITHOUT_FLOAT64 and _device_has_float64(xp, x.device)


@lru_cache(maxsize=64)
def _device_has_float64(xp: Any, device: Any) -> bool:
    """Return whether a device of torch has float64: some Intel GPUs accept such tensors and compute nothing on them."""
    if device.type == "xpu" and xp.xpu.is_available():
        return bool(xp.xpu.get_device_properties(device).has_fp64)
    return _has_float64(xp, device=device)
