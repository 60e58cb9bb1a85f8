"""Numbers and names as text, and values in the types of JSON, as every room of the inspection shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from softnll.data.text import printable


def percent(share: float) -> str:
    """Return a share in percent; one strictly between 0 and 1 is never shown as 0 % or 100 %.

    Examples
    --------
    >>> percent(0.5), percent(0.99999), percent(1e-9)
    ('50.0 %', 'over 99.9 %', 'under 0.1 %')
    """
    text = f"{100 * share:.1f} %"
    if share < 1 and text == "100.0 %":
        return "over 99.9 %"
    return "under 0.1 %" if share > 0 and text == "0.0 %" else text


def rounded_loss(value: float) -> str:
    """Return a loss to two digits; a small one with an exponent, so that it does not look like 0."""
    return f"{value:.2f}" if value == 0 or value >= 0.005 else f"{value:.1e}"


def middle(name: str, letters: int) -> str:
    """Return a name of at most so many letters: what differs between many names is often at their end.

    Examples
    --------
    >>> middle("class of some kind 741", 14), middle("cat", 14)
    ('class o…nd 741', 'cat')
    """
    if len(name) <= letters:
        return name
    end = (letters - 1) // 2
    return f"{name[: letters - 1 - end]}…{name[len(name) - end :]}"


def compact(count: int) -> str:
    """Return a count in at most four letters, up to a thousand million.

    Examples
    --------
    >>> [compact(n) for n in (999, 1234, 12_345, 999_999, 2_500_000)]
    ['999', '1.2k', '12k', '1.0M', '2.5M']
    """
    if count < 1000:
        return str(count)
    value, unit = (count / 1e3, "k") if count < 999_500 else (count / 1e6, "M")
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


def short_list(names: Iterable[str], letters: int = 40) -> str:
    """Return the first four names, each of at most so many letters, and how many more there are."""
    shown = list(names)
    text = ", ".join(printable(name, letters) for name in shown[:4])
    return text + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def plain(value: Any, *, nan: str | None = "nan") -> Any:
    """Return arrays, numbers and collections of them in the types of JSON.

    JSON has neither infinities nor NaN: they become ``"inf"`` and ``"-inf"``, and `nan`.
    """
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist() if value.dtype.kind in "biufUS" else value.astype(np.float64).tolist(), nan=nan)
    if isinstance(value, Mapping):
        return {str(key): plain(each, nan=nan) for key, each in value.items()}
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Iterable):
        return [plain(each, nan=nan) for each in value]
    number = float(value)
    if math.isnan(number):
        return nan
    return number if math.isfinite(number) else str(number)
