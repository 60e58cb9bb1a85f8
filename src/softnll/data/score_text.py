"""Scores written as text on a command line."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll.data.dataset import DataError
from softnll.data.delimited import Row, is_number
from softnll.data.text import printable

__all__ = ["parse_scores"]


def parse_scores(text: str, where: str) -> NDArray[np.float64]:
    """Return ``(N, C)`` scores from rows separated by ``;`` and numbers separated by ``,``.

    Examples
    --------
    >>> parse_scores("5,4,2; 4,2,8", "--scores").tolist()
    [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0]]
    """
    rows = text.strip().strip(";").split(";")
    return _numbers((Row(n, row.split(",")) for n, row in enumerate(rows)), where, "row")


def _numbers(rows: Iterable[Row], where: str, unit: str) -> NDArray[np.float64]:
    """Return the numbers of rows of equal length; ``unit`` names a row in messages."""
    values, width = array("d"), 0
    for row in rows:
        width = width or len(row.cells)
        if len(row.cells) != width:
            raise DataError(f"{where}: {unit} {row.line} has {counted(len(row.cells), 'score')}, the first one {width}")
        for cell in row.cells:
            if not is_number(cell):
                raise DataError(f"{where}: {unit} {row.line}: {printable(cell.strip(), 30)!r} is not a number")
            values.append(float(cell))
    if not values:
        raise DataError(f"{where}: no scores")
    return np.frombuffer(values, dtype=np.float64).reshape(-1, width)
