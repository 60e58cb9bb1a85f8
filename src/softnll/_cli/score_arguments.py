"""Scores and true classes as commands take them: in one file or two, or written out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._cli.column_options import listed
from softnll._inspection.diagnose.finding import Finding
from softnll._inspection.diagnose.read_labels import IGNORED, as_classes
from softnll.data.class_labels import by_name
from softnll.data.columns import Choice
from softnll.data.dataset import DataError
from softnll.data.delimited import is_table
from softnll.data.labels import INTEGER, read_class_names
from softnll.data.pairs import Pair, open_pair
from softnll.data.rows import ArrayRows, Rows
from softnll.data.score_files import ENDINGS, labels_of
from softnll.data.score_text import parse_scores
from softnll.data.text import place, printable
from softnll.data.text_arrays import is_text


@dataclass(frozen=True, eq=False)
class ScoresAndLabels:
    """What a command was given.

    Attributes
    ----------
    rows
        ``(N, C)`` scores.
    names
        The classes' names, from ``--classes`` or from the file; None where neither has them.
    labels
        The labels as the file has them.
    title
        The files as messages show them.
    read
        What was decided about each table, for JSON and the page.
    stated
        Those of these sentences that standard error gets: where something was left out or guessed.
    """

    rows: Rows
    names: tuple[str, ...] | None
    labels: NDArray[Any]
    title: str
    read: tuple[str, ...]
    stated: tuple[str, ...]


def as_choice(label_column: str | None, score_columns: str | None, drop: str | None, header: bool | None) -> Choice:
    """Return the options about columns as the reader takes them."""
    return Choice(label_column, listed(score_columns), listed(drop), header)


def read_scores_and_labels(scores: Path, labels: Path | None, classes: str | None, choice: Choice) -> ScoresAndLabels:
    """Return the scores and labels of two files, or of one that holds both.

    Raises
    ------
    DataError
        For files that cannot be read, for class names whose number is not that of the columns, and for missing labels.
    """
    pair = open_pair(scores, labels, choice=choice)
    assert pair.labels is not None  # noqa: S101 - labels are needed by default; for type checkers
    C = pair.rows.shape[1]
    names = pair.class_names if classes is None else read_class_names(classes)
    if names is not None and len(names) not in {C, 2 if C == 1 else C}:
        raise DataError(f"--classes has {len(names)} names; {place(scores)} has {C} columns of scores")
    title = place(scores) if labels is None else f"{place(scores)} with {place(labels)}"
    return ScoresAndLabels(pair.rows, names, pair.labels, title, pair.read, pair.stated)


def labels_read(path: Path, findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return sentences about labels that were read by rank, for standard error, JSON and the page."""
    return tuple(f"{place(path)}: {each.evidence}" for each in findings if _by_rank(each))


def names_of(given: ScoresAndLabels, findings: Iterable[Finding], n_classes: int) -> tuple[str, ...]:
    """Return the classes' names: those of the files, else the labels that were read by rank, else their numbers."""
    names = given.names
    if names is None and any(_by_rank(each) for each in findings):
        names = tuple(str(value) for value in np.unique(given.labels).tolist() if value != IGNORED)
    numbered = tuple(f"class {c}" for c in range(n_classes))
    return names if names is not None and len(names) == n_classes else numbered


def _by_rank(each: Finding) -> bool:
    """Whether a finding says that labels are read by alphabet or by size."""
    return each.code in ("labels-strings", "labels-by-value") and each.severity != "note"


def read_scores(given: str, choice: Choice = Choice(), target: str | None = None) -> Pair:  # noqa: B008 - immutable
    """Return ``(N, C)`` scores, with class names and labels where a file has them.

    ``given`` is rows separated by ``;`` of numbers separated by ``,``, or a file that
    :func:`softnll.data.score_files.open_scores` reads; ``target`` may be a file of their labels.

    Raises
    ------
    DataError
        For text or a file that is no table of numbers; the message says where.
    """
    beside = target if target is not None and _is_file_name(target) else None
    if _is_file_name(given):
        return open_pair(given, beside, choice=choice, needed=False)
    table = parse_scores(given, "--scores")
    labels = None if beside is None else labels_of(Path(beside), Choice(choice.label), expected=len(table)).values
    return Pair(ArrayRows(table), None, labels)


def read_targets(pair: Pair, target: str | None, class_names: tuple[str, ...]) -> NDArray[np.int64] | None:
    """Return true classes ``(N,)`` from numbers or names separated by ``,``, or those of a file; None without any.

    A word that is a class's name means that class; every other word must be an index into the classes.

    Raises
    ------
    DataError
        For a target that is neither.
    """
    if target is not None and not _is_file_name(target):
        return _indices([word.strip() for word in target.split(",")], class_names, "--target")
    if pair.labels is None:
        return None
    where = place(pair.rows.name if target is None else target)
    if pair.labels.shape == pair.rows.shape[:1] and is_text(pair.labels):
        named = by_name(pair.labels.tolist(), class_names)
        return _indices(pair.labels.tolist(), class_names, where) if named is None else named
    try:
        y, _ = as_classes(pair.labels, pair.rows.shape, class_names)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    return y


def _is_file_name(given: str) -> bool:
    """Whether an argument names a file rather than being the values themselves."""
    path = Path(given)
    try:
        return path.suffix.lower() in ENDINGS or is_table(path) or path.is_file()
    except (OSError, ValueError):
        return False


def _indices(words: list[str], class_names: tuple[str, ...], where: str) -> NDArray[np.int64]:
    """Return class indices from names or numbers."""
    index_of = {name: c for c, name in enumerate(class_names)}
    found = []
    for word in words:
        index = index_of.get(word)
        if index is None and INTEGER.fullmatch(word):
            index = int(word)
        if index is None or not 0 <= index < len(class_names):
            known = ", ".join(class_names[:6]) + (", …" if len(class_names) > 6 else "")
            numbers = f"0 to {len(class_names) - 1}"
            raise DataError(f"{where}: {printable(word, 30)!r} is neither a class ({printable(known)}) nor {numbers}")
        found.append(index)
    return np.array(found, dtype=np.int64)
