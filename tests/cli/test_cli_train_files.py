"""``softnll train 'files*'``: many files as one table, in this process and in two processes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest

import softnll as sn
from command_line import in_process, refused
from softnll._cli.train_results import FILES
from softnll.dask import _train as training

CLASSES = np.array(["cat", "dog", "owl"])


@pytest.fixture
def call(capsys, monkeypatch):
    return in_process(capsys, monkeypatch, "train")


def frame(k, n=160):
    """Return one file's table: numbers, some missing, words, and labels."""
    rng = np.random.default_rng(k)
    y = rng.integers(0, 3, n)
    colour = np.array(["red", "green", "blue"])[(y + rng.integers(0, 2, n)) % 3]
    table = pd.DataFrame({"a": rng.normal(size=n) + y, "b": 100 * rng.normal(size=n) - 80 * y, "colour": colour})
    table.loc[::17, "a"] = np.nan
    return table.assign(species=CLASSES[y])


def write(folder, kind, count=4):
    """Write files of one kind, and one file with all of their rows; return the pattern and that file."""
    frames = [frame(k) for k in range(count)]
    for k, each in [*enumerate(frames), ("whole", pd.concat(frames, ignore_index=True))]:
        path = folder / f"{'part-' if k != 'whole' else ''}{k}.{kind}"
        each.to_csv(path, index=False) if kind == "csv" else each.to_parquet(path)
    return str(folder / f"part-*.{kind}"), folder / f"whole.{kind}"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_are_one_table(call, tmp_path, kind):
    pattern, whole = write(tmp_path, kind)
    results = {}
    for name, source in (("files", pattern), ("whole", whole)):
        code, out, err = call(source, "--out", tmp_path / name, "--C", 1, "--tol", 1e-6, "--json", "--seed", 1)
        assert code == 0, err
        results[name] = json.loads(out)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(FILES)
    files, one = (sn.SoftmaxClassifier.load(tmp_path / name / "model.npz") for name in results)
    assert results["files"]["train_examples"] == pytest.approx(512, abs=3)
    assert results["files"]["converged"]
    assert "become the median of the files' medians" in " ".join(results["files"]["read"])
    assert [each.name for each in files.recipe_.columns] == ["a", "b", "colour"]
    assert files.recipe_.columns[2].categories == ("blue", "green", "red")
    assert files.recipe_.class_names == ("cat", "dog", "owl")
    # Other rows are held out: as near as two samples of a half thousand rows.
    np.testing.assert_allclose(files.coef_, one.coef_, rtol=0, atol=0.35)
    assert results["files"]["test"]["accuracy"] == pytest.approx(results["whole"]["test"]["accuracy"], abs=0.1)
    logits, labels = np.load(tmp_path / "files" / "scores.npy"), np.load(tmp_path / "files" / "labels.npy")
    assert results["files"]["test"]["nll"] == float(sn.cross_entropy(logits, labels))


def test_the_model_is_that_of_the_local_estimator_on_the_same_rows(call, tmp_path):
    pattern, _ = write(tmp_path, "csv")
    code, *_ = call(pattern, "--out", tmp_path / "out", "--C", 2, "--tol", 1e-9, "--drop", "colour")
    assert code == 0
    model = sn.SoftmaxClassifier.load(tmp_path / "out" / "model.npz")
    paths = [tmp_path / f"part-{k}.csv" for k in range(4)]
    found = training.read_files("p", paths, 0, training.Choice(drop=("colour",)), None)
    rows = [found.task(k).compute() for k in range(4)]
    X, y = np.concatenate([each.X for each in rows]), np.concatenate([each.y for each in rows])
    mean, scale = X.mean(axis=0), X.std(axis=0)
    local = sn.SoftmaxClassifier(C=2, tol=1e-9, max_iter=500).fit((X - mean) / scale, y)
    np.testing.assert_allclose(model.coef_, local.coef_ / scale, rtol=1e-6, atol=1e-9)
    assert found.count == len(y)
    assert len(found.test.labels) + len(y) == 640


def test_arrays_with_files_of_labels_and_images(call, tmp_path):
    rng = np.random.default_rng(0)
    for k in range(3):
        y = rng.integers(0, 2, 90)
        np.save(tmp_path / f"x{k}.npy", (rng.integers(0, 120, (90, 4, 4)) + 100 * y[:, None, None]).astype(np.uint8))
        np.save(tmp_path / f"y{k}.npy", y)
    arguments = (tmp_path / "x*.npy", "--out", tmp_path / "out", "--max-iter", 30, "--tol", 1e-2)
    code, _, err = call(*arguments, "--labels", tmp_path / "y*.npy")
    assert code == 0, err
    model = sn.SoftmaxClassifier.load(tmp_path / "out" / "model.npz")
    assert model.recipe_.shape == (4, 4)
    assert model.coef_.shape == (2, 16)
    refused(call(*arguments), ".npy files have no labels")
    refused(call(*arguments, "--labels", tmp_path / "y0*.npy"), "1 files of labels for 3 files")


def test_files_that_do_not_fit_each_other_are_refused(call, tmp_path):
    pattern, _ = write(tmp_path, "csv", 2)
    refused(call(tmp_path / "none*.csv"), "no file matches")
    refused(call(pattern, "--mirror", "--out", tmp_path / "o"), "several files; --mirror is for one")
    (tmp_path / "part-1.csv").write_text("a,b,species\n1,2,cat\n2,2,dog\n")
    refused(call(pattern), "part-1.csv: 3 columns; the first file has 4: a, b, colour, species")
    (tmp_path / "part-1.csv").write_text("a,b,colour,species\n1,inf,red,cat\n2,2,red,dog\n")
    refused(call(pattern), "part-1.csv", "inf")
    frame(0).assign(species="cat").to_csv(tmp_path / "part-0.csv", index=False)
    frame(0).assign(species="cat").to_csv(tmp_path / "part-1.csv", index=False)
    refused(call(pattern), "the labels hold one class, 'cat'")


def test_without_dask_the_command_says_what_to_install(call, tmp_path, monkeypatch):
    pattern, _ = write(tmp_path, "csv", 2)
    for name in [each for each in sys.modules if each.startswith("softnll.dask")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dask", None)
    refused(call(pattern), "pip install 'softnll[dask]'", code=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_files_larger_than_the_share_are_read_by_processes(call, tmp_path, monkeypatch):
    pattern, _ = write(tmp_path, "parquet")
    here = call(pattern, "--out", tmp_path / "here", "--C", 1)
    monkeypatch.setattr(training, "_CLUSTER", 0.0)
    there = call(pattern, "--out", tmp_path / "there", "--C", 1)
    assert here[0] == there[0] == 0, there[2]
    assert "in this process" in here[2]
    assert " processes (" in there[2]
    for name in FILES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
