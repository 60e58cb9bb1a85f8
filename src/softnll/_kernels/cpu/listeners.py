"""Report each compilation of a kernel to one object, such as the command line's announcement; no Numba is imported."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """An object whose methods are called before and after a kernel is compiled."""

    def begins(self) -> None:
        """Handle the beginning of a compilation; the kernel is not in the cache."""

    def compiled(self, seconds: float) -> None:
        """Handle its end, after so many seconds."""


_listeners: list[Listener] = []


def listen(listener: Listener | None) -> None:
    """Call this listener from now on, instead of the one before; None for no listener."""
    _listeners[:] = [] if listener is None else [listener]


def current() -> Listener | None:
    """Return the listener, or None."""
    return _listeners[0] if _listeners else None
