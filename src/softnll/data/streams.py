"""Reading compressed files that are not trusted: size limits, damage as a `DataError`, plain files and folders only."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError
from softnll.data.text import printable

__all__ = [
    "GZIP_MAGIC",
    "Capped",
    "PlainTarInfo",
    "damage_as_data_error",
    "expandable",
    "first_bytes",
    "read_array_bytes",
]

GZIP_MAGIC = b"\x1f\x8b"
# Deflate grows at most 1032-fold (258 bytes from 2 bits), others more; of real data, only one-hot rows 100-fold.
_DEFLATE_RATIO = 1032
_RATIO = 128
_SMALL = 1 << 28  # bytes of numbers that any file may become
_SMALL_TEXT = 1 << 26
_CHUNK = 1 << 20


def first_bytes(packed: bytes, count: int) -> bytes:
    """Return the first ``count`` bytes that the start of a gzipped file decompresses to."""
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, count)


def expandable(compressed: int, *, text: bool = False) -> int:
    """Return the most bytes that ``compressed`` bytes may become: 256 MiB (text: 64), or 128 times as many.

    Numbers are compressed by deflate, text also by other methods.
    """
    if text:
        return max(_SMALL_TEXT, _RATIO * compressed)
    return min(max(_SMALL, _RATIO * compressed), _DEFLATE_RATIO * compressed)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def damage_as_data_error(where: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise DataError in place of the errors of decompression, and of the given ones."""
    damage: tuple[type[Exception], ...] = (gzip.BadGzipFile, zlib.error, EOFError, *errors)
    try:
        yield
    except DataError:
        raise
    except damage as error:
        raise DataError(f"{where}: truncated or damaged: {printable(str(error))}") from None


def read_array_bytes(stream: _Readable, count: int, where: str) -> NDArray[np.uint8]:
    """Return the next ``count`` bytes of a stream, which must have them, as an array."""
    data = np.empty(count, dtype=np.uint8)
    filled = 0
    while filled < count:
        chunk = stream.read(min(_CHUNK, count - filled))
        if not chunk:
            raise DataError(f"{where}: truncated: {filled} of {count} bytes")
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        filled += len(chunk)
    return data


class Capped:
    """A stream to read that raises DataError with ``message`` after ``limit`` bytes."""

    def __init__(self, stream: _Readable, limit: int, message: str) -> None:
        self._stream, self._left, self._message = stream, limit, message

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(self._message)
        return data

    def drain(self) -> None:
        """Read to the end, within the limit."""
        while self.read(1 << 16):
            pass


class PlainTarInfo(tarfile.TarInfo):
    """A tar header that may only be a file's or a folder's.

    Links, devices, sparse files and extended headers are refused by their type byte, before `tarfile` acts on them:
    extended headers could be as large as the archive, and the parsing of malicious ones has had bugs.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block of 512 bytes."""
        info = super().frombuf(buf, encoding, errors)
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or info.size < 0:
            raise tarfile.ReadError(f"member of type {info.type!r}, size {info.size}; files and folders only")
        return info
