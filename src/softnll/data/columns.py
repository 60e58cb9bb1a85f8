"""Decide what each column of a table is: label, scores or features, index, ignored; and state it in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from softnll._core.words import counted
from softnll.data.column_facts import AUTOMATIC, Choice, Column, Roles, column_of_numbers
from softnll.data.column_names import family, label_rank, names_prediction, names_row, normalised
from softnll.data.dataset import DataError
from softnll.data.text import printable

__all__ = ["AUTOMATIC", "Choice", "Column", "Roles", "column_of_numbers", "decide"]

_FEW_ROWS = 20  # below which the number of different values says nothing
_FEW_CLASSES = 20
_FEW_PIXELS = 48


def decide(
    columns: Sequence[Column],
    rows: int,
    purpose: str,
    *,
    choice: Choice = AUTOMATIC,
    header: bool | None = None,
    where: str = "the table",
    index: Sequence[int] = (),
    labelled: bool = False,
) -> Roles:
    """Return the role of each column of a table.

    Parameters
    ----------
    columns
        What is known of each column.
    rows
        The number of rows.
    purpose
        ``"scores"``: the values are numbers, one column a class. ``"features"``: the values are numbers and words, and
        one column is the label unless ``labelled``. ``"labels"``: one column is the label, or all are one-hot.
    choice
        What the user says.
    header, where
        Whether the table has a header, and its name in messages.
    index
        Columns that the format itself marks as an index.
    labelled
        Whether the labels are given elsewhere.

    Returns
    -------
    Roles
        Each column has one role. A column is left out only where its name or its values say that it is no value.

    Raises
    ------
    DataError
        For a column in ``choice`` that does not exist, where no column is left, and where no label can be told from
        the features.

    Examples
    --------
    >>> table = [Column("", "number", True, 3, 0, 2, "counting", True), Column("cat", "number"),
    ...          Column("dog", "number"), Column("label", "number", True, 2, 0, 1)]
    >>> roles = decide(table, 3, "scores", header=True)
    >>> roles.values, roles.label, roles.index
    ((1, 2), 3, (0,))
    >>> roles.describe()
    'label column: label; ignored: index column 1 (no name); header: yes'
    """
    deciding = _Deciding(columns, rows, purpose, choice, where, header)
    deciding.take_choice(index)
    if purpose == "features":
        deciding.find_label_of_features(labelled=labelled)
    elif purpose == "labels":
        deciding.find_label_alone()
    else:
        deciding.find_scores()
    return deciding.roles()


class _Deciding:
    """The state of one decision: ``left`` holds the columns that have no role yet."""

    def __init__(
        self, columns: Sequence[Column], rows: int, purpose: str, choice: Choice, where: str, header: bool | None
    ) -> None:
        self.columns, self.rows, self.purpose, self.where = columns, rows, purpose, where
        self.choice, self.header = choice, header
        self.left = list(range(len(columns)))
        self.label: int | None = None
        self.index: list[int] = []
        self.ignored: list[tuple[int, str]] = []
        self.guesses: list[str] = []
        self.fixed = False  # whether the user chose the values

    def roles(self) -> Roles:
        """Return the result."""
        return Roles(
            self.label,
            tuple(self.left),
            tuple(sorted(self.index)),
            tuple(sorted(self.ignored)),
            tuple(self.guesses),
            self.header,
            tuple(column.name for column in self.columns),
        )

    def take_choice(self, index: Sequence[int]) -> None:
        """Give the columns that the user, or the format, names their roles."""
        for k, column in enumerate(self.columns):
            empty = 0 < self.rows <= column.missing and len(self.columns) > 1
            if empty and (self.purpose == "features" or names_row(column.name) == "sure"):
                self._ignore(k, "empty column")
        for given in self.choice.drop:
            self._ignore(self.find(given), "dropped column")
        if self.choice.label is not None:
            self._take_label(self.find(self.choice.label))
        if self.choice.scores:
            chosen = [self.find(given) for given in self.choice.scores]
            for k in [k for k in self.left if k not in chosen]:
                if label_rank(self.columns[k].name) is None or self.label is not None:
                    self._ignore(k, "column")
            self.fixed = True
            self._label_by_name()
            self.left = [k for k in chosen if k in self.left]
        for k in index:
            if k in self.left and not self.fixed:
                self._take_index(k)

    def find(self, given: str) -> int:
        """Return the position of a column that is given by name, or by number from 1."""
        names = [column.name.strip() for column in self.columns]
        for candidates, wanted in ((names, given.strip()), ([normalised(name) for name in names], normalised(given))):
            if wanted and candidates.count(wanted) == 1:
                return candidates.index(wanted)
        number = given.strip()
        if number.isascii() and number.isdigit() and 1 <= int(number) <= len(names):
            return int(number) - 1
        known = ", ".join(printable(name, 30) for name in names[:10] if name) or f"1 to {len(names)}"
        raise DataError(f"{self.where}: no column {printable(given, 30)!r}; allowed: {known}, or a number from 1")

    def find_scores(self) -> None:
        """Leave the scores: numbers whose column is no label, index, prediction or text."""
        if self.fixed:
            return
        self._label_by_name()
        self._index_columns()
        self._leave_out_text()
        kind, members = family([self.columns[k].name for k in self.left])
        if members and len(members) < len(self.left):
            for k in [k for place, k in enumerate(self.left) if place not in members]:
                self._ignore(k, "column")
            self.guesses.append(f"the scores are the {len(members)} columns that are called {kind.strip('…')}")
        for k in list(self.left):
            said = names_prediction(self.columns[k].name)
            others = len(self.left) > 2 and not members
            if others and (said == "beside" or (said == "prediction" and self.columns[k].whole)):
                self._ignore(k, "prediction" if said == "prediction" else "column")
                self.guesses.append(f"by its name, {self._said(k)} is no score")
        if self.label is None:
            self._label_by_values()

    def find_label_of_features(self, *, labelled: bool) -> None:
        """Leave the features: all columns but the label and the index."""
        if self.label is None and not labelled:
            self._label_by_name()
        self._index_columns()
        for k in [k for k in self.left if self.columns[k].kind == "other"]:
            self._ignore(k, "column (neither numbers nor text)")
        first = self.columns[self.left[0]] if self.left else None
        if first is not None and first.whole and first.unique and not self.index and self.rows >= _FEW_ROWS:
            said = self._said(self.left[0])
            self.guesses.append(f"{said} differs in all rows and was taken for a feature, not for an index")
        if self.label is None and not labelled:
            self._label_by_place()

    def find_label_alone(self) -> None:
        """Find the label of a table of labels; leave one-hot columns."""
        if self.label is None:
            self._label_by_name()
        if len(self.left) > (self.label is None):
            self._index_columns()
        if self.label is None and len(self.left) > 1:
            self._leave_out(lambda column: names_prediction(column.name) == "prediction", "prediction")
        one_hot = [k for k in self.left if self._is_zero_or_one(self.columns[k])]
        if self.label is None and len(self.left) > 1 and len(one_hot) != len(self.left):
            # The only column that can be a class, beside fractions.
            self._leave_out(lambda column: not column.discrete, "column")
        if self.label is None and len(self.left) == 1:
            self._take_label(self.left[0])
        if self.label is not None:
            for k in list(self.left):
                self._ignore(k, "column")
        elif not self.left or len(one_hot) != len(self.left):
            named = ", ".join(printable(c.name, 30) for c in self.columns[:6] if c.name) or "no names"
            raise DataError(
                f"{self.where}: {counted(len(self.columns), 'column')} ({named}), none called label, class, target "
                "or y; name the column of labels: --label-column"
            )

    def _label_by_name(self) -> None:
        """Take the column with the least ambiguous label's name; in scores it must not hold fractions."""
        if self.label is not None:
            return
        ranked = [(rank, k) for k in self.left if (rank := label_rank(self.columns[k].name)) is not None]
        discrete = [(rank, k) for rank, k in ranked if self.columns[k].discrete and not self._may_be_score(k)]
        if self.purpose == "scores" or (self.purpose == "features" and discrete):
            ranked = discrete
        if ranked:
            self._take_label(min(ranked)[1])

    def _may_be_score(self, k: int) -> bool:
        """Whether a column with a label's name may be a class's whole scores, as y is beside x and z."""
        others = [self.columns[other] for other in self.left if other != k]
        if self.purpose != "scores" or self.columns[k].kind != "number" or not all(each.whole for each in others):
            return False
        letters = len(self.columns[k].name.strip()) == 1 and any(len(each.name.strip()) == 1 for each in others)
        return len(others) < 2 or letters

    def _label_by_values(self) -> None:
        """Take a column of whole numbers at either end of a table of fractions as label: it cannot be a score."""
        whole = [k for k in self.left if self.columns[k].whole]
        if len(whole) != 1 or len(self.left) < 3 or self.left[0] != whole[0] != self.left[-1]:
            return
        column, C = self.columns[whole[0]], len(self.left) - 1
        if 2 <= column.distinct <= C and column.low >= -1 and column.high <= C and self.rows >= 5:
            self._take_label(whole[0])
            self.guesses.append(
                f"{self._said(whole[0])} holds whole numbers from {column.low:g} to {column.high:g} beside fractions: "
                "taken for labels, not for scores"
            )
        elif column.unique and column.low >= 0 and self.rows >= _FEW_ROWS:
            self._take_index(whole[0])
            self.guesses.append(f"{self._said(whole[0])} holds whole numbers that differ in all rows: no score")

    def _label_by_place(self) -> None:
        """Take the last column as label, or the first one where only that can be classes."""
        if len(self.left) < 2:
            return  # the caller states what is missing
        first, last = self.left[0], self.left[-1]
        words = [k for k in self.left if self.columns[k].kind in ("word", "truth") and self._classes(k)]
        if len(words) == 1 and not (self.rows < _FEW_ROWS and words[0] not in (first, last)):
            self._take_label(words[0])
            if words[0] != last:
                self.guesses.append(f"{self._said(words[0])}, the only one of words, was taken for the labels")
            return
        if self._pixels() and self._classes(first) and self._counted(first) > self._counted(last):
            self._take_label(first)
            self.guesses.append(f"{self._said(first)} was taken for the labels, as of images whose label comes first")
            return
        if self._classes(last) or not (self._classes(first) or self._measured(last)):
            self._take_label(last)
            if self._classes(first) and self.columns[first].kind == "number" and self.rows >= _FEW_ROWS:
                low_first, low_last = self.columns[first].distinct, self.columns[last].distinct
                if low_first <= low_last and self.columns[last].kind == "number":
                    self.guesses.append(
                        f"{self._said(last)} was taken for the labels, {self._said(first)} could be them as well"
                    )
            return
        if self._classes(first):
            self._take_label(first)
            self.guesses.append(f"{self._said(first)} was taken for the labels; {self._said(last)} {self._looks(last)}")
            return
        raise DataError(
            f"{self.where}: {self._said(last)} {self._looks(last)}, and so no label; "
            "name the column of labels: --label-column"
        )

    def _classes(self, k: int) -> bool:
        """Whether the values look like classes."""
        column = self.columns[k]
        if not column.discrete or (column.distinct < 2 and self.rows > 1):
            return False
        if self.rows < _FEW_ROWS or column.kind == "truth":
            return True
        if column.kind == "word":
            return column.distinct * 2 <= self.rows
        together = column.high - column.low + 1 == column.distinct
        return column.distinct * 2 <= self.rows and (together or column.distinct <= _FEW_CLASSES)

    def _pixels(self) -> bool:
        """Whether a table without names holds bytes, as files of images do."""
        columns = [self.columns[k] for k in self.left]
        bytes_ = all(each.whole and each.low >= 0 and each.high <= 255 for each in columns)
        return len(columns) > _FEW_PIXELS and self.header is not True and bytes_

    def _counted(self, k: int) -> int:
        """Return how many values a column has, if they are 0, 1, 2, … or 1, 2, 3, …; else 0."""
        column = self.columns[k]
        together = column.low in (0, 1) and column.high - column.low + 1 == column.distinct
        return column.distinct if together else 0

    def _measured(self, k: int) -> bool:
        """Whether the values look like a measurement."""
        column = self.columns[k]
        if self.rows < _FEW_ROWS:
            return False
        return not column.discrete or column.distinct * 3 > self.rows or column.distinct < 2

    def _looks(self, k: int) -> str:
        """Return why a column looks like no label."""
        column = self.columns[k]
        if not column.discrete:
            return "holds fractions"
        if column.distinct < 2:
            return "has one value in all rows"
        what = "names of rows" if column.kind == "word" else "a measurement"
        return f"has {counted(column.distinct, 'value')} in {counted(self.rows, 'row')}, which looks like {what}"

    def _index_columns(self) -> None:
        """Take the columns that name or count the rows."""
        for k in list(self.left):
            if len(self.left) > (self.label is None or self.purpose != "labels") and self._is_index(k):
                self._take_index(k)

    def _is_index(self, k: int) -> bool:
        """Whether a column names or counts the rows."""
        column, first = self.columns[k], k == 0 or all(before in self.index for before in range(k))
        said = names_row(column.name) if self.header is not False and any(c.name for c in self.columns) else ""
        if said == "sure" and not column.name.strip() and not first:
            said = ""  # a column without a name is the row names only where it stands first
        discrete = column.discrete or column.kind == "other"
        if said == "sure":
            return discrete or not column.name.strip()
        if said == "id":
            return discrete
        if said == "maybe" and discrete and column.unique and self.rows > 2:
            return True
        few = self.rows < 3 if said or first else self.rows < _FEW_ROWS
        if column.order and not few and first:
            return True
        return bool(column.kind == "word" and column.unique and first and self.rows >= _FEW_ROWS)

    def _leave_out_text(self) -> None:
        """Leave out what cannot be a score; a column of words may be the label."""
        words = [k for k in self.left if self.columns[k].kind in ("word", "truth")]
        classes = [k for k in words if self._classes(k) and not names_prediction(self.columns[k].name)]
        if self.label is None and len(classes) == 1:
            self._take_label(classes[0])
        self._leave_out(lambda column: column.kind in ("word", "truth"), "text column")
        self._leave_out(lambda column: column.kind == "other", "column")

    def _leave_out(self, condition: Callable[[Column], bool], reason: str) -> None:
        """Leave out the columns of a condition."""
        for k in [k for k in self.left if condition(self.columns[k])]:
            self._ignore(k, reason)

    def _is_zero_or_one(self, column: Column) -> bool:
        """Whether a column can be one of one-hot labels."""
        return column.kind == "truth" or (column.whole and column.low >= 0 and column.high <= 1)

    def _take_label(self, k: int) -> None:
        self.label = k
        self._remove(k)

    def _take_index(self, k: int) -> None:
        self.index.append(k)
        self._remove(k)

    def _ignore(self, k: int, reason: str) -> None:
        self.ignored.append((k, reason))
        self._remove(k)

    def _remove(self, k: int) -> None:
        if k in self.left:
            self.left.remove(k)

    def _said(self, k: int) -> str:
        """Return a column with its number, and its name where it has one."""
        name = self.columns[k].name.strip()
        return f"column {k + 1}" + (f" ({printable(name, 30)})" if name else "")
