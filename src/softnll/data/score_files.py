"""Scores and labels of any size from the files that frameworks write; what is in them is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softnll.data.arrays import read_npy
from softnll.data.dataset import DataError
from softnll.data.npz import read_member
from softnll.data.score_tables import read_parquet_column, read_parquet_scores
from softnll.data.tables import read_label_column
from softnll.data.tensors import read_safetensors, read_torch
from softnll.data.text import place, printable
from softnll.score_rows import ArrayRows, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["open_labels", "open_scores"]

SCORES = ("scores", "logits", "log_probs", "probabilities", "probs", "predictions")
LABELS = ("labels", "targets", "label", "target", "y", "y_true")
_NAMED: dict[str, Callable[[Path, tuple[str, ...]], NDArray[Any]]] = {
    ".npz": read_member,
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
}
ENDINGS = (".npy", ".csv", ".tsv", ".parquet", *_NAMED)


def open_scores(path: str | Path) -> tuple[Rows, tuple[str, ...] | None]:
    """Return the ``(N, C)`` scores of a file, and class names where it has them.

    A .npy file of 64 MiB and more, .safetensors and .parquet stay on the disk and are read in blocks of rows. Files
    that hold several arrays (.npz, .safetensors, .pt) name the scores ``scores``, ``logits``, ``log_probs``,
    ``probabilities``, ``probs`` or ``predictions``, unless there is but one. In tables (.csv, .tsv, .parquet), every
    column is a class, named by the header.

    Parameters
    ----------
    path
        A file that ends in .npy, .npz, .csv, .tsv, .parquet, .safetensors, .pt or .pth.

    Raises
    ------
    DataError
        For what is not such a file, and for contents that are no table of real numbers; the message says where.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "scores.npy", np.zeros((5, 3), np.float32))
    ...     open_scores(Path(folder) / "scores.npy")[0].shape
    (5, 3)
    """
    path = _file(path)
    ending = path.suffix.lower()
    if ending == ".parquet":
        return read_parquet_scores(path)
    if ending in (".csv", ".tsv"):
        from softnll.scores import read_scores  # noqa: PLC0415 - which imports this package

        array, names = read_scores(str(path))
        return ArrayRows(array, str(path)), names
    array = read_npy(path) if ending == ".npy" else _NAMED[ending](path, SCORES)
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2 or 0 in array.shape or not (array.dtype.kind in "iuf" or array.dtype.name == "bfloat16"):
        raise DataError(
            f"{place(path)}: scores of shape {array.shape} and type {array.dtype.name}; "
            "expected real numbers, (rows, classes)"
        )
    return ArrayRows(array, str(path)), None


def open_labels(path: str | Path) -> NDArray[Any]:
    r"""Return the labels of a file as they are there: numbers, text, or one-hot rows.

    Parameters
    ----------
    path
        As for :func:`open_scores`; arrays are called ``labels``, ``targets``, ``label``, ``target``, ``y`` or
        ``y_true``, unless there is but one; so is a table's column.

    Raises
    ------
    DataError
        As for :func:`open_scores`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "labels.csv").write_text("cat\ndog\n")
    ...     open_labels(Path(folder) / "labels.csv").tolist()
    ['cat', 'dog']
    """
    path = _file(path)
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        return read_label_column(path)
    if ending == ".parquet":
        return read_parquet_column(path, LABELS)
    array = read_npy(path) if ending == ".npy" else _NAMED[ending](path, LABELS)
    if array.ndim not in (1, 2) or array.size == 0:
        raise DataError(f"{place(path)}: labels of shape {array.shape}; expected (rows,), or one-hot (rows, classes)")
    return array


def _file(path: str | Path) -> Path:
    """Return the path of a file that is there and whose ending is known."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{place(path)}: {printable(path.suffix) or 'no ending'}; read are {', '.join(ENDINGS)}")
    if not path.is_file():
        raise DataError(f"{place(path)}: no such file")
    return path
