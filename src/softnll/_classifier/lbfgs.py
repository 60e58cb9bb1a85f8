"""Minimisation by SciPy's L-BFGS, which a callback can end; an interrupt ends it too and keeps the best point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softnll._core.warn import warn

_LINE_SEARCH = 50  # evaluations of the function in one line search at most
_ENDED_EARLY = (0, 1, 2)  # SciPy's statuses of a search that no callback ended
_RELATIVE_DECREASE = 64 * np.finfo(np.float64).eps
_ROUNDING = 1e-6  # a gradient that decreases the function by less than 64 ulp: ten times their square root

Vector = NDArray[np.float64]


class Variables(Protocol):
    """A linear map from the optimiser's variables to steps from the start, and its transpose."""

    @property
    def alone(self) -> bool:
        """Whether the search ends by the gradient in these variables alone, not also by the function's own."""

    def step(self, vector: Vector) -> Vector:
        """Map a point in the optimiser's variables to a step."""

    def gradient(self, vector: Vector) -> Vector:
        """Map a gradient to the optimiser's variables."""


@dataclass(slots=True)
class Minimum:
    """The best point that was reached."""

    x: Vector  # (n,)
    iterations: int = 0
    failure: str = ""  # why the minimum was not reached, or ""
    interrupted: KeyboardInterrupt | None = None  # what ended the search


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    start: Vector,
    *,
    tol: float,
    max_iter: int,
    callback: Callable[[int, float, Vector], None] | None = None,
    variables: Variables | None = None,
) -> Minimum:
    """Return the minimum of a smooth function, which returns value and gradient, from a start ``(n,)``.

    Parameters
    ----------
    tol
        The largest absolute entry of the gradient at which the minimum counts as reached.
    callback
        Called with iteration, value and point after each iteration. A StopIteration that it raises ends the search; so
        does a KeyboardInterrupt that it or the function raises.
    variables
        The variables that L-BFGS optimises instead of the function's own, or None. Callback and result are in the
        function's own; where the minimum counts as reached, no entry of either gradient is larger than ``tol``, or with
        ``variables.alone`` of the gradient in these variables.

    Raises
    ------
    ValueError
        If value or gradient is not finite where the search ends.

    Notes
    -----
    The limits are scikit-learn's: a relative decrease of 64 ulp or a line search of 50 steps ends a search. Where the
    gradient is larger than ``tol`` then, another one begins at that point without its memory, as long as it gains; what
    is left is a failure, however small the decrease was.
    Byrd, Lu, Nocedal, Zhu (1995), "A limited memory algorithm for bound constrained optimization".
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - half of what importing the classifier would cost

    best = Minimum(start)
    search = _Search(function, start, variables)

    # SciPy passes value and point because of the parameter's name.
    def after(intermediate_result: Any) -> None:
        best.iterations += 1
        best.x = search.point(intermediate_result.x)  # every accepted point has a lower value than those before
        if callback is not None:
            callback(best.iterations, float(intermediate_result.fun), best.x)
        if variables is not None and search.largest <= tol:
            best.failure = ""
            raise StopIteration

    at = start if variables is None else np.zeros_like(start)
    before = np.inf
    try:
        if search.size(at) <= tol or max_iter == 0:
            best.failure = "" if search.largest <= tol else _too_few(search.largest, tol, max_iter)
            return best
        while True:
            result = minimize(
                search,
                at,
                method="L-BFGS-B",
                jac=True,
                callback=after,
                options={
                    "maxiter": min(max_iter - best.iterations, 2**31 - 1),
                    "maxfun": min(
                        _LINE_SEARCH * max_iter, 2**31 - 1
                    ),  # SciPy's 15 000 would end a long fit before max_iter
                    "maxls": _LINE_SEARCH,
                    "gtol": tol if variables is None else 0.0,  # SciPy would compare one of the two gradients only
                    "ftol": _RELATIVE_DECREASE,
                },
            )
            if not (np.isfinite(result.fun) and np.isfinite(result.jac).all()):
                raise ValueError("the loss or its gradient is not finite: the features are too large; scale them")
            if result.status not in _ENDED_EARLY:  # a callback ended it
                break
            best.failure = _failure(result, search.size(result.x), tol, best.iterations, max_iter)
            gained = before - result.fun > _RELATIVE_DECREASE * max(abs(result.fun), 1.0)
            if not best.failure or best.iterations >= max_iter or not gained:
                break
            at, before = result.x, result.fun
    except KeyboardInterrupt as interrupt:
        best.interrupted = interrupt
    return best


class _Search:
    """The function of the optimiser's variables; keeps the largest entry of its last gradient."""

    def __init__(self, function: Callable[[Vector], tuple[float, Vector]], start: Vector, variables: Any) -> None:
        self.function, self.start, self.variables = function, start, variables
        self.largest = np.inf  # the largest absolute entry of both gradients; an accepted point is the last evaluated
        self._last: tuple[Vector, tuple[float, Vector]] | None = None

    def point(self, vector: Vector) -> Vector:
        """Map a point in the optimiser's variables to the function's own."""
        return vector.copy() if self.variables is None else self.start + self.variables.step(vector)

    def __call__(self, vector: Vector) -> tuple[float, Vector]:
        """Return value and gradient in the optimiser's variables."""
        if self._last is None or not np.array_equal(self._last[0], vector):
            self._last = vector.copy(), self._evaluated(vector)
        return self._last[1]

    def _evaluated(self, vector: Vector) -> tuple[float, Vector]:
        """Return value and gradient, and keep the gradient's size."""
        value, gradient = self.function(self.point(vector))
        mapped = gradient if self.variables is None else self.variables.gradient(gradient)
        self.largest = np.abs(mapped).max()
        if self.variables is not None and not self.variables.alone:
            self.largest = max(self.largest, np.abs(gradient).max())
        return value, mapped

    def size(self, vector: Vector) -> float:
        """Return the largest absolute entry of the gradients at a point."""
        self(vector)
        return float(self.largest)


def _failure(result: Any, largest: float, tol: float, iterations: int, max_iter: int) -> str:
    """Return why the search ended early, or "" where the gradient is small enough."""
    if largest <= tol or (result.status == 0 and largest <= _ROUNDING):
        return ""
    if iterations >= max_iter:
        return _too_few(largest, tol, max_iter)
    ended = f"the search ended ({result.message}): rounding errors are larger than a further decrease"
    return f"{ended}; {_sizes(largest, tol)}"


def _too_few(largest: float, tol: float, max_iter: int) -> str:
    """Return that the iterations were not enough."""
    return f"max_iter={max_iter} iterations were not enough; {_sizes(largest, tol)}"


def _sizes(largest: float, tol: float) -> str:
    """Return how large the gradient is."""
    return f"the largest entry of the gradient is {largest:.3g}, tol is {tol:.3g}"


def warn_unless_converged(minimum: Minimum, category: type[Warning]) -> None:
    """Warn where the minimum was not reached, and say why."""
    if minimum.failure:
        # The first words are scikit-learn's, which its users search for.
        failed = f"lbfgs failed to converge after {minimum.iterations} iteration(s): {minimum.failure}"
        advice = "Increase the number of iterations (max_iter) or tol, or scale the data"
        warn(f"{failed}. {advice}", category)
