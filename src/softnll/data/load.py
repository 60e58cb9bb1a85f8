"""One door to all data: a name, a file or a folder in, train and test out."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from softnll.data import arrays, cifar10, mnist, npz, tables
from softnll.data.cache import cache_folder, load_cifar10, load_mnist
from softnll.data.dataset import DataError, Dataset
from softnll.data.digits import load_digits
from softnll.data.idx import GZIP_MAGIC, read_idx
from softnll.data.labels import encode
from softnll.data.text import place, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from softnll.data.download import Progress

__all__ = ["NAMES", "load"]

#: The data sets that have a name.
NAMES = ("digits", "cifar10", "mnist", "fashion-mnist")

_ALLOWED = (
    f"a name ({', '.join(NAMES)}), a .npy (with labels=), .npz, .csv or .tsv file, "
    "an IDX file, or a folder or archive of CIFAR-10 or MNIST's files"
)


def load(
    source: str | Path = "digits",
    *,
    labels: Path | None = None,
    cache: Path | None = None,
    download: bool = True,
    progress: Progress | None = None,
) -> tuple[Dataset, Dataset | None]:
    """Return train and test data.

    Parameters
    ----------
    source
        ``"digits"``, ``"cifar10"``, ``"mnist"``, ``"fashion-mnist"``; or a path, whose format is told by its contents.
    labels
        A ``.npy``, ``.csv``, ``.tsv`` or IDX file of labels ``(N,)``, for files of inputs alone.
    cache
        The folder of the named data sets (default: $SOFTNLL_DATA, else $XDG_CACHE_HOME/softnll, else
        ~/.cache/softnll).
    download
        Whether CIFAR-10 may be downloaded where it is missing (170 MB, from its official address).
    progress
        Called with ``(bytes done, bytes in all)`` while it is.

    Returns
    -------
    tuple
        Train and test; ``(all, None)`` for files that do not say which is which.

    Raises
    ------
    DataError
        For an unknown name or format, and for files that are truncated, damaged, oversized, mislabelled or hostile.
    DownloadError
        For named data that is neither here nor to be had; the message says what to put where.

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
            return _named(key, cache, download=download, progress=progress)
    path = Path(source).expanduser()
    words = None if labels is None else _read_labels(Path(labels).expanduser())
    if _is(path, Path.is_dir):
        if words is not None:
            raise DataError(f"{place(path)}: a folder has labels of its own; labels= is for files without them")
        return _folder(path)
    if not _is(path, Path.is_file):
        raise DataError(f"{place(path)}: no such name, file or folder; allowed is {_ALLOWED}")
    return _file(path, words)


def _named(key: str, folder: Path | None, *, download: bool, progress: Progress | None) -> tuple[Dataset, Dataset]:
    if key == "digits":
        return load_digits()
    where = cache_folder(folder)
    if key == "cifar10":
        return load_cifar10(where, download=download, progress=progress)
    return load_mnist(key, where)


def _folder(path: Path) -> tuple[Dataset, Dataset]:
    if cifar10.find_folder(path) is not None:
        return cifar10.read_folder(path)
    if mnist.find_files(path) is not None:
        return mnist.read_folder(path)
    raise DataError(
        f"{place(path)}: neither CIFAR-10's files ({', '.join(r.folder for r in cifar10.RELEASES)}) "
        f"nor MNIST's ({', '.join(mnist.FILES)}) are in this folder"
    )


def _file(path: Path, words: NDArray[np.generic] | None) -> tuple[Dataset, Dataset | None]:
    where = place(path)
    kind = _kind(path)
    if kind == "npz":
        return npz.read_npz(path, words)
    encoded = None if words is None else encode(words, f"labels of {where}")
    if kind == "table":
        return tables.read_table(path, encoded), None
    if kind == "idx" and encoded is None:
        return mnist.read_pair(path), None
    if kind in ("npy", "idx"):
        if encoded is None:
            raise DataError(f"{where}: has no labels in it; name a .npy or .csv file of labels with labels=")
        inputs = arrays.read_npy(path) if kind == "npy" else read_idx(path)[0]
        return Dataset(arrays.as_inputs(inputs, where), *encoded, "all", printable(path.name)), None
    if words is not None:
        raise DataError(f"{where}: an archive has labels of its own; labels= is for files without them")
    return cifar10.read_archive(path)


def _is(path: Path, question: Callable[[Path], bool]) -> bool:
    """Ask about a path that may be no path at all (too long, with a null): then the answer is no."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def _kind(path: Path) -> str:
    """Tell the format from the first bytes, and text from the name, since text has no mark."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(arrays.NPY_MAGIC):
        return "npy"
    if head.startswith(npz.ZIP_MAGIC):
        return "npz"
    if head.startswith(GZIP_MAGIC):
        try:
            # 512 bytes are a tar header; no more is decompressed, whatever the file would become.
            inner = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 512)
        except zlib.error as error:
            raise DataError(f"{place(path)}: truncated or damaged: {printable(str(error))}") from None
        return "idx" if inner.startswith(b"\0\0") else "archive"
    if path.suffix.lower() in (".csv", ".tsv"):
        return "table"
    if head.startswith(b"\0\0"):
        return "idx"
    raise DataError(f"{place(path)}: a format that is not known; allowed is {_ALLOWED}")


def _read_labels(path: Path) -> NDArray[np.generic]:
    if not path.is_file():
        raise DataError(f"{place(path)}: no such file of labels")
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(arrays.NPY_MAGIC):
        return arrays.read_npy(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return tables.read_label_column(path)
    if head.startswith((GZIP_MAGIC, b"\0\0")):
        return read_idx(path)[0]
    raise DataError(f"{place(path)}: labels are a .npy, .csv, .tsv or IDX file")
