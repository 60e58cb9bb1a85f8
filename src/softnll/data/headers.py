"""Decide whether the first row of a text table is a header."""

from __future__ import annotations

import re
from collections.abc import Sequence

from softnll.data.column_names import SURE_LABEL_NAMES, label_rank
from softnll.data.delimited import is_missing, is_number

__all__ = ["header_state", "is_numbered"]

_WHOLE = re.compile(r"\s*(0|[1-9][0-9]{0,17})\s*", re.ASCII)


def header_state(first: Sequence[str], body: Sequence[Sequence[str]], decimal: str = ".") -> str:
    """Return "yes" or "no"; "likely", "unlikely" or "either" where the number of labels may decide otherwise.

    ``body`` are some of the rows below. A header's cells are no numbers where the column has numbers, or they are
    the columns' numbers, which pandas and R write.

    Examples
    --------
    >>> header_state(["cat", "dog"], [["0.1", "0.9"]]), header_state(["0.2", "0.8"], [["0.1", "0.9"]])
    ('yes', 'no')
    >>> header_state(["0", "1"], [["0.1", "0.9"]]), header_state(["0", "1"], [["1", "0"]])
    ('likely', 'either')
    """
    columns = list(zip(*body, strict=False))
    if not columns:
        return "no" if any(is_number(cell, decimal) for cell in first) else "yes"
    numeric = [_numeric(column, decimal) for column in columns]
    repeated = any(
        cell.strip() in {each.strip() for each in column}
        for cell, column, number in zip(first, columns, numeric, strict=False)
        if not number and cell.strip()
    )
    tops = [cell for cell, number in zip(first, numeric, strict=False) if number]
    fractions = any(is_number(cell, decimal) and not _WHOLE.fullmatch(cell) for cell in tops)
    named = any((rank := label_rank(cell)) is not None and rank < SURE_LABEL_NAMES for cell in first)
    words = any(not is_number(cell, decimal) and not is_missing(cell) for cell in tops)
    if tops and words and not repeated and (not fractions or named):
        return "yes"
    unnamed = not first[0].strip() and all(cell.strip() and not is_number(cell, decimal) for cell in first[1:])
    if (named or (unnamed and len(first) > 1)) and not repeated:
        return "yes"
    if is_numbered(first) and not repeated:
        return _numbers_above(first, [column for column, number in zip(columns, numeric, strict=False) if number])
    if tops or repeated:
        return "no"
    # Nothing but words below: a header's words occur once.
    sure = len(first) > 1 and len(body) > 1 and any(len({each.strip() for each in c}) < len(c) for c in columns)
    known = any(label_rank(cell) is not None for cell in first)
    return "likely" if sure or known else "unlikely"


def is_numbered(first: Sequence[str]) -> bool:
    """Whether the cells, but for an empty first one and the label's name, are different whole numbers."""
    cells = [cell for k, cell in enumerate(first) if not (k == 0 and not cell.strip())]
    numbers = [cell.strip() for cell in cells if _WHOLE.fullmatch(cell)]
    others = [cell for cell in cells if not _WHOLE.fullmatch(cell)]
    return bool(numbers) and len(set(numbers)) == len(numbers) and all(label_rank(cell) is not None for cell in others)


def _numbers_above(first: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    """Return the state of a first row of different whole numbers above columns of numbers."""
    if not first[0].strip():
        return "yes"  # a name for every column but the index
    numbers = sorted(int(cell) for cell in first if _WHOLE.fullmatch(cell))
    counts = numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1
    fractions = sum(all(not _WHOLE.fullmatch(cell) for cell in column) for column in columns)
    if len(numbers) > 1 and fractions * 2 > len(columns):
        return "likely" if counts or len(columns[0]) > 4 else "unlikely"
    if len(numbers) > 1 and counts:
        return "likely" if len(numbers) > 4 else "either"
    return "unlikely" if counts else "no"


def _numeric(column: Sequence[str], decimal: str) -> bool:
    """Whether a column holds numbers, some missing ones and faults aside."""
    present = [cell for cell in column if not is_missing(cell)]
    return bool(present) and sum(is_number(cell, decimal) for cell in present) * 2 > len(present)
