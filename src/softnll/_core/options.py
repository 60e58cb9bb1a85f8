"""The options of the losses: one table, from which signatures, checks and operator schemas follow.

A new option needs a row here, its formula in ``equation.py``, its effect on one of the four quantities in the kernels,
and a line of documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, Literal, TypedDict, get_args

import numpy as np

Reduction = Literal["mean", "sum", "none"]

_LARGEST = float(np.finfo(np.float64).max)


def _real(name: str, value: object) -> float:
    """Return an option as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; allowed: a real number")
    try:
        return float(value)
    except OverflowError:  # an integer beyond the largest float
        raise ValueError(f"{name} is an integer beyond {_LARGEST:.3g}; allowed: a number that float64 holds") from None


def _share(name: str, value: object) -> float:
    """Return a number in [0, 1]."""
    number = _real(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {number!r}; allowed: a number in [0, 1]")
    return number + 0.0  # −0.0 becomes 0.0, which it equals


def _not_negative(name: str, value: object) -> float:
    """Return a finite number of at least 0."""
    number = _real(name, value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {number!r}; allowed: a finite number >= 0")
    return number + 0.0


def _positive(name: str, value: object) -> float:
    """Return a finite number above 0."""
    number = _real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {number!r}; allowed: a finite number > 0")
    return number


def _positive_or_none(name: str, value: object) -> float | None:
    """Return None, or a finite number above 0."""
    return None if value is None else _positive(name, value)


def _integer(name: str, value: object) -> int:
    """Return an integer of any integer type as an int."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {value!r}; allowed: an integer")
    number = int(value)
    if not -(2**63) <= number < 2**64:  # uint64 targets go that far
        raise ValueError(f"{name} is beyond 64 bits; allowed: an integer of 64 bits")
    return number


def _reduction(name: str, value: object) -> str:
    """Return the name of a reduction."""
    if value not in get_args(Reduction):
        raise ValueError(f"{name} is {value!r}; allowed: 'mean', 'sum', 'none'")
    return str(value)


def _option(default: Any, schema: str, check: Callable[[str, object], Any]) -> Any:
    """Return a row of the table: the default, the type in an operator's schema, and the check of a value."""
    return field(default=default, metadata={"schema": schema, "check": check})


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """The checked scalar options of a loss. This class is the table of options.

    Attributes
    ----------
    label_smoothing
        ε in [0, 1]: the share of each target's mass that is spread evenly over the classes.
    z_loss
        ζ ≥ 0: adds ζ·T·lse² to each row, of target mass T (w_y with class weights), which keeps the normaliser near 0.
    softcap
        Logits are first replaced by ``softcap * tanh(logits / softcap)``; None: they are not.
    temperature
        τ > 0: the (soft-capped) logits are divided by it. Per-row temperatures are an array of the Problem.
    ignore_index
        Rows with this hard target take no part.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.

    Raises
    ------
    ValueError
        If an option is NaN or out of range; the message has its name, its value and what is allowed.
    TypeError
        If an option is not a real number (``ignore_index``: an integer).

    Examples
    --------
    >>> CrossEntropy(label_smoothing=0.1).label_smoothing
    0.1
    """

    label_smoothing: float = _option(0.0, "float", _share)
    z_loss: float = _option(0.0, "float", _not_negative)
    softcap: float | None = _option(None, "float?", _positive_or_none)
    temperature: float = _option(1.0, "float", _positive)
    ignore_index: int = _option(-100, "int", _integer)
    reduction: Reduction = _option("mean", "str", _reduction)
    plain: bool = field(init=False, repr=False, compare=False)  # whether no option changes logits or targets
    hashed: int = field(init=False, repr=False, compare=False)  # computed once: many look-ups are by the options

    def __post_init__(self) -> None:
        for row in ROWS:  # equal options of different number types become equal objects
            object.__setattr__(self, row.name, row.metadata["check"](row.name, getattr(self, row.name)))
        plain = self.temperature == 1 and self.softcap is None and self.label_smoothing == 0
        object.__setattr__(self, "plain", plain)
        object.__setattr__(self, "hashed", hash(tuple(getattr(self, name) for name in NAMES)))

    def __hash__(self) -> int:
        return self.hashed

    def __reduce__(self) -> tuple[Any, ...]:  # hashes of strings differ between processes
        return CrossEntropy, tuple(getattr(self, name) for name in NAMES)


ROWS = tuple(row for row in fields(CrossEntropy) if row.init)
NAMES = tuple(row.name for row in ROWS)
DEFAULTS = tuple(row.default for row in ROWS)
_BY_NAME = dict(zip(NAMES, DEFAULTS, strict=True))
SCHEMAS = tuple(row.metadata["schema"] for row in ROWS)
_TEMPERATURE = NAMES.index("temperature")

DEFAULT = CrossEntropy()


class FurtherOptions(TypedDict, total=False):
    """The options that the losses of other libraries do not have."""

    z_loss: float
    softcap: float | None
    temperature: Any
    check: bool | None


class UnreducedOptions(FurtherOptions, total=False):
    """The keyword options of every cross-entropy but ``reduction``, which decides the type of the result."""

    class_weight: Any
    sample_weight: Any
    ignore_index: int
    label_smoothing: float


class SoftmaxOptions(TypedDict, total=False):
    """The keyword options of a softmax."""

    axis: int | Sequence[int] | None
    temperature: Any
    where: Any


class NormaliserOptions(TypedDict, total=False):
    """The keyword options of a logsumexp but ``return_sign``."""

    axis: int | Sequence[int] | None
    keepdims: bool
    where: Any
    b: Any


class PickOptions(TypedDict, total=False):
    """The keyword options of a loss of log-probabilities, but ``reduction``."""

    axis: int | Sequence[int] | None
    class_weight: Any
    sample_weight: Any
    ignore_index: int
    check: bool | None


class LinearOptions(UnreducedOptions, total=False):
    """The keyword options of every cross-entropy; ``softnll.cross_entropy`` describes each."""

    reduction: Reduction


class UnreducedLossOptions(UnreducedOptions, total=False):
    """The keyword options but ``reduction`` of the cross-entropies that take logits, not features and weight."""

    axis: int | Sequence[int] | None
    where: Any


class LossOptions(UnreducedLossOptions, total=False):
    """The keyword options of the cross-entropies that take logits, not features and weight."""

    reduction: Reduction


# A check takes 15 µs, three times the rest of a tiny loss; a cached one, 0.3. The cache distinguishes types, as True is
# an error though it equals 1.0. Errors are not cached, so that each call raises.
_checked_once = lru_cache(maxsize=256, typed=True)(CrossEntropy)


def checked(*values: Any) -> tuple[CrossEntropy, Any]:
    """Return checked options, and per-row temperatures, or None if the temperature is a number.

    The values are those of ``NAMES``, in that order. Equal values of equal types give the same object. Unhashable or
    non-numeric values take the slow path, which accepts per-row temperatures or raises.
    """
    try:
        return _checked_once(*values), None
    except TypeError:
        pass
    given = list(values)
    given[_TEMPERATURE], per_row = _per_row(given[_TEMPERATURE])
    return CrossEntropy(*given), per_row


def checked_temperature(temperature: Any) -> tuple[CrossEntropy, Any]:
    """Return what ``checked`` returns for a temperature and the defaults, without a look-up if it is 1.0."""
    if type(temperature) is float and temperature == 1:
        return DEFAULT, None
    return checked(*with_defaults(temperature=temperature))


def with_defaults(**given: Any) -> tuple[Any, ...]:
    """Return the values of all options in the order of ``NAMES``: the given ones, and defaults for the others."""
    values = _BY_NAME | given
    if len(values) > len(NAMES):
        raise TypeError(f"got an unexpected keyword argument {next(name for name in given if name not in NAMES)!r}")
    return tuple(values.values())


def split(given: Any) -> tuple[CrossEntropy, Any, dict[str, Any]]:
    """Return checked options, per-row temperatures or None, and the other keyword arguments."""
    if not given:
        return DEFAULT, None, given
    rest = dict(given)
    scalars = [rest.pop(name, default) for name, default in zip(NAMES, DEFAULTS, strict=True)]
    return *checked(*scalars), rest


def _per_row(temperature: Any) -> tuple[Any, Any]:
    """Return ``(1.0, temperatures)`` of an array with dimensions, else ``(temperature, None)``."""
    if isinstance(temperature, np.ndarray | list | tuple) and np.ndim(temperature) > 0:
        return 1.0, temperature
    return (temperature.item() if isinstance(temperature, np.ndarray) else temperature), None


@lru_cache(maxsize=64)
def unreduced(objective: CrossEntropy) -> CrossEntropy:
    """Return the same options with ``reduction="none"``."""
    return replace(objective, reduction="none")
