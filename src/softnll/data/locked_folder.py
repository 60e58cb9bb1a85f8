"""Temporary folders that say whether the process that made them still runs, so that another one can remove them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["locked_folder", "remove_left"]

_OLD = 86_400.0  # seconds after which a folder counts as left, where it cannot be locked


@contextmanager
def locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty folder that is locked while it exists; the system unlocks it when the process ends."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        handle = _lock(folder, wait=True)
        if folder.is_dir():
            break
        _close(handle)  # another process removed it before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(handle)


def remove_left(parent: Path, prefix: str) -> None:
    """Remove the folders of this prefix whose processes have ended."""
    for folder in parent.glob(f"{prefix}*"):
        if folder.is_symlink() or not folder.is_dir():
            continue
        with suppress(OSError):  # in use, or removed by another process
            old = time.time() - folder.stat().st_mtime > _OLD
            handle = _lock(folder, wait=False)
            if handle is not None or (fcntl is None and old):
                shutil.rmtree(folder, ignore_errors=True)
            _close(handle)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder and return its handle; None where the system has no such lock, or the folder is no more."""
    if fcntl is None:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        if not wait:
            raise
        return None  # a file system without locks
    return handle


def _close(handle: int | None) -> None:
    """Close a handle, which unlocks its folder."""
    if handle is not None:
        os.close(handle)
