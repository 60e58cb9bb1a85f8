"""``softnll diagnose``: from two files to findings on a terminal or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import softnll
from softnll.data.dataset import DataError
from softnll.data.score_files import open_labels, open_scores
from softnll.data.text import place, printable
from softnll.diagnosis.finding import SEVERITIES, Finding, Findings
from softnll.terminal import stderr, stdout

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

__all__ = ["run"]

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_LARGEST_NAMES = 1 << 24  # bytes of a file of class names


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
    names = _names(classes) if classes is not None else header
    with _Progress() as watch:
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


def _names(given: str) -> tuple[str, ...]:
    """Return class names from a file, one a line, or written out, apart by commas."""
    from softnll.scores import read_names  # noqa: PLC0415 - loaded when it is asked for

    path = Path(given)
    if "," in given or not path.is_file():
        return read_names(given)
    if path.stat().st_size > _LARGEST_NAMES:
        raise DataError(f"{place(path)}: {path.stat().st_size} bytes; class names have at most {_LARGEST_NAMES}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{place(path)}: class names must be UTF-8 text, one a line") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) != len(names):
        raise DataError(f"{place(path)}: one class name twice")
    return names


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


class _Progress:
    """Shows how many rows have been looked at, where standard error is a terminal."""

    def __init__(self) -> None:
        self._console = stderr()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show the rows that are done, of all."""
        if self._bar is None:
            if not self._console.is_terminal or done == total:
                return
            columns = (
                TextColumn("rows"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)
