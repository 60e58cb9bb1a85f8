"""One file of a CIFAR-10 release, from its bytes: checksum, then labels and pixels, or class names."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError
from softnll.data.releases import CLASS_NAMES, Release
from softnll.data.unpickle import Value, read_pickle

__all__ = ["Batch", "check_meta", "check_size", "read_batch"]

PIXELS = 3 * 32 * 32

#: (n, 32, 32, 3) uint8 pixels (a view, channels last) and (n,) integer labels
Batch: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.integer]]


def check_size(release: Release, name: str, size: int, where: str) -> None:
    """Raise DataError for a file of a wrong size, before it is read."""
    limit = release.limits[name]
    exact = name in release.batches and not release.pickled
    if size > limit or (exact and size != limit) or size < 0:
        raise DataError(f"{where}: {size} bytes, expected {'exactly' if exact else 'at most'} {limit}")


def read_batch(release: Release, name: str, data: bytes, where: str) -> Batch:
    """Return the pixels and labels of one batch.

    Raises
    ------
    DataError
        Where the checksum is not the official one, or the contents are not ``release.records`` images.
    """
    _check_md5(release, name, data, where)
    if release.pickled:
        planes, labels = _from_pickle(read_pickle(data, where), release.records, where)
    else:
        rows = np.frombuffer(data, dtype=np.uint8).reshape(release.records, 1 + PIXELS)
        planes, labels = rows[:, 1:], rows[:, 0]
    if int(labels.min()) < 0 or int(labels.max()) >= len(CLASS_NAMES):
        wrong = int(labels.max()) if labels.min() >= 0 else int(labels.min())
        raise DataError(f"{where}: label {wrong} is not one of the 10 classes, 0 to 9")
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def check_meta(release: Release, data: bytes, where: str) -> None:
    """Raise DataError where a file of class names does not hold CIFAR-10's, in their order."""
    _check_md5(release, release.meta, data, where)
    names: object = data.split()
    if release.pickled:
        names = read_pickle(data, where).get(b"label_names")
    # The text file has no published checksum; its contents are compared instead.
    if type(names) is not list or names != [name.encode() for name in CLASS_NAMES]:
        raise DataError(f"{where}: does not hold the ten class names of CIFAR-10, {' '.join(CLASS_NAMES)}")


def _check_md5(release: Release, name: str, data: bytes, where: str) -> None:
    """Raise DataError where the checksum of a file is known and is another one."""
    expected = release.md5.get(name)
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if expected is not None and found != expected:
        raise DataError(f"{where}: md5 {found} is not the official {expected}; the file is damaged or another one")


def _from_pickle(batch: dict[bytes, Value], records: int, where: str) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Return the pixels and labels of an unpickled batch."""
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, np.ndarray) or pixels.shape != (records, PIXELS):
        raise DataError(f"{where}: 'data' is not a ({records}, {PIXELS}) array of bytes")
    if type(labels) is not list or len(labels) != records:
        raise DataError(f"{where}: 'labels' is not a list of {records} numbers")
    numbers = [label for label in labels if type(label) is int]  # opcodes hold 32 bits at most: int64 is enough
    if len(numbers) != records:
        raise DataError(f"{where}: 'labels' holds something else than whole numbers")
    return pixels, np.array(numbers, dtype=np.int64)
