"""``softnll report``: a page about the scores and labels of two files."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softnll._cli.column_options import Drop, Header, LabelColumn, ScoreColumns
from softnll._core.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from softnll._inspection.report.given import Given


def report(
    scores: Annotated[
        Path, typer.Argument(help="Scores, (rows, classes): .npy, .npz, .csv, .tsv, .parquet, .safetensors or .pt.")
    ],
    labels: Annotated[
        Path | None,
        typer.Argument(help="True classes: a file of one of these kinds, or IDX. Without: SCORES has them."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Images to show, (N, H, W) or (N, H, W, 3) uint8: .npy or .npz.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes in the order of the columns, separated by ',', or a file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    label_column: LabelColumn = None,
    score_columns: ScoreColumns = None,
    drop: Drop = None,
    header: Header = None,
    seed: Annotated[int, typer.Option(help="Chooses the rows that the temperature is fitted on.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> None:
    """Write a page about scores and labels: findings, where the loss is, calibration, confusions, suspicious labels.

    Scores may be logits, probabilities, percentages or log-probabilities; the report says which it takes them for.
    Beside the page a .csv lists all rows whose labels look wrong; --json has them as well. Rows count from 0.
    Scores that do not fit in memory are read once, a block of rows at a time.
    """
    from softnll._cli.score_arguments import as_choice, labels_read, names_of, read_scores_and_labels
    from softnll._cli.terminal import print_lines, row_progress
    from softnll._inspection.report.build import Inspection, inspect
    from softnll._inspection.report.given import examine_given
    from softnll._inspection.report.suspects import as_csv, suspects
    from softnll.data.dataset import DataError
    from softnll.data.text import place, printable

    read = read_scores_and_labels(scores, labels, classes, as_choice(label_column, score_columns, drop, header))
    print_lines(*read.stated, stderr=True)
    pixels = None if images is None else _read_images(images, len(read.labels))
    if out.is_dir():
        raise DataError(f"{place(out)}: a folder; --out is a file")
    with row_progress() as show:
        try:
            given = examine_given(read.rows, read.labels, read.names, show, seed=seed)
        except ValueError as error:
            raise DataError(f"{read.title}: {error}") from None
    said = labels_read(labels or scores, given.findings)
    print_lines(*said, stderr=True)
    names = names_of(read, given.findings, given.classes)
    rows_in_doubt = suspects(given.examined.found, names)
    beside = _beside(out)
    page = inspect(
        Inspection(
            scores.stem,
            names,
            given.examined,
            pixels,
            given.findings,
            given.scores_are,
            given.changed,
            read=(*read.read, *said),
            table_beside="" if beside is None else beside.name,
        )
    )
    _write(out, page, beside, as_csv(rows_in_doubt))
    if as_json:
        facts = _as_json(given, names, rows_in_doubt)
        typer.echo(json.dumps({**facts, "read": (*read.read, *said)}, allow_nan=False))
        return
    _print(given)
    print_lines(f"wrote {printable(str(out), 400)}")
    if beside is not None:
        in_doubt = counted(len(rows_in_doubt), "row")
        print_lines(f"wrote {printable(str(beside), 400)}: {in_doubt} whose labels look wrong")


def _beside(out: Path) -> Path | None:
    """Return the path of the table of suspicious rows beside the page; None where the page is no regular file."""
    return out.with_name(f"{out.stem}-suspicious.csv") if out.is_file() or not out.exists() else None


def _write(out: Path, page: str, beside: Path | None, table: str) -> None:
    """Write the page, and the table beside it."""
    from softnll.data.atomic import write_whole

    write_whole(out, page.encode())
    if beside is not None:
        write_whole(beside, table.encode())


def _as_json(given: Given, names: tuple[str, ...], rows_in_doubt: list[dict[str, Any]]) -> dict[str, Any]:
    """Return everything that the report knows in the types of JSON."""
    from softnll._inspection.report.classes import class_figures
    from softnll._inspection.report.summary import finite, summary

    return {
        **summary(given.examined),
        "score_kind": given.score_kind,
        "scores_are": given.scores_are,
        "changed": list(given.changed),
        "findings": [finding.to_dict() for finding in given.findings],
        "per_class": [finite(row) for row in class_figures(given.examined.found, names)],
        "suspicious_rows": rows_in_doubt,
    }


def _print(given: Given) -> None:
    """Print how the scores were read, the findings in a line each, and the figures."""
    from softnll._cli.terminal import print_lines
    from softnll._inspection.report.sentences import sentences
    from softnll._inspection.report.summary import summary

    if given.score_kind != "logits":
        print_lines(f"the scores are {given.scores_are}")
    for finding in given.findings:
        print_lines(f"{finding.severity}: {finding.title} [{finding.code}]")
    if given.findings:
        print_lines("(softnll diagnose gives the evidence; the page has it as well)")
    for sentence in sentences(summary(given.examined)):
        print_lines(sentence)


def _read_images(path: Path, N: int) -> NDArray[np.uint8]:
    """Return the images of a file, one a row."""
    from softnll.data.arrays import as_images, read_npy
    from softnll.data.dataset import DataError
    from softnll.data.npz import read_member
    from softnll.data.text import place

    names = ("images", "x", "inputs")
    array = read_member(path, names) if path.suffix.lower() == ".npz" else read_npy(path)
    images = as_images(array)
    if images is None or len(images) != N or 0 in images.shape:
        raise DataError(
            f"{place(path)}: images of shape {array.shape} and type {array.dtype.name}; "
            f"expected uint8, ({N}, H, W) or ({N}, H, W, 3)"
        )
    return images
