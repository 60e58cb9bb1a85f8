"""Compiled kernels on disk: files of object code, each with its hash, as damaged code may end the process."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from softnll._core.warn import warn
from softnll._kernels.cpu.processor import Processor

_MAGIC = b"softnll kernel 1"
_HASH = 32  # bytes of SHA-256
_MOST = 1 << 24  # bytes of a file; kernels have 10 000 to 100 000
_HERE = Path(__file__).parent
SHIPPED = "objects"  # the folder, here, of the kernels that came with a release
CALLERS = {  # files that call kernels and take no part in compiling them
    "cache.py",
    "execute.py",
    "forks.py",
    "interface.py",
    "listeners.py",
    "load.py",
    "memory.py",
    "numba_works.py",
    "products.py",
    "scalar_interface.py",
    "strided.py",
    "threads.py",
}


@cache
def sources() -> str:
    """Return a hash of this folder's files but ``CALLERS``: a kernel's code depends on those that its file imports."""
    digest = hashlib.sha256()
    for path in sorted(_HERE.glob("*.py")):
        if path.name not in CALLERS:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def name_of(kernel: str, signature: object, processor: Processor) -> str:
    """Return the start of the name of a kernel's file: what it is compiled from, for which types and which CPU."""
    digest = hashlib.sha256(repr((signature, processor, object.__basicsize__)).encode())
    return f"{kernel}-{digest.hexdigest()[:32]}"


def _folders() -> Iterator[Path]:
    """Yield where new files may lie, best first."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen) / "softnll"
        return
    yield _HERE / "__pycache__"
    with suppress(RuntimeError):  # there is no home
        if sys.platform == "win32":
            user = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            user = Path.home() / "Library" / "Caches"
        else:
            user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        yield user / "softnll"


def _file(name: str) -> str:
    return f"{name}-{sources()}.kernel"


def read(name: str) -> tuple[dict[str, Any], bytes] | None:
    """Return what is said of a kernel, and its object code; None if there is no sound file of these sources."""
    for folder in (*_folders(), _HERE / SHIPPED):
        try:
            with (folder / _file(name)).open("rb") as file:
                stored = file.read(_MOST)
        except OSError:
            continue
        start = len(_MAGIC) + _HASH
        body = stored[start:]
        if stored[: len(_MAGIC)] == _MAGIC and hashlib.sha256(body).digest() == stored[len(_MAGIC) : start]:
            head, _, code = body.partition(b"\n")
            return json.loads(head), code
    return None


def write(name: str, head: dict[str, Any], code: bytes) -> None:
    """Keep a kernel, in place of those of other sources; what cannot be written is left out, with a warning."""
    body = json.dumps(head).encode() + b"\n" + code
    error, folders = "", list(_folders())
    for folder in folders:
        try:
            _replace(folder, _file(name), _MAGIC + hashlib.sha256(body).digest() + body)
        except OSError as refused:
            error = error or f"{type(refused).__name__}: {refused}"
        else:
            for old in folder.glob(f"{name}-*.kernel"):
                if old.name != _file(name):
                    with suppress(OSError):
                        old.unlink()
            return
    _warn(error, str(folders[0]))


def is_noted(fact: object) -> bool:
    """Whether ``note`` has kept a fact."""
    return any((folder / _note(fact)).is_file() for folder in _folders())


def note(fact: object) -> None:
    """Keep a fact for later processes, if some folder can be written to."""
    for folder in _folders():
        with suppress(OSError):
            _replace(folder, _note(fact), b"")
            return


def _note(fact: object) -> str:
    return f"{hashlib.sha256(repr(fact).encode()).hexdigest()[:32]}.note"


def _replace(folder: Path, name: str, content: bytes) -> None:
    """Write a file in one step: other processes see all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=name, suffix=".new")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)  # as other users of an installation read it
        Path(temporary).replace(folder / name)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


@cache
def _warn(error: str, folder: str) -> None:
    """Warn, once, that kernels are not cached."""
    warn(
        f"compiled kernels cannot be written to {folder} ({error}); each process compiles them again, which takes "
        "seconds a kernel. NUMBA_CACHE_DIR names another folder",
        RuntimeWarning,
    )
