"""The results of ``softnll train``: files, JSON and a table."""

from __future__ import annotations

import io
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll._cli.terminal import print_lines, print_table
from softnll._inspection.report.build import Report, render
from softnll.data import printable
from softnll.data.atomic import replaced_together

if TYPE_CHECKING:
    from pathlib import Path

    from softnll._classifier.evaluate import Evaluation
    from softnll._classifier.examples import Examples
    from softnll._classifier.train import Settings, Trained
    from softnll.dask._train import FileExamples
    from softnll.data import Dataset

FILES = ("model.npz", "scores.npy", "labels.npy", "history.csv", "report.html")
_COLUMNS = ("iteration", "loss", "accuracy", "held_out_loss", "held_out_accuracy", "C")


def write_results(directory: Path, trained: Trained, evaluation: Evaluation, test: Dataset, settings: Settings) -> None:
    """Write `FILES` into the directory, all of them or none; they hold no time and no path: same run, same bytes."""
    page = render(
        Report(
            title=test.name,
            class_names=evaluation.class_names,
            logits=evaluation.logits,
            targets=evaluation.targets,
            pixels=test.pixels() if test.has_images else None,
            history=tuple((step.iteration, step.loss, step.accuracy) for step in trained.history),
            held_out=tuple(
                (step.iteration, step.held_out_loss, step.held_out_accuracy)
                for step in trained.history
                if step.held_out_loss is not None and step.held_out_accuracy is not None
            ),
            weight=trained.model.coef_ if test.has_images else None,
            interrupted=trained.interrupted,
            settings=_settings(settings, trained),
        )
    )
    with replaced_together(directory) as stage:
        trained.model.save(stage / "model.npz")
        np.save(stage / "scores.npy", evaluation.logits)
        np.save(stage / "labels.npy", evaluation.targets)
        (stage / "history.csv").write_text(_history(trained), encoding="utf-8", newline="")
        (stage / "report.html").write_text(page, encoding="utf-8", newline="")


def _history(trained: Trained) -> str:
    """Return the iterations as a table; what was held out is empty in the fit to all examples."""
    text = io.StringIO()
    text.write(",".join(_COLUMNS) + "\n")
    for step in trained.history:
        values = [getattr(step, name) for name in _COLUMNS]
        text.write(",".join("" if value is None else repr(value) for value in values) + "\n")
    return text.getvalue()


def _settings(settings: Settings, trained: Trained) -> tuple[tuple[str, str], ...]:
    """Return names and values as the page states them."""
    values = asdict(settings) | {"C": trained.model.C}
    chosen = () if trained.choice is None else (("choice of C:", trained.choice.describe()),)
    return tuple((name, f"{value:g}") for name, value in values.items()) + chosen


def facts_of(
    examples: Examples | FileExamples, trained: Trained, evaluation: Evaluation, directory: Path
) -> dict[str, Any]:
    """Return the results of a run in the types of JSON."""
    K, choice = len(evaluation.class_names), trained.choice
    return {
        "data": examples.name,
        "read": list(examples.notes),
        "classes": K,
        "train_examples": examples.count,
        "C": trained.model.C,
        "choice": None
        if choice is None
        else {
            "reason": choice.describe(),
            "held_out_examples": choice.held_out,
            "folds": choice.folds,
            "candidates": [_finite(asdict(each)) for each in choice.candidates],
        },
        "iterations": len(trained.history),
        "interrupted": trained.interrupted,
        "converged": trained.converged,
        "failure": trained.failure,
        "test": _finite(asdict(evaluation.quality)),
        "chance": {"accuracy": 1 / K, "nll": math.log(K), "perplexity": K},
        "files": [str(directory / file) for file in FILES],
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values, None for those that JSON does not have."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def print_facts(facts: dict[str, Any], evaluation: Evaluation, directory: Path) -> None:
    """Print the model's quality, and that of guessing."""
    quality, chance = evaluation.quality, facts["chance"]
    counts = (
        f"{facts['train_examples']} examples to train, {quality.examples} to test, {facts['iterations']} iterations"
    )
    print_lines(f"{printable(facts['data'])}: {counts}")
    if facts["choice"] is not None:
        print_lines(facts["choice"]["reason"])
    print_table(
        ("on the test data", "softnll", "chance"),
        [
            ("accuracy", f"{quality.accuracy:.4f}", f"{chance['accuracy']:.4f}"),
            ("mean NLL (nats)", f"{quality.nll:.4f}", f"{chance['nll']:.4f}"),
            ("perplexity", f"{quality.perplexity:.4f}", f"{chance['perplexity']:.4f}"),
            ("calibration error (ECE)", f"{quality.ece:.4f}", ""),
        ],
    )
    print_lines(f"written to {printable(str(directory), 200)}: {', '.join(FILES)}")
