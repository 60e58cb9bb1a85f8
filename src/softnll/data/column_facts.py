"""What is known of a table's columns, what the user says about them, and the roles that they got."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softnll.data.text import printable

__all__ = ["AUTOMATIC", "Choice", "Column", "Roles", "column_of_numbers"]

_SAMPLE = 512  # values in which a fraction is looked for first


@dataclass(frozen=True)
class Column:
    """What the decision needs to know of a column."""

    name: str  # "" where the table has none
    kind: str  # "number", "word" (text, categories), "truth" (booleans) or "other" (dates, lists, ...)
    whole: bool = False  # whether all of its numbers are whole
    distinct: int = 0  # how many different values it has; 0 for fractions, whose values are not counted
    low: float = 0.0
    high: float = 0.0
    order: str = ""  # "counting": 0 … N-1 or 1 … N from the first row on; "permutation": so in another order
    unique: bool = False  # whether no value occurs twice
    missing: int = 0  # empty cells

    @property
    def discrete(self) -> bool:
        """Whether the values may be classes."""
        return self.kind in ("word", "truth") or (self.kind == "number" and self.whole)


@dataclass(frozen=True)
class Choice:
    """What the user says about the columns; a column is given by its name, or by its number, 1 for the first."""

    label: str | None = None
    scores: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    header: bool | None = None  # whether the first line of a text file is a header; None: decided from the contents


AUTOMATIC = Choice()


@dataclass(frozen=True)
class Roles:
    """The role of each column, by position.

    Attributes
    ----------
    label
        The column of labels, or None.
    values
        The columns of scores, or of features.
    index
        The columns that name the rows.
    ignored
        The other columns, each with the reason.
    guesses
        Sentences about decisions that could be wrong and would change a result.
    header
        Whether a text file has a header; None where the format says so itself.
    names
        The names of all columns.
    """

    label: int | None
    values: tuple[int, ...]
    index: tuple[int, ...]
    ignored: tuple[tuple[int, str], ...]
    guesses: tuple[str, ...]
    header: bool | None
    names: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Whether every column is a value: there is nothing to state."""
        return self.label is None and not self.index and not self.ignored and not self.guesses

    def describe(self, values: str = "") -> str:
        """Return one line: ``label column: species; ignored: index column 'Unnamed: 0'; header: yes``.

        ``values`` is what the other columns are called, with their number: ``4 scores``.
        """
        parts = [] if self.label is None else [f"label column: {self._name(self.label)}"]
        if values:
            parts.append(f"{len(self.values)} {values}")
        ignored = [f"index column {self._name(k)}" for k in self.index]
        ignored += [f"{reason} {self._name(k)}" for k, reason in self.ignored]
        if ignored:
            more = f", and {len(ignored) - 8} more" if len(ignored) > 8 else ""
            parts.append(f"ignored: {', '.join(ignored[:8])}{more}")
        if self.header is not None:
            parts.append(f"header: {'yes' if self.header else 'no'}")
        return "; ".join([*parts, *self.guesses])

    def _name(self, k: int) -> str:
        """Return a column's name as messages show it: its number where it has none."""
        name = self.names[k].strip()
        if not name:
            return f"{k + 1} (no name)" if self.header is not False else str(k + 1)
        return printable(name, 40) if name.replace("_", "").isalnum() else repr(printable(name, 40))


def column_of_numbers(name: str, values: NDArray[np.floating] | NDArray[np.integer], missing: int = 0) -> Column:
    """Return what the decision needs to know of ``(N,)`` numbers; NaN counts as missing, not as a fraction.

    Examples
    --------
    >>> column = column_of_numbers("id", np.array([3.0, 1.0, 2.0]))
    >>> column.whole, column.distinct, column.order
    (True, 3, 'permutation')
    """
    if not len(values) or not _whole(values[:_SAMPLE]) or not _whole(values):
        return Column(name, "number", missing=missing)
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if not len(present):
        return Column(name, "number", missing=missing)
    ordered = np.sort(present)
    distinct = 1 + int((ordered[1:] != ordered[:-1]).sum())
    low, high, N = float(ordered[0]), float(ordered[-1]), len(values)
    counts = distinct == N and low in (0.0, 1.0) and high - low == N - 1
    steps = bool(counts and (np.diff(present) == 1).all())
    order = ("counting" if steps else "permutation") if counts and N > 1 else ""
    return Column(name, "number", True, distinct, low, high, order, distinct == N, missing)


def _whole(values: NDArray[np.floating] | NDArray[np.integer]) -> bool:
    """Whether all numbers are whole, NaN aside."""
    if values.dtype.kind != "f":
        return True
    return bool(((np.rint(values) == values) & np.isfinite(values) | np.isnan(values)).all())
