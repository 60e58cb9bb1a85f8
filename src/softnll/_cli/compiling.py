"""Announce the compilation of kernels, which takes seconds the first time on a machine, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from softnll._core.words import counted
from softnll._kernels.cpu.listeners import listen

_LONG = 0.5  # seconds of compilation that are worth a second line


class Announcement:
    """Says once that kernels are compiled, and at the end how long it took."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    def begins(self) -> None:
        """Say it before the first compilation."""
        if not self.count:
            _line("compiling kernels, once per machine ...")

    def compiled(self, seconds: float) -> None:
        """Count a compilation."""
        self.count += 1
        self.seconds += seconds

    def end(self) -> None:
        """Say how long all of them took."""
        if self.seconds >= _LONG:
            _line(f"compiled {counted(self.count, 'kernel')} in {self.seconds:.1f} s; later runs load them")


@contextmanager
def announced() -> Iterator[None]:
    """Announce the compilations within the context."""
    announcement = Announcement()
    listen(announcement)
    try:
        yield
    finally:
        listen(None)
        announcement.end()


def _line(text: str) -> None:
    """Write a line, over a spinner that a terminal may show."""
    if sys.stderr is not None:
        sys.stderr.write(f"{chr(13) + chr(27) + '[2K' if sys.stderr.isatty() else ''}{text}\n")
        sys.stderr.flush()
