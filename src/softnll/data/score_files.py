"""Scores and labels of any size from the files that frameworks write; their contents are not trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll.data.arrays import NPY_MAGIC, read_npy
from softnll.data.arrow_tables import PARQUET_MAGIC
from softnll.data.columns import AUTOMATIC, Choice, Roles
from softnll.data.dataset import DataError
from softnll.data.delimited import ENDINGS as TEXT_ENDINGS
from softnll.data.idx import read_idx
from softnll.data.labels import checked_names
from softnll.data.npz import read_member
from softnll.data.rows import ArrayRows, Rows
from softnll.data.streams import GZIP_MAGIC, damage_as_data_error, first_bytes
from softnll.data.tables import AnyTable, is_table, open_table, roles_of
from softnll.data.tensors import read_safetensors, read_torch
from softnll.data.text import place, printable

__all__ = ["ENDINGS", "Labels", "Scores", "is_table_file", "labels_of", "open_labels", "open_scores", "scores_of"]

SCORES = (
    "scores", "logits", "log_probs", "probabilities", "probs", "predictions", "logit", "log_prob", "logprobs",
    "log_probabilities", "proba", "prob", "y_prob", "y_proba", "y_score", "pred_probs", "outputs", "output", "preds",
    "y_pred", "pred",
)  # fmt: skip
LABELS = (
    "labels", "targets", "label", "target", "y", "y_true", "label_ids", "true_labels", "ground_truth", "y_test",
    "classes", "gt", "y_train", "y_val", "references",
)  # fmt: skip
_NAMED = {".npz": read_member, ".safetensors": read_safetensors, ".pt": read_torch, ".pth": read_torch}
ENDINGS = (".npy", *TEXT_ENDINGS, ".parquet", *_NAMED)


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a file.

    Attributes
    ----------
    rows
        ``(N, C)`` scores.
    names
        The names of the classes, where the file has them.
    table, roles
        The table that they are from, and the roles of its columns; None for other files.
    """

    rows: Rows
    names: tuple[str, ...] | None = None
    table: AnyTable | None = None
    roles: Roles | None = None


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a file: ``(N,)`` numbers, booleans or text, or ``(N, C)`` one-hot rows; else as `Scores`."""

    values: NDArray[Any]
    names: tuple[str, ...] | None = None  # the columns' of one-hot rows
    table: AnyTable | None = None
    roles: Roles | None = None


def open_scores(path: str | Path) -> tuple[Rows, tuple[str, ...] | None]:
    """Return the ``(N, C)`` scores of a file, and class names where it has them.

    A .npy file of 64 MiB and more, .safetensors and .parquet stay on disk and are read in blocks of rows. Files
    that hold several arrays (.npz, .safetensors, .pt) name the scores ``scores``, ``logits``, ``log_probs``,
    ``probabilities``, ``probs`` or ``predictions``, unless there is only one. In tables (text, .parquet), every
    column is a class, named by the header, but those that :func:`softnll.data.columns.decide` finds to be an index,
    labels or text. The contents decide the format; text tables are recognised by their ending.

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
    found = scores_of(_file(path))
    return found.rows, found.names


def open_labels(path: str | Path) -> NDArray[Any]:
    r"""Return the labels of a file: numbers, booleans, text, or one-hot rows.

    The files are those of :func:`open_scores`, and IDX files; arrays, and a table's column, are called ``labels``,
    ``targets``, ``label``, ``target``, ``y`` or ``y_true``, unless there is only one.

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
    return labels_of(_file(path)).values


def is_table_file(path: Path) -> bool:
    """Whether a file that exists is a table."""
    return _kind(path) == "table"


def scores_of(path: Path, choice: Choice = AUTOMATIC, *, expected: int | None = None) -> Scores:
    """Return the scores of a file, of which another one says that it has ``expected`` rows."""
    kind = _kind(path)
    if kind == "table":
        return scores_of_table(open_table(path, header=choice.header, expected=expected), choice)
    if kind == "idx":
        raise DataError(f"{place(path)}: an IDX file holds images or labels, no scores")
    array = read_npy(path) if kind == "npy" else _NAMED[kind](path, SCORES, LABELS)
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2 or 0 in array.shape or not (array.dtype.kind in "iuf" or array.dtype.name == "bfloat16"):
        raise DataError(
            f"{place(path)}: scores of shape {array.shape} and type {array.dtype.name}; "
            "expected real numbers, (rows, classes)"
        )
    return Scores(ArrayRows(array, str(path)))


def scores_of_table(table: AnyTable, choice: Choice = AUTOMATIC) -> Scores:
    """Return the scores of a table."""
    if table.rows == 0:
        raise DataError(f"{table.where}: no scores")
    roles = roles_of(table, "scores", choice)
    if not roles.values:
        table.scores(range(len(table.columns)))  # the fault of one column is more than that there is none
        raise DataError(f"{table.where}: no scores; {roles.describe()}")
    rows = table.scores(roles.values)
    names = [table.names[k].strip() for k in roles.values]
    return Scores(rows, checked_names(names, table.where) if any(names) else None, table, roles)


def labels_of(
    path: Path, choice: Choice = AUTOMATIC, *, expected: int | None = None, classes: int | None = None
) -> Labels:
    """Return the labels of a file, of which another one says that it has ``expected`` rows of ``classes`` scores."""
    kind = _kind(path)
    if kind == "table":
        return labels_of_table(open_table(path, header=choice.header, expected=expected), choice, classes=classes)
    if kind == "idx":
        array = read_idx(path)[0]
    else:
        array = read_npy(path) if kind == "npy" else _NAMED[kind](path, LABELS, SCORES)
    if array.ndim not in (1, 2) or array.size == 0:
        raise DataError(f"{place(path)}: labels of shape {array.shape}; expected (rows,), or one-hot (rows, classes)")
    return Labels(array)


def labels_of_table(table: AnyTable, choice: Choice = AUTOMATIC, *, classes: int | None = None) -> Labels:
    """Return the labels of a table: a column, or columns that are one-hot."""
    if table.rows == 0:
        raise DataError(f"{table.where}: a header and no labels")
    roles = roles_of(table, "labels", choice)
    if roles.label is not None:
        return Labels(table.labels(roles.label), None, table, roles)
    if classes is not None and len(roles.values) != classes:
        raise DataError(
            f"{table.where}: {counted(len(roles.values), 'column')} of 0 and 1; expected one column, or {classes}"
        )
    columns = [np.asarray(table.labels(k), np.float64) for k in roles.values]
    names = tuple(table.names[k].strip() for k in roles.values)
    return Labels(np.column_stack(columns), names if all(names) else None, table, roles)


def _file(path: str | Path) -> Path:
    """Return the path of a file that exists."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{place(path)}: {'a folder' if path.is_dir() else 'no such file'}")
    return path


def _kind(path: Path) -> str:
    """Return the format of a file: from its first bytes, else from its ending."""
    with _file(path).open("rb") as file:
        head = file.read(4096)
    ending = path.suffix.lower()
    packed = b""
    if head.startswith(GZIP_MAGIC):
        with damage_as_data_error(place(path)):
            packed = first_bytes(head, 4)
    kinds = {
        "npy": head.startswith(NPY_MAGIC),
        "table": head.startswith(PARQUET_MAGIC),
        "idx": packed.startswith(b"\0\0") or (head.startswith(b"\0\0") and ending not in ENDINGS),
        ending: ending in _NAMED,
    }
    kind = next((kind for kind, fits in kinds.items() if fits), ending[1:] if ending in (".npy", ".parquet") else "")
    kind = "table" if kind == "parquet" or (not kind and is_table(path)) else kind
    if kind:
        return kind
    remedy = "; save the sheet as .csv" if ending in (".xlsx", ".xls", ".ods") else ""
    shown = printable(path.suffix) or "no ending"
    raise DataError(f"{place(path)}: {shown}; read are {', '.join(ENDINGS)} and IDX files{remedy}")
