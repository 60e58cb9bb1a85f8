"""scikit-learn's callbacks (1.9 and later): each iteration of L-BFGS is a task of the fit, as in LogisticRegression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numpy.typing import NDArray

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """In place of scikit-learn's: there is nothing to set."""

    def with_callbacks(method: Any) -> Any:
        """Return the method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "FitTasks", "supports_callbacks"]

Method = TypeVar("Method", bound=Callable[..., Any])


def supports_callbacks(method: Method) -> Method:
    """Return a method that runs the callbacks of its estimator, with its type, which scikit-learn's decorator loses."""
    decorated: Method = with_callbacks(method)
    return decorated


class FitTasks:
    """The tasks of one fit: the fit itself, and one after another its iterations.

    Parameters
    ----------
    estimator
        The classifier; without callbacks (``set_callbacks``) nothing is done.
    X, y, sample_weight
        The data of the fit, which each task shows to the callbacks.
    classes
        The classes, without which no callback could predict.
    max_iter
        The most iterations.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, classes: Any, max_iter: int) -> None:
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._classes = classes
        self._fit: Any = None
        self._iteration: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._fit = estimator._init_callback_context(max_subtasks=max_iter + 1)  # noqa: SLF001 - documented for this
            self._fit.call_on_fit_task_begin(**self._given)

    def begin(self, coef: NDArray[Any], intercept: NDArray[Any]) -> None:
        """Begin the first iteration at these coefficients, or the next one."""
        if self._fit is not None:
            self._iteration = self._fit.subcontext(task_name="lbfgs-iter")
            self._iteration.call_on_fit_task_begin(
                **self._given, reconstruction_attributes=self._fitted(coef, intercept)
            )

    def next(self, coef: NDArray[Any], intercept: NDArray[Any]) -> None:
        """End an iteration, which reached these coefficients; raise StopIteration where a callback asks for the end."""
        if self._iteration is None:
            return
        iteration, self._iteration = self._iteration, None
        fitted = self._fitted(coef, intercept)
        stop = iteration.call_on_fit_task_end(**self._given, reconstruction_attributes=fitted)
        if stop:
            raise StopIteration
        self.begin(coef, intercept)

    def end(self) -> None:
        """End the fit, and the iteration that was begun last and never ran."""
        if self._iteration is not None:
            self._iteration.call_on_fit_task_end(estimator=self._given["estimator"])
        if self._fit is not None:
            self._fit.call_on_fit_task_end(**self._given, reconstruction_attributes={})

    def _fitted(self, coef: NDArray[Any], intercept: NDArray[Any]) -> dict[str, Any]:
        """Return the attributes of a classifier that ends here."""
        return {"coef_": coef, "intercept_": intercept, "classes_": self._classes}
