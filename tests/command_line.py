"""Runs ``softnll`` for the tests: in this process, or as a user does, in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from softnll._cli.main import main

COMMAND = [sys.executable, "-m", "softnll._cli.main"]
PLAIN = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}


def run(*arguments, **options):
    """Run the command in a process of its own; return the completed process."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 300} | options
    return subprocess.run([*COMMAND, *map(str, arguments)], text=True, env=PLAIN, check=False, **options)


def in_process(capsys, monkeypatch, *first):
    """Return a function that runs the command in this process, which is faster: exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments):
        code = main([*first, *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


def one_line(err, *parts):
    """Assert that standard error is one line without a traceback, and has these parts."""
    assert err.startswith("softnll: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in err, err


def refused(result, *parts, code=2):
    """Assert the exit code and one line on standard error that has these parts."""
    found, out, err = result
    assert found == code, (out, err)
    assert out == ""
    one_line(err, *parts)
