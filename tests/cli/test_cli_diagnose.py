"""``softnll diagnose`` as a user runs it: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import softnll as sn
from diagnose_cases import LABELS, LOGITS, NAMES, P
from softnll.cli import main

PLAIN = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command in this process; return code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def _call(*arguments):
        code = main(["diagnose", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return _call


@pytest.fixture
def files(tmp_path):
    """Save scores and labels; return their paths."""

    def _files(scores, labels):
        np.save(tmp_path / "scores.npy", scores)
        np.save(tmp_path / "labels.npy", labels)
        return tmp_path / "scores.npy", tmp_path / "labels.npy"

    return _files


def refused(result, *says):
    """Assert exit code 2 and one line on stderr that says these things."""
    code, out, err = result
    assert code == 2, (out, err)
    assert out == ""
    assert err.startswith("softnll: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for text in says:
        assert text in err


def test_in_a_process_of_its_own(files):
    command = [sys.executable, "-m", "softnll.cli", "diagnose", *map(str, files(P.astype(np.float32), LABELS + 1))]
    done = subprocess.run(command, capture_output=True, text=True, env=PLAIN, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    words = " ".join(done.stdout.split())
    assert "error: The scores are probabilities: softmax has been applied already [probabilities-as-logits]" in words
    assert "error: The labels are off by one: one too high [labels-off-by-one]" in words
    assert "2000 rows of 10 classes: 2 errors." in words
    for part in ("evidence", "consequence", "remedy"):
        assert done.stdout.count(f"  {part} ") == 2
    assert max(map(len, done.stdout.splitlines()[1:])) <= 100


def test_nothing_found_says_what_was_looked_for(call, files):
    code, out, err = call(*files(LOGITS, LABELS))
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert "Nothing found in 2000 rows of 10 classes." in words
    assert "Looked for: labels that are one-hot, text, off by one" in words
    assert "Not looked for: the convention of the printed loss (none given)." in words


def test_json_stands_alone(call, files):
    code, out, err = call(*files(LOGITS * 2, LABELS), "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["rows"], told["classes"]) == (2000, 10)
    (finding,) = told["findings"]
    assert finding["code"] == "overconfident"
    assert finding["evidence"]["temperature"] == pytest.approx(sn.fit_temperature(LOGITS * 2, LABELS))


def test_the_printed_loss(call, files):
    code, out, _ = call(*files([[5, 4, 2], [4, 2, 8], [4, 4, 1]], [0, 2, 1]), "--loss", "1.07")
    assert code == 0
    assert "probabilities rounded to 2 digits" in " ".join(out.split())


def test_a_negative_loss_is_a_value_not_an_option(call, files):
    loss = -P[np.arange(len(P)), LABELS].mean()
    code, out, _ = call(*files(LOGITS, LABELS), f"--loss={loss:.5f}")
    assert code == 0
    assert "nll_loss of probabilities" in " ".join(out.split())


@pytest.mark.parametrize(
    ("scores", "labels", "option", "expected"),
    [
        (LOGITS, LABELS, "error", 0),
        (LOGITS, LABELS, "warning", 0),
        (LOGITS * 2, LABELS, "error", 0),
        (LOGITS * 2, LABELS, "warning", 1),
        (LOGITS, LABELS + 1, "error", 1),
        (LOGITS, LABELS + 1, "warning", 1),
        (LOGITS, LABELS.astype(float), "warning", 0),
    ],
)
def test_fail_on(call, files, scores, labels, option, expected):
    code, out, err = call(*files(scores, labels), "--fail-on", option)
    assert (code, err) == (expected, "")
    assert out


def test_names_from_words_and_from_a_file(call, files, tmp_path):
    scores, labels = files(LOGITS, np.array([NAMES[y] for y in LABELS]))
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    for given in (",".join(NAMES), tmp_path / "names.txt"):
        code, out, _ = call(scores, labels, "--classes", given, "--json")
        assert code == 0
        assert json.loads(out)["findings"] == []


def test_csv(call, tmp_path):
    lines = [",".join(NAMES), *(",".join(f"{x:.6f}" for x in row) for row in LOGITS)]
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    (tmp_path / "labels.csv").write_text("\n".join(NAMES[y] for y in LABELS))
    code, out, _ = call(tmp_path / "scores.csv", tmp_path / "labels.csv", "--json")
    assert code == 0
    assert json.loads(out)["findings"] == []


def test_names_are_shown_not_obeyed(call, files):
    scores = LOGITS.copy()
    scores[:, 1] = -20
    names = ["a", "[red]\x1b[31mx[/red]", *NAMES[2:]]
    code, out, _ = call(*files(scores, LABELS), "--classes", ",".join(names))
    assert code == 0
    assert "[red]\\x1b[31mx[/red]" in " ".join(out.split())
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("scores", "labels", "arguments", "says"),
    [
        (LOGITS, LABELS[:-1], [], "(1999,)"),
        (LOGITS, LABELS, ["--loss", "many"], "'many'"),
        (LOGITS, LABELS, ["--loss", "nan"], "nan"),
        (LOGITS, LABELS, ["--classes", "a,b"], "2 names"),
        (LOGITS, LABELS, ["--classes", "a,a"], "twice"),
        (LOGITS, LABELS, ["--fail-on", "note"], "note"),
        (LOGITS[:, :, None], LABELS, [], "shape"),
        (LOGITS > 0, LABELS, [], "bool"),
        (np.zeros((0, 3)), np.zeros(0, int), [], "shape"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, files, scores, labels, arguments, says):
    refused(call(*files(scores, labels), *arguments), says)


@pytest.mark.parametrize(
    ("name", "content"), [("a.npy", b"no"), ("a.csv", b""), ("a.csv", b"\xff\xfe"), ("a.exe", b"MZ")]
)
def test_bad_files_are_refused_in_one_line(call, files, tmp_path, name, content):
    scores, labels = files(LOGITS, LABELS)
    (tmp_path / name).write_bytes(content)
    refused(call(tmp_path / name, labels), name)
    refused(call(scores, tmp_path / name), name)


def test_missing_files_and_pickles_are_refused(call, files, tmp_path):
    scores, labels = files(LOGITS, LABELS)
    refused(call(tmp_path / "\x1b[31mnone.npy", labels), "none.npy")
    refused(call(scores, tmp_path / "none.npy"), "no such file")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(call(scores, tmp_path / "pickle.npy"), "no objects")
    refused(call(tmp_path / "pickle.npy", labels), "no objects")


def test_help_has_an_example(call):
    code, out, _ = call("--help")
    assert code == 0
    assert "Example: softnll diagnose scores.npy labels.npy" in out
