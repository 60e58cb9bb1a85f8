"""``softnll train``: from the name of some data to a folder of results, with what it says on the way."""

from __future__ import annotations

import json
import math
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from softnll.data import load, printable
from softnll.results import FILES, evaluate, write
from softnll.terminal import Download, Iterations, key_values, stderr, stdout
from softnll.train import Settings, Step, hold_out, train

if TYPE_CHECKING:
    from softnll.results import Result
    from softnll.train import Trained

__all__ = ["run"]

INTERRUPTED = 130


def run(
    source: str,
    out: Path | None,
    *,
    cache: Path | None,
    download: bool,
    labels: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Train, measure, write, tell; return the exit code: 0, or 130 if Ctrl-C ended the training early."""
    settings = Settings(**options)
    with Download() as progress:
        first, second = load(source, labels=labels, cache=cache, download=download, progress=progress)
    if second is None:
        first, second = hold_out(first, settings.seed)
    directory = out if out is not None else Path(f"softnll-{_file_name(first.name)}")
    _check_writable(directory)  # before the work, not after it

    with Iterations(settings.max_iter) as show:

        def watch(step: Step) -> None:
            show(step.iteration, step.loss, step.accuracy)

        trained = train(first, settings, watch)
    result = evaluate(trained, second)
    write(directory, trained, result, second, settings)
    if trained.interrupted:
        stderr().print(
            Text(f"interrupted after {_iterations(trained)} iterations; what was reached is kept"), soft_wrap=True
        )
    elif not trained.converged:
        text = f"ended by --max-iter {settings.max_iter} before the gradient was as small as --tol {settings.tol:g}"
        stderr().print(Text(text), soft_wrap=True)
    if as_json:
        print(json.dumps(_facts(first.name, len(first.labels), trained, result, directory), allow_nan=False))  # noqa: T201 - the output
    else:
        _print(first.name, len(first.labels), trained, result, directory)
    return INTERRUPTED if trained.interrupted else 0


def _print(name: str, examples: int, trained: Trained, result: Result, directory: Path) -> None:
    """Print how good the model is, beside guessing."""
    console, quality, C = stdout(), result.quality, len(result.class_names)
    counts = f"{examples} examples to train, {quality.examples} to test, {_iterations(trained)} iterations"
    console.print(Text(f"{printable(name)}: {counts}"), soft_wrap=True)
    rows: list[tuple[str, ...]] = [
        ("accuracy", f"{quality.accuracy:.4f}", f"{1 / C:.4f}"),
        ("mean NLL (nats)", f"{quality.nll:.4f}", f"{math.log(C):.4f}"),
        ("perplexity", f"{quality.perplexity:.4f}", f"{C:.4f}"),
        ("calibration error (ECE)", f"{quality.ece:.4f}", ""),
    ]
    console.print(key_values(rows, ("on the test data", "softnll", "chance")))
    console.print(Text(f"written to {printable(str(directory), 200)}: {', '.join(FILES)}"), soft_wrap=True)


def _facts(name: str, examples: int, trained: Trained, result: Result, directory: Path) -> dict[str, Any]:
    """Return the same for a script."""
    C = len(result.class_names)
    return {
        "data": name,
        "classes": C,
        "train_examples": examples,
        "iterations": _iterations(trained),
        "interrupted": trained.interrupted,
        "converged": trained.converged,
        "test": {key: value if math.isfinite(value) else None for key, value in asdict(result.quality).items()},
        "chance": {"accuracy": 1 / C, "nll": math.log(C), "perplexity": C},
        "files": [str(directory / file) for file in FILES],
    }


def _iterations(trained: Trained) -> int:
    """Return how many iterations there were."""
    return trained.history[-1].iteration if trained.history else 0


def _file_name(name: str) -> str:
    """Return a data set's name as part of a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", Path(name).stem.lower()).strip("-") or "data"


def _check_writable(directory: Path) -> None:
    """Raise OSError where a file cannot be made, and leave nothing behind."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        pass
