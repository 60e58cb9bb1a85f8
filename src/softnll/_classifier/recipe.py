"""How a model's features are made from a file: the columns of a table, or the pixels of images.

A model file holds its recipe, so that `softnll predict` makes the same features from other files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError
from softnll.data.tables import AnyTable
from softnll.data.text import printable

MOST_CATEGORIES = 1000  # of a column, however many rows there are
_FEW = 20  # categories that a column of words may always have
_MAX_TEXT = 1 << 16  # characters of a name or category in a model file


@dataclass(frozen=True)
class ColumnRecipe:
    """A column of a table: numbers whose empty cells become ``fill``, or words of ``categories`` (one-hot)."""

    name: str
    fill: float = 0.0
    categories: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        """The number of features."""
        return 1 if self.categories is None else len(self.categories)

    def feature_names(self) -> list[str]:
        """Return the names of the features: the column's, with ``=`` and the category for words."""
        if self.categories is None:
            return [self.name]
        return [f"{self.name}={category}" for category in self.categories]

    def encode(self, values: Any) -> NDArray[np.float64]:
        """Return the features of the column's cells, ``(N, width)``; an unknown word has zeros."""
        if self.categories is None:
            return np.where(np.isnan(values), self.fill, values)[:, None]
        from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415 - only columns of words need it

        known = np.array(self.categories, object)
        encoder = OneHotEncoder(categories=[known], handle_unknown="ignore", sparse_output=False)
        cells = np.array(values, object)[:, None]
        encoder.fit(cells[:1])
        return np.asarray(encoder.transform(cells), np.float64)


@dataclass(frozen=True)
class FeatureRecipe:
    """The features of a model.

    Attributes
    ----------
    class_names
        The name of each class, in the order of the model's classes.
    columns
        The columns of a table, in the order of the features; empty for images and arrays.
    header
        Whether the table has names; without, columns count by position.
    label
        The name of the table's label column, which other files may hold or not; "" for none.
    shape, scale
        Of images: the shape of one, and the value of a white pixel; else ``()``.
    """

    class_names: tuple[str, ...]
    columns: tuple[ColumnRecipe, ...] = ()
    header: bool = True
    label: str = ""
    shape: tuple[int, ...] = ()
    scale: float = 255.0

    def encode(self, table: AnyTable, positions: Sequence[int]) -> NDArray[np.float64]:
        """Return the features of a table whose columns stand at these positions, ``(N, H)``."""
        blocks = []
        for column, k in zip(self.columns, positions, strict=True):
            values = words_of(table, k) if column.categories is not None else numbers_of(table, k)
            blocks.append(column.encode(values))
        return np.concatenate(blocks, axis=1)

    def of_classes(self, classes: NDArray[Any]) -> FeatureRecipe:
        """Return the recipe with the names of these classes only."""
        return replace(self, class_names=tuple(self.class_names[c] for c in classes))

    def to_plain(self) -> dict[str, Any]:
        """Return the recipe in the types of JSON."""
        return {
            "class_names": list(self.class_names),
            "columns": [
                [each.name, each.fill, None if each.categories is None else list(each.categories)]
                for each in self.columns
            ],
            "header": self.header,
            "label": self.label,
            "shape": list(self.shape),
            "scale": self.scale,
        }

    @classmethod
    def from_plain(cls, value: Any, classes: int, width: int) -> FeatureRecipe:
        """Return the recipe that `to_plain` wrote, for a model of so many classes and features.

        Raises
        ------
        ValueError
            For anything else.
        """
        try:
            columns = tuple(
                ColumnRecipe(_text(name), float(fill), None if words is None else tuple(map(_text, words)))
                for name, fill, words in value["columns"]
            )
            names = tuple(map(_text, value["class_names"]))
            shape = tuple(int(each) for each in value["shape"])
            recipe = cls(names, columns, value["header"] is True, _text(value["label"]), shape, float(value["scale"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError("its recipe of the features cannot be read") from None
        counts = [sum(each.width for each in columns)] if columns else [int(np.prod(shape))] if shape else [width]
        if len(names) != classes or counts != [width] or len(shape) not in (0, 2, 3) or not recipe.scale > 0:
            raise ValueError("its recipe of the features does not fit its coefficients")
        return recipe


def column_recipe(table: AnyTable, k: int, train: NDArray[np.intp]) -> tuple[ColumnRecipe | None, Any, str]:
    """Return the recipe of a column by its training rows, its values, and a note: why it is left out, what is filled.

    Empty cells of numbers become the median, by scikit-learn's SimpleImputer; empty words are a category.
    """
    name = table.names[k] or f"column {k + 1}"
    shown = printable(name, 40)
    if table.columns[k].kind == "number":
        numbers = numbers_of(table, k)
        empty = int(np.isnan(numbers).sum())
        if np.isnan(numbers[train]).all():
            return None, None, f"left out: {shown} (all cells are empty)"
        if not empty:
            return ColumnRecipe(name), numbers, ""
        from sklearn.impute import SimpleImputer  # noqa: PLC0415 - only tables with empty cells need it

        fill = float(SimpleImputer(strategy="median").fit(numbers[train, None]).statistics_[0])
        return ColumnRecipe(name, fill), numbers, f"{empty} empty cells of {shown} become its median, {fill:g}"
    words = words_of(table, k)
    categories = tuple(sorted({words[row] for row in train.tolist()}))
    if len(categories) > most_categories(len(train)):
        return None, None, f"left out: {shown} ({len(categories)} different texts in {len(train)} rows)"
    return ColumnRecipe(name, categories=categories), words, ""


def most_categories(rows: int) -> int:
    """Return how many categories a column of words may have in so many rows."""
    return max(_FEW, min(MOST_CATEGORIES, rows // 10))


def numbers_of(table: AnyTable, k: int) -> NDArray[np.float64]:
    """Return the numbers of a column, NaN where a cell is empty; raise DataError for other cells and for infinity."""
    values = table.numbers(k)
    if values is None or np.isinf(values).any():
        table.features([k])  # names the first cell that is no finite number
        raise DataError(f"{table.where}: column {printable(table.names[k], 30)!r} holds text; expected numbers")
    return values


def words_of(table: AnyTable, k: int) -> list[str]:
    """Return the cells of a column as text without blanks around them."""
    return [word.strip() for word in table.words(k)]


def _text(value: Any) -> str:
    """Return a text of a model file."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise TypeError
    return value
