"""The commands' output in encodings that lack some of its characters."""
# ruff: noqa: RUF001 - signs that look like others are meant

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from command_line import COMMAND, PLAIN
from softnll._cli.encoding import accept_all_text
from softnll._cli.main import main


def stream(encoding, errors="strict"):
    """Return a text stream to memory."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, newline="\n")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "cp437", "shift_jis", "koi8-r"])
@pytest.mark.parametrize("arguments", [["explain"], ["explain", "--derivation", "0"]])
def test_all_output_is_written(monkeypatch, encoding, arguments):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "400")
    lines = {}
    for each in ("utf-8", encoding):
        monkeypatch.setattr(sys, "stdout", stream(each))
        assert main(arguments) == 0
        lines[each] = sys.stdout.buffer.getvalue().decode(each).splitlines()
    assert len(lines[encoding]) == len(lines["utf-8"])
    assert "cat" in "".join(lines[encoding])
    assert "?" not in "".join(lines[encoding])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("−½ ≤ ∂L/∂x → ∞ …", "-1/2 <= dL/dx -> inf ..."), ("Käse, cafe\u0301", "Kase, cafe"), ("犬 \udcff", "? ?")],
)
def test_a_character_becomes_what_ascii_has_for_it(monkeypatch, text, expected):
    monkeypatch.setattr(sys, "stdout", stream("ascii"))
    accept_all_text()
    sys.stdout.write(text)
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue().decode("ascii") == expected


def test_the_users_choice_of_error_handling_stays(monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream("ascii", "ignore"))
    accept_all_text()
    sys.stdout.write("a−b")
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"ab"


def test_warnings_of_libraries_are_not_shown():
    code = "import sys, warnings, softnll._cli.main as m; sys.argv[1:] = ['--version']; "
    code += "m._run = lambda _: warnings.warn('x') or 0; sys.exit(m.main())"
    for options, shown in [([], False), (["-W", "default"], True)]:
        done = subprocess.run(
            [COMMAND[0], *options, "-c", code], capture_output=True, text=True, env=PLAIN, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert ("UserWarning" in done.stderr) == shown
