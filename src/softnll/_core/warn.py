"""Warnings that show the user's line."""

from __future__ import annotations

import inspect
import warnings

# What calls softnll, or runs its functions, for the user: modules' __call__, pipelines, decorators, compilation.
_BETWEEN = frozenset(
    {"softnll", "numpy", "scipy", "numba", "torch", "jax", "sklearn", "joblib", "contextlib", "functools"}
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line outside softnll and outside the libraries that call it for the user."""
    warnings.warn(message, category, stacklevel=_level())


def _level() -> int:
    """Return the stack level of the user's line, counted from ``warn``; if there is none, that of ``warn``'s caller."""
    frame = inspect.currentframe()
    frame, level = None if frame is None else frame.f_back, 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    return 2 if frame is None else level
