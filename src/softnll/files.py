"""Writing files so that each is there whole or not at all, and an older one stays until the new one is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replaced_together", "write_whole"]


@contextmanager
def replaced_together(directory: Path) -> Iterator[Path]:
    """Give an empty folder to write files into; when all is written, they replace those of the same names.

    The folder is inside ``directory`` (made if it is missing), so that a replacement is a rename on one file system.
    If anything fails before the first rename, for instance a full disk, ``directory`` is as it was. Files that were not
    written are never touched.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replaced_together(Path(folder)) as stage:
    ...         _ = (stage / "loss.txt").write_text("0.35")
    ...     [path.name for path in Path(folder).iterdir()]
    ['loss.txt']
    """
    directory.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".softnll-", dir=directory))
    try:
        yield stage
        written = sorted(stage.iterdir())
        for path in written:
            _flush(path)
        for path in written:
            path.replace(directory / path.name)
        _flush(directory)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write one file, whole or not at all."""
    with replaced_together(path.parent) as stage:
        (stage / path.name).write_bytes(content)


def _flush(path: Path) -> None:
    """Wait until a file's or folder's contents are on the disk; a rename before that could outlive them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
