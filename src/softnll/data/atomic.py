"""Writes that are complete or absent: an older file stays until the new one is complete.

A symbolic link stays a link, and what it points to gets the contents; a file that is replaced passes on its permissions
and owner. What is no regular file (a device, a pipe, a file descriptor of this process) is written to.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from softnll.data.locked_folder import locked_folder, remove_left

__all__ = ["replaced_together", "write_whole"]

# The names of an open file of this process, whatever kind of file it is.
_DESCRIPTOR = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/([0-9]{1,9}))|/proc/(?:self|thread-self)/fd/([0-9]{1,9})")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
_PREFIX, _OLD = ".softnll-", ".softnll-old"
_NOT_BY_RENAME = (errno.EBUSY, errno.EXDEV)  # a file that is a mount of its own, as containers have


@contextmanager
def replaced_together(directory: Path) -> Iterator[Path]:
    """Yield an empty folder; at the end, the files written into it replace those of the same names in ``directory``.

    The folder is inside ``directory`` (created if it is missing), so that a replacement is a rename on one file system.
    If anything fails, for instance a full disk, ``directory`` is as it was. Of several files, all older ones are moved
    away before the first new one takes its place: whoever ends the process never leaves files of two runs side by side.
    The folder that such a process leaves is removed by the next call. Files that were not written are never touched.

    Raises
    ------
    OSError
        Where a file cannot be written, or one that would be replaced is read-only.

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
    remove_left(directory, _PREFIX)
    with locked_folder(directory, _PREFIX) as stage:
        yield stage
        written = sorted(stage.iterdir())
        for path in written:
            _flush(path)
        here = [path for path in written if _is_here(directory / path.name)]
        for path in here:
            _prepare(path, directory / path.name)
        for path in written:  # those elsewhere first: they can still fail for lack of space
            if path not in here:
                write_whole(directory / path.name, path.read_bytes())
        _exchange(here, directory, stage / _OLD)
        _flush(directory)


def write_whole(path: Path, content: bytes) -> None:
    """Write one file, completely or not at all; into what is no regular file, directly.

    Raises
    ------
    OSError
        Where the file cannot be written, or is read-only.

    Examples
    --------
    >>> write_whole(Path(os.devnull), b"0.35")
    """
    descriptor = _descriptor(path)
    if descriptor is not None:
        with suppress(AttributeError, ValueError):  # what was printed before comes before the contents
            (sys.stdout if descriptor == 1 else sys.stderr).flush()
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
    elif path.exists() and not path.is_file():
        with path.open("wb") as file:  # a folder is refused here
            file.write(content)
    else:
        target = Path(os.path.realpath(path))
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        with replaced_together(target.parent) as stage:
            (stage / target.name).write_bytes(content)


def _descriptor(path: Path) -> int | None:
    """Return the number of the open file that a path like /dev/stdout names, or None."""
    match = _DESCRIPTOR.fullmatch(os.fspath(path))
    if match is None or os.name != "posix":
        return None
    name, *numbers = match.groups()
    return _STANDARD[name] if name else int(next(filter(None, numbers)))


def _is_here(target: Path) -> bool:
    """Return whether a target is absent or a regular file in its folder, so that a rename replaces it."""
    return not target.is_symlink() and (target.is_file() or not target.exists())


def _prepare(staged: Path, target: Path) -> None:
    """Give a staged file the permissions and the owner of the file that it will replace."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    new = staged.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) and hasattr(os, "chown"):
        with suppress(PermissionError):  # who is not root keeps the group at most
            os.chown(staged, -1, old.st_gid)
            os.chown(staged, old.st_uid, -1)
    staged.chmod(stat.S_IMODE(old.st_mode))


def _exchange(staged: list[Path], directory: Path, aside: Path) -> None:
    """Rename staged files to their targets, after the older ones were moved away; after an error, move these back."""
    if len(staged) < 2:
        for path in staged:
            _replace(path, directory / path.name)
        return
    aside.mkdir()
    try:
        for path in staged:
            with suppress(FileNotFoundError):
                _replace(directory / path.name, aside / path.name, keep=True)
        for path in staged:
            _replace(path, directory / path.name)
    except BaseException:
        for path in staged:
            if (aside / path.name).exists():
                (aside / path.name).replace(directory / path.name)
            elif not path.exists():
                (directory / path.name).unlink(missing_ok=True)
        raise


def _replace(staged: Path, target: Path, *, keep: bool = False) -> None:
    """Rename a staged file to its target; one that is a mount is copied, or with ``keep`` stays where it is."""
    try:
        staged.replace(target)
    except OSError as error:
        if error.errno not in _NOT_BY_RENAME:
            raise
        if not keep:
            shutil.copyfile(staged, target)


def _flush(path: Path) -> None:
    """Flush a file or folder to the disk, so that no crash keeps a rename and loses the contents."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
