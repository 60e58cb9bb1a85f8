"""What a newcomer sees: help at 80 columns, tables at 80 columns, and no kernel compiled for a handful of rows."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest

import softnll as sn
from command_line import COMMAND, PLAIN
from softnll._cli.commands import app
from softnll._inspection.report.sentences import sentences

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


def run(*arguments, columns=80, **more):
    environment = {**PLAIN, "COLUMNS": str(columns), **more}
    done = subprocess.run([*COMMAND, *map(str, arguments)], env=environment, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_is_not_cut_off_at_80_columns(command):
    out, _ = run(*([command] if command else []), "--help")
    text = out.replace("COMMAND [ARGS]...", "")
    assert "…" not in text
    assert "..." not in text
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("C", [2, 3, 6, 7, 10, 1000])
@pytest.mark.parametrize("targets", [True, False])
def test_tables_are_readable_at_80_columns_for_any_number_of_classes(tmp_path, C, targets):
    rng = np.random.default_rng(C)
    scores, labels = rng.normal(size=(30, C)) * 500, rng.integers(0, C, 30)
    np.save(tmp_path / "scores.npy", scores)
    np.save(tmp_path / "labels.npy", labels)
    more = ["--target", tmp_path / "labels.npy"] if targets else []
    out, _ = run("explain", "--scores", tmp_path / "scores.npy", *more)
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    if targets:
        worst = np.argsort(-sn.cross_entropy(scores, labels, reduction="none"), kind="stable")
        numbers = [line.split()[0] for line in out.splitlines() if " class " in line[:9]]
        assert numbers[:8] == [str(n) for n in worst[:8]]


def test_long_names_of_classes_are_shortened(tmp_path):
    np.save(tmp_path / "scores.npy", np.arange(12.0).reshape(2, 6))
    names = ",".join(f"a class with a name that is long {c}" for c in range(6))
    out, _ = run("explain", "--scores", tmp_path / "scores.npy", "--target", "0,5", "--classes", names)
    assert max(map(len, out.splitlines())) <= 80
    assert "long 5" in out


@pytest.mark.parametrize("options", [[], ["--json"], ["--derivation", "0"], ["--bits"]])
def test_explain_of_a_few_rows_compiles_and_loads_no_kernel(tmp_path, options):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, err = run("explain", *options, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert err == ""
    assert not (tmp_path / "cache").exists()
    assert (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    )  # seconds of a CPU, imports included


def test_explain_of_a_few_rows_does_not_import_numba():
    code = "import sys, softnll as sn; sn.explain([[5, 4, 2]], [0]).words(); sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_rows_and_many_give_the_same_numbers(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    scores, labels = (rng.normal(size=(40, 7)) * 9).astype(dtype), rng.integers(0, 7, 40)
    few = sn.explain(scores, labels)
    monkeypatch.setattr("softnll._inspection.explain.few_rows.FEW", 0)
    many = sn.explain(scores, labels)
    for name in ("probabilities", "log_probabilities", "nll", "gradient", "entropy", "total", "mean"):
        one, other = np.asarray(getattr(few, name)), np.asarray(getattr(many, name))
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=4 * float(np.finfo(one.dtype).eps))


@pytest.mark.slow  # compiles a report's kernels
def test_a_compilation_is_announced_once_with_its_time(tmp_path):
    np.save(tmp_path / "scores.npy", np.eye(3))
    np.save(tmp_path / "labels.npy", np.arange(3))
    arguments = "report", tmp_path / "scores.npy", tmp_path / "labels.npy", "--out", tmp_path / "r.html"
    first, second = (run(*arguments, NUMBA_CACHE_DIR=str(tmp_path / "cache"))[1].splitlines() for _ in range(2))
    assert first[0] == "compiling kernels, once per machine ..."
    assert first[1].startswith("compiled ")
    assert first[1].endswith(" s; later runs load them")
    assert len(first) == 2
    assert second == []


def test_a_report_prints_sentences():
    facts = {"examples": 1, "classes": 1, "accuracy": 1.0, "nll": None, "suspicious_labels": 1, "ignored_rows": 2}
    found = sentences(facts)
    assert found[0] == "1 example of 1 class; 100.00 % are predicted right."
    assert found[1] == "The mean loss is not finite: a true class has the probability 0."
    assert found[-2:] == ["1 label looks wrong.", "2 rows were left out: the label is ignored."]
    assert not any("_" in each for each in found)
