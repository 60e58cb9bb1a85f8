"""A loss that a framework printed, with the interval of values that print the same."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
LONGEST = 50


@dataclass(frozen=True)
class Printed:
    """A number as it was printed."""

    text: str  # its digits
    value: float
    slack: float  # half a unit of the last digit, plus float32's rounding: values this close print the same

    def fits(self, value: float) -> bool:
        """Whether a value would have been printed like this."""
        return abs(value - self.value) <= self.slack


def as_printed(loss: Any) -> Printed:
    """Return a loss given as text or as a number, whose shortest text then counts; NaN and infinity are numbers.

    Examples
    --------
    >>> as_printed("1.07").fits(1.074), as_printed("1.070").fits(1.074)
    (True, False)
    """
    text = str(loss if isinstance(loss, str) else _number(loss)).strip()
    if _NOT_FINITE.fullmatch(text):
        return Printed(text, float(text), 0.0)
    if len(text) > LONGEST or not _NUMBER.fullmatch(text):
        raise ValueError(f"loss is {text[:LONGEST]!r}; allowed: a number as it was printed, such as 1.07, nan or inf")
    digits = Decimal(text)
    exponent = int(digits.as_tuple().exponent)
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"loss is {text!r}; allowed: a number that float64 holds")
    # A mean computed in float32 is off by some units of 2⁻²⁴: a millionth of it covers that.
    return Printed(text, value, 0.5 * 10.0**exponent + 1e-6 * abs(value))


def _number(loss: Any) -> float:
    """Return a number, also from an array or tensor of one."""
    try:
        return float(loss)
    except (TypeError, ValueError):
        raise ValueError(f"loss has type {type(loss).__name__}; allowed: a number, or its digits as text") from None
