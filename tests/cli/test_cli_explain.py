"""``softnll explain`` as a user runs it: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import softnll
from command_line import COMMAND, PLAIN, in_process, one_line, refused, run


@pytest.fixture
def call(capsys, monkeypatch):
    return in_process(capsys, monkeypatch)


def test_three_images_by_default():
    done = run("explain")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines if line.startswith("0 cat")] == [
        ["0", "cat", "5", "4", "2"],
        ["0", "cat", "0.7054", "0.2595", "0.0351"],
        ["0", "cat", "cat", "0.7054", "0.4459", "0.71"],
        ["0", "cat", "cat", "0.7054", "0.35"],
        ["0", "cat", "-0.2946", "+0.2595", "+0.0351"],
    ]
    losses = [line.split()[-1] for line in lines if line[:2] in ("0 ", "1 ", "2 ") and len(line.split()) == 5]
    assert losses[6:9] == ["0.35", "0.02", "0.72"]
    assert "total 1.09   mean 0.36   nats" in done.stdout
    words = " ".join(done.stdout.split())
    assert "cat and dog tie at 48.8 % each" in words
    assert "0.34 / 0.02 / 0.71, total 1.07" in words
    assert "\x1b" not in done.stdout


def test_json_has_all_digits_and_stands_alone(call):
    code, out, err = call("explain", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["nll"] == pytest.approx([0.3490122167681864, 0.02058113894732934, 0.7177359186667025], rel=1e-15)
    assert facts["total"] == pytest.approx(1.0873292743822183, rel=1e-15)
    assert facts["gradient"][2] == pytest.approx([0.48785555, -0.51214445, 0.02428890], abs=1e-8)
    assert facts["class_names"] == ["cat", "dog", "horse"]
    assert len(facts["words"]) == 6


@pytest.mark.parametrize("target", ["0", "cat", " cat "])
def test_a_target_is_a_name_or_a_number(call, target):
    code, out, _ = call("explain", "--scores", "5,4,2", "--target", target, "--classes", "cat,dog,horse", "--json")
    assert code == 0
    assert json.loads(out)["nll"] == pytest.approx([0.349012], abs=5e-7)


def test_a_name_that_looks_like_a_number_is_the_name(call):
    _, out, _ = call("explain", "--scores", "5,4,2", "--target", "2", "--classes", "2,1,0", "--json")
    assert json.loads(out)["targets"] == [0]


def test_bits(call):
    _, out, _ = call("explain", "--bits")
    assert "total 1.57   mean 0.52   bits" in out


def test_scores_alone(call):
    code, out, _ = call("explain", "--scores", "1, 2; 3, 4;")
    assert code == 0
    assert "class 1" in out
    assert "Gradient" not in out


def test_files(call, tmp_path):
    scores, targets = tmp_path / "scores.npy", tmp_path / "labels.npy"
    np.save(scores, np.array([[5, 4, 2], [4, 2, 8]], np.float32))
    np.save(targets, np.array([0, 2], np.uint8))
    code, out, _ = call("explain", "--scores", scores, "--target", targets, "--json")
    assert code == 0
    assert json.loads(out)["nll"] == pytest.approx([0.349012, 0.020581], abs=5e-7)

    table, labels = tmp_path / "scores.csv", tmp_path / "labels.csv"
    table.write_text("cat,dog,horse\n5,4,2\n4,2,8\n")
    labels.write_text("cat\nhorse\n")
    code, out, _ = call("explain", "--scores", table, "--target", labels, "--json")
    assert code == 0
    assert json.loads(out)["class_names"] == ["cat", "dog", "horse"]
    assert json.loads(out)["nll"] == pytest.approx([0.349012, 0.020581], abs=5e-7)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", b"", "header"),
        ("a.npy", b"\x93NUMPY\x01\x00\xff\xff{}", "header"),
        ("a.npy", b"not numpy at all", "header"),
        ("a.csv", b"", "an empty table"),
        ("a.csv", b"cat,dog\n", "no scores"),
        ("a.csv", b"4,2\n3\n", "line 2: 1 column, expected 2"),
        ("a.csv", b"4,2\n3,x\n", "line 2, column 2: 'x'"),
        ("a.csv", b"4,2\n3,\x1b[31m\n", "\\x1b"),
        ("a.csv", b"1,2\n\xff\xfe,1\n", "not UTF-8 text"),
        ("a.csv", b"1,nan\n", "row 0 has no softmax"),
        ("a.csv", b"cat,cat\n1,2\n", "twice"),
    ],
)
def test_bad_score_files_are_refused_in_one_line(call, tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    refused(call("explain", "--scores", path), says)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 2)), np.zeros((0, 3)), np.array([["a", "b"]]), np.zeros((2, 2), bool)]
)
def test_arrays_that_are_not_scores_are_refused(call, tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    refused(call("explain", "--scores", tmp_path / "a.npy"), "expected real numbers")


def test_pickled_scores_are_refused_and_not_run(call, tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(call("explain", "--scores", tmp_path / "a.npy"), "no objects")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--scores", ""], "'' is not a number"),
        (["--scores", "1,2,x"], "'x' is not a number"),
        (["--scores", "1,2;3"], "row 1 has 1 score, the first one 2"),
        (["--scores", "1_0,2"], "'1_0'"),
        (["--scores", "missing.npy"], "no such file"),
        (["--scores", "1,2", "--target", "2"], "'2' is neither a class (class 0, class 1) nor 0 to 1"),
        (["--scores", "1,2", "--target", "-1"], "-1"),
        (["--scores", "1,2", "--target", "0,1"], "(2,)"),
        (["--scores", "1,2", "--target", "bird", "--classes", "cat,dog"], "neither a class (cat, dog)"),
        (["--scores", "1,2", "--classes", "cat"], "1 name"),
        (["--scores", "1,2", "--classes", "cat,cat"], "twice"),
        (["--scores", "1,2", "--figure", "out.jpg"], ".png, .svg or .pdf"),
        (["--scores", "1,2", "--target", "\x1b]0;owned\x07"], "\\x1b"),
        (["--nonsense"], "--nonsense"),
        (["surplus"], "surplus"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, arguments, says):
    refused(call("explain", *arguments), says)


def test_an_unknown_command_is_refused(call):
    refused(call("explode"), "explode")


def test_escape_sequences_in_names_are_printed_as_text(call):
    code, out, _ = call("explain", "--scores", "1,2", "--target", "0", "--classes", "[red]x[/red],\x1b[31my")
    assert code == 0
    heads = [line for line in out.splitlines() if not line.startswith(("0", "\N{BULLET}"))]
    assert sum("[red]x[/red]" in line for line in heads) == 3  # scores, probabilities, gradient
    assert "\x1b" not in out
    assert "\\x1b[31my" in out


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures(call, tmp_path, kind, magic):
    path = tmp_path / f"out.{kind}"
    assert call("explain", "--figure", path)[0] == 0
    first = path.read_bytes()
    assert first.startswith(magic)
    assert call("explain", "--figure", path)[0] == 0
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_figure_that_cannot_be_written_is_one_line_and_1(call, tmp_path):
    (tmp_path / "file").write_text("")
    refused(call("explain", "--figure", tmp_path / "file" / "out.png"), "file", code=1)


def test_escape_sequences_in_a_path_are_printed_as_text(call, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call("explain", "--figure", tmp_path / "file" / "\x1b[31m\nb" / "out.png")
    assert code == 1
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_a_full_disk_is_one_line_and_1():
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = run("explain", stdout=full)
    assert done.returncode == 1
    one_line(done.stderr, "No space")
    assert "Exception" not in done.stderr


def test_a_closed_pipe_is_no_error_message():
    script = f"{' '.join(COMMAND)} explain | true"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=PLAIN, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["explain", "--help"], ["train", "--help"]])
def test_help(call, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "Usage: softnll" in out
    assert len(arguments) < 2 or "Example: softnll" in out


def test_version(call):
    assert call("--version") == (0, f"softnll {softnll.__version__}\n", "")


@pytest.mark.parametrize(("module", "more"), [("main", ("typer",)), ("commands", ())])
def test_importing_the_command_line_is_light(module, more):
    heavy = (*more, "rich", "matplotlib", "sklearn", "jinja2", "PIL", "scipy", "numba", "torch")
    code = f"import sys, softnll._cli.{module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("missing", "command"), [("typer", "explain"), ("rich", "explain"), ("rich", "train")])
def test_without_the_app_extra_it_says_what_to_install(call, monkeypatch, missing, command):
    for name in list(sys.modules):
        if name.startswith("softnll._cli."):
            monkeypatch.delitem(sys.modules, name)
        elif name.partition(".")[0] == missing:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    assert call(command) == (1, "", "softnll: the command line needs more: pip install 'softnll[app]'\n")


def test_a_table_with_labels_needs_no_target(call, tmp_path):
    (tmp_path / "a.csv").write_text("id,cat,dog,horse,label\n7,5,4,2.5,cat\n9,4,2,8,horse\n")
    code, out, err = call("explain", "--scores", tmp_path / "a.csv", "--json")
    assert code == 0
    facts = json.loads(out)
    assert (facts["class_names"], facts["targets"]) == (["cat", "dog", "horse"], [0, 2])
    said = "label column: label; 3 scores; ignored: index column id; header: yes"
    assert said in err
    assert said in facts["read"][0]


def test_targets_decide_whether_the_first_line_is_a_header(call, tmp_path):
    (tmp_path / "a.csv").write_text("0,1,2\n5,4,2\n4,2,8\n")
    for target, rows in (("0,2", 2), ("2,0,1", 3)):
        (tmp_path / "y.csv").write_text(target.replace(",", "\n"))
        code, out, _ = call("explain", "--scores", tmp_path / "a.csv", "--target", tmp_path / "y.csv", "--json")
        assert code == 0
        assert len(json.loads(out)["scores"]) == rows
    refused(call("explain", "--scores", tmp_path / "a.csv"), "may be a header or a row", "--no-header")
