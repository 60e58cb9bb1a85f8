"""SciPy's L-BFGS as a fit needs it: told of each iteration, ended at will, and never without the best point reached."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Minimum", "minimise"]

Vector = NDArray[np.float64]


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

    # SciPy tells value and point apart by the parameter's name.
    def after(intermediate_result: Any) -> None:
        best.iterations += 1
        best.x = intermediate_result.x.copy()  # every accepted point is lower than the ones before
        if callback is not None:
            callback(best.iterations, float(intermediate_result.fun), best.x)

    try:
        result = minimize(
            function,
            start,
            method="L-BFGS-B",
            jac=True,
            callback=after,
            options={
                "maxiter": max_iter,
                "maxfun": 50 * max_iter,  # SciPy's 15 000 would end a long fit without a word about max_iter
                "maxls": 50,
                "gtol": tol,
                "ftol": 64 * np.finfo(np.float64).eps,
            },
        )
    except KeyboardInterrupt as interrupt:
        best.interrupted = interrupt
        return best
    if not (np.isfinite(result.fun) and np.isfinite(result.jac).all()):
        raise ValueError("the loss or its gradient is not finite: the features are too large; scale them")
    if result.status == 1:
        best.complaint = f"max_iter={max_iter} iterations were not enough"
    elif result.status == 2:
        best.complaint = f"the line search ended ({result.message}): rounding hides what is left to gain"
    if best.complaint:
        best.complaint += f"; the largest entry of the gradient is {np.abs(result.jac).max():.3g}, tol is {tol:.3g}"
    return best


def warn_unless_converged(minimum: Minimum, category: type[Warning]) -> None:
    """Say why the minimum was not reached, if so."""
    if minimum.complaint:
        warnings.warn(
            f"not converged: {minimum.complaint}. Raise max_iter or tol, or scale the features", category, stacklevel=4
        )
