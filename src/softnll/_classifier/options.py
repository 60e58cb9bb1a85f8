"""The options of the classifier and of a training run, checked; importing this is cheap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

# The allowed values of each option: a type, the lowest value and whether that itself is allowed, the highest.
_OPTIONS: dict[str, tuple[Any, float, bool, float]] = {
    "C": (Real, 0, False, math.inf),
    "label_smoothing": (Real, 0, True, 1),
    "tol": (Real, 0, True, math.inf),
    "max_iter": (Integral, 0, True, math.inf),
    "batch_size": (Integral, 1, True, math.inf),
    "learning_rate": (Real, 0, False, math.inf),
}


def check_options(options: dict[str, Any]) -> None:
    """Raise unless each option is of its type and in its range."""
    _check_ranges({name: options[name] for name in _OPTIONS})
    for name in ("fit_intercept", "warm_start"):
        if not isinstance(options[name], bool | np.bool_):
            raise TypeError(f"{name} is {options[name]!r}; allowed: True or False")
    weight = options["class_weight"]
    if weight is not None and not isinstance(weight, dict) and not (isinstance(weight, str) and weight == "balanced"):
        raise ValueError(f"class_weight is {weight!r}; allowed: None, 'balanced' or a dict of class: weight")


def _check_ranges(options: dict[str, Any]) -> None:
    """Raise unless each of these options is of its type and in its range."""
    for name, value in options.items():
        kind, lowest, closed, highest = _OPTIONS[name]
        allowed = f"{'integers' if kind is Integral else 'numbers'} {'>=' if closed else '>'} {lowest}"
        allowed += "" if highest == math.inf else f" and <= {highest}"
        if not isinstance(value, kind) or isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} is {value!r}; allowed: {allowed}")
        bits = 63 if kind is Integral else 1023  # of int64, of float64
        if isinstance(value, Integral) and abs(value) >= 2**bits:
            raise ValueError(f"{name} is an integer of more than {bits} bits; allowed: {allowed}")
        if not ((value >= lowest if closed else value > lowest) and value <= highest):
            raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


@dataclass(frozen=True)
class Settings:
    """The options of a training run; `SoftmaxClassifier` describes each.

    Raises
    ------
    TypeError, ValueError
        For options outside their range.
    """

    C: float | None = None  # None: chosen on held-out rows
    max_iter: int = 500
    tol: float = 1e-4
    label_smoothing: float = 0.0
    mirror: bool = False  # whether each image's mirror image is a further example
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        given = {name: getattr(self, name) for name in ("max_iter", "tol", "label_smoothing")}
        _check_ranges(given if self.C is None else given | {"C": self.C})
