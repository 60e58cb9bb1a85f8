"""CIFAR-10: 60 000 colour images of 32 × 32 in ten classes, from either official archive or its extracted folder.

An archive is read in one pass, as a stream: nothing is written to the disk, a member is read only if its name and size
are the official ones, and the decompressed size has a limit, which stops decompression bombs.

Names, sizes and checksums are from https://www.cs.toronto.edu/~kriz/cifar.html (A. Krizhevsky, Learning Multiple Layers
of Features from Tiny Images, 2009). MD5 identifies an official file; it does not protect against forgery, and need not,
since files are only read as bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError, Dataset
from softnll.data.download import DownloadError, Progress, fetch
from softnll.data.streams import Capped, PlainTarInfo, damage_as_data_error
from softnll.data.text import place, printable
from softnll.data.unpickle import Value, read_pickle

__all__ = [
    "BINARY", "BINARY_SHA256", "BINARY_SIZE", "BINARY_URL", "CLASS_NAMES", "PYTHON", "RELEASES", "Release",
    "find_folder", "load_cifar10", "read_archive", "read_folder",
]  # fmt: skip

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

BINARY_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BINARY_SIZE = 170_052_171
BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


@dataclass(frozen=True)
class Release:
    """One release: the files of its folder, which its archive holds as ``folder/file``."""

    archive: str
    folder: str
    batches: tuple[str, ...]  # the files with images, training batches first, the test batch last
    meta: str  # the file with the class names
    limits: Mapping[str, int]  # bytes of each file: exact for the binary batches, the largest allowed for all others
    md5: Mapping[str, str]  # of each file; a file without one has its contents compared instead
    records: int  # images a batch
    pickled: bool


_STEMS = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
_README = "readme.html"

_BINARY_MD5 = (
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
)
_PYTHON_MD5 = (
    "c99cafc152244af753f735de768cd75f",
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
    "40351d587109b95175f43aff81a1287e",
)

BINARY = Release(
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    batches=tuple(f"{stem}.bin" for stem in _STEMS),
    meta="batches.meta.txt",
    # A record is 1 label byte + 3 · 1024 pixels.
    limits={f"{stem}.bin": 10_000 * 3073 for stem in _STEMS} | {"batches.meta.txt": 1024, _README: 1 << 16},
    md5={f"{stem}.bin": md5 for stem, md5 in zip(_STEMS, _BINARY_MD5, strict=True)},
    records=10_000,
    pickled=False,
)

PYTHON = Release(
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    batches=_STEMS,
    meta="batches.meta",
    limits=dict.fromkeys(_STEMS, 32_000_000) | {"batches.meta": 1024, _README: 1 << 16},
    md5=dict(zip(_STEMS, _PYTHON_MD5, strict=True)) | {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    records=10_000,
    pickled=True,
)

RELEASES: tuple[Release, ...] = (BINARY, PYTHON)

_PIXELS = 3 * 32 * 32

_Batch = tuple[NDArray[np.uint8], NDArray[np.integer]]  # pixels and (n,) labels


def _check_size(release: Release, name: str, size: int, where: str) -> None:
    """Raise DataError for a file of a wrong size, before it is read."""
    limit = release.limits[name]
    exact = name in release.batches and not release.pickled
    if size > limit or (exact and size != limit) or size < 0:
        raise DataError(f"{where}: {size} bytes, expected {'exactly' if exact else 'at most'} {limit}")


def _read_batch(release: Release, data: bytes, where: str) -> _Batch:
    """Return the pixels of one batch, (n, 32, 32, 3), a view with the channels last, and its labels."""
    if release.pickled:
        planes, labels = _from_pickle(read_pickle(data, where), release.records, where)
    else:
        rows = np.frombuffer(data, dtype=np.uint8).reshape(release.records, 1 + _PIXELS)
        planes, labels = rows[:, 1:], rows[:, 0]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(CLASS_NAMES):
        raise DataError(f"{where}: label {low if low < 0 else high} is not one of the 10 classes, 0 to 9")
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _check_names(release: Release, data: bytes, where: str) -> None:
    """Raise DataError where a file of class names does not hold CIFAR-10's, in their order."""
    names: object = read_pickle(data, where).get(b"label_names") if release.pickled else data.split()
    # The text file has no published checksum; its contents are compared instead.
    if type(names) is not list or names != [name.encode() for name in CLASS_NAMES]:
        raise DataError(f"{where}: does not hold the ten class names of CIFAR-10, {' '.join(CLASS_NAMES)}")


def _from_pickle(batch: dict[bytes, Value], records: int, where: str) -> _Batch:
    """Return the pixels and labels of an unpickled batch."""
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, np.ndarray) or pixels.shape != (records, _PIXELS):
        raise DataError(f"{where}: 'data' is not a ({records}, {_PIXELS}) array of bytes")
    if type(labels) is not list or len(labels) != records:
        raise DataError(f"{where}: 'labels' is not a list of {records} numbers")
    numbers = [label for label in labels if type(label) is int]  # opcodes hold 32 bits at most: int64 is enough
    if len(numbers) != records:
        raise DataError(f"{where}: 'labels' holds something else than whole numbers")
    return pixels, np.array(numbers, dtype=np.int64)


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
        expected = self.release.md5.get(name)
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if expected is not None and found != expected:
            raise DataError(f"{where}: md5 {found} is not the official {expected}; the file is damaged or another one")
        self.seen.add(name)
        if name == self.release.meta:
            _check_names(self.release, data, where)
        elif name in self.release.batches:
            start = self.release.batches.index(name) * self.release.records
            rows = slice(start, start + self.release.records)
            self.images[rows], self.labels[rows] = _read_batch(self.release, data, where)

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
    ``releases`` are those to accept, with their checksums (default: the two official ones). Raise DataError if a member
    is missing, unknown, there twice, a link, or has another size or checksum; if the archive is truncated, damaged or
    decompresses to more than CIFAR-10.
    """
    known = RELEASES if releases is None else releases
    where = place(path)
    # Members, their headers and padding, and the archive's own padding.
    limit = max(sum(release.limits.values()) for release in known) + (1 << 20)
    too_much = f"{where}: decompresses to more than {limit} bytes; CIFAR-10 does not"
    with damage_as_data_error(where, tarfile.TarError), gzip.open(path) as unpacked:
        stream = Capped(unpacked, limit, too_much)
        found = _read_members(stream, known, where)
        stream.drain()  # the gzip checksum stands at the very end
    return found.split(where)


def _read_members(stream: Capped, known: Sequence[Release], where: str) -> _Images:
    """Return the images and labels of an archive; raise DataError for a member that is unknown or there twice."""
    found: _Images | None = None
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=PlainTarInfo) as tar:  # type: ignore[call-overload]
        for member in tar:
            folder, _, name = member.name.partition("/")
            label = f"{where}: {printable(member.name)}"
            release = next((each for each in known if each.folder == folder), None) if found is None else found.release
            if release is None:
                folders = " or ".join(each.folder for each in known)
                raise DataError(f"{label}: not a member of CIFAR-10, whose folder is {folders}")
            found = found or _Images(release)
            if member.isdir() and member.name == release.folder and "" not in found.seen:
                found.seen.add("")  # the folder itself, once like each file
                continue
            if not member.isreg() or folder != release.folder or name not in release.limits or name in found.seen:
                names = ", ".join(release.limits)
                raise DataError(f"{label}: not allowed here; {release.folder} holds, once each: {names}")
            _check_size(release, name, member.size, label)
            file = tar.extractfile(member)
            data = b"" if file is None else file.read(member.size)
            if len(data) != member.size:
                raise DataError(f"{label}: truncated, {len(data)} of {member.size} bytes")
            found.add(name, data, label)
    if found is None:
        raise DataError(f"{where}: an empty archive")
    return found


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
                _check_size(release, name, file.stat().st_size, label)
                # One byte more than allowed shows that the file has grown.
                data = opened.read(release.limits[name] + 1)
            _check_size(release, name, len(data), label)
            found.add(name, data, label)
    return found.split(place(folder))


def load_cifar10(
    folder: Path, *, download: bool = True, progress: Progress | None = None, url: str = BINARY_URL
) -> tuple[Dataset, Dataset]:
    """Return train and test of CIFAR-10 from what the folder holds: extracted files, or an archive, or a download."""
    if find_folder(folder) is not None:
        return read_folder(folder)
    for release in RELEASES:
        archive = folder / release.archive
        if archive.is_file():
            return read_archive(archive)
    target = folder / BINARY.archive
    if not download:
        raise DownloadError(
            f"CIFAR-10 is not in {place(folder)} and downloading is off: put {url} there as {target.name}"
        )
    fetch(url, target, size=BINARY_SIZE, sha256=BINARY_SHA256, progress=progress)
    return read_archive(target)
