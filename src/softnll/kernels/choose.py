"""Which kernels serve NumPy arrays."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["kernels"]


@cache
def kernels() -> Any:
    """Return the compiled kernels or, where Numba cannot be imported, the equation's; that is said once."""
    try:
        return import_module("softnll.kernels.cpu")
    except ImportError as error:
        warnings.warn(
            f"Numba cannot be used ({error}); softnll computes with NumPy instead: as exact, but slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return import_module("softnll.kernels.fallback")
