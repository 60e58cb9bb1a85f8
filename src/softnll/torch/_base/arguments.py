"""The arguments of the losses: named tuples of tensors, dataclasses of options, and the operator schemas of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, get_type_hints

import torch
from torch import Tensor

from softnll._core.options import NAMES, SCHEMAS, CrossEntropy, checked, unreduced

_OPTIONS = tuple(f"{schema} {name}" for schema, name in zip(SCHEMAS, NAMES, strict=True))


class LossInputs(NamedTuple):
    """The tensor arguments of a loss of logits, or of log-probabilities."""

    input: Tensor
    target: Tensor
    weight: Tensor | None = None
    sample_weight: Tensor | None = None
    temperatures: Tensor | None = None

    @property
    def loss_type(self) -> torch.dtype:
        """The type of the loss: float64 for float64 logits, else float32."""
        return torch.float64 if self.input.dtype == torch.float64 else torch.float32


class LinearInputs(NamedTuple):
    """The tensor arguments of a linear loss. Sparse targets are ``indices`` and, as ``target``, their probabilities."""

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    weight: Tensor | None = None
    sample_weight: Tensor | None = None
    temperatures: Tensor | None = None
    indices: Tensor | None = None

    @property
    def layer(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The features, weight and bias of the layer."""
        return self.input, self.linear_weight, self.linear_bias

    @property
    def loss_type(self) -> torch.dtype:
        """The type of the loss: float64 if any of the layer's tensors is, else float32."""
        wide = any(each is not None and each.dtype == torch.float64 for each in self.layer)
        return torch.float64 if wide else torch.float32


class Upstream(NamedTuple):
    """The upstream gradient of a loss."""

    upstream: Tensor


@dataclass(frozen=True, slots=True)  # not a tuple, which torch.func would flatten
class LossSettings:
    """The checked options of a loss."""

    objective: CrossEntropy
    dim: int  # the class dimension, counted from the front
    # None: the range of hard targets is checked. True: also that soft targets are distributions. False: neither.
    check: bool | None = None

    SCHEMA: ClassVar[tuple[str, ...]] = (*_OPTIONS, "int dim", "bool? check")

    @classmethod
    def of(cls, *values: Any) -> LossSettings:
        """Return the settings after checking values, which are in the order of the schema.

        Equal values of equal types give the same object.
        """
        try:
            return _settings_once(*values)
        except TypeError:  # a value that is not hashable, or wrong
            return _settings(*values)

    def for_each_row(self) -> LossSettings:
        """Return the settings for inputs stacked along a new first dimension, with ``reduction="none"``."""
        return LossSettings(unreduced(self.objective), self.dim + 1, self.check)

    def unchecked(self) -> LossSettings:
        """Return the settings without checks of values, for inputs that have been checked."""
        return replace(self, check=False)


def _settings(*values: Any) -> LossSettings:
    """Return the settings of a loss after checking values, which are in the order of the schema."""
    *scalars, dim, check = values
    objective, per_row = checked(*scalars)
    if per_row is not None:
        raise TypeError(f"temperature is a {type(per_row).__name__}; allowed: a number, or a tensor of one a row")
    return LossSettings(objective, dim, check)


_settings_once = lru_cache(maxsize=256, typed=True)(_settings)


@dataclass(slots=True)
class LinearSettings:
    """The checked options of a linear loss."""

    loss: LossSettings  # of a chunk's rows
    max_bytes: int | None = None  # the limit of the working memory; None for the default
    at_most: int | None = None  # the limit of the rows in a chunk; None for as many as the memory allows
    # True: rows that take no part are left out of the products. False: they are multiplied as zeros. None: they are
    # left out, except where their number cannot be read, as in a CUDA graph.
    compact: bool | None = None

    SCHEMA: ClassVar[tuple[str, ...]] = (*_OPTIONS, "bool? check", "int? max_bytes", "int? at_most", "bool? compact")

    @classmethod
    def of(cls, *values: Any) -> LinearSettings:
        """Return the settings after checking values, which are in the order of the schema."""
        *scalars, check, max_bytes, at_most, compact = values
        return cls(LossSettings.of(*scalars, 1, check), max_bytes, at_most, compact)

    def unchecked(self) -> LinearSettings:
        """Return the settings without checks of values, for inputs that have been checked."""
        return replace(self, loss=self.loss.unchecked())


if TYPE_CHECKING:
    LinearValues: TypeAlias = Any
else:
    LinearValues = NamedTuple("LinearValues", [(each.split(" ")[1], Any) for each in LinearSettings.SCHEMA])
    LinearValues.__doc__ = "The unchecked settings of a linear loss, in the order of their schema."

_TYPES: dict[Any, str] = {Tensor: "Tensor", Tensor | None: "Tensor?", bool: "bool"}


def schema_of(group: Any) -> tuple[str, ...]:
    """Return the parameters of an operator's schema for a named tuple of tensors or flags, or for settings."""
    if hasattr(group, "SCHEMA"):
        return group.SCHEMA
    return tuple(f"{_TYPES[hint]} {name}" for name, hint in get_type_hints(group).items())


def take(group: type[tuple[Any, ...]], values: Sequence[Any]) -> Any:
    """Return a named tuple ``group`` of the leading values, one for each field; further values are dropped.

    For example, ``ctx.needs_input_grad`` becomes one flag for each tensor, by its name.
    """
    return group(*values[: len(group._fields)])  # type: ignore[attr-defined]


def gradients(group: type[tuple[Any, ...]], **named: Any) -> tuple[Any, ...]:
    """Return what a backward returns: for each of ``(*group, settings)``, the gradient of that name, or else None."""
    values = tuple(named.pop(name, None) for name in group._fields)  # type: ignore[attr-defined]
    if named:
        raise KeyError(*named)
    return (*values, None)
