"""Counts as text."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count and its noun, which is plural unless the count is 1.

    Examples
    --------
    >>> counted(1, "row"), counted(0, "row"), counted(2, "class")
    ('1 row', '0 rows', '2 classes')
    """
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"
