"""The exceptions for invalid arguments: subclasses of torch's types and of NumPy's, with torch's parameter names."""

from __future__ import annotations

import re
from typing import NoReturn

from softnll._core.target_errors import AdvisedError

NAMES = {
    "logits": "input",
    "log_probs": "input",
    "targets": "target",
    "class_weight": "weight",
    "axis": "dim",
}  # ours: torch's
LINEAR_NAMES = NAMES | {"features": "input", "weight": "linear_weight", "bias": "linear_bias"}


class InputValueError(ValueError, RuntimeError):
    """An invalid shape or option, for which some of torch's functions raise ValueError and some RuntimeError."""

    __module__ = "softnll.torch"


class InputTypeError(TypeError, RuntimeError):
    """An invalid dtype, for which torch raises RuntimeError."""

    __module__ = "softnll.torch"


class InputIndexError(IndexError, ValueError):
    """A target or a dimension out of range, for which torch raises IndexError."""

    __module__ = "softnll.torch"


def raise_as_torch(error: Exception, names: dict[str, str] = NAMES) -> NoReturn:
    """Raise an error of the shared checks again, with torch's exception type and parameter names."""
    shown = error.for_tensors if isinstance(error, AdvisedError) else str(error)
    message = re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[0]], shown)
    if isinstance(error, IndexError):  # first, as the errors of targets and dimensions are ValueErrors as well
        raise InputIndexError(message) from error
    if isinstance(error, TypeError):
        raise InputTypeError(message) from error
    raise InputValueError(message) from error
