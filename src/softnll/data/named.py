"""The data sets that have a name: scikit-learn's digits, and those in a folder, where CIFAR-10 is downloaded to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from softnll.data import cifar10, mnist
from softnll.data.dataset import Dataset
from softnll.data.download import DownloadError, Progress, fetch
from softnll.data.text import place

__all__ = ["cache_folder", "load_cifar10", "load_digits", "load_mnist"]

#: Where Debian's package dataset-fashion-mnist puts its files.
SYSTEM_FOLDER = Path("/usr/share/datasets")


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


def load_cifar10(
    folder: Path, *, download: bool = True, progress: Progress | None = None, url: str = cifar10.BINARY_URL
) -> tuple[Dataset, Dataset]:
    """Return train and test of CIFAR-10 from what the folder holds: extracted files, or an archive, or a download."""
    if cifar10.find_folder(folder) is not None:
        return cifar10.read_folder(folder)
    for release in cifar10.RELEASES:
        archive = folder / release.archive
        if archive.is_file():
            return cifar10.read_archive(archive)
    target = folder / cifar10.BINARY.archive
    if not download:
        raise DownloadError(
            f"CIFAR-10 is not in {place(folder)} and downloading is off: put {url} there as {target.name}"
        )
    fetch(url, target, size=cifar10.BINARY_SIZE, sha256=cifar10.BINARY_SHA256, progress=progress)
    return cifar10.read_archive(target)


def load_mnist(key: str, folder: Path) -> tuple[Dataset, Dataset]:
    """Return train and test of ``"mnist"`` or ``"fashion-mnist"`` from the folder, one in it, or the system's."""
    name = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[key]  # torchvision's
    for choice in (folder / key, folder, folder / name / "raw", SYSTEM_FOLDER / key):
        if mnist.find_files(choice) is not None:
            return mnist.read_folder(choice, expect=key)
    lacks = [name for choice in (folder / key, folder) for name in mnist.missing_files(choice)]
    known = mnist.FAMILY[key].name
    if lacks:
        raise DownloadError(f"{known} is not complete: {place(folder)} lacks {', '.join(dict.fromkeys(lacks))}")
    raise DownloadError(
        f"{known} is not here: put {', '.join(mnist.FILES)} (each may end in .gz) into the folder {place(folder / key)}"
    )
