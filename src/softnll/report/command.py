"""``softnll report``: from files to a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from softnll.data.arrays import read_npy
from softnll.data.dataset import DataError
from softnll.data.npz import read_member
from softnll.data.score_files import open_labels, open_scores
from softnll.data.text import place, printable
from softnll.diagnosis.labels import as_numbers
from softnll.files import write_whole
from softnll.report.inspection import Inspection, inspect, summary
from softnll.report.survey import survey
from softnll.scores import read_class_names
from softnll.terminal import RowProgress, key_values, stdout

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["run"]

IMAGES = ("images", "x", "inputs")


def run(
    scores: Path,
    labels: Path,
    *,
    images: Path | None,
    classes: str | None,
    out: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Read everything, look at it once, write the page, print the summary."""
    rows, header = open_scores(scores)
    N, C = rows.shape
    names = read_class_names(classes) if classes is not None else header
    if names is not None and len(names) != C:
        raise DataError(f"{len(names)} class names; {place(scores)} has {C} columns")
    y = _labels(labels, rows.shape, names)
    pixels = None if images is None else _pixels(images, N)
    if out.is_dir():
        raise DataError(f"{place(out)}: a folder; --out is a file")
    with RowProgress() as watch:
        found = survey(rows, y, watch, seed=seed)
    names = names or tuple(f"class {c}" for c in range(C))
    write_whole(out, inspect(Inspection(scores.stem, names, found, pixels)).encode())
    if as_json:
        print(json.dumps(summary(found), allow_nan=False))  # noqa: T201 - the output
        return
    console = stdout()
    console.print(
        key_values([(name.replace("_", " "), _shown(each)) for name, each in summary(found).items()], ("", ""))
    )
    console.print(Text(f"wrote {printable(str(out), 400)}"), soft_wrap=True)


def _labels(path: Path, shape: tuple[int, int], names: tuple[str, ...] | None) -> NDArray[np.int64]:
    """Return true classes, every one of them a column."""
    try:
        y, _ = as_numbers(open_labels(path), shape, names)
    except ValueError as error:
        raise DataError(f"{place(path)}: {error}") from None
    if y is None:
        raise DataError(f"{place(path)}: these labels are no classes; softnll diagnose tells more")
    bad = (y < 0) | (y >= shape[1])
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{place(path)}: label {y[row]} in row {row}; allowed: 0 to {shape[1] - 1}")
    return y


def _pixels(path: Path, N: int) -> NDArray[np.uint8]:
    """Return images, one a row."""
    array: NDArray[Any] = read_member(path, IMAGES) if path.suffix.lower() == ".npz" else read_npy(path)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    fits = array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)
    if array.dtype != np.uint8 or not fits or len(array) != N or 0 in array.shape:
        raise DataError(
            f"{place(path)}: images of shape {array.shape} and type {array.dtype.name}; "
            f"expected uint8, ({N}, H, W) or ({N}, H, W, 3)"
        )
    return array


def _shown(value: Any) -> str:
    """Return a figure as text."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
