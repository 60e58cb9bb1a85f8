"""Scores written as text on a command line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll.data.dataset import DataError
from softnll.data.delimited import is_number
from softnll.data.text import printable

__all__ = ["parse_scores"]


def parse_scores(text: str, where: str) -> NDArray[np.float64]:
    """Return ``(N, C)`` scores from rows separated by ``;`` and numbers separated by ``,``.

    Examples
    --------
    >>> parse_scores("5,4,2; 4,2,8", "--scores").tolist()
    [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0]]
    """
    rows = [row.split(",") for row in text.strip().strip(";").split(";")]
    width = len(rows[0])
    for number, row in enumerate(rows):
        if len(row) != width:
            raise DataError(f"{where}: row {number} has {counted(len(row), 'score')}, the first one {width}")
        for cell in row:
            if not is_number(cell):
                raise DataError(f"{where}: row {number}: {printable(cell.strip(), 30)!r} is not a number")
    return np.array([[float(cell) for cell in row] for row in rows])
