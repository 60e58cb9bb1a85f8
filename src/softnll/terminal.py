"""Writing to a terminal: names from outside as text and nothing else, and progress that fits where it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from softnll.derivation import Derivation
    from softnll.stages import Stage

__all__ = [
    "Download",
    "Iterations",
    "RowProgress",
    "key_values",
    "print_derivation",
    "print_stage",
    "print_words",
    "stderr",
    "stdout",
]

# Colours of the first rows of a table, readable on dark and light backgrounds.
ROW_STYLES = ("blue", "yellow", "green", "magenta", "cyan", "red")


def stdout() -> Console:
    """Return a console on standard output; made at each use, because tests and pipes replace the stream."""
    return Console(highlight=False, soft_wrap=False)


def stderr() -> Console:
    """Return a console on standard error."""
    return Console(stderr=True, highlight=False)


def print_stage(console: Console, stage: Stage) -> None:
    """Print one table of an explanation, a colour a row, the true class in bold reverse."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("", no_wrap=True)
    for column in stage.columns:
        table.add_column(Text(column), justify="right", overflow="ellipsis")
    for n, (name, row, mark) in enumerate(zip(stage.names, stage.rows, stage.marks, strict=True)):
        color = ROW_STYLES[n % len(ROW_STYLES)]
        cells = [Text(value, style=f"{color} bold underline" if i == mark else color) for i, value in enumerate(row)]
        table.add_row(Text(name, style=f"{color} bold"), *cells)
    console.print(Text(stage.title, style="bold"))
    console.print(table)
    if stage.note:
        console.print(Text(stage.note, style="italic"))
    console.print()


def print_words(console: Console, words: list[str]) -> None:
    """Print sentences as a list."""
    for word in words:
        table = Table.grid(padding=(0, 1))
        table.add_row("\N{BULLET}", Text(word))
        console.print(table)


def print_derivation(console: Console, derived: Derivation) -> None:
    """Print a derivation's steps; titles in bold, the true class's column too."""
    from softnll.derivation_steps import heading, steps  # noqa: PLC0415 - only this command needs it
    from softnll.formula import as_text  # noqa: PLC0415 - only this command needs it

    console.print(Text(heading(derived), style="bold"))
    for number, step in enumerate(steps(derived), 1):
        console.print()
        console.print(Text(f"{number}. {step.title}", style="bold"))
        if step.says:
            console.print(Padding(Text(step.says), (0, 0, 0, 3)))
        for formula in step.formulas:
            console.print(Padding(Text(as_text(formula), style="cyan"), (0, 0, 0, 5)))
        if step.grid is not None:
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
            table.add_column("", no_wrap=True)
            for i, name in enumerate(step.grid.columns):
                style = "bold" if i == step.grid.mark else ""
                heads = Text(name + ("*" if i == step.grid.mark else ""), style=style)
                table.add_column(heads, justify="right", style=style, overflow="ellipsis")
            for name, row in zip(step.grid.names, step.grid.rows, strict=True):
                table.add_row(Text(name), *(Text(value) for value in row))
            console.print(Padding(table, (0, 0, 0, 5)))
        if step.then:
            console.print(Padding(Text(step.then), (0, 0, 0, 3)))


class Iterations:
    """Shows iterations as they happen: a live line where standard error is a terminal, plain lines elsewhere."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._start = time.monotonic()
        self._console = stderr()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("iteration {task.completed} of at most {task.total}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[facts]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=most, facts="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, iteration: int, loss: float, accuracy: float) -> None:
        """Show one iteration."""
        rate = iteration / max(time.monotonic() - self._start, 1e-9)
        facts = f"mean NLL {loss:.4f}  accuracy {accuracy:.4f}  {rate:.3g} it/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, facts=facts)
        elif iteration <= 1 or iteration % _every(iteration) == 0:
            # Lines thin out as they grow in number, so that a log of 10 000 iterations stays readable.
            self._console.print(Text(f"iteration {iteration:>5}  {facts}"), soft_wrap=True)


class Download:
    """Shows how much of a download is there, where standard error is a terminal."""

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

    def __call__(self, done: int, total: int | None) -> None:
        """Show the bytes that are there, of those expected."""
        if self._bar is None:
            if not self._console.is_terminal:
                return
            columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)


class RowProgress:
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


def key_values(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> Table:
    """Return a small table: a name, then numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="bold")
    for i, column in enumerate(head):
        table.add_column(Text(column), justify="right" if i else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _every(iteration: int) -> int:
    """Return which iterations are printed: each tenth to 100, then each fiftieth, each five-hundredth from 1000."""
    return 10 if iteration <= 100 else 50 if iteration <= 1000 else 500
