"""``softnll diagnose`` as a user runs it: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import softnll as sn
from command_line import in_process, refused, run
from diagnose_cases import LABELS, LOGITS, NAMES, P


@pytest.fixture
def call(capsys, monkeypatch):
    return in_process(capsys, monkeypatch, "diagnose")


@pytest.fixture
def files(tmp_path):
    """Save scores and labels; return their paths."""

    def _files(scores, labels):
        np.save(tmp_path / "scores.npy", scores)
        np.save(tmp_path / "labels.npy", labels)
        return tmp_path / "scores.npy", tmp_path / "labels.npy"

    return _files


def test_in_a_process_of_its_own(files):
    done = run("diagnose", *files(P.astype(np.float32), LABELS + 1))
    assert (done.returncode, [line for line in done.stderr.splitlines() if "compil" not in line]) == (0, [])
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
    assert "Looked for: labels that are one-hot, text or of other types; labels off by one" in words
    assert "Not looked for: the convention of the printed loss (none given)." in words


def test_json_stands_alone(call, files):
    code, out, err = call(*files(LOGITS * 2, LABELS), "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["rows"], facts["classes"]) == (2000, 10)
    (finding,) = facts["findings"]
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


def test_escape_sequences_in_names_are_printed_as_text(call, files):
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
        (LOGITS, LABELS, ["--loss", "1e999"], "1e999"),
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


def test_one_table_and_what_was_decided(call, tmp_path):
    header = ",".join(["id", *NAMES, "species"])
    rows = (
        ",".join([f"r{k}", *(f"{x:.6f}" for x in row), NAMES[y]])
        for k, (row, y) in enumerate(zip(LOGITS, LABELS, strict=True))
    )
    (tmp_path / "a.csv").write_text("\n".join([header, *rows]))
    code, out, err = call(tmp_path / "a.csv", "--json")
    assert code == 0
    facts = json.loads(out)
    assert (facts["findings"], facts["classes"]) == ([], 10)
    said = "label column: species; 10 scores; ignored: index column id; header: yes"
    assert said in err
    assert said in facts["read"][0]


def test_numbers_in_a_table_are_no_text(call, tmp_path):
    np.savetxt(tmp_path / "s.csv", LOGITS, delimiter=",")
    np.savetxt(tmp_path / "y.csv", LABELS, fmt="%d")
    code, out, err = call(tmp_path / "s.csv", tmp_path / "y.csv", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["findings"] == []


def test_labels_in_place_of_scores_are_refused(call, tmp_path):
    torch.save({"outputs": {"logits": torch.tensor(LOGITS)}, "labels": torch.tensor(LABELS)}, tmp_path / "a.pt")
    code, out, _ = call(tmp_path / "a.pt", tmp_path / "a.pt", "--json")
    assert code == 0
    assert json.loads(out)["findings"] == []
    torch.save({"labels": torch.tensor(LABELS)}, tmp_path / "a.pt")
    refused(call(tmp_path / "a.pt"), "holds labels; expected one array, or one called scores")


def test_missing_labels_are_asked_for(call, tmp_path):
    (tmp_path / "a.csv").write_text("cat,dog\n0.2,0.8\n0.4,0.6\n")
    refused(call(tmp_path / "a.csv"), "no column of labels among cat, dog", "--label-column")
