"""The commands of ``softnll``: their options, and what they print; the work is done elsewhere."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import softnll

if TYPE_CHECKING:
    from softnll.derivation import Derivation
    from softnll.explanation import Explanation

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is plain text: it reads the same in a pipe, and brackets in it are brackets
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class FailOn(Enum):
    """What ``--fail-on`` may be."""

    error = "error"
    warning = "warning"


_IMAGES = "5,4,2; 4,2,8; 4,4,1"  # a cat, a horse and a dog; the dog's scores tie


def _version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"softnll {softnll.__version__}")
        raise typer.Exit


@app.callback()
def _softnll(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Softmax, the negative log-likelihood and their gradient: explained, trained with, reported on."""


@app.command(epilog='Example: softnll explain --scores "5,4,2" --target cat --classes cat,dog,horse')
def explain(
    scores: Annotated[
        str | None,
        typer.Option(help="Scores: rows apart by ';', numbers by ',', or a file. Without: three images."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="True classes, names or numbers from 0, apart by ','; or a file.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes, apart by ','.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw it: a .png, .svg or .pdf file.")] = None,
    derivation: Annotated[
        int | None, typer.Option(metavar="ROW", help="Derive this row's gradient step by step, with its own numbers.")
    ] = None,
    bits: Annotated[bool, typer.Option("--bits", help="Losses in bits instead of nats.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all digits, and nothing else.")] = False,
) -> None:
    """Show how scores become probabilities, a loss and a gradient, and what the numbers say."""
    from softnll.scores import read_names, read_scores, read_targets  # noqa: PLC0415 - loaded when it is asked for

    table, header = read_scores(scores if scores is not None else _IMAGES)
    if classes is not None:
        names: tuple[str, ...] = read_names(classes)
    elif scores is None:
        names = ("cat", "dog", "horse")
    else:
        names = header or tuple(f"class {c}" for c in range(table.shape[1]))
    if scores is None and target is None:
        target = "0, 2, 1"
    targets = None if target is None else read_targets(target, names)
    told = softnll.explain(table, targets, class_names=names)
    if figure is not None:
        _draw(told, figure)
    derived = None if derivation is None else _derivation(told, derivation)
    if derived is not None and as_json:
        typer.echo(json.dumps(derived.to_dict(), allow_nan=False))
    elif derived is not None:
        from softnll.terminal import print_derivation, stdout  # noqa: PLC0415 - loaded when it is asked for

        print_derivation(stdout(), derived)
    elif as_json:
        typer.echo(json.dumps({**told.to_dict(), "words": told.words(bits=bits)}, allow_nan=False))
    else:
        _print(told, bits=bits)


@app.command(epilog="Example: softnll train digits --out digits --C 10")
def train(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="digits, cifar10, mnist, fashion-mnist, or a file or folder.")
    ] = "digits",
    out: Annotated[Path | None, typer.Option(help="Where the results go.  [default: ./softnll-NAME]")] = None,
    C: Annotated[float, typer.Option("--C", help="Inverse of the L2 penalty: larger fits the data closer.")] = 10.0,
    max_iter: Annotated[int, typer.Option(help="Iterations of L-BFGS at most.", min=1)] = 500,
    tol: Annotated[float, typer.Option(help="End when no entry of the gradient is larger.")] = 1e-5,
    label_smoothing: Annotated[float, typer.Option(help="Share of each target spread over all classes, 0 to 1.")] = 0.0,
    seed: Annotated[
        int, typer.Option(help="Chooses the held-out examples where the data has no test part.", min=0)
    ] = 0,
    cache: Annotated[Path | None, typer.Option(help="Where downloads are kept.")] = None,
    no_download: Annotated[bool, typer.Option("--no-download", help="Use only what is there already.")] = False,
    labels: Annotated[Path | None, typer.Option(help="Labels, where DATA has none: a .npy or .csv file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")] = False,
) -> None:
    """Train the last layer on pixels or features, and write the model, its scores and a report.

    DIR gets model.npz, scores.npy, labels.npy, history.csv and report.html; other files there are left alone.
    Ctrl-C ends the training and keeps what it has reached.
    """
    from softnll.training import run  # noqa: PLC0415 - loaded when it is asked for

    code = run(
        data, out, C=C, max_iter=max_iter, tol=tol, label_smoothing=label_smoothing, seed=seed, cache=cache,
        download=not no_download, labels=labels, as_json=as_json,
    )  # fmt: skip
    if code:
        raise typer.Exit(code)


@app.command(epilog="Example: softnll page --out page.html --open")
def page(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("softnll-page.html"),
    opened: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write the interactive page: scores, loss, gradient and training to play with, in one file that works offline."""
    from softnll.files import write_whole  # noqa: PLC0415 - loaded when it is asked for
    from softnll.page import build  # noqa: PLC0415 - loaded when it is asked for

    write_whole(out, build().encode())
    typer.echo(f"wrote {out}")
    if opened:
        import webbrowser  # noqa: PLC0415 - loaded when it is asked for

        webbrowser.open(out.resolve().as_uri())


@app.command(epilog="Example: softnll report scores.npy labels.npy --classes cat,dog,horse --out report.html")
def report(
    scores: Annotated[
        Path, typer.Argument(help="Scores, (rows, classes): .npy, .npz, .csv, .tsv, .parquet, .safetensors or .pt.")
    ],
    labels: Annotated[Path, typer.Argument(help="True classes: a file of one of these kinds.")],
    images: Annotated[
        Path | None, typer.Option(help="Images to show, (N, H, W) or (N, H, W, 3) uint8: .npy or .npz.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes in the order of the columns, apart by ',', or a file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    seed: Annotated[int, typer.Option(help="Chooses the rows that the temperature is fitted on.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> None:
    """Write a page about scores and labels: where the loss is, calibration, confusions, labels that look wrong.

    Scores that do not fit in memory are read once, a block of rows at a time.
    """
    from softnll.report.command import run  # noqa: PLC0415 - loaded when it is asked for

    run(scores, labels, images=images, classes=classes, out=out, seed=seed, as_json=as_json)


@app.command(epilog="Example: softnll diagnose scores.npy labels.npy --loss 1.07")
def diagnose(
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES", help="Scores, (rows, classes): .npy, .npz, .csv, .tsv, .parquet, .safetensors or .pt."
        ),
    ],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="True classes: a file of one of these kinds.")],
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes in the order of the columns, apart by ',', or a file.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="The loss that was printed: says which convention yields it.")
    ] = None,
    fail_on: Annotated[
        FailOn | None, typer.Option(help="End with exit code 1 where a finding is this severe, or more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, and nothing else.")] = False,
) -> None:
    """Find what is wrong with scores and labels: probabilities taken for logits, labels off by one, and the like.

    Each finding has its evidence in numbers, its consequence and its remedy.
    Labels that cannot be taken as they are get the reading that fits, and the rest is found with that.
    """
    from softnll.diagnosis.told import run  # noqa: PLC0415 - loaded when it is asked for

    code = run(
        scores, labels, classes=classes, loss=loss, fail_on=None if fail_on is None else fail_on.value, as_json=as_json
    )
    if code:
        raise typer.Exit(code)


def _derivation(told: Explanation, row: int) -> Derivation:
    """Return the derivation of one row, which must be there and have a true class."""
    N = len(told.logits)
    if told.targets is None:
        raise typer.BadParameter("a derivation needs true classes: give --target", param_hint="--derivation")
    if not 0 <= row < N:
        raise typer.BadParameter(f"there is no row {row}; allowed: 0 to {N - 1}", param_hint="--derivation")
    return told.derivation(row)


def _draw(told: Explanation, path: Path) -> None:
    """Draw an explanation into a file whose ending says the format."""
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise typer.BadParameter("a figure ends in .png, .svg or .pdf", param_hint="--figure")
    from softnll.figures import figure_bytes  # noqa: PLC0415 - loaded when it is asked for
    from softnll.files import write_whole  # noqa: PLC0415 - loaded when it is asked for

    write_whole(path, figure_bytes(told.plot(), kind))


def _print(told: Explanation, *, bits: bool) -> None:
    """Print an explanation's tables and words."""
    from softnll.stages import stages  # noqa: PLC0415 - loaded when it is asked for
    from softnll.terminal import print_stage, print_words, stdout  # noqa: PLC0415 - loaded when it is asked for

    console = stdout()
    for stage in stages(told, bits=bits):
        print_stage(console, stage)
    print_words(console, told.words(bits=bits))
