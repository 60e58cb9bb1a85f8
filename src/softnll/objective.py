"""The scalar options of the loss, checked once and passed as one value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np

__all__ = ["DEFAULT", "CrossEntropy", "Reduction", "checked", "tempered"]

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """What is computed, apart from the arrays it is computed from.

    Attributes
    ----------
    label_smoothing
        ε in [0, 1]: the share of each target's mass that is spread evenly over the classes.
    z_loss
        ζ ≥ 0: adds ζ·lse² to each row, which keeps the normaliser near 0.
    softcap
        Logits become ``softcap * tanh(logits / softcap)`` first; None leaves them alone.
    temperature
        τ > 0: the (soft-capped) logits are divided by it. One a row is an array of the Problem instead.
    ignore_index
        Rows with this hard target take no part.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.

    Raises
    ------
    ValueError
        If an option is NaN or out of range; the message says which, its value and what is allowed.
    TypeError
        If an option is not a real number (``ignore_index``: an integer).

    Examples
    --------
    >>> CrossEntropy(label_smoothing=0.1).label_smoothing
    0.1
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    temperature: float = 1.0
    ignore_index: int = -100
    reduction: Reduction = "mean"
    plain: bool = field(init=False, repr=False, compare=False)  # logits and targets are taken as they are

    def __post_init__(self) -> None:
        smoothing = _real("label_smoothing", self.label_smoothing)
        if not 0 <= smoothing <= 1:
            raise ValueError(f"label_smoothing is {smoothing!r}; allowed: a number in [0, 1]")
        z_loss = _real("z_loss", self.z_loss)
        if not 0 <= z_loss < math.inf:
            raise ValueError(f"z_loss is {z_loss!r}; allowed: a finite number >= 0")
        softcap = None if self.softcap is None else _positive("softcap", self.softcap)
        temperature = _positive("temperature", self.temperature)
        ignore_index: object = self.ignore_index  # what comes may be of any type
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral):
            raise TypeError(f"ignore_index is {ignore_index!r}; allowed: an integer")
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"reduction is {self.reduction!r}; allowed: 'mean', 'sum', 'none'")
        # Equal options are equal objects, whichever number type they came in.
        for name, value in (
            ("label_smoothing", smoothing + 0.0),  # −0.0 becomes 0.0, which it equals
            ("z_loss", z_loss + 0.0),
            ("softcap", softcap),
            ("temperature", temperature),
            ("ignore_index", int(ignore_index)),
            ("plain", temperature == 1 and softcap is None and smoothing == 0),
        ):
            object.__setattr__(self, name, value)


def _real(name: str, value: object) -> float:
    """Return an option as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; allowed: a real number")
    return float(value)


def _positive(name: str, value: object) -> float:
    """Return an option that must be finite and above 0 as a float."""
    number = _real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {number!r}; allowed: a finite number > 0")
    return number


DEFAULT = CrossEntropy()


# Checking takes 15 µs, three times all else that a tiny loss needs; finding what was checked before, 0.3. Types count:
# True == 1 == 1.0, and the first of them is an error. What raises is not kept, so NaN is told of each time.
_seen = lru_cache(maxsize=256, typed=True)(CrossEntropy)


def checked(
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: Any = 1.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> tuple[CrossEntropy, Any]:
    """Return checked options, the same object for the same values and types, and per-row temperatures, if it is those.

    Arrays, and whatever else has no hash or is no number, take the second way: they are told apart, or told of, there.
    """
    try:
        return _seen(label_smoothing, z_loss, softcap, temperature, ignore_index, reduction), None
    except TypeError:
        pass
    scalar, per_row = _split(temperature)
    return CrossEntropy(label_smoothing, z_loss, softcap, scalar, ignore_index, reduction), per_row


def tempered(temperature: Any) -> tuple[CrossEntropy, Any]:
    """Return what ``checked`` returns for a temperature alone; 1 as it is by default costs next to nothing."""
    if type(temperature) is float and temperature == 1:
        return DEFAULT, None
    return checked(temperature=temperature)


def _split(temperature: Any) -> tuple[Any, Any]:
    """Return a temperature as the objective's number and, if there is one a row, the array of them."""
    if isinstance(temperature, np.ndarray | list | tuple) and np.ndim(temperature) > 0:
        return 1.0, temperature
    return (temperature.item() if isinstance(temperature, np.ndarray) else temperature), None
