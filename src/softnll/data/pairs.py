"""Scores with their labels, from one file or two: each helps to read the other, and what was decided is stated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll.data.column_names import label_rank
from softnll.data.columns import AUTOMATIC, Choice
from softnll.data.dataset import DataError
from softnll.data.headers import is_numbered
from softnll.data.labels import listed
from softnll.data.rows import Rows
from softnll.data.score_files import (
    Labels,
    Scores,
    is_table_file,
    labels_of,
    labels_of_table,
    scores_of,
    scores_of_table,
)
from softnll.data.tables import AnyTable, open_table
from softnll.data.text import place

__all__ = ["Pair", "open_pair"]

_MOST_NAMES = 1 << 22  # rows whose names are compared


@dataclass(frozen=True, eq=False)
class Pair:
    """Scores and labels as they were read.

    Attributes
    ----------
    rows
        ``(N, C)`` scores.
    class_names
        The names of the columns, or None.
    labels
        ``(N,)`` numbers, booleans or text, or ``(N, C)`` one-hot rows in the order of the columns; None without labels.
    read
        One line about each file that is a table: which column is what.
    stated
        The lines of ``read`` about tables that are more than a column for each class, or one of labels.
    guesses
        Sentences about decisions that could be wrong and would change a result.
    """

    rows: Rows
    class_names: tuple[str, ...] | None
    labels: NDArray[Any] | None
    read: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()


def open_pair(
    scores: str | Path, labels: str | Path | None = None, *, choice: Choice = AUTOMATIC, needed: bool = True
) -> Pair:
    r"""Return the scores and labels of two files, or of one that holds both.

    Parameters
    ----------
    scores
        A file that :func:`softnll.data.score_files.open_scores` reads.
    labels
        A file that :func:`softnll.data.score_files.open_labels` reads; None, or the same file: the labels are in a
        column or an array of ``scores``.
    choice
        What the user says about the columns; the column of labels is one of ``labels`` where that is given.
    needed
        Whether labels are required.

    Raises
    ------
    DataError
        For files that cannot be read, and where there are no labels.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "predictions.csv"
    ...     _ = path.write_text("id,cat,dog,label\n7,0.1,0.9,dog\n5,0.8,0.2,cat\n")
    ...     pair = open_pair(path)
    ...     pair.class_names, pair.labels.tolist(), pair.read[0].partition(": ")[2]
    (('cat', 'dog'), ['dog', 'cat'], 'label column: label; 2 scores; ignored: index column id; header: yes')
    """
    path = Path(scores)
    beside = None if labels is None else Path(labels)
    if beside is None or _same(path, beside):
        found, given = _of_one_file(path, choice, needed=needed)
    else:
        found, given = _of_two_files(path, beside, choice)
    guesses = list(found.roles.guesses if found.roles is not None else ())
    values = None if given is None else given.values
    matched: list[str] = []
    if given is not None and given.table is not found.table:
        guesses += given.roles.guesses if given.roles is not None else ()
        values, matched = _by_row_names(found, given)
        guesses += matched
    if given is not None and values is not None and given.names is not None and found.names is not None:
        values = _in_order(values, given.names, found.names)
    files: list[Scores | Labels] = [found]
    if given is not None and given.table is not found.table:
        files.append(given)
    read = tuple(line for each in files if (line := _said(each)))
    stated = tuple(line for each in files if _is_more(each) and (line := _said(each)))
    return Pair(found.rows, found.names, values, (*read, *matched), (*stated, *matched), tuple(guesses))


def _same(path: Path, other: Path) -> bool:
    """Whether two paths are one file."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def _of_one_file(path: Path, choice: Choice, *, needed: bool) -> tuple[Scores, Labels | None]:
    """Return the scores and labels of one file."""
    if not is_table_file(path):
        found = scores_of(path, choice)
        try:
            given = labels_of(path, choice)
        except DataError:
            given = None
        if given is None or given.values.shape[:1] != found.rows.shape[:1] or given.values.ndim != 1:
            if needed:
                raise DataError(f"{place(path)}: scores without labels; name a file of labels as well")
            return found, None
        return found, given
    table = open_table(path, header=choice.header)
    found = scores_of_table(table, choice)
    roles = found.roles
    if roles is None or roles.label is None:
        if needed:
            raise DataError(
                f"{place(path)}: no column of labels among {listed([name or '(no name)' for name in table.names])}; "
                "name it (--label-column), or give a file of labels"
            )
        return found, None
    return found, Labels(table.labels(roles.label), None, table, roles)


def _of_two_files(path: Path, beside: Path, choice: Choice) -> tuple[Scores, Labels]:
    """Return the scores of one file and the labels of another; the number of rows of each decides about headers."""
    for_scores = replace(choice, label=None)
    for_labels = Choice(label=choice.label)
    if not is_table_file(beside):
        given = labels_of(beside, for_labels)
        found = scores_of(path, for_scores, expected=len(given.values))
        if choice.label is not None:
            raise DataError(f"{place(beside)}: is no table; --label-column is for one")
        return found, given
    if not is_table_file(path):
        found = scores_of(path, for_scores)
        N, C = found.rows.shape
        return found, labels_of(beside, for_labels, expected=N, classes=C)
    table = open_table(path, header=choice.header)
    other = open_table(beside, expected=table.rows + (table.header is False))
    if other.doubt or other.rows != table.rows:
        other = open_table(beside)
    if table.doubt or other.rows != table.rows:
        table = open_table(path, header=choice.header, expected=other.rows)
    if table.rows != other.rows:
        other = open_table(beside, expected=table.rows)
    if table.doubt and other.rows == table.rows and is_numbered(other.names):
        table.doubt = other.doubt = ""  # both have a header of numbers
    found = scores_of_table(table, for_scores)
    return found, labels_of_table(other, for_labels, classes=found.rows.shape[1])


def _by_row_names(found: Scores, given: Labels) -> tuple[NDArray[Any], list[str]]:
    """Return the labels in the order of the scores' rows, where both files name their rows, and what was decided."""
    mine, theirs = _row_names(found.table, found), _row_names(given.table, given)
    values = given.values
    if mine is None or theirs is None or mine == theirs:
        return values, []
    place_of = {name: k for k, name in enumerate(theirs)}
    if len(place_of) < len(theirs) or len(set(mine)) < len(mine):
        return values, []
    if set(mine) <= set(place_of) and not _counting(found) and not (_counting(given) and len(mine) == len(theirs)):
        order = np.array([place_of[name] for name in mine])
        what = "are in another order" if len(mine) == len(theirs) else f"have {counted(len(theirs), 'row')}"
        return values[order], [f"the labels {what}: each was matched with the scores by the name of its row"]
    if len(mine) == len(theirs) and not (_counting(found) and _counting(given)):
        k = next(k for k, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
        return values, [f"the names of the rows differ from row {k} on: {listed([mine[k], theirs[k]])}"]
    return values, []


def _row_names(table: AnyTable | None, given: Scores | Labels) -> list[str] | None:
    """Return the names of a table's rows, where it has one column of them."""
    if table is None or given.roles is None or len(given.roles.index) != 1 or table.rows > _MOST_NAMES:
        return None
    k = given.roles.index[0]
    numbers = table.numbers(k)
    return table.words(k) if numbers is None else [f"{number:.17g}" for number in numbers.tolist()]


def _counting(given: Scores | Labels) -> bool:
    """Whether the names of the rows are nothing but their numbers."""
    if given.table is None or given.roles is None:
        return False
    return given.table.columns[given.roles.index[0]].order == "counting"


def _in_order(values: NDArray[Any], names: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[Any]:
    """Return one-hot columns in the order of the scores' columns, where both have the same names."""
    if values.ndim != 2 or names == wanted or set(names) != set(wanted):
        return values
    return values[:, [names.index(name) for name in wanted]]


def _said(given: Scores | Labels) -> str:
    """Return the line about a table; "" for other files."""
    if given.table is None or given.roles is None:
        return ""
    values = "scores" if isinstance(given, Scores) else "one-hot columns" if given.roles.values else ""
    return f"{given.table.where}: {given.roles.describe(values)}"


def _is_more(given: Scores | Labels) -> bool:
    """Whether a table has columns that are left out, labels beside scores, a guess, or a header that is in doubt."""
    table, roles = given.table, given.roles
    if table is None or roles is None:
        return False
    beside = roles.label is not None and isinstance(given, Scores)
    unusual = bool(table.header) and not table.index and is_numbered(table.names)
    unknown = isinstance(given, Labels) and roles.label is not None and bool(table.header)
    unknown = unknown and label_rank(table.names[roles.label or 0]) is None
    return bool(beside or unusual or unknown or roles.index or roles.ignored or roles.guesses)
