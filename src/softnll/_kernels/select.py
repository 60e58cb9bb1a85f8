"""Select the kernels for NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._core.warn import warn
from softnll._kernels.cpu.forks import guard, loading


@cache
def kernels() -> Any:
    """Return the compiled kernels or, with a warning, the reference ones if Numba cannot be used."""
    guard()
    with loading:
        hindrance = _hindrance()
        if hindrance is None:
            return import_module("softnll._kernels.cpu.interface")
    message = f"Numba cannot be used ({hindrance}); softnll computes with NumPy instead: as exact, but slower"
    warn(message, RuntimeWarning)
    return import_module("softnll._kernels.reference")


def are_distributions(q: Any, tolerance: float) -> bool:
    """Return whether the compiled kernels find all rows of soft targets to be distributions; else False."""
    certain = getattr(kernels(), "are_distributions", None)
    return certain is not None and certain(q, tolerance)


def compiled_kernels() -> bool:
    """Return whether the compiled kernels can be used."""
    guard()
    with loading:
        return _hindrance() is None


def fitting(problem: Problem, select: Callable[[], Any]) -> Problem:
    """Return a Problem in the form that the selected kernels take: Planes become matrices, unless these take Planes.

    Call it after the arguments' checks: it loads the kernels, if there are Planes.
    """
    x, q = problem.x, problem.q
    if not isinstance(x, Planes) or getattr(select(), "TAKES_PLANES", False) is True:
        return problem
    return problem.with_rows(x.matrix(), None if q is None else q.matrix())


def _hindrance() -> str | None:
    """Return why the compiled kernels cannot be used; None if they can."""
    try:
        found: str | None = import_module("softnll._kernels.cpu.numba_works").hindrance()
    except ImportError as error:  # of llvmlite
        return str(error)
    return found
