"""What bad input raises: torch's exception types for torch's signatures, and ours; in the names of this front door."""

from __future__ import annotations

import re
from typing import NoReturn

__all__ = ["NAMES", "InputIndexError", "InputTypeError", "InputValueError", "raise_as_torch"]

NAMES = {
    "logits": "input",
    "log_probs": "input",
    "targets": "target",
    "class_weight": "weight",
    "axis": "dim",
}  # ours: torch's


class InputValueError(ValueError, RuntimeError):
    """A shape or an option without a meaning: torch raises one or the other for these, from function to function."""


class InputTypeError(TypeError, RuntimeError):
    """A dtype without a meaning, for which torch raises RuntimeError."""


class InputIndexError(IndexError, ValueError):
    """A target that is no class, or a dimension that is not there, for which torch raises IndexError."""


def raise_as_torch(error: Exception, names: dict[str, str] = NAMES) -> NoReturn:
    """Raise what the checks of the NumPy side found, with the type and the names that torch's users know."""
    message = re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[0]], str(error))
    if isinstance(error, IndexError):  # of a target or a dimension; those are ValueErrors as well
        raise InputIndexError(message) from error
    if isinstance(error, TypeError):
        raise InputTypeError(message) from error
    raise InputValueError(message) from error
