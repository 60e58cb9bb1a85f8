""".npz: a zip of .npy members; sizes are compared with each other before memory is asked for."""

from __future__ import annotations

import errno
import math
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from softnll.data.arrays import as_inputs, read_header
from softnll.data.dataset import DataError, Dataset
from softnll.data.labels import as_class_names, encode
from softnll.data.streams import expandable
from softnll.data.tensors import chosen
from softnll.data.text import place, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["ZIP_MAGIC", "read_member", "read_npz"]

ZIP_MAGIC = b"PK\x03\x04"
MAX_BYTES = 4 << 30  # what is larger is better off as .npy, which is mapped

_INPUTS = ("x", "features", "images", "inputs")
_LABELS = ("y", "labels", "targets", "label", "target")
_NAMES = ("class_names", "classes", "target_names")


def read_npz(
    path: Path, labels: NDArray[np.generic] | None = None, *, max_bytes: int = MAX_BYTES
) -> tuple[Dataset, Dataset | None]:
    """Return the data of a .npz file, and its test split where it has one.

    Inputs are called X, x, features, images or inputs; labels y, labels or targets; ``class_names`` may be there too.
    A file with ``x_train, y_train, x_test, y_test`` gives both splits. Other members are not read.

    Parameters
    ----------
    path
        The file.
    labels
        Labels from elsewhere, for a file without them.
    max_bytes
        The largest member allowed, uncompressed.

    Raises
    ------
    DataError
        For members that are missing, doubled, encrypted, damaged, of objects, or of another size than they promise.

    """
    where = place(path)
    with _opened(path, where) as archive:
        return _datasets(path, where, archive, _members(archive, where), labels, max_bytes)


def read_member(path: Path, wanted: tuple[str, ...], *, max_bytes: int = MAX_BYTES) -> NDArray[np.generic]:
    """Return one array of a .npz file: the first of these names that it has, or its only one."""
    where = place(path)
    with _opened(path, where) as archive:
        members = _members(archive, where)
        key = chosen(list(members), wanted, where)
        return _read_member(archive, members[key], f"{where}: {printable(key)}", max_bytes)


@contextmanager
def _opened(path: Path, where: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive; say in one line what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: truncated or damaged: {printable(str(error))}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is what an offset before the start of the file gives
            raise
        raise DataError(f"{where}: damaged: a member lies outside the file") from None


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        key = info.filename.removesuffix(".npy").lower()
        if key in members:
            raise DataError(f"{where}: two members are called {printable(key)} (capitals do not count)")
        members[key] = info
    return members


def _datasets(
    path: Path,
    where: str,
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    labels: NDArray[np.generic] | None,
    max_bytes: int,
) -> tuple[Dataset, Dataset | None]:
    def read(key: str) -> NDArray[np.generic]:
        return _read_member(archive, members[key], f"{where}: {printable(key)}", max_bytes)

    name = printable(path.name)
    names_key = next((key for key in _NAMES if key in members), None)
    names = None if names_key is None else as_class_names(read(names_key), f"{where}: {names_key}")
    if labels is None and all(key in members for key in ("x_train", "y_train", "x_test", "y_test")):
        y_train, y_test = (read(key).reshape(-1) for key in ("y_train", "y_test"))
        # One list of classes for both splits.
        numbers, names = encode(np.concatenate([y_train, y_test]), f"{where}: y_train, y_test", names)
        cut = len(y_train)
        train = Dataset(as_inputs(read("x_train"), f"{where}: x_train"), numbers[:cut], names, "train", name)
        return train, Dataset(as_inputs(read("x_test"), f"{where}: x_test"), numbers[cut:], names, "test", name)

    inputs_key = next((key for key in _INPUTS if key in members), None)
    labels_key = next((key for key in _LABELS if key in members), None)
    if inputs_key is None or (labels_key is None and labels is None):
        lacks = "inputs (X, features or images)" if inputs_key is None else "labels (y, labels or targets, or labels=)"
        held = ", ".join(printable(key, 30) for key in list(members)[:10]) or "nothing"
        raise DataError(f"{where}: no {lacks} among its members: {held}")
    if labels_key is not None and labels is not None:
        raise DataError(f"{where}: has labels of its own ({labels_key}); labels= is for a file without them")
    inputs = as_inputs(read(inputs_key), f"{where}: {inputs_key}")
    given = read(labels_key) if labels_key is not None else labels
    numbers, names = encode(np.asarray(given), f"{where}: {labels_key or 'labels'}", names)
    return Dataset(inputs, numbers, names, "all", name), None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, max_bytes: int) -> NDArray[np.generic]:
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: encrypted, or compressed by something else than deflate")
    if info.file_size > max_bytes:
        raise DataError(f"{where}: {info.file_size} bytes; at most {max_bytes}, save larger arrays as .npy")
    if info.file_size > expandable(info.compress_size):
        raise DataError(f"{where}: {info.compress_size} bytes cannot hold the {info.file_size} that they promise")
    with archive.open(info) as stream:
        shape, fortran, dtype = read_header(stream, where)  # type: ignore[arg-type]
        count = math.prod(shape) * dtype.itemsize
        if stream.tell() + count != info.file_size:
            raise DataError(f"{where}: {info.file_size - stream.tell()} bytes after its header, which promises {count}")
        data = np.empty(count, dtype=np.uint8)
        filled = 0
        while filled < count:
            chunk = stream.read(min(1 << 20, count - filled))
            if not chunk:
                raise DataError(f"{where}: truncated: {filled} of {count} bytes")
            data[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
            filled += len(chunk)
    return data.view(dtype).reshape(shape, order="F" if fortran else "C")
