"""``softnll train`` as a user runs it: its files, its exit codes, Ctrl-C, the same bytes for the same run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import softnll as sn
from command_line import COMMAND, PLAIN, in_process, refused, run
from softnll._classifier.evaluate import evaluate
from softnll._classifier.train import Settings, train
from softnll._cli import terminal
from softnll._cli.train_results import FILES, write_results
from softnll.data import load

HIDE_CURSOR, SHOW_CURSOR, ERASE_LINE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


@pytest.fixture
def call(capsys, monkeypatch):
    return in_process(capsys, monkeypatch, "train")


def contents(folder):
    """Return the files of a folder and what is in them."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_table(path, N=90):
    """Write a .csv of three classes."""
    rng = np.random.default_rng(0)
    lines = ["width,height,class"]
    lines += [f"{rng.normal() + c},{100 * rng.normal() - 80 * c},{'abc'[c]}" for c in rng.integers(0, 3, N)]
    path.write_text("\n".join(lines))
    return path


def test_the_digits(tmp_path):
    done = run("train", "--C", 10, "--tol", 1e-5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line.split()[-2:] for line in done.stdout.splitlines() if "  " in line}
    assert float(lines["accuracy"][0]) == pytest.approx(0.9377, abs=0.0012)
    assert float(lines["mean NLL (nats)"][0]) == pytest.approx(0.2526, abs=5e-4)
    assert lines["accuracy"][1] == "0.1000"
    assert lines["mean NLL (nats)"][1] == "2.3026"
    assert lines["perplexity"][1] == "10.0000"
    assert "calibration error (ECE)" in lines
    assert "fitting 898 examples with C = 10\n" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["softnll-digits"]
    assert sorted(contents(tmp_path / "softnll-digits")) == sorted(FILES)


def test_json_stands_alone_and_says_what_the_files_say(call, tmp_path):
    code, out, _ = call("--out", tmp_path / "out", "--json", "--C", 1, "--max-iter", 20)
    assert code == 0
    facts = json.loads(out)
    logits, labels = np.load(tmp_path / "out" / "scores.npy"), np.load(tmp_path / "out" / "labels.npy")
    assert facts["test"]["nll"] == float(sn.cross_entropy(logits, labels))
    assert facts["test"]["accuracy"] == (logits.argmax(axis=1) == labels).mean()
    assert facts["chance"] == {"accuracy": 0.1, "nll": math.log(10), "perplexity": 10}
    assert not facts["interrupted"]
    assert facts["iterations"] <= 20


def test_an_end_before_convergence_is_printed(call, tmp_path):
    code, _, err = call("--out", tmp_path / "out", "--C", 1, "--max-iter", 2)
    assert code == 0
    assert "ended by --max-iter 2" in err


def test_the_same_run_gives_the_same_bytes(call, tmp_path):
    data = write_table(tmp_path / "made.csv")
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        assert call(data, "--out", tmp_path / name, "--seed", seed)[0] == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["scores.npy"] != contents(tmp_path / "c")["scores.npy"]
    assert set(contents(tmp_path / "a")) == set(FILES)


def test_a_folder_that_was_there_keeps_its_other_files(call, tmp_path):
    data = write_table(tmp_path / "made.csv")
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "thesis.txt").write_text("mine")
    (out / "scores.npy").write_text("old")
    assert call(data, "--out", out)[0] == 0
    assert (out / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "sub", "thesis.txt"])
    assert np.load(out / "scores.npy").shape[1] == 3


@pytest.mark.parametrize("reason", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_run_that_cannot_be_written_leaves_the_last_one(call, tmp_path, monkeypatch, reason):
    data = write_table(tmp_path / "made.csv")
    assert call(data, "--out", tmp_path / "out")[0] == 0
    before = contents(tmp_path / "out")

    def full(*_arguments):
        raise reason

    monkeypatch.setattr(np, "save", full)
    code, out, err = call(data, "--out", tmp_path / "out", "--C", 0.01)
    assert code == (1 if isinstance(reason, OSError) else 130)
    assert out == ""
    assert "Traceback" not in err
    assert contents(tmp_path / "out") == before


def test_a_folder_that_cannot_be_written_to_fails_before_the_training(call, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = call("--out", out)
        refused(result, "file", code=1)
        assert "iteration" not in result[2]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere.csv"], 2, "nowhere.csv"),
        (["\x1b[31mred"], 2, "\\x1b"),
        (["digits", "--labels", "x.npy"], 2, "labels"),
        (["digits", "--C", "0"], 2, "C"),
        (["digits", "--C", "nan"], 2, "C"),
        (["digits", "--C", "many"], 2, "--C"),
        (["digits", "--max-iter", "0"], 2, "--max-iter"),
        (["digits", "--tol", "-1"], 2, "tol"),
        (["digits", "--label-smoothing", "2"], 2, "label_smoothing"),
        (["digits", "--seed", "-1"], 2, "--seed"),
    ],
)
def test_bad_input_is_one_line_and_a_code(call, tmp_path, arguments, code, says):
    refused(call(*arguments, "--out", tmp_path / "out"), says, code=code)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_data_that_is_not_here_and_not_to_be_fetched_is_1(call, tmp_path):
    refused(call("cifar10", "--no-download", "--cache", tmp_path, "--out", tmp_path / "out"), code=1)


def test_a_full_disk_below_the_output_is_one_line_and_1(call, tmp_path, monkeypatch):
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no /dev/full here")
    with monkeypatch.context() as patch, contextlib.suppress(OSError), open("/dev/full", "w") as full:  # noqa: PTH123
        patch.setattr(sys, "stdout", full)
        code, _, err = call(write_table(tmp_path / "made.csv"), "--max-iter", 1, "--json", "--out", tmp_path / "out")
    assert code == 1
    assert "No space" in err
    assert "Traceback" not in err


def test_a_table_without_a_test_part(call, tmp_path):
    code, out, _ = call(write_table(tmp_path / "made.csv"), "--out", tmp_path / "out", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["train_examples"] + facts["test"]["examples"] == 90
    assert facts["test"]["examples"] == pytest.approx(18, abs=2)
    assert facts["test"]["accuracy"] > 0.6
    model = sn.SoftmaxClassifier.load(tmp_path / "out" / "model.npz")
    assert model.coef_.shape == (3, 2)


def test_hostile_class_names_stay_text(call, tmp_path):
    data = write_table(tmp_path / "made.csv")
    data.write_text(data.read_text().replace(",a\n", ",<script>alert(1)</script>\n"))
    assert call(data, "--out", tmp_path / "out")[0] == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on Unix")
def test_ctrl_c_keeps_what_was_reached(tmp_path):
    rng = np.random.default_rng(0)
    # Random labels, rows of very different lengths, next to no penalty: a fit that goes on for thousands of iterations.
    rows = rng.normal(size=(3000, 300)) * rng.lognormal(0, 3, size=(3000, 1))
    np.savez(tmp_path / "long.npz", X=rows, y=rng.integers(0, 8, 3000))
    command = [*COMMAND, "train", str(tmp_path / "long.npz"), "--out", str(tmp_path / "out")]
    command += ["--C", "1e9", "--tol", "1e-13", "--max-iter", "1000000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=PLAIN)
    try:
        while not (line := running.stderr.readline()).startswith("iteration"):
            assert line, "the fit ended before it could be interrupted"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 130, err
    assert "interrupted after" in err
    assert "Traceback" not in err
    assert "accuracy" in out
    assert sorted(contents(tmp_path / "out")) == sorted(FILES)
    iterations = int(err.split("interrupted after")[1].split()[0])
    history = (tmp_path / "out" / "history.csv").read_text().splitlines()
    assert history[-1].startswith(f"{iterations},")
    assert sn.SoftmaxClassifier.load(tmp_path / "out" / "model.npz").coef_.shape == (8, 300)
    assert "interrupted" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_progress_is_nothing_in_a_pipe_and_a_bar_on_a_terminal(monkeypatch, capsys):
    def call(first, *, error=None):
        with contextlib.suppress(KeyboardInterrupt), terminal.row_progress() as show:
            for done in range(first, 101, 25):
                show(done, 100)
            if error is not None:
                raise error
        return capsys.readouterr()

    assert call(0) == ("", "")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert call(100) == ("", "")  # one step does all: no bar
    for error in (None, KeyboardInterrupt()):
        out, err = call(0, error=error)
        assert out == ""
        assert "100" in err
        assert err.rindex(SHOW_CURSOR) > err.rindex(HIDE_CURSOR)
        assert err.endswith(ERASE_LINE)


def test_written_files_are_the_run(tmp_path):
    first, test = load("digits")
    settings = Settings(C=1, max_iter=20)
    trained = train(first, settings)
    evaluation = evaluate(trained.model, test)
    write_results(tmp_path, trained, evaluation, test, settings)
    assert sorted(contents(tmp_path)) == sorted(FILES)
    logits, labels = np.load(tmp_path / "scores.npy"), np.load(tmp_path / "labels.npy")
    assert np.array_equal(labels, test.labels)
    assert float(sn.cross_entropy(logits, labels)) == evaluation.quality.nll
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "iteration,loss,accuracy,held_out_loss,held_out_accuracy,C"
    last = trained.history[-1]
    assert lines[-1].split(",") == [str(last.iteration), repr(last.loss), repr(last.accuracy), "", "", "1"]
    assert f"{100 * evaluation.quality.accuracy:.2f}<small> %" in (tmp_path / "report.html").read_text(encoding="utf-8")
