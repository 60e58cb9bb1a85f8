"""SciPy's L-BFGS as a fit needs it: told of each iteration, ended at will, and never without the best point reached."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Minimum", "minimise"]

Vector = NDArray[np.float64]


class Variables(Protocol):
    """A linear map from the variables that are optimised to steps from the start, and its transpose."""

    def step(self, vector: Vector) -> Vector:
        """Return the step."""

    def gradient(self, vector: Vector) -> Vector:
        """Return the gradient by these variables of the one by the function's."""


@dataclass(slots=True)
class Minimum:
    """The best point that was reached.

    Attributes
    ----------
    x
        ``(n,)`` the point.
    iterations
        How many there were.
    complaint
        Why the minimum was not reached, or "".
    interrupted
        The KeyboardInterrupt that ended it, or None.
    """

    x: Vector
    iterations: int = 0
    complaint: str = ""
    interrupted: KeyboardInterrupt | None = None


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    start: Vector,
    *,
    tol: float,
    max_iter: int,
    callback: Callable[[int, float, Vector], None] | None = None,
    variables: Variables | None = None,
) -> Minimum:
    """Return where a smooth function is smallest.

    Parameters
    ----------
    function
        Returns value and gradient.
    start
        ``(n,)`` where to begin.
    tol
        The largest absolute entry of the gradient at which the minimum counts as reached.
    max_iter
        The most iterations.
    callback
        Called with iteration, value and point after each iteration. StopIteration from it ends the search; so does
        KeyboardInterrupt, from it or from the function.
    variables
        What L-BFGS sees instead of the function's own variables, or None. Callback and result are in the function's
        own; where the minimum counts as reached, no entry of either gradient is larger than ``tol``.

    Raises
    ------
    ValueError
        If value or gradient is not finite where the search ends.

    Notes
    -----
    The limits are scikit-learn's: a relative decrease of 64 ulp ends the search, as does a line search of 50 steps.
    Byrd, Lu, Nocedal, Zhu (1995), "A limited memory algorithm for bound constrained optimization".
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - half of what importing the classifier would cost

    best = Minimum(start)
    search = _Search(function, start, variables)

    # SciPy tells value and point apart by the parameter's name.
    def after(intermediate_result: Any) -> None:
        best.iterations += 1
        best.x = search.point(intermediate_result.x)  # every accepted point is lower than the ones before
        if callback is not None:
            callback(best.iterations, float(intermediate_result.fun), best.x)
        if variables is not None and search.largest <= tol:
            raise StopIteration

    try:
        result = minimize(
            search,
            start if variables is None else np.zeros_like(start),
            method="L-BFGS-B",
            jac=True,
            callback=after,
            options={
                "maxiter": max_iter,
                "maxfun": 50 * max_iter,  # SciPy's 15 000 would end a long fit without a word about max_iter
                "maxls": 50,
                "gtol": tol if variables is None else 0.0,  # it knows of one of the two gradients
                "ftol": 64 * np.finfo(np.float64).eps,
            },
        )
        if not (np.isfinite(result.fun) and np.isfinite(result.jac).all()):
            raise ValueError("the loss or its gradient is not finite: the features are too large; scale them")
        if result.status in (1, 2):
            best.complaint = _complaint(result, function(best.x)[1], tol, max_iter)
    except KeyboardInterrupt as interrupt:
        best.interrupted = interrupt
    return best


class _Search:
    """The function as L-BFGS sees it, which remembers how steep it was where it was last evaluated."""

    def __init__(self, function: Callable[[Vector], tuple[float, Vector]], start: Vector, variables: Any) -> None:
        self.function, self.start, self.variables = function, start, variables
        self.largest = np.inf  # the largest absolute entry of both gradients; an accepted point is the last evaluated

    def point(self, vector: Vector) -> Vector:
        """Return the function's own variables."""
        return vector.copy() if self.variables is None else self.start + self.variables.step(vector)

    def __call__(self, vector: Vector) -> tuple[float, Vector]:
        """Return value and gradient."""
        value, gradient = self.function(self.point(vector))
        if self.variables is None:
            return value, gradient
        seen = self.variables.gradient(gradient)
        self.largest = max(np.abs(gradient).max(), np.abs(seen).max())
        return value, seen


def _complaint(result: Any, gradient: Vector, tol: float, max_iter: int) -> str:
    """Say why the search ended early, or return "" where the function's own gradient is small enough all the same."""
    largest = np.abs(gradient).max()
    if result.status == 1:
        reason = f"max_iter={max_iter} iterations were not enough"
    elif largest > tol:
        reason = f"the line search ended ({result.message}): rounding hides what is left to gain"
    else:
        return ""
    return f"{reason}; the largest entry of the gradient is {largest:.3g}, tol is {tol:.3g}"


def warn_unless_converged(minimum: Minimum, category: type[Warning]) -> None:
    """Say why the minimum was not reached, if so."""
    if minimum.complaint:
        warnings.warn(
            f"not converged: {minimum.complaint}. Raise max_iter or tol, or scale the features", category, stacklevel=4
        )
