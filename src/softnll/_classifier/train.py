"""Train the last layer on a data set: standardise, choose C, fit; Ctrl-C ends the fit and keeps its result."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from softnll._classifier.choose import (
    ChosenStrength,
    Progress,
    arranged,
    choose,
    first_strength,
    parts_of,
    scores_of,
    split,
)
from softnll._classifier.estimator import SoftmaxClassifier
from softnll._classifier.options import Settings
from softnll._classifier.prepare import standardise
from softnll.data import Dataset

__all__ = ["Settings", "Trained", "TrainingStep", "failure_of", "folded", "interruptions", "train"]

_CURVE_ROWS = 5000  # rows that the accuracy of an iteration is of: all 50 000 of CIFAR-10 cost a third more time
_SEARCH_TOL = 1e-4  # of the candidates' fits, which end earlier where the held-out loss stops to improve
_FIXED_C = 1.0  # where no row can be held out, or no feature varies


@dataclass(frozen=True)
class TrainingStep:
    """Mean loss and accuracy after an iteration, and those of the rows held out while C is chosen."""

    iteration: int
    loss: float
    accuracy: float
    C: float
    held_out_loss: float | None = None
    held_out_accuracy: float | None = None


@dataclass(frozen=True)
class Trained:
    """A model for the unscaled features of the data, its history, and how the fit ended."""

    model: Any
    history: tuple[TrainingStep, ...]
    interrupted: bool
    failure: str = ""  # why the fit did not reach the optimum, or ""
    choice: ChosenStrength | None = None  # None where C was given

    @property
    def converged(self) -> bool:
        """Whether the gradient at the result is as small as asked."""
        return not self.interrupted and not self.failure


def train(
    data: Dataset,
    settings: Settings,
    watch: Callable[[TrainingStep], None] | None = None,
    stage: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Fit a `SoftmaxClassifier` to the data and fold the standardisation into its weights.

    The returned model takes ``Dataset.features()`` as they are: with ``z = (x − μ)/σ``,
    ``W z + b = (W/σ) x + (b − (W/σ) μ)``. Where no C is given, :func:`softnll._classifier.choose.choose` chooses it on
    held-out rows, and the fit to all rows starts from what it found.

    ``watch`` is called after each iteration, ``stage`` with what begins: the search, the fit. Ctrl-C ends the fit after
    the current iteration and keeps the best point; a second Ctrl-C interrupts at once.

    Examples
    --------
    >>> from softnll.data import load
    >>> digits, test = load("digits")
    >>> model = train(digits, Settings(C=10, max_iter=5)).model
    >>> model.predict(test.features()).shape
    (899,)
    """
    classes = np.unique(data.labels)
    held = split(data.labels, settings.seed) if settings.C is None and len(classes) > 1 else []
    data = arranged(data, held, mirror=settings.mirror)
    stage("standardising the features")
    X, mean, scale = standardise(data)
    y = np.searchsorted(classes, data.labels)
    history: list[TrainingStep] = []

    def new_model(C: float, tol: float) -> SoftmaxClassifier:
        return SoftmaxClassifier(
            C=C,
            tol=tol,
            max_iter=settings.max_iter,
            label_smoothing=settings.label_smoothing,
            random_state=settings.seed,
            warm_start=True,
        )

    with interruptions() as interrupted, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", ConvergenceWarning)  # a candidate need not converge

        def note(C: float, rows: tuple[Any, Any], progress: Any, held_out: tuple[Any, ...] = ()) -> None:
            loss, coef, intercept = progress
            accuracy = float((scores_of(rows[0], coef, intercept).argmax(axis=1) == rows[1]).mean())
            history.append(TrainingStep(len(history) + 1, float(loss), accuracy, C, *held_out))
            if watch is not None:
                watch(history[-1])
            if interrupted:
                raise StopIteration

        first = first_strength(X) if held else 0.0
        choice = None
        if first > 0:
            parts = parts_of(X, y, held, lambda: new_model(first, max(_SEARCH_TOL, settings.tol)))
            seen = {id(part): _sample(part.X, part.y) for part in parts}
            stage(f"choosing C on {sum(len(part.held_labels) for part in parts)} held-out examples")

            def searched(each: Progress) -> None:
                progress = (each.loss, each.coef, each.intercept)
                note(each.C, seen[id(each.part)], progress, (each.held_out_loss, each.held_out_accuracy))

            choice = choose(parts, first, searched)
            del parts, seen
        found = _FIXED_C if choice is None else choice.C
        model = new_model(found if settings.C is None else settings.C, settings.tol)
        caught.clear()
        warnings.simplefilter("always", ConvergenceWarning)
        if choice is not None and choice.start is not None:
            model.start_at(np.arange(len(classes)), *choice.start)
        if not interrupted:
            stage(f"fitting {len(X)} examples with C = {model.C:g}")
            rows = _sample(X, y)
            model.fit(X, y, callback=lambda _, *progress: note(model.C, rows, progress))
    model.classes_ = classes
    folded(model, mean, scale)
    return Trained(model, tuple(history), bool(interrupted), failure_of(caught), choice)


def failure_of(caught: list[warnings.WarningMessage]) -> str:
    """Return how a fit that did not converge ended, from the warnings that it gave; "" for one that did."""
    return next((str(each.message) for each in caught if each.category is ConvergenceWarning), "")


def folded(model: Any, mean: NDArray[Any], scale: NDArray[Any]) -> Any:
    """Return the model of ``(features − mean) / scale`` after making it one of the features themselves."""
    weight = np.asarray(model.coef_, np.float64) / scale
    model.intercept_ = np.asarray(model.intercept_, np.float64) - weight @ mean
    model.coef_ = weight
    return model


def _sample(X: NDArray[Any], y: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the rows that the accuracy of an iteration is of."""
    step = -(-len(X) // _CURVE_ROWS)
    return X[::step], y[::step]


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Collect the first Ctrl-C in a list instead of raising KeyboardInterrupt; the second one raises it."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield caught
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, _frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
