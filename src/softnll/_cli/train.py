"""``softnll train``: from the name of some data to a folder with the model, its scores and a report."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softnll._cli.exit_code import ExitCode

if TYPE_CHECKING:
    from contextlib import ExitStack

    from softnll._classifier.examples import Examples
    from softnll._classifier.options import Settings
    from softnll._classifier.train import Trained, TrainingStep
    from softnll._cli.activity import Activity
    from softnll.dask._train import FileExamples
    from softnll.data.columns import Choice


def train(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="digits, cifar10, mnist, fashion-mnist, a file, a folder, 'files*'."),
    ] = "digits",
    out: Annotated[Path | None, typer.Option(help="Where the results go.  [default: ./softnll-NAME]")] = None,
    C: Annotated[
        float | None,
        typer.Option(
            "--C",
            help="Inverse of the L2 penalty: larger fits the data closer.  [default: chosen on held-out examples]",
            show_default=False,
        ),
    ] = None,
    max_iter: Annotated[int, typer.Option(help="Iterations of L-BFGS at most, for each C.", min=1)] = 500,
    tol: Annotated[float, typer.Option(help="End when no entry of the gradient is larger.")] = 1e-4,
    label_smoothing: Annotated[float, typer.Option(help="Share of each target spread over all classes, 0 to 1.")] = 0.0,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Take each image's mirror image as a further example (twice the memory).")
    ] = False,
    seed: Annotated[int, typer.Option(help="Chooses the examples that are held out.", min=0)] = 0,
    cache: Annotated[Path | None, typer.Option(help="Where downloads are kept.")] = None,
    no_download: Annotated[bool, typer.Option("--no-download", help="Use only what is there already.")] = False,
    labels: Annotated[
        str | None, typer.Option(help="Labels, where DATA has none: a .npy or .csv file, or 'files*'.")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="A table's column of labels: its name or number.")] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A table's column that is no feature; may be given several times.")
    ] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether a table's first line is a header.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")] = False,
) -> None:
    """Train the last layer on pixels, features or a table, and write the model, its scores and a report.

    C is chosen on held-out training examples; the test examples take no part in it. Words in a table become one column
    a category, empty cells the median. DIR gets model.npz, scores.npy, labels.npy, history.csv and report.html; other
    files there are left alone. `softnll predict` applies the model. Ctrl-C ends the training and keeps what it reached.
    A pattern in quotes, 'rows/*.parquet', is many files with the same columns, which may be larger than memory.
    """
    from contextlib import ExitStack

    from softnll._cli.activity import activity

    with ExitStack() as opened, activity("starting") as shown:
        from softnll._classifier.examples import files_of, load_examples
        from softnll._classifier.options import Settings
        from softnll.data.columns import Choice

        settings = Settings(C=C, max_iter=max_iter, tol=tol, label_smoothing=label_smoothing, mirror=mirror, seed=seed)
        shown.stage(f"reading {data}")
        chosen = Choice(label=label_column, drop=tuple(drop or ()), header=header)
        examples: Examples | FileExamples
        if files := files_of(data):
            examples = _many(data, files, seed, chosen, labels, mirror, shown, opened)
        else:
            examples = load_examples(
                data,
                seed,
                labels=None if labels is None else Path(labels),
                choice=chosen,
                cache=cache,
                download=not no_download,
                progress=lambda done, size: shown.step(f"downloaded {done >> 20} of {size >> 20} MiB"),
            )
        directory = out if out is not None else Path(f"softnll-{_folder_name(examples.name)}")
        _check_writable(directory)  # before the training, not after it
        shown.accept("loading scikit-learn")
        from softnll._classifier.evaluate import evaluate
        from softnll._cli.train_results import facts_of, print_facts, write_results

        trained = _train(examples, settings, shown)
        shown.stage("writing the report")
        evaluation = evaluate(trained.model, examples.test)
        write_results(directory, trained, evaluation, examples.test, settings)
    facts = facts_of(examples, trained, evaluation, directory)
    if as_json:
        typer.echo(json.dumps(facts, allow_nan=False))
    else:
        print_facts(facts, evaluation, directory)
    if trained.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _many(
    pattern: str,
    files: list[Path],
    seed: int,
    chosen: Choice,
    labels: str | None,
    mirror: bool,
    shown: Activity,
    opened: ExitStack,
) -> FileExamples:
    """Return the examples of many files; the workers that read them end with ``opened``."""
    from softnll.dask._train import read_files, workers

    if mirror:
        raise ValueError(f"{pattern}: several files; --mirror is for one")
    where = opened.enter_context(workers(files))
    shown.stage(f"reading {len(files)} files {where}")
    examples = read_files(pattern, files, seed, chosen, labels)
    return replace(examples, notes=(f"{len(files)} files, read {where}", *examples.notes))


def _train(examples: Examples | FileExamples, settings: Settings, shown: Activity) -> Trained:
    """Train, and show each iteration, the choice of C and how the fit ended."""
    from softnll._classifier import train as training
    from softnll._classifier.examples import Examples

    for note in examples.notes:
        shown.note(note)

    def show(step: TrainingStep) -> None:
        facts = f"iteration {step.iteration:>5}  mean NLL {step.loss:.4f}  accuracy {step.accuracy:.4f}"
        if step.held_out_loss is not None:
            facts += f"  held out {step.held_out_loss:.4f}  {step.held_out_accuracy:.4f}  C {step.C:g}"
        shown.step(facts)

    if isinstance(examples, Examples):
        trained = training.train(examples.train, settings, show, shown.stage)
    else:
        trained = examples.train(settings, show, shown.stage)
    trained.model.recipe_ = examples.recipe.of_classes(trained.model.classes_)
    if trained.interrupted:
        shown.note(f"interrupted after {len(trained.history)} iterations; what was reached is kept")
    elif trained.failure:
        by_limit = f"max_iter={settings.max_iter} " in trained.failure
        ended = f"ended by --max-iter {settings.max_iter} before the gradient was as small as --tol {settings.tol:g}"
        shown.note(f"{ended}; {trained.failure}" if by_limit else trained.failure)
    return trained


def _folder_name(name: str) -> str:
    """Return a data set's name as part of a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", Path(name).name.split(".")[0].lower()).strip("-") or "data"


def _check_writable(directory: Path) -> None:
    """Raise OSError where no file can be created in the directory; leave no file behind."""
    import tempfile

    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        pass
