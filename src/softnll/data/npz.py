""".npz: a zip of .npy members; sizes are compared with each other before memory is allocated."""

from __future__ import annotations

import errno
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softnll.data.arrays import as_inputs, read_header
from softnll.data.dataset import DataError, Dataset
from softnll.data.labels import as_class_names, choose, encode, listed
from softnll.data.streams import damage_as_data_error, expandable, read_array_bytes
from softnll.data.text import place, printable
from softnll.data.text_arrays import require_unicode

__all__ = ["ZIP_MAGIC", "read_member", "read_npz"]

ZIP_MAGIC = b"PK\x03\x04"
MAX_BYTES = 4 << 30  # larger arrays should be .npy, which is memory-mapped

_INPUTS = ("x", "features", "images", "inputs")
_LABELS = ("y", "labels", "targets", "label", "target")
_NAMES = ("class_names", "classes", "target_names")


def read_npz(
    path: Path, labels: NDArray[np.generic] | None = None, *, max_bytes: int = MAX_BYTES
) -> tuple[Dataset, Dataset | None]:
    """Return train and test of a .npz file that has both; otherwise, all its data and None.

    A file with ``x_train, y_train, x_test, y_test`` has both. In any other file, inputs are called X, x, features,
    images or inputs, and labels y, labels or targets; a file without labels needs the argument ``labels``. Every file
    may have ``class_names``. Other members are not read. ``max_bytes`` is the largest size of a member, uncompressed.
    Raise DataError if a member is missing, there twice, encrypted, damaged, too large, holds objects, or has another
    size than its header says; if there are labels both in the file and as an argument.
    """
    where = place(path)
    with _opened(path, where, max_bytes) as (members, read):
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
            lacks = "labels (y, labels or targets, or labels=)" if inputs_key else "inputs (X, features or images)"
            raise DataError(f"{where}: no {lacks} among its members: {listed(members)}")
        if labels_key is not None and labels is not None:
            raise DataError(f"{where}: has labels of its own ({labels_key}); labels= is for a file without them")
        inputs = as_inputs(read(inputs_key), f"{where}: {inputs_key}")
        given = read(labels_key) if labels_key is not None else labels
        numbers, names = encode(np.asarray(given), f"{where}: {labels_key or 'labels'}", names)
        return Dataset(inputs, numbers, names, "all", name), None


def read_member(
    path: Path, wanted: tuple[str, ...], others: tuple[str, ...] = (), *, max_bytes: int = MAX_BYTES
) -> NDArray[np.generic]:
    """Return one array of a .npz file: the first of these names that it has, or its only one that is none of others."""
    where = place(path)
    with _opened(path, where, max_bytes) as (members, read):
        return read(choose(members, wanted, where, others))


@contextmanager
def _opened(path: Path, where: str, max_bytes: int) -> Iterator[tuple[list[str], Callable[[str], NDArray[np.generic]]]]:
    """Open an archive; yield its members' names in lower case, and what reads one; raise DataError for damage."""
    damage = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError)
    members: dict[str, zipfile.ZipInfo] = {}
    try:
        with damage_as_data_error(where, *damage), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                key = info.filename.removesuffix(".npy").lower()
                if key in members:
                    raise DataError(f"{where}: two members are called {printable(key)} (capitals do not count)")
                members[key] = info
            yield (
                list(members),
                lambda key: _read_member(archive, members[key], f"{where}: {printable(key)}", max_bytes),
            )
    except OSError as error:
        if error.errno != errno.EINVAL:  # the error of an offset before the start of the file
            raise
        raise DataError(f"{where}: damaged: a member lies outside the file") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, max_bytes: int) -> NDArray[np.generic]:
    """Return one array; its sizes are checked before memory is allocated."""
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: encrypted, or compressed by another method than deflate")
    if info.file_size > max_bytes:
        raise DataError(f"{where}: {info.file_size} bytes; at most {max_bytes}, save larger arrays as .npy")
    if info.file_size > expandable(info.compress_size):
        raise DataError(f"{where}: {info.compress_size} bytes promise {info.file_size}; save them as .npy")
    with archive.open(info) as stream:
        shape, fortran, dtype = read_header(stream, where)  # type: ignore[arg-type]
        count = math.prod(shape) * dtype.itemsize
        if stream.tell() + count != info.file_size:
            raise DataError(f"{where}: {info.file_size - stream.tell()} bytes after its header, which promises {count}")
        data = read_array_bytes(stream, count, where)
    values = data.view(dtype)
    require_unicode(values, where)
    return values.reshape(shape, order="F" if fortran else "C")
