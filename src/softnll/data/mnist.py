"""MNIST, Fashion-MNIST and every other data set that comes as four IDX files in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError, Dataset, is_images
from softnll.data.download import DownloadError
from softnll.data.idx import read_idx
from softnll.data.text import place, printable

__all__ = [
    "FAMILY", "FILES", "Known", "find_files", "load_mnist", "missing_files", "read_folder", "read_pair",
    "torchvision_folders",
]  # fmt: skip

#: The usual names, in the order train images, train labels, test images, test labels.
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

#: Where Debian's package dataset-fashion-mnist puts its files.
SYSTEM_FOLDER = Path("/usr/share/datasets")


@dataclass(frozen=True)
class Known:
    """A member of the family: its name and classes, and the md5 of its four files, uncompressed, in order."""

    name: str
    class_names: tuple[str, ...]
    md5: tuple[str, str, str, str]


FAMILY: Mapping[str, Known] = {
    "mnist": Known(
        "MNIST",
        tuple("0123456789"),
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "fashion-mnist": Known(
        "Fashion-MNIST",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
}


def find_files(folder: Path) -> list[Path] | None:
    """Return a folder's four files, gzipped or not, with a dash or a dot before ``idx``; None where one is missing."""
    found = [file for name in FILES if (file := _find(folder, name)) is not None]
    return found if len(found) == len(FILES) else None


def missing_files(folder: Path) -> list[str]:
    """Return which of the four files a folder lacks; none where it has not one of them."""
    missing = [name for name in FILES if _find(folder, name) is None]
    return missing if len(missing) < len(FILES) else []


def torchvision_folders(folder: Path) -> list[Path]:
    """Return where torchvision puts the files below a folder, the one of its datasets or the one that these are in."""
    return [folder / "raw", *(folder / name / "raw" for name in ("MNIST", "FashionMNIST", "KMNIST", "QMNIST"))]


def _find(folder: Path, name: str) -> Path | None:
    """Return one of the four files of a folder."""
    stems = (name, name.replace("-idx", ".idx"))
    choices = [folder / f"{stem}{end}" for stem in stems for end in ("", ".gz")]
    return next((choice for choice in choices if choice.is_file()), None)


def read_folder(
    folder: Path, expect: str | None = None, family: Mapping[str, Known] | None = None
) -> tuple[Dataset, Dataset]:
    """Return train and test from a folder with the four IDX files.

    The data is named MNIST or Fashion-MNIST where all four checksums match; otherwise it has the folder's name, and
    its classes are named by their numbers. ``expect`` (``"mnist"`` or ``"fashion-mnist"``) refuses all other data;
    ``family`` holds the data sets that are known (default: those two). Raise DataError for missing files, for arrays
    that are no images or labels, and for counts or checksums that do not fit.
    """
    known = FAMILY if family is None else family
    files = find_files(folder)
    if files is None:
        lacks = ", ".join(missing_files(folder) or FILES)
        raise DataError(f"{place(folder)}: lacks {lacks} (each may end in .gz)")
    arrays, sums = zip(*(read_idx(file) for file in files), strict=True)
    match = next((one for one in known.values() if one.md5 == sums), None)
    if expect is not None and match != known[expect]:
        raise DataError(f"{place(folder)}: its checksums are not those of {known[expect].name}; damaged, or other data")
    images = [_images(array, file) for array, file in zip(arrays[::2], files[::2], strict=True)]
    labels = [_labels(array, file) for array, file in zip(arrays[1::2], files[1::2], strict=True)]
    if match is None:
        names = _numbers(max(int(part.max(initial=0)) for part in labels), place(folder))
        name = printable(folder.resolve().name)
    else:
        names, name = match.class_names, match.name
    train, test = (
        Dataset(pixels, numbers, names, split, name)
        for pixels, numbers, split in zip(images, labels, ("train", "test"), strict=True)
    )
    return train, test


def read_pair(images: Path) -> Dataset:
    """Return one file of images with its file of labels, the neighbour with ``labels-idx1`` in its name."""
    labels = _neighbour(images)
    numbers = _labels(read_idx(labels)[0], labels)
    pixels = _images(read_idx(images)[0], images)
    return Dataset(pixels, numbers, _numbers(int(numbers.max(initial=0)), place(labels)), "all", printable(images.name))


def _neighbour(images: Path) -> Path:
    """Return the file of labels beside a file of images."""
    stem = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for name in (stem, f"{stem}.gz"):
        if name not in (images.name, images.name.removesuffix(".gz")) and (images.parent / name).is_file():
            return images.parent / name
    raise DataError(f"{place(images)}: no labels beside it; expected {printable(stem)}, or a file given as labels=")


def _images(array: NDArray[np.generic], file: Path) -> NDArray[np.generic]:
    """Return the array, which must hold images."""
    if not is_images(array):
        allowed = "images are uint8, (N, H, W) or (N, H, W, 3)"
        raise DataError(f"{place(file)}: holds {array.dtype.name} of shape {array.shape}; {allowed}")
    return array


def _labels(array: NDArray[np.generic], file: Path) -> NDArray[np.int64]:
    """Return the array as int64, which must hold labels."""
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{place(file)}: holds {array.dtype.name} of shape {array.shape}; labels are integers, (N,)")
    return array.astype(np.int64)


def _numbers(last: int, where: str) -> tuple[str, ...]:
    """Return the numbers 0 … last as class names."""
    # The labels of all relatives are bytes; with a wider type, one wrong number could need a billion names.
    if last > 65535:
        raise DataError(f"{where}: label {last} is more than an IDX data set may have (65535)")
    return tuple(str(number) for number in range(last + 1))


def load_mnist(key: str, folder: Path) -> tuple[Dataset, Dataset]:
    """Return train and test of ``"mnist"`` or ``"fashion-mnist"`` from the folder, one in it, or the system's."""
    name = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[key]  # torchvision's
    for choice in (folder / key, folder, folder / name / "raw", SYSTEM_FOLDER / key):
        if find_files(choice) is not None:
            return read_folder(choice, expect=key)
    lacks = [name for choice in (folder / key, folder) for name in missing_files(choice)]
    known = FAMILY[key].name
    if lacks:
        raise DownloadError(f"{known} is not complete: {place(folder)} lacks {', '.join(dict.fromkeys(lacks))}")
    raise DownloadError(
        f"{known} is not here: put {', '.join(FILES)} (each may end in .gz) into the folder {place(folder / key)}"
    )
