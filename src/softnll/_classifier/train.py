"""Training the last layer on a data set: preparing the inputs, the fit, and stopping it without losing it."""

from __future__ import annotations

import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from softnll.classifier import SoftmaxClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from softnll.data import Dataset

__all__ = ["Settings", "Step", "Trained", "hold_out", "standardise", "train"]

HELD_OUT = 0.2  # share of each class that is kept for the test where the data has no test part
MOST_WATCHED = 10_000  # rows whose accuracy is told at each iteration: all 50 000 of CIFAR-10 would cost a third more


@dataclass(frozen=True)
class Settings:
    """What a training run may be asked; see `SoftmaxClassifier` for what each means."""

    C: float = 10.0
    max_iter: int = 500
    tol: float = 1e-5
    label_smoothing: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """Where the fit stood after an iteration."""

    iteration: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """A model for the data's features as they are, and how it came about."""

    model: Any
    history: tuple[Step, ...]
    interrupted: bool
    converged: bool


def train(data: Dataset, settings: Settings, watch: Callable[[Step], None] | None = None) -> Trained:
    """Fit a `SoftmaxClassifier` to the data and fold the standardisation into its weights.

    The model that comes back takes ``Dataset.features()`` as they are: with ``z = (x − μ)/σ``,
    ``W z + b = (W/σ) x + (b − (W/σ) μ)``.

    Parameters
    ----------
    data
        The examples to fit.
    settings
        The options of the fit.
    watch
        Called after each iteration. Ctrl-C during the fit ends it after the iteration, and what was reached is kept; a
        second one interrupts at once.

    Returns
    -------
    Trained
        The model, loss and accuracy over the iterations, and whether Ctrl-C or its own end came first.

    Examples
    --------
    >>> from softnll.data import load
    >>> digits, test = load("digits")
    >>> model = train(digits, Settings(max_iter=5)).model
    >>> model.predict(test.features()).shape
    (899,)
    """
    X, mean, scale = standardise(data)
    classes, y = np.unique(data.labels, return_inverse=True)
    step = -(-len(X) // MOST_WATCHED)
    watched, truth = X[::step], y[::step]
    history: list[Step] = []

    with _interruptions() as interrupted:

        def after(iteration: int, loss: float, coef: NDArray[Any], intercept: NDArray[Any]) -> None:
            best = (watched @ coef.T.astype(X.dtype, copy=False) + intercept).argmax(axis=1)
            history.append(Step(iteration, float(loss), float((best == truth).mean())))
            if watch is not None:
                watch(history[-1])
            if interrupted:
                raise StopIteration

        model = SoftmaxClassifier(
            C=settings.C,
            max_iter=settings.max_iter,
            tol=settings.tol,
            label_smoothing=settings.label_smoothing,
            random_state=settings.seed,
        )
        with warnings.catch_warnings():
            # A library warns of this; here `converged` says it, and the command line in words of its own.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, classes[y], callback=after)
    weight = np.asarray(model.coef_, np.float64) / scale
    model.intercept_ = np.asarray(model.intercept_, np.float64) - weight @ mean
    model.coef_ = weight
    converged = not interrupted and model.n_iter_ < settings.max_iter
    return Trained(model, tuple(history), bool(interrupted), converged)


def standardise(data: Dataset) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Return the features less their mean and over their scale, the mean and the scale, each of the columns.

    Pixels are centred and keep their common unit, black 0 to white 1: a scale a pixel would blow up the noise of the
    border, which is nearly constant. As the intercept is not penalised, centring changes how soon the optimum is
    reached, not the optimum: the digits come within 1e-4 of its test NLL (0.2526, accuracy 0.9377, at C = 10) in 36
    iterations. Uncentred, as scikit-learn would fit X / 16, that takes more than 136; the 0.2481 and 0.9366 of its
    default tolerance are what an early end happens to give. The columns of a table have units of their own and are
    divided by their standard deviation; a constant column becomes 0.
    """
    features = data.features()
    mean = features.mean(axis=0, dtype=np.float64)
    scale = np.ones_like(mean)
    if not data.has_images:
        deviation = features.std(axis=0, dtype=np.float64)
        # Rounding leaves a constant column of 0.1 with a deviation of 1e-17, not 0.
        constant = deviation <= 1e-12 * np.abs(mean)
        scale = np.where(constant | (deviation == 0), 1.0, deviation)
        mean = np.where(constant, features[0], mean)
    if data.has_images:  # a fresh array; that of a table belongs to the data
        features -= mean.astype(features.dtype)
        return features, mean.astype(features.dtype).astype(np.float64), scale
    return ((features - mean) / scale).astype(features.dtype), mean, scale


def hold_out(data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Split the data into four fifths to train and a fifth to test, class by class, chosen by the seed.

    A class with one example stays with the training part whole, one with two to four gives one.
    """
    random = np.random.default_rng(seed)
    kept = np.ones(len(data.labels), dtype=np.bool_)
    for c in np.unique(data.labels):
        members = np.flatnonzero(data.labels == c)
        count = max(round(HELD_OUT * len(members)), 1) if len(members) > 1 else 0
        kept[random.permutation(members)[:count]] = False
    if kept.all():
        raise ValueError(f"{data.name}: no class has two examples, so that none can be held out for the test")
    first = replace(data, inputs=data.inputs[kept], labels=data.labels[kept], split="train")
    return first, replace(data, inputs=data.inputs[~kept], labels=data.labels[~kept], split="test")


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list instead of raising; from the second on it is raised as ever."""
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
