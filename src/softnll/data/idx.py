"""IDX, the format of MNIST and its relatives: a magic number, the dimensions, then the values; often gzipped."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from softnll.data.dataset import DataError
from softnll.data.streams import expandable
from softnll.data.text import place, printable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["GZIP_MAGIC", "read_idx"]

GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 1 << 30  # the largest relative, EMNIST by class, has 547 MB

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 20


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> tuple[NDArray[np.generic], str]:
    """Return the array of an IDX file, and the md5 of the file's uncompressed bytes.

    Parameters
    ----------
    path
        The file, gzipped or not; its contents tell, not its name.
    max_bytes
        The largest array allowed.

    Returns
    -------
    tuple
        An array of 1 to 4 dimensions and of one of the six types of the format, in the machine's byte order; and the
        checksum, as 32 hexadecimal digits.

    Raises
    ------
    DataError
        For a wrong magic number, type code or number of dimensions, and for sizes that the file does not have,
        seen before memory is asked for; for bytes that are missing or left over.

    """
    where = place(path)
    with path.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if not packed:
            return _read(raw, where, size, max_bytes)
        try:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                # How long the contents are is known only at the end; how long they can be, from the start.
                return _read(unpacked, where, expandable(size), max_bytes)  # type: ignore[arg-type]
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DataError(f"{where}: truncated or damaged: {printable(str(error))}") from None


def _read(stream: BinaryIO, where: str, available: int, max_bytes: int) -> tuple[NDArray[np.generic], str]:
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

    md5 = hashlib.md5(head + sizes, usedforsecurity=False)
    data = np.empty(count, dtype=np.uint8)
    filled = 0
    while filled < count:
        chunk = stream.read(min(_CHUNK, count - filled))
        if not chunk:
            raise DataError(f"{where}: truncated: {filled} of {count} bytes")
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        md5.update(chunk)
        filled += len(chunk)
    if stream.read(1):
        raise DataError(f"{where}: more than the {count} bytes that its header promises")
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False), md5.hexdigest()
