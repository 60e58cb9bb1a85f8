"""CIFAR-10: 60 000 colour images of 32 × 32 in ten classes, from either official archive or its extracted folder.

An archive is read in one pass, as a stream: nothing is written to the disk, a member is read only if its name and size
are the official ones, and the decompressed size has a limit, which stops decompression bombs.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from softnll.data.batches import Batch, check_meta, check_size, read_batch
from softnll.data.dataset import DataError, Dataset
from softnll.data.releases import BINARY, CLASS_NAMES, PYTHON, Release
from softnll.data.streams import Capped, LimitReachedError, PlainTarInfo, damage_as_data_error
from softnll.data.text import place, printable

__all__ = ["find_folder", "read_archive", "read_folder"]

RELEASES: tuple[Release, ...] = (BINARY, PYTHON)


class _Images:
    """The images and labels of both splits, filled batch by batch in any order."""

    def __init__(self, release: Release) -> None:
        count = len(release.batches) * release.records
        self.release = release
        self.images: NDArray[np.uint8] = np.empty((count, 32, 32, 3), dtype=np.uint8)
        self.labels: NDArray[np.int64] = np.empty(count, dtype=np.int64)
        self.seen: set[str] = set()

    def add(self, name: str, data: bytes, where: str) -> None:
        """Store the batch or check the class names that a file of the release holds; record the file's name."""
        self.seen.add(name)
        if name == self.release.meta:
            check_meta(self.release, data, where)
        elif name in self.release.batches:
            self._place(self.release.batches.index(name), read_batch(self.release, name, data, where))

    def _place(self, index: int, batch: Batch) -> None:
        rows = slice(index * self.release.records, (index + 1) * self.release.records)
        self.images[rows], self.labels[rows] = batch

    def split(self, where: str) -> tuple[Dataset, Dataset]:
        """Return train and test; raise DataError where a file is missing."""
        missing = [name for name in (*self.release.batches, self.release.meta) if name not in self.seen]
        if missing:
            raise DataError(f"{where}: lacks {', '.join(missing)} of CIFAR-10's {self.release.folder}")
        cut = len(self.labels) - self.release.records
        return (
            Dataset(self.images[:cut], self.labels[:cut], CLASS_NAMES, "train", "CIFAR-10"),
            Dataset(self.images[cut:], self.labels[cut:], CLASS_NAMES, "test", "CIFAR-10"),
        )


def read_archive(path: Path, releases: Sequence[Release] | None = None) -> tuple[Dataset, Dataset]:
    """Return train and test of CIFAR-10, 50 000 and 10 000 images with channels last, from an official archive.

    It is ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz`` under any name: its first member names the release.
    ``releases`` are those to accept, with their checksums (default: the two official ones).

    Raises
    ------
    DataError
        If a member is missing, unknown, there twice, a link, or has another size or checksum; if the archive is
        truncated, damaged or decompresses to more than CIFAR-10.
    """
    known = RELEASES if releases is None else releases
    where = place(path)
    # Members, their headers and padding, and the archive's own padding.
    limit = max(sum(release.limits.values()) for release in known) + (1 << 20)
    try:
        with damage_as_data_error(where, tarfile.TarError), gzip.open(path) as unpacked:
            stream = Capped(unpacked, limit)
            found = _read_members(stream, known, where)
            stream.drain()  # the gzip checksum stands at the very end
    except LimitReachedError:
        raise DataError(f"{where}: decompresses to more than {limit} bytes; CIFAR-10 does not") from None
    return found.split(where)


def _read_members(stream: Capped, known: Sequence[Release], where: str) -> _Images:
    """Return the images and labels of an archive; raise DataError for a member that is unknown or there twice."""
    found: _Images | None = None
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=PlainTarInfo) as tar:  # type: ignore[call-overload]
        for member in tar:
            folder, _, name = member.name.partition("/")
            label = f"{where}: {printable(member.name)}"
            if found is None:
                found = _Images(_release_of(folder, known, label))
            release = found.release
            if member.isdir() and member.name == release.folder and "" not in found.seen:
                found.seen.add("")  # the folder itself, once like each file
                continue
            if not member.isreg() or folder != release.folder or name not in release.limits or name in found.seen:
                names = ", ".join(release.limits)
                raise DataError(f"{label}: not allowed here; {release.folder} holds, once each: {names}")
            check_size(release, name, member.size, label)
            found.add(name, _contents(tar.extractfile(member), member.size, label), label)
    if found is None:
        raise DataError(f"{where}: an empty archive")
    return found


def _contents(file: BinaryIO | None, size: int, label: str) -> bytes:
    """Return the bytes of a member."""
    data = b"" if file is None else file.read(size)
    if len(data) != size:
        raise DataError(f"{label}: truncated, {len(data)} of {size} bytes")
    return data


def _release_of(folder: str, known: Sequence[Release], label: str) -> Release:
    """Return the release whose folder has this name; if there is none, raise DataError with ``label`` in its text."""
    for release in known:
        if release.folder == folder:
            return release
    raise DataError(f"{label}: not a member of CIFAR-10, whose folder is {' or '.join(r.folder for r in known)}")


def find_folder(path: Path, releases: Sequence[Release] | None = None) -> tuple[Path, Release] | None:
    """Return where in a folder CIFAR-10's extracted files lie, the folder itself or one below, and their release."""
    for release in RELEASES if releases is None else releases:
        for folder in (path, path / release.folder):
            if any((folder / name).is_file() for name in release.batches):
                return folder, release
    return None


def read_folder(path: Path, releases: Sequence[Release] | None = None) -> tuple[Dataset, Dataset]:
    """Return train and test of CIFAR-10 from the extracted official files; see `read_archive`."""
    located = find_folder(path, releases)
    if located is None:
        raise DataError(f"{place(path)}: no folder with CIFAR-10's batches")
    folder, release = located
    found = _Images(release)
    for name in (*release.batches, release.meta):
        file = folder / name
        if file.is_file():
            label = place(file)
            with file.open("rb") as opened:
                check_size(release, name, file.stat().st_size, label)
                # One byte more than allowed shows that the file has grown.
                data = opened.read(release.limits[name] + 1)
            check_size(release, name, len(data), label)
            found.add(name, data, label)
    return found.split(place(folder))
