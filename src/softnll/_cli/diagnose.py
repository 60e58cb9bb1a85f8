"""``softnll diagnose``: find mistakes in the scores and labels of two files."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, cast

import typer

from softnll._cli.column_options import Drop, Header, LabelColumn, ScoreColumns
from softnll._cli.exit_code import ExitCode


class FailOn(Enum):
    """The values of ``--fail-on``."""

    error = "error"
    warning = "warning"


def diagnose(
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES", help="Scores, (rows, classes): .npy, .npz, .csv, .tsv, .parquet, .safetensors or .pt."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LABELS]", help="True classes: a file of one of these kinds, or IDX. Without: SCORES has them."
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes in the order of the columns, separated by ',', or a file.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="The loss that was printed: says which convention yields it.")
    ] = None,
    fail_on: Annotated[
        FailOn | None, typer.Option(help="End with exit code 1 where a finding is this severe, or more.")
    ] = None,
    label_column: LabelColumn = None,
    score_columns: ScoreColumns = None,
    drop: Drop = None,
    header: Header = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, and nothing else.")] = False,
) -> None:
    """Find what is wrong with scores and labels: probabilities taken for logits, labels off by one, and the like.

    Each finding has its evidence in numbers, its consequence and its remedy.
    Labels that cannot be taken as they are get the reading that fits, and the rest is found with that.
    """
    from softnll._cli.score_arguments import as_choice, read_scores_and_labels
    from softnll._cli.terminal import print_findings, print_lines, row_progress
    from softnll._inspection.diagnose import checks
    from softnll._inspection.diagnose.finding import SEVERITIES, Findings

    given = read_scores_and_labels(scores, labels, classes, as_choice(label_column, score_columns, drop, header))
    print_lines(*given.stated, stderr=True)
    with row_progress() as show:
        found = cast(
            "Findings", checks.diagnose(given.rows, given.labels, class_names=given.names, loss=loss, watch=show)
        )
    if as_json:
        typer.echo(json.dumps({**found.to_dict(), "read": given.read}, allow_nan=False))
    else:
        print_findings(found, title=given.title)
    # The most severe finding comes first.
    if fail_on is not None and found and SEVERITIES.index(found[0].severity) <= SEVERITIES.index(fail_on.value):
        raise typer.Exit(ExitCode.FAILED)
