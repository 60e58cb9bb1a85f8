"""The listener that is told of compilations in this process. Importing it loads no Numba."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Listener", "current", "listen"]


class Listener(Protocol):
    """What is told of compilations: the command line, which announces them."""

    def begins(self) -> None:
        """Take note that the compilation of a kernel begins, which is not in the cache."""

    def compiled(self, seconds: float) -> None:
        """Take note that a kernel is compiled, and of the seconds that this took."""


_listeners: list[Listener] = []


def listen(listener: Listener | None) -> None:
    """Tell this listener, and no other, from now on."""
    _listeners[:] = [] if listener is None else [listener]


def current() -> Listener | None:
    """Return the listener, or None."""
    return _listeners[0] if _listeners else None
