"""The features that a model's recipe makes of other files: tables, images and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softnll._classifier.examples import is_table_file
from softnll._classifier.recipe import FeatureRecipe
from softnll.data import DataError, Dataset, load
from softnll.data.arrays import NPY_MAGIC, as_inputs, read_npy
from softnll.data.columns import AUTOMATIC, Choice
from softnll.data.idx import read_idx
from softnll.data.tables import open_table
from softnll.data.text import place, printable


def read_features(source: str, recipe: FeatureRecipe, width: int, choice: Choice = AUTOMATIC) -> NDArray[np.floating]:
    """Return the features of a file by a model's recipe, ``(N, H)``.

    Tables have the model's columns, by name where they have names. Images and arrays are .npy files, IDX files, or what
    :func:`softnll.data.load` reads with labels; of data with a test part, its features.

    Raises
    ------
    DataError
        For files that do not fit the model.
    """
    path = Path(source).expanduser()
    if is_table_file(path):
        if recipe.columns:
            return features_of_table(path, recipe, choice)
        table = open_table(path, header=choice.header)
        columns = range(len(table.columns))
        if len(columns) != width:
            raise DataError(f"{table.where}: {len(columns)} columns; the model has {width} features")
        return table.features(columns)
    data = _inputs(path, source)
    if recipe.columns or data.inputs.shape[1:] != (recipe.shape or (width,)):
        what = "a table" if recipe.columns else f"inputs of shape {recipe.shape or (width,)}"
        raise DataError(f"{data.name}: inputs of shape {data.inputs.shape[1:]}; the model was trained on {what}")
    features = data.features()
    # A model of the digits counts white as 16, which their files do not say.
    return (
        features * np.float32(data.scale / recipe.scale) if data.has_images and data.scale != recipe.scale else features
    )


def _inputs(path: Path, source: str) -> Dataset:
    """Return the inputs of a file without labels, or the test part of data with them."""
    inputs = None
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith(NPY_MAGIC):
            inputs = read_npy(path)
        elif head.startswith(b"\0\0"):
            inputs = read_idx(path)[0]
    if inputs is None:
        train, test = load(source, download=False)
        return train if test is None else test
    name = printable(path.name)
    rows = as_inputs(inputs, place(path))
    return Dataset(rows, np.zeros(len(rows), np.int64), ("",), "all", name)


def features_of_table(path: Path, recipe: FeatureRecipe, choice: Choice = AUTOMATIC) -> NDArray[np.float64]:
    """Return the features of another table by a model's recipe, ``(N, H)``; a label column may be there or not.

    Raises
    ------
    DataError
        Where a column is missing, or its cells are of another kind.
    """
    table = open_table(path, header=choice.header)
    if table.rows == 0:
        raise DataError(f"{table.where}: a header and no examples")
    if recipe.header and table.header is not False and any(table.names):
        at = {name: k for k, name in reversed(list(enumerate(table.names)))}
        missing = [column.name for column in recipe.columns if column.name not in at]
        if missing:
            listed = ", ".join(printable(name, 30) for name in missing[:6])
            raise DataError(f"{table.where}: lacks {len(missing)} of the model's columns: {listed}")
        return recipe.encode(table, [at[column.name] for column in recipe.columns])
    numbers = [column.name.removeprefix("column ") for column in recipe.columns]
    if not recipe.header and all(each.isdigit() and int(each) <= len(table.columns) for each in numbers):
        places = [int(each) - 1 for each in numbers]
        if len(table.columns) == len(places):  # without the label, which may have stood before the features
            places = list(range(len(places)))
        return recipe.encode(table, places)
    if len(table.columns) != len(recipe.columns):
        raise DataError(
            f"{table.where}: {len(table.columns)} columns without names; the model has {len(recipe.columns)}"
        )
    return recipe.encode(table, range(len(recipe.columns)))
