"""What a trained last layer achieves on test data, and the files that record it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll.calibration import reliability
from softnll.files import replaced_together
from softnll.functional import cross_entropy, softmax

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from softnll.data import Dataset
    from softnll.train import Settings, Trained

__all__ = ["FILES", "Quality", "Result", "evaluate", "measure", "write"]

FILES = ("model.npz", "scores.npy", "labels.npy", "history.csv", "report.html")
_ROWS = 4096  # rows of features that are multiplied at a time, so that no wide copy of all is made


@dataclass(frozen=True)
class Quality:
    """How good some scores are.

    Attributes
    ----------
    examples
        How many there are.
    accuracy
        Share of rows whose largest score (the first of a tie) is the true class's.
    nll, perplexity
        Mean negative log-likelihood in nats, and e to its power: among how many equally likely classes it leaves us.
    ece
        Expected calibration error in 15 bins.
    """

    examples: int
    accuracy: float
    nll: float
    perplexity: float
    ece: float


@dataclass(frozen=True)
class Result:
    """A model's scores on test data."""

    class_names: tuple[str, ...]
    logits: NDArray[np.float64]
    targets: NDArray[np.int64]
    quality: Quality


def measure(logits: NDArray[Any], targets: NDArray[np.int64]) -> Quality:
    """Return how good the scores are.

    Examples
    --------
    >>> measure(np.array([[5.0, 4, 2], [4, 2, 8], [4, 4, 1]]), np.array([0, 2, 1])).nll.__round__(6)
    0.362443
    """
    confidence = softmax(logits).max(axis=1)
    right = logits.argmax(axis=1) == targets
    nll = float(cross_entropy(logits, targets))
    perplexity = math.exp(nll) if nll < 700 else math.inf
    ece = reliability(np.minimum(confidence, 1), right).ece
    return Quality(len(targets), float(right.mean()), nll, perplexity, ece)


def evaluate(trained: Trained, test: Dataset) -> Result:
    """Return the model's scores on the test data and how good they are.

    Raises
    ------
    ValueError
        If the test data has other columns than the training data, or a class that it had no example of.
    """
    weight, bias, classes = trained.model.coef_, trained.model.intercept_, trained.model.classes_
    features = test.features()
    if features.shape[1] != weight.shape[1]:
        raise ValueError(f"{test.name}: {features.shape[1]} features to test, {weight.shape[1]} to train")
    targets = np.minimum(np.searchsorted(classes, test.labels), len(classes) - 1)
    if (unknown := classes[targets] != test.labels).any():
        name = test.class_names[test.labels[unknown.argmax()]]
        raise ValueError(f"{test.name}: class {name!r} is in the test data only")
    blocks = [features[start : start + _ROWS] @ weight.T + bias for start in range(0, len(features), _ROWS)]
    logits = np.concatenate(blocks)
    names = tuple(test.class_names[c] for c in classes)
    return Result(names, logits, targets, measure(logits, targets))


def write(directory: Path, trained: Trained, result: Result, test: Dataset, settings: Settings) -> None:
    """Write `FILES` into the directory, all of them or none; they hold no time and no path: same run, same bytes."""
    from softnll.report import Report, render  # noqa: PLC0415 - jinja2 and pillow are needed for the page alone

    page = render(
        Report(
            title=test.name,
            class_names=result.class_names,
            logits=result.logits,
            targets=result.targets,
            pixels=test.pixels() if test.has_images else None,
            history=tuple((step.iteration, step.loss, step.accuracy) for step in trained.history),
            weight=trained.model.coef_ if test.has_images else None,
            interrupted=trained.interrupted,
            settings=tuple((name, f"{value:g}") for name, value in asdict(settings).items()),
        )
    )
    lines = [f"{step.iteration},{step.loss!r},{step.accuracy!r}\n" for step in trained.history]
    with replaced_together(directory) as stage:
        trained.model.save(stage / "model.npz")
        np.save(stage / "scores.npy", result.logits)
        np.save(stage / "labels.npy", result.targets)
        (stage / "history.csv").write_text("iteration,loss,accuracy\n" + "".join(lines), encoding="utf-8", newline="")
        (stage / "report.html").write_text(page, encoding="utf-8", newline="")
