"""Download one file of known size and checksum over https; an interrupted download is resumed."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias
from urllib.parse import urlsplit

from softnll.data.text import place, printable

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
    """Missing data that cannot be downloaded; the message names in one line the file and its place."""


class _BrokenError(Exception):
    """A fault of the server or address, which a later attempt would meet again."""


class _AgainError(ConnectionError):
    """The partial file was unusable and is now empty; an attempt from the start may succeed."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Refuse a request over http or ftp, also a redirected one, unless it is over http to this computer."""
        _check_scheme(request.full_url)
        return request

    ftp_request = http_request

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> Any:
        """Follow a redirect; raise `_BrokenError` for one to what is no address."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:
            fp.close()
            raise _BrokenError(f"the server redirects to no address: {error}") from None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def fetch(url: str, target: Path, *, size: int, sha256: str, progress: Progress | None = None) -> Path:
    """Download a file, unless it exists; return ``target``.

    The partial file beside the target is called ``<name>.part``, and a later call requests only the rest. It is renamed
    to the target when its size and checksum are as expected.

    The address is https (http is allowed for servers on this computer only), ``sha256`` has 64 hexadecimal digits, and
    ``progress`` is called with ``(done, size)`` after each quarter of a mebibyte. Raise DownloadError without network,
    for answers of another size, and for a wrong checksum; it names the address, the folder and the file to put there.
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
                # An HTTP status is final; a broken connection may succeed at the next attempt.
                final = isinstance(error, urllib.error.HTTPError) or not _started(part)
                if left == 0 or (final and not isinstance(error, _AgainError)):
                    raise
        _check_sum(part, sha256)
        part.replace(target)
    except (OSError, http.client.HTTPException, _BrokenError) as error:
        if target.exists():  # another process has completed it
            return target
        empty = not _started(part) and not isinstance(error, BlockingIOError)
        if isinstance(error, _BrokenError) or empty:
            with contextlib.suppress(OSError):
                part.unlink()  # with these bytes, the next call would fail again
        kept = f"; the {part.stat().st_size} bytes that came are kept, and it goes on there" if _started(part) else ""
        raise DownloadError(
            f"{target.name} cannot be downloaded ({printable(str(error), 120)}){kept}; "
            f"by hand: put {url} into the folder {place(target.parent)} as {target.name}"
        ) from error
    return target


def _transfer(url: str, part: Path, size: int, progress: Progress | None) -> None:
    """Download the rest of the partial file."""
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
                file.truncate(done := 0)  # the answer is the whole file
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
    """Return the server's answer; empty the partial file where the server has no such range."""
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
    """Lock the partial file against other processes, where the system can; closing the file unlocks it."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError("another process is downloading it") from error


def _continues(status: int, content_range: str | None, done: int, size: int) -> bool:
    """Whether the answer continues at the end of the partial file (206) or is the whole file (200)."""
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
    """Raise where the checksum is another one."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise _BrokenError(f"what came has the sha-256 {found}, expected {sha256}")


def _check_scheme(url: str) -> None:
    """Raise for an address that is neither https nor on this computer."""
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise _BrokenError(f"{printable(url)} is not an https address")


def _started(part: Path) -> bool:
    """Whether the partial file has contents."""
    return part.is_file() and part.stat().st_size > 0
