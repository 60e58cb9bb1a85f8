"""What a long command is doing, on standard error: never silent for more than a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

_INTERVAL = 0.5  # seconds between two lines of numbers
_SILENCE = 0.55  # seconds without a line, after which the stage is printed again


class Activity:
    """Shows the stage of a command and its latest numbers: a spinner on a terminal, else at least a line a second.

    Until `accept` is called, a stage is printed only where it takes a second: an error that comes soon stands alone.
    """

    def __init__(self, console: Console, status: Any) -> None:
        self._console, self._status = console, status
        self._stage, self._accepted = "", False
        self._began = self._printed = time.monotonic()
        self._lock = threading.Lock()
        self.done = threading.Event()

    def stage(self, text: str) -> None:
        """Show what begins."""
        with self._lock:
            self._stage, self._began = text, time.monotonic()
            if self._accepted or self._status is not None:
                self._show(text)

    def accept(self, text: str) -> None:
        """Show what begins, and each stage from now on: the input was accepted."""
        self._accepted = True
        self.stage(text)

    def step(self, facts: str) -> None:
        """Show numbers of the stage: on a terminal always, else where the last line is older than a second."""
        with self._lock:
            if self._status is not None:
                self._status.update(escape(f"{self._stage}: {facts}"))
            elif time.monotonic() - self._printed >= _INTERVAL:
                self._show(facts)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            self._console.print(Text(text), soft_wrap=True)
            self._printed = time.monotonic()

    def beat(self) -> None:
        """Print the stage and its seconds where nothing was printed for a second, until `done` is set."""
        while not self.done.wait(_SILENCE / 9):
            with self._lock:
                if time.monotonic() - self._printed >= _SILENCE:
                    self._show(f"{self._stage} ({time.monotonic() - self._began:.0f} s)")

    def _show(self, text: str) -> None:
        """Print a line, or change the spinner's text."""
        self._printed = time.monotonic()
        if self._status is not None:
            self._status.update(escape(text))
        else:
            self._console.print(Text(text), soft_wrap=True)


@contextmanager
def activity(first: str) -> Iterator[Activity]:
    """Yield an `Activity` whose first stage begins; a terminal's line is erased at the end.

    A thread prints while the main one compiles or imports; it ends with the context.
    """
    console = Console(stderr=True, highlight=False)
    status = console.status("", spinner="line") if console.is_terminal else None
    shown = Activity(console, status)
    thread = None
    if status is not None:
        status.start()
    else:
        thread = threading.Thread(target=shown.beat, daemon=True)
        thread.start()
    try:
        shown.stage(first)
        yield shown
    finally:
        shown.done.set()
        if status is not None:
            status.stop()
        if thread is not None:
            thread.join()
