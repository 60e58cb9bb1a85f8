"""The loss that a framework printed: its value, and how far its digits let it be another."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

__all__ = ["Printed", "as_printed"]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
LONGEST = 50


@dataclass(frozen=True)
class Printed:
    """A number as it was printed.

    Attributes
    ----------
    text
        Its digits.
    value
        The number.
    slack
        Half a unit of its last digit, and what float32 has on top: computed values that far away print the same.
    """

    text: str
    value: float
    slack: float

    def fits(self, value: float) -> bool:
        """Whether a value would have been printed like this."""
        return abs(value - self.value) <= self.slack


def as_printed(loss: Any) -> Printed:
    """Return a loss given as text or as a number, whose shortest text then counts.

    Raises
    ------
    ValueError
        If it is no finite number.

    Examples
    --------
    >>> as_printed("1.07").fits(1.074), as_printed("1.070").fits(1.074)
    (True, False)
    """
    text = str(loss if isinstance(loss, str) else _number(loss)).strip()
    if len(text) > LONGEST or not _NUMBER.fullmatch(text):
        raise ValueError(f"loss is {text[:LONGEST]!r}; allowed: a finite number as it was printed, such as 1.07")
    digits = Decimal(text)
    exponent = int(digits.as_tuple().exponent)
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"loss is {text!r}; allowed: a number that float64 holds")
    # A mean made in float32 is off by some units of 2⁻²⁴: a millionth of it covers that.
    return Printed(text, value, 0.5 * 10.0**exponent + 1e-6 * abs(value))


def _number(loss: Any) -> float:
    """Return a number, also from an array or tensor of one."""
    try:
        return float(loss)
    except (TypeError, ValueError):
        raise ValueError(f"loss has type {type(loss).__name__}; allowed: a number, or its digits as text") from None
