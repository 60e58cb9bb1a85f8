"""Print tables, findings and derivations on the terminal, and progress on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from softnll._core.words import counted
from softnll.data.text import printable

if TYPE_CHECKING:
    from softnll._inspection.diagnose.finding import Findings
    from softnll._inspection.explain.derivation.derivation import Derivation
    from softnll._inspection.explain.explanation import Explanation
    from softnll._inspection.explain.table import Table as Strings

# Colours of the first rows of a table, readable on dark and light backgrounds.
_ROW_STYLES = ("blue", "yellow", "green", "magenta", "cyan", "red")
_SEVERITY_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def _console(*, stderr: bool = False) -> Console:
    """Return a console, a new one at each call, because tests and pipes replace the stream."""
    return Console(stderr=stderr, highlight=False)


def print_lines(*texts: str, stderr: bool = False) -> None:
    """Print texts as they are, each on as many lines as it needs."""
    for text in texts:
        _console(stderr=stderr).print(Text(text), soft_wrap=True)


def print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a small table: names in the first column, numbers in the others."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="bold")
    for i, column in enumerate(header):
        table.add_column(Text(column), justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    _console().print(table)


def print_explanation(explanation: Explanation, *, bits: bool) -> None:
    """Print an explanation's tables, then its sentences as a list."""
    from softnll._inspection.explain.tables import tables  # noqa: PLC0415 - the other commands need no explanation

    console = _console()
    for strings in tables(explanation, bits=bits):
        console.print(Text(strings.title, style="bold"))
        console.print(_as_rich(strings, _ROW_STYLES, padding=(0, 2)))
        if strings.note:
            console.print(Text(strings.note, style="italic"))
        console.print()
    for sentence in explanation.words(bits=bits):
        table = Table.grid(padding=(0, 1))
        table.add_row("\N{BULLET}", Text(sentence))
        console.print(table)


def _as_rich(strings: Strings, styles: Sequence[str], **options: Any) -> Table:
    """Return a table for the terminal, its rows in these styles; the true class's head or numbers are bold."""
    table = Table(box=None, pad_edge=False, **options)
    table.add_column("", no_wrap=True)
    by_row = strings.true_column is None  # each row marks its own number, and has a bold name
    for i, column in enumerate(strings.columns):
        star, style = ("*", "bold") if i == strings.true_column else ("", "")
        table.add_column(Text(column + star, style=style), justify="right", style=style, overflow="ellipsis")
    for n, (name, row, mark) in enumerate(zip(strings.names, strings.rows, strings.marks, strict=True)):
        style = styles[n % len(styles)]
        cells = (Text(cell, f"{style} bold underline" if by_row and i == mark else style) for i, cell in enumerate(row))
        table.add_row(Text(name, f"{style} bold" if by_row else style), *cells)
    return table


def print_derivation(derived: Derivation) -> None:
    """Print a derivation's steps; titles in bold, the true class's column too."""
    from softnll._inspection.explain.derivation.formula import as_text  # noqa: PLC0415 - only this command needs it
    from softnll._inspection.explain.derivation.steps import heading, steps  # noqa: PLC0415 - only this command needs it

    console = _console()
    console.print(Text(heading(derived), style="bold"))
    for number, step in enumerate(steps(derived), 1):
        console.print()
        console.print(Text(f"{number}. {step.title}", style="bold"))
        if step.text:
            console.print(Padding(Text(step.text), (0, 0, 0, 3)))
        for formula in step.formulas:
            console.print(Padding(Text(as_text(formula), style="cyan"), (0, 0, 0, 5)))
        if step.table is not None:
            table = _as_rich(step.table, ("",), padding=(0, 2, 0, 0), header_style="")
            console.print(Padding(table, (0, 0, 0, 5)))
        if step.then:
            console.print(Padding(Text(step.then), (0, 0, 0, 3)))


def print_findings(found: Findings, *, title: str) -> None:
    """Print each finding with its evidence, consequence and remedy; without findings, the names of the checks."""
    console = _console()
    console.print(Text(printable(title, 400), style="bold"), soft_wrap=True)
    for finding in found:
        heading = Text.assemble(
            (f"{finding.severity}: ", _SEVERITY_STYLES[finding.severity]),
            (printable(finding.title, 200), "bold"),
            (f"  [{finding.code}]", "dim"),
        )
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, text in finding.parts():
            table.add_row(Text(name, style="dim"), Text(text))
        console.print()
        console.print(heading)
        console.print(Padding(table, (0, 0, 0, 2)))
    console.print()
    if found:
        console.print(Text(found.summary()))
    else:
        rows = counted(found.rows, "row")
        console.print(Text(f"Nothing found in {rows} of {found.classes} classes.", style="bold green"))
        console.print(Text(found.looked_for()))


@contextmanager
def row_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a function of the rows read, and of all rows, that draws a bar on standard error where that is a terminal.

    The bar starts with the first call that leaves work to do; it is erased at the end, also after an exception.
    """
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=_console(stderr=True), transient=True)
    task = bar.add_task("")

    def show(done: int, total: int) -> None:
        if bar.live.is_started or (bar.console.is_terminal and done < total):
            bar.update(task, completed=done, total=total)
            bar.start()  # a second time, it does nothing

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
