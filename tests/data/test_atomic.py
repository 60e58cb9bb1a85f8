"""Atomic writes: files are complete or absent, and an older one stays until the new one is complete."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from softnll.data.atomic import replaced_together, write_whole


def test_files_are_replaced_together_and_others_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "a").write_text("old")
    with replaced_together(tmp_path) as stage:
        (stage / "a").write_text("new")
        (stage / "b").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new", "mine.txt": "mine"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_a_write_that_fails_changes_nothing(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def fail():
        with replaced_together(tmp_path) as stage:
            (stage / "a").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_a_disk_that_fails_to_keep_the_bytes_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")

    def fail(_handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(tmp_path / "a", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_new_files_have_the_users_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        write_whole(tmp_path / "a", b"new")
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


unix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes of Unix")


@unix
def test_a_symbolic_link_stays_and_its_target_gets_the_contents(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    with replaced_together(tmp_path) as stage:
        (stage / "link").write_text("newer")
        (stage / "b").write_text("b")
    assert (link.is_symlink(), target.read_text(), (tmp_path / "b").read_text()) == (True, "newer", "b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "elsewhere", "link"]


@unix
def test_a_link_to_nothing_creates_its_target_and_a_loop_is_an_error(tmp_path):
    link, loop = tmp_path / "link", tmp_path / "loop"
    link.symlink_to(tmp_path / "later")
    write_whole(link, b"new")
    assert (link.is_symlink(), (tmp_path / "later").read_text()) == (True, "new")
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="loop"):
        write_whole(loop, b"new")


@unix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o666])
def test_a_replaced_file_keeps_its_permissions(tmp_path, mode):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(mode)
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
    with replaced_together(tmp_path) as stage:
        (stage / "a").write_text("newer")
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


@unix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_replaced_file_keeps_its_owner(tmp_path):
    (tmp_path / "a").write_text("old")
    os.chown(tmp_path / "a", 12345, 23456)
    (tmp_path / "a").chmod(0o4750)
    write_whole(tmp_path / "a", b"new")
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (12345, 23456, 0o4750)


@unix
def test_a_read_only_file_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path / "a")  # root may write everything
    with pytest.raises(PermissionError, match="denied"):
        write_whole(tmp_path / "a", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


@unix
def test_a_pipe_and_a_device_are_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write_whole(tmp_path / "pipe", b"new")
    reader.join(timeout=10)
    write_whole(tmp_path / "null", b"new")
    assert found == [b"new"]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "null").is_char_device()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"new")


@unix
@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd here")  # noqa: PTH110
def test_an_open_file_of_the_process_is_written_to_where_it_stands(tmp_path):
    with (tmp_path / "log").open("ab") as file:
        file.write(b"before ")
        file.flush()
        write_whole(Path(f"/dev/fd/{file.fileno()}"), b"contents ")
        file.write(b"after")
    assert (tmp_path / "log").read_bytes() == b"before contents after"


@unix
def test_a_file_that_is_a_mount_is_overwritten(tmp_path, monkeypatch):
    def busy(self, _target):
        raise OSError(errno.EBUSY, "Device or resource busy", str(self))

    (tmp_path / "a").write_text("the old contents")
    monkeypatch.setattr(Path, "replace", busy)
    write_whole(tmp_path / "a", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "new")]


KILLED = """
import os, sys
from pathlib import Path
from softnll.data import atomic
count, real = [0], atomic._replace
def replace(*given, **more):
    count[0] += 1
    if count[0] == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    real(*given, **more)
atomic._replace = replace
with atomic.replaced_together(Path(sys.argv[1])) as stage:
    for name in "abc":
        (stage / name).write_text("new")
"""


@unix
@pytest.mark.parametrize("at", range(1, 7))
def test_a_process_that_is_killed_leaves_no_mixture_and_the_next_one_cleans_up(tmp_path, at):
    for name in "abc":
        (tmp_path / name).write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(at)], check=False)
    assert ended.returncode == -9
    here = [path.read_text() for path in tmp_path.iterdir() if path.is_file()]
    assert len(set(here)) <= 1
    assert len(list(tmp_path.glob(".softnll-*"))) == 1
    with replaced_together(tmp_path) as stage:
        assert list(tmp_path.glob(".softnll-*")) == [stage]
        for name in "abc":
            (stage / name).write_text("newer")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("abc", "newer")


def test_a_folder_in_use_is_not_removed(tmp_path):
    with replaced_together(tmp_path) as first, replaced_together(tmp_path) as second:
        (first / "a").write_text("1")
        (second / "b").write_text("2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_an_error_between_two_renames_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    (tmp_path / "c").write_text("old")
    real = Path.replace

    def replace(self, target):
        if Path(target) == tmp_path / "c" and self.read_text() == "new":
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)

    def fail():
        with replaced_together(tmp_path) as stage:
            for name in "abc":
                (stage / name).write_text("new")

    with pytest.raises(OSError, match="Input/output"):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "c": "old"}
