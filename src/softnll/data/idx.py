"""IDX, the format of MNIST and its relatives: a magic number, the dimensions, then the values; often gzipped."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError
from softnll.data.streams import GZIP_MAGIC, damage_as_data_error, expandable, read_array_bytes
from softnll.data.text import place

__all__ = ["read_idx"]

MAX_BYTES = 1 << 30  # the largest relative, EMNIST by class, has 547 MB

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> tuple[NDArray[np.generic], str]:
    """Return the array of an IDX file, and the md5 of the file's uncompressed bytes as 32 hexadecimal digits.

    The array has 1 to 4 dimensions, one of the six types of the format, and the machine's byte order. The file's
    contents, not its name, decide whether it is gzipped. ``max_bytes`` is the largest array allowed. Raise DataError
    for a wrong magic number, type code or number of dimensions, for sizes that the file does not have (before memory
    is allocated), and for bytes that are missing or left over.
    """
    where = place(path)
    with path.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if not packed:
            return _read(raw, where, size, max_bytes)
        with damage_as_data_error(where), gzip.GzipFile(fileobj=raw) as unpacked:
            # The size of the contents is known only at the end; the largest possible one from the start.
            return _read(unpacked, where, expandable(size), max_bytes)  # type: ignore[arg-type]


def _read(stream: BinaryIO, where: str, available: int, max_bytes: int) -> tuple[NDArray[np.generic], str]:
    """Return array and md5 of an uncompressed stream of at most ``available`` bytes."""
    head = stream.read(4)
    zero, code, ndim = struct.unpack(">HBB", head) if len(head) == 4 else (1, 0, 0)
    if zero != 0 or code not in _TYPES:
        raise DataError(
            f"{where}: not an IDX file: starts with {head.hex(' ') or 'nothing'}, expected 00 00 and a type"
        )
    if not 1 <= ndim <= 4:
        raise DataError(f"{where}: {ndim} dimensions, expected 1 to 4")
    sizes = stream.read(4 * ndim)
    if len(sizes) != 4 * ndim:
        raise DataError(f"{where}: truncated within its header")
    shape, dtype = struct.unpack(f">{ndim}I", sizes), np.dtype(_TYPES[code])
    count = math.prod(shape) * dtype.itemsize
    if count > max_bytes:
        raise DataError(f"{where}: its header promises {count} bytes, allowed are {max_bytes}")
    if count + 4 + 4 * ndim > available:
        raise DataError(f"{where}: truncated: its header promises {count} bytes, more than the file can hold")

    data = read_array_bytes(stream, count, where)
    if stream.read(1):
        raise DataError(f"{where}: more than the {count} bytes that its header promises")
    md5 = hashlib.md5(head + sizes, usedforsecurity=False)
    md5.update(data.data)
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False), md5.hexdigest()
