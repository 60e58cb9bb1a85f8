"""What a long command shows: a line a second in a pipe, nothing before an early error, a spinner on a terminal."""

from __future__ import annotations

import time

from softnll._cli import activity as module
from softnll._cli.activity import activity


def test_a_long_stage_is_shown_again_and_again(capsys, monkeypatch):
    monkeypatch.setattr(module, "_SILENCE", 0.02)
    with activity("compiling") as shown:
        time.sleep(0.15)
        shown.note("label column: species")
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("compiling (0 s)") >= 2
    assert lines[-1] == "label column: species"


def test_what_ends_soon_is_silent_until_the_input_is_accepted(capsys):
    with activity("starting") as shown:
        shown.stage("reading")
        shown.step("half")
        assert capsys.readouterr().err == ""
        shown.accept("fitting")
        shown.step("iteration 1")
        shown.step("iteration 2")
    assert capsys.readouterr() == ("", "fitting\n")


def test_steps_are_printed_once_a_second(capsys, monkeypatch):
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    with activity("starting") as shown:
        shown.accept("fitting")
        for k in range(3):
            time.sleep(0.015)
            shown.step(f"iteration {k}")
    err = capsys.readouterr().err
    assert "iteration 0\n" in err
    assert "iteration 2\n" in err


def test_a_terminal_has_one_line_that_is_erased(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    with activity("reading [data]") as shown:
        shown.step("iteration 1")
        shown.note("stays")
    err = capsys.readouterr().err
    assert "reading [data]: iteration 1" in err
    assert "stays\n" in err.replace("\r", "")
    assert err.endswith("\x1b[2K")
