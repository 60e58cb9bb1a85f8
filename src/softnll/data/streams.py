"""Reading what others compressed: never more than a limit, never more than a plain file or folder."""

from __future__ import annotations

import tarfile
from typing import Protocol, Self

__all__ = ["Capped", "LimitReachedError", "PlainTarInfo", "expandable"]

# A deflate stream grows at most 1032-fold (258 bytes from 2 bits); so a claim beyond that is false.
_DEFLATE_RATIO = 1032


def expandable(compressed: int) -> int:
    """Return the most bytes that ``compressed`` bytes of deflate can stand for."""
    return _DEFLATE_RATIO * compressed


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class LimitReachedError(Exception):
    """More was decompressed than allowed."""


class Capped:
    """A stream to read that raises `LimitReachedError` after ``limit`` bytes."""

    def __init__(self, stream: _Readable, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise LimitReachedError
        return data

    def drain(self) -> None:
        """Read to the end, within the limit."""
        while self.read(1 << 16):
            pass


class PlainTarInfo(tarfile.TarInfo):
    """A tar header that may only be a file's or a folder's.

    Links, devices, sparse files and extended headers are refused from their type byte, before `tarfile` acts on them:
    extended headers could be as large as the archive, and parsing hostile ones has had faults of its own.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block of 512 bytes."""
        info = super().frombuf(buf, encoding, errors)
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or info.size < 0:
            raise tarfile.ReadError(f"member of type {info.type!r}, size {info.size}; files and folders only")
        return info
