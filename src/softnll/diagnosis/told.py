"""``softnll diagnose``: from two files to findings on a terminal or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import softnll
from softnll.data.score_files import open_labels, open_scores
from softnll.data.text import place, printable
from softnll.diagnosis.finding import SEVERITIES, Finding, Findings
from softnll.scores import read_class_names
from softnll.terminal import RowProgress, stdout

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run"]

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def run(
    scores: Path,
    labels: Path,
    *,
    classes: str | None,
    loss: str | None,
    fail_on: str | None,
    as_json: bool,
) -> int:
    """Read, diagnose, tell; return the exit code: 1 where a finding is as severe as ``fail_on``, else 0."""
    rows, header = open_scores(scores)
    names = read_class_names(classes) if classes is not None else header
    with RowProgress() as watch:
        found = softnll.diagnose(rows, open_labels(labels), class_names=names, loss=loss, watch=watch)
    if not isinstance(found, Findings):  # it is one: this tells the type checker
        raise TypeError(type(found).__name__)
    if as_json:
        print(json.dumps(found.to_dict(), allow_nan=False))  # noqa: T201 - the output
    else:
        _print(stdout(), found, f"{place(scores)} with {place(labels)}")
    order: tuple[str, ...] = SEVERITIES
    severe = order[: order.index(fail_on) + 1] if fail_on is not None else ()
    return int(any(finding.severity in severe for finding in found))


def _print(console: Console, found: Findings, title: str) -> None:
    """Print the findings and what was looked for."""
    console.print(Text(printable(title, 400), style="bold"), soft_wrap=True)
    for finding in found:
        console.print()
        _print_finding(console, finding)
    console.print()
    if found:
        console.print(Text(found.summary()))
    else:
        console.print(Text(f"Nothing found in {found.rows} rows of {found.classes} classes.", style="bold green"))
        console.print(Text(found.looked_for()))


def _print_finding(console: Console, finding: Finding) -> None:
    """Print one finding: a line, and below it what shows it, what it does, what to do."""
    head = Text.assemble(
        (f"{finding.severity}: ", _STYLES[finding.severity]),
        (printable(finding.title, 200), "bold"),
        (f"  [{finding.code}]", "dim"),
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in finding.parts():
        table.add_row(Text(name, style="dim"), Text(text))
    console.print(head)
    console.print(Padding(table, (0, 0, 0, 2)))
