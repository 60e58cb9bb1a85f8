"""Fetch one file of known size and checksum over https: resumed where it stopped, in place only once it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, BinaryIO, TypeAlias
from urllib.parse import urlsplit

from softnll.data.text import place, printable

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["DownloadError", "Progress", "fetch"]

#: Called with the bytes done and the bytes in all.
Progress: TypeAlias = Callable[[int, int], None]

_CHUNK = 1 << 18
_ATTEMPTS = 3
_TIMEOUT = 30.0  # seconds without a byte


class DownloadError(OSError):
    """Data that is neither here nor to be had; the message says in one line what to put where."""


class _BrokenError(Exception):
    """Why a download cannot go on."""


class _AgainError(ConnectionError):
    """The part was of no use and is gone; from the start it may work."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _check_scheme(newurl)
        except _BrokenError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, target: Path, *, size: int, sha256: str, progress: Progress | None = None) -> Path:
    """Download a file, unless it is there; return ``target``.

    What has come lies beside the target as ``<name>.part``, and a later call asks only for the rest. The target's name
    appears at once and whole, after its size and checksum were compared.

    Parameters
    ----------
    url
        An https address (http is taken from this computer's own servers only).
    target
        Where the file shall be.
    size, sha256
        What it must be, in bytes and as 64 hexadecimal digits.
    progress
        Called with ``(done, size)`` after each quarter of a mebibyte.

    Raises
    ------
    DownloadError
        Without network, for answers of another size, and for a wrong checksum; the message names the address, the
        folder and the file to put there by hand.

    """
    if target.exists():
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_scheme(url)
        for left in reversed(range(_ATTEMPTS)):
            try:
                _transfer(url, part, size, progress)
                break
            except (OSError, http.client.HTTPException) as error:
                # An answer with a status is the server's last word; a broken line may hold next time.
                hopeless = isinstance(error, urllib.error.HTTPError) or not (
                    _started(part) or isinstance(error, _AgainError)
                )
                if left == 0 or hopeless:
                    raise
        _check_sum(part, sha256)
        part.replace(target)
    except (OSError, http.client.HTTPException, _BrokenError) as error:
        if target.exists():  # another process was faster
            return target
        empty = not _started(part) and not isinstance(error, BlockingIOError)
        if isinstance(error, _BrokenError) or empty:
            with contextlib.suppress(OSError):
                part.unlink()  # with what is here, the next call would only fail alike
        kept = f"; the {part.stat().st_size} bytes that came are kept, and it goes on there" if _started(part) else ""
        raise DownloadError(
            f"{target.name} cannot be downloaded ({printable(str(error), 120)}){kept}; "
            f"by hand: put {url} into the folder {place(target.parent)} as {target.name}"
        ) from error
    return target


def _transfer(url: str, part: Path, size: int, progress: Progress | None) -> None:
    """Bring the part to its full size, from where it stands."""
    with part.open("ab") as file:
        _lock(file)
        done = file.tell()
        if done > size:
            file.truncate(done := 0)
        if done == size:
            return
        headers = {"User-Agent": "softnll", "Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        with _ask(url, headers, file) as answer:
            if not _continues(answer.status, answer.headers.get("Content-Range"), done, size):
                file.truncate(done := 0)  # the whole file comes again
            length = answer.headers.get("Content-Length")
            if length is not None and length != str(size - done):
                raise _BrokenError(f"the server offers {printable(length, 20)} bytes, expected {size - done}")
            while chunk := answer.read(_CHUNK):
                done += len(chunk)
                if done > size:
                    raise _BrokenError(f"the server sends more than {size} bytes")
                file.write(chunk)
                if progress is not None:
                    progress(done, size)
        file.flush()
        os.fsync(file.fileno())
    if done < size:
        raise ConnectionError(f"the connection ended after {done} of {size} bytes")


def _ask(url: str, headers: dict[str, str], file: BinaryIO) -> http.client.HTTPResponse:
    """Return the server's answer; empty the part where the server says that it has no such range."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    try:
        answer: http.client.HTTPResponse = urllib.request.build_opener(_SameScheme).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if "Range" in headers and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            file.truncate(0)
            raise _AgainError("the server has no such range") from error
        raise
    return answer


def _lock(file: BinaryIO) -> None:
    """Keep two processes from appending to one part, where the system can (it unlocks when the file is closed)."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError("another process is downloading it") from error


def _continues(status: int, content_range: str | None, done: int, size: int) -> bool:
    """Whether the answer goes on where the part ends (206), rather than starting over (200)."""
    if status == http.client.OK:
        return False
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range or "", re.ASCII)
    if (
        status != http.client.PARTIAL_CONTENT
        or found is None
        or int(found[1]) != done
        or found[3] not in (str(size), "*")
    ):
        raise _BrokenError(f"the server answers {status} with the range {printable(content_range or 'none', 40)}")
    return True


def _check_sum(part: Path, sha256: str) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise _BrokenError(f"what came has the sha-256 {found}, expected {sha256}")


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise _BrokenError(f"{printable(url)} is not an https address")


def _started(part: Path) -> bool:
    return part.is_file() and part.stat().st_size > 0
