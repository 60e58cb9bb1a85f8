"""What documents show can be run: Python blocks are doctests, commands of `softnll` work, other commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from command_line import main

ROOT = Path(__file__).parents[2]
# The log and the decisions quote what was, and CONTRIBUTING a diff.
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")), *ROOT.glob("docs/how-to/*.md"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = {"sh", "bash", "shell", "console"}
OTHERS = {
    ".",
    "pip",
    "python",
    "python3",
    "torchrun",
    "ruff",
    "pytest",
    "mypy",
    "pyright",
    ".ci/run",
}  # their files must exist


def blocks(path, languages):
    """Return the texts of a page's fenced blocks of these languages."""
    return [text for language, text in FENCED.findall(path.read_text(encoding="utf-8")) if language in languages]


def commands(path):
    """Return the commands of a page's shell blocks, without comments, each as a list of words."""
    found = []
    for text in blocks(path, SHELL):
        for line in text.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words:
                    found.append(words)
    return found


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_python_blocks_are_doctests(path):
    assert [text for text in blocks(path, {"python", "py", "pycon"}) if not text.startswith(">>> ")] == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_other_commands_name_files_that_exist(path):
    for words in commands(path):
        if words[0] != "softnll":
            assert words[0] in OTHERS, words
            missing = [each for each in words[1:] if each.endswith(".py") and not (ROOT / each).exists()]
            assert not missing, words


def test_the_collection_finds_commands():
    found = commands(ROOT / "README.md")
    assert ["pip", "install", ".[app]"] in found
    assert ["softnll", "train"] in found
    assert ["softnll", "page", "--open"] in found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the documents' commands name."""
    safetensors = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=(300, 10)).astype(np.float32)
    labels = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    np.save(tmp_path / "scores.npy", scores)
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "images.npy", load_digits().images[:300].astype(np.uint8))
    safetensors.save_file({"logits": scores}, tmp_path / "logits.safetensors")
    (tmp_path / "labels.csv").write_text("label\n" + "\n".join(map(str, labels)) + "\n")
    columns = ",".join(["label", *(f"p{i}" for i in range(10))])
    rows = [",".join(map(str, [label, *row])) for label, row in zip(labels, scores.tolist(), strict=True)]
    (tmp_path / "predictions.csv").write_text("\n".join([columns, *rows]) + "\n")
    people = [f"{rng.normal():.3f},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}" for i in range(90)]
    (tmp_path / "people.csv").write_text("\n".join(["age,ticket,survived", *people]) + "\n")
    frame = load_iris(as_frame=True).frame.rename(columns={"target": "species"})
    for part in range(2):  # of many files
        for name in ("rows", "x", "y"):
            (tmp_path / name).mkdir(exist_ok=True)
        frame[part::2].to_parquet(tmp_path / "rows" / f"{part}.parquet", index=False)
        np.save(tmp_path / "x" / f"{part}.npy", frame[part::2].drop(columns="species").to_numpy())
        np.save(tmp_path / "y" / f"{part}.npy", frame["species"][part::2].to_numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    return tmp_path


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "path", [path for path in PAGES if any(words[0] == "softnll" for words in commands(path))], ids=name
)
def test_commands_of_softnll_run(path, folder, capsys):
    ran = 0
    for words in commands(path):
        if words[0] == "softnll":
            assert main(words[1:]) == 0, (words, capsys.readouterr().err)
            ran += 1
    assert ran
    assert folder == Path.cwd()
