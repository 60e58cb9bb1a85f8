"""The options that name what the reader of tables gets wrong, the same for every command."""

from __future__ import annotations

import re
from typing import Annotated

import typer

LabelColumn = Annotated[
    str | None, typer.Option("--label-column", help="The column of labels of a table: its name, or its number from 1.")
]
ScoreColumns = Annotated[
    str | None,
    typer.Option("--score-columns", help="The columns of scores: names or numbers from 1, separated by ',', or 2-5."),
]
Drop = Annotated[
    str | None, typer.Option("--drop", help="Columns to leave out: names or numbers from 1, separated by ','.")
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line of a text table is a header.  [default: decided from it]",
        show_default=False,
    ),
]


def listed(given: str | None) -> tuple[str, ...]:
    """Return the columns that an option lists; ``2-5`` are four of them.

    Examples
    --------
    >>> listed("cat, 4-6")
    ('cat', '4', '5', '6')
    """
    found: list[str] = []
    for part in (given or "").split(","):
        ends = re.fullmatch(r"\s*([0-9]{1,6})\s*-\s*([0-9]{1,6})\s*", part, re.ASCII)
        if ends:
            found += map(str, range(int(ends[1]), int(ends[2]) + 1))
        elif part.strip():
            found.append(part.strip())
    return tuple(found)
