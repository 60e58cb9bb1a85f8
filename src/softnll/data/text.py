"""Text from files and users (file names, class names, cells) as one line that is safe to print on a terminal."""

from __future__ import annotations

import os

__all__ = ["place", "printable"]

# Joiners of Persian, Indic scripts and emoji: invisible, but they neither move the cursor nor reverse the text.
_JOINERS = frozenset("\u200c\u200d")


def printable(text: str, limit: int = 80) -> str:
    r"""Return the text on one line, at most ``limit`` characters, without characters that a terminal interprets.

    Control characters (ESC, C1, newlines), bidirectional overrides, lone surrogates and the like become backslash
    escapes; longer text ends in ``…``. Markup of a printing library (``[red]``) is kept: the caller escapes it for the
    library that prints.

    Parameters
    ----------
    text
        Any text.
    limit
        The largest number of characters returned, at least 1.

    Examples
    --------
    >>> printable("cat\x1b[31m\n")
    'cat\\x1b[31m\\x0a'
    >>> printable("abcdef", 4)
    'abc…'
    """
    # Only limit + 1 characters are examined: a name of a gigabyte takes no time.
    shown = "".join(char if char.isprintable() or char in _JOINERS else _escape(char) for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def place(path: str | os.PathLike[str]) -> str:
    """Return a path as messages show it."""
    return printable(os.fspath(path), 200)


def _escape(char: str) -> str:
    """Return a character as a backslash escape."""
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
