"""`load`: train and test data from a name, a file or a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softnll.data import arrays, cifar10, mnist, npz, tables
from softnll.data.arrow_tables import PARQUET_MAGIC
from softnll.data.columns import AUTOMATIC, Choice
from softnll.data.dataset import DataError, Dataset
from softnll.data.download import Progress
from softnll.data.idx import read_idx
from softnll.data.labels import encode
from softnll.data.streams import GZIP_MAGIC, damage_as_data_error, first_bytes
from softnll.data.text import place, printable

__all__ = ["NAMES", "cache_folder", "load"]

#: The data sets that have a name.
NAMES = ("digits", "cifar10", "mnist", "fashion-mnist")

_ALLOWED = (
    f"a name ({', '.join(NAMES)}), a .npy file (with --labels), a .npz file, a table (.csv, .tsv, .parquet, ...), "
    "an IDX file, or a folder or archive of CIFAR-10 or MNIST's files"
)


def load(
    source: str | Path = "digits",
    *,
    labels: Path | None = None,
    choice: Choice = AUTOMATIC,
    cache: Path | None = None,
    download: bool = True,
    progress: Progress | None = None,
) -> tuple[Dataset, Dataset | None]:
    """Return train and test data.

    Parameters
    ----------
    source
        ``"digits"``, ``"cifar10"``, ``"mnist"``, ``"fashion-mnist"``; or a path, whose contents decide the format.
    labels
        A ``.npy`` or IDX file, or a table, of labels ``(N,)``, for files of inputs alone.
    choice
        Which columns of a table are labels or left out, where that is not to be decided from its contents.
    cache
        The folder of the named data sets (default: $SOFTNLL_DATA, else $XDG_CACHE_HOME/softnll, else
        ~/.cache/softnll).
    download
        Whether CIFAR-10 may be downloaded where it is missing (170 MB, from its official address).
    progress
        Called with ``(bytes done, bytes in all)`` during a download.

    Returns
    -------
    tuple
        Train and test; ``(all, None)`` for files that do not say which is which.

    Raises
    ------
    DataError
        For an unknown name or format, and for files that are truncated, damaged, oversized, mislabelled or malicious.
    DownloadError
        For named data that is missing and cannot be downloaded; the message says which file to put where.

    Examples
    --------
    >>> train, test = load("digits")
    >>> train
    Dataset(class_names=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'), split='train', name='digits', scale=16.0)
    """
    if isinstance(source, str):
        key = source.strip().lower().replace("_", "-")
        key = {"cifar-10": "cifar10", "fashionmnist": "fashion-mnist"}.get(key, key)
        if key in NAMES:
            if labels is not None:
                raise DataError(f"{key}: has labels of its own; labels= is for files without them")
            if key == "digits":
                return load_digits()
            if key == "cifar10":
                return cifar10.load_cifar10(cache_folder(cache), download=download, progress=progress)
            return mnist.load_mnist(key, cache_folder(cache))
    path = Path(source).expanduser()
    beside = None if labels is None else Path(labels).expanduser()
    if beside is not None and not _is(beside, Path.is_file):
        raise DataError(f"{place(beside)}: no such file of labels")
    if _is(path, Path.is_dir):
        if beside is not None:
            raise DataError(f"{place(path)}: a folder has labels of its own; labels= is for files without them")
        return _folder(path)
    if not _is(path, Path.is_file):
        raise DataError(f"{place(path)}: no such name, file or folder; allowed is {_ALLOWED}")
    return _file(path, beside, choice)


def cache_folder(given: Path | None = None) -> Path:
    """Return the folder of the data sets: the given one, $SOFTNLL_DATA, $XDG_CACHE_HOME/softnll or ~/.cache/softnll."""
    if given is not None:
        return given
    if own := os.environ.get("SOFTNLL_DATA"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "softnll"


def load_digits() -> tuple[Dataset, Dataset]:
    """Return the digits, first half to train, second half to test (898 and 899 images of 8 × 8).

    A pixel is the number of black pixels in a 4 × 4 block of the scan, 0 … 16; it is kept, with ``scale = 16``, and
    ``features()`` returns X / 16 exactly, because 16 is a power of two. The halves are scikit-learn's own: different
    people wrote them, so a random split would give a better score.

    Examples
    --------
    >>> train, test = load_digits()
    >>> train.inputs.shape, test.inputs.shape, train.scale
    ((898, 8, 8), (899, 8, 8), 16.0)
    """
    try:
        from sklearn import datasets  # noqa: PLC0415 - costs a second, and only the digits need it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install 'softnll[app]'") from error

    bunch = datasets.load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    half = len(labels) // 2
    names = tuple("0123456789")
    return (
        Dataset(images[:half], labels[:half], names, "train", "digits", scale=16.0),
        Dataset(images[half:], labels[half:], names, "test", "digits", scale=16.0),
    )


def _folder(path: Path) -> tuple[Dataset, Dataset]:
    """Return train and test of a folder."""
    if cifar10.find_folder(path) is not None:
        return cifar10.read_folder(path)
    for choice in (path, *mnist.torchvision_folders(path)):
        if mnist.find_files(choice) is not None:
            return mnist.read_folder(choice)
    if missing := mnist.missing_files(path):
        raise DataError(f"{place(path)}: lacks {', '.join(missing)} of MNIST's four files (each may end in .gz)")
    raise DataError(
        f"{place(path)}: neither CIFAR-10's files ({', '.join(r.folder for r in cifar10.RELEASES)}) "
        f"nor MNIST's ({', '.join(mnist.FILES)}) are in this folder"
    )


def _file(path: Path, labels: Path | None, choice: Choice) -> tuple[Dataset, Dataset | None]:
    """Return the data of a file, with labels from elsewhere where they are given."""
    where = place(path)
    kind = _kind(path)
    if kind == "npz":
        return npz.read_npz(path, None if labels is None else _read_labels(labels))
    if kind == "table":
        return tables.read_table(path, None if labels is None else partial(_read_labels, labels), choice=choice), None
    if kind == "idx" and labels is None:
        return mnist.read_pair(path), None
    if kind in ("npy", "idx"):
        if labels is None:
            raise DataError(f"{where}: has no labels in it; name a file of labels: --labels (in Python labels=)")
        inputs = arrays.read_npy(path) if kind == "npy" else read_idx(path)[0]
        encoded = encode(_read_labels(labels, len(inputs) if inputs.ndim else None), f"labels of {where}")
        return Dataset(arrays.as_inputs(inputs, where), *encoded, "all", printable(path.name)), None
    if labels is not None:
        raise DataError(f"{where}: an archive has labels of its own; labels= is for files without them")
    return cifar10.read_archive(path)


def _is(path: Path, question: Callable[[Path], bool]) -> bool:
    """Whether the path is a file or folder; False for text that is no path (too long, with a null)."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def _kind(path: Path) -> str:
    """Return the format: from the first bytes, and for text, which has no magic number, from the name."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(arrays.NPY_MAGIC):
        return "npy"
    if head.startswith(npz.ZIP_MAGIC):
        return "npz"
    if head.startswith(GZIP_MAGIC):
        with damage_as_data_error(place(path)):
            # A tar header has 512 bytes; no more is decompressed, however large the contents are.
            inner = first_bytes(head, 512)
        if inner.startswith(b"\0\0"):
            return "idx"
        return "table" if tables.is_table(path) else "archive"
    if head.startswith(PARQUET_MAGIC) or tables.is_table(path):
        return "table"
    if head.startswith(b"\0\0"):
        return "idx"
    raise DataError(f"{place(path)}: a format that is not known; allowed is {_ALLOWED}")


def _read_labels(path: Path, expected: int | None = None) -> NDArray[np.generic]:
    """Return the labels of a file that holds nothing else; there should be ``expected`` of them."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(arrays.NPY_MAGIC):
        return arrays.read_npy(path)
    if head.startswith(PARQUET_MAGIC) or tables.is_table(path):
        return tables.read_label_column(path, expected=expected)
    if head.startswith((GZIP_MAGIC, b"\0\0")):
        return read_idx(path)[0]
    raise DataError(f"{place(path)}: labels are a .npy, .csv, .tsv, .parquet or IDX file")
