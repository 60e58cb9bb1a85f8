"""The door to all readers, the dataset it gives, and text that is safe to print."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_files import answers, idx, refused
from softnll.data import NAMES, DataError, Dataset, DownloadError, load, printable
from softnll.data.load import cache_folder


def test_digits_are_the_halves_of_scikit_learn_and_exact():
    train, test = load()
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    for part, rows in ((train, slice(None, 898)), (test, slice(898, None))):
        np.testing.assert_array_equal(part.features(), reference.data[rows] / 16)  # exact: 16 is a power of two
        np.testing.assert_array_equal(part.labels, reference.target[rows])
        assert part.features().dtype == np.float32
        assert part.inputs.dtype == np.uint8
        assert part.has_images
        assert (part.pixels().min(), part.pixels().max()) == (0, 255)
    assert (train.split, test.split, train.name) == ("train", "test", "digits")
    assert train.class_names == tuple("0123456789")


def test_names_are_forgiving_about_case_and_paths_are_not_names(tmp_path, monkeypatch):
    assert load(" Digits ")[0].name == "digits"
    monkeypatch.chdir(tmp_path)
    refused(lambda: load(Path("digits")), "no such name, file or folder")


@pytest.mark.parametrize("source", ["cifar11", "", "\x1b[31mred\n", "nowhere/at/all.npy", "a" * 300])
def test_an_unknown_name_lists_what_is_allowed(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(lambda: load(source))
    if source:
        assert all(name in message for name in NAMES)


@pytest.mark.parametrize("name", ["x.csv.bak", "x.png", "x", "x.pkl", "x.npy", "x.npz", "x.gz", "x.parquet"])
@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x04\x95.", b"\x89PNG\r\n"])
def test_an_unknown_format_lists_what_is_allowed(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    refused(lambda: load(tmp_path / name), name, "a format that is not known", ".npz")


def test_contents_tell_the_format_not_the_name(tmp_path):
    np.save(tmp_path / "x.csv.npy", np.ones((2, 3)))
    np.save(tmp_path / "y.npy", np.array([0, 1]))
    (tmp_path / "x.csv.npy").rename(tmp_path / "x.dat")
    assert load(tmp_path / "x.dat", labels=tmp_path / "y.npy")[0].inputs.shape == (2, 3)


def test_a_folder_of_something_else_says_what_it_may_hold(tmp_path):
    refused(lambda: load(tmp_path), "cifar-10-batches-bin", "train-images-idx3-ubyte")


def test_labels_where_none_are_wanted_are_refused(tmp_path):
    np.save(tmp_path / "y.npy", np.array([0, 1]))
    for source in ("digits", "mnist", tmp_path):
        refused(lambda: load(source, labels=tmp_path / "y.npy"), "labels of its own")  # noqa: B023
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"cifar"))
    refused(lambda: load(tmp_path / "a.tar.gz", labels=tmp_path / "y.npy"), "labels of its own")
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    refused(lambda: load(tmp_path / "x.npy", labels=tmp_path / "none.npy"), "no such file of labels")
    (tmp_path / "y.html").write_text("0\n1\n")
    refused(lambda: load(tmp_path / "x.npy", labels=tmp_path / "y.html"), "labels are a .npy")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"", b"\0\0\x08\x03", b"PK\x03\x04", b"\x93NUMPY", b"\x1f\x8b\x08"]), st.binary(max_size=60))
def test_whatever_the_file_the_answer_is_data_or_a_refusal(tmp_path, head, tail):
    (tmp_path / "x").write_bytes(head + tail)
    answers(lambda: load(tmp_path / "x"), tuple)


def test_what_the_disk_refuses_is_no_fault_of_the_data(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(idx(np.ones(3, np.uint8)))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PermissionError):
        load(path)


def test_where_the_cache_is(monkeypatch, tmp_path):
    for name in ("SOFTNLL_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "softnll"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/softnll")
    monkeypatch.setenv("SOFTNLL_DATA", "/own")
    assert cache_folder() == Path("/own")
    assert cache_folder(Path("/given")) == Path("/given")


def test_the_kinds_of_errors():
    assert issubclass(DataError, ValueError)
    assert issubclass(DownloadError, OSError)


IMAGES = np.zeros((3, 4, 5), np.uint8)
LABELS = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("inputs", "labels", "part"),
    [
        (IMAGES, LABELS[:2], "3 inputs but 2 labels"),
        (IMAGES, LABELS + 1, "label 2 is not one of the 2 classes"),
        (IMAGES, LABELS - 1, "label -1 is not one of the 2 classes"),
        (IMAGES, LABELS.astype(np.int32), "must be (N,) int64"),
        (IMAGES, LABELS[:, None], "must be (N,) int64"),
        (IMAGES[:0], LABELS[:0], "no examples"),
        (IMAGES[..., None], LABELS, "allowed are uint8 images"),
        (IMAGES[0], LABELS, "allowed are uint8 images"),
        (IMAGES.astype(np.float32), LABELS, "allowed are uint8 images"),
        (np.ones((3, 2), int), LABELS, "allowed are uint8 images"),
    ],
)
def test_a_dataset_that_exists_is_valid(inputs, labels, part):
    refused(lambda: Dataset(inputs, labels, ("a", "b"), "all", "mine"), "mine", part)


def test_features_and_pixels():
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    data = Dataset(images, np.array([0, 1]), ("a", "b"), "all", "mine")
    np.testing.assert_array_equal(data.features(), images.reshape(2, 12).astype(np.float32) / np.float32(255))
    assert data.pixels() is images
    rows = Dataset(np.ones((2, 3)), np.array([0, 1]), ("a", "b"), "all", "mine")
    assert rows.features() is not None
    assert rows.features().dtype == np.float64
    assert not rows.has_images
    refused(rows.pixels, "has features, not images")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("a\nb\r\tc\0", "a\\x0ab\\x0d\\x09c\\x00"),
        ("\x1b[31m\x9b1m\x7f", "\\x1b[31m\\x9b1m\\x7f"),
        ("a\u202eb\u2066c\u200ed", "a\\u202eb\\u2066c\\u200ed"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("\udc80", "\\udc80"),
        ("\U000e0041", "\\U000e0041"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # Persian writes with a non-joiner
        ("👩\u200d🚀 é 猫", "👩\u200d🚀 é 猫"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("x" * 81, "x" * 79 + "…"),
        ("x" * 80, "x" * 80),
    ],
)
def test_text_from_outside_is_fit_for_a_terminal(text, shown):
    assert printable(text) == shown


@given(st.text(), st.integers(1, 100))
def test_printable_text_is_one_short_line(text, limit):
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.replace("\u200c", "").replace("\u200d", "").isprintable()
    shown.encode()


def test_the_readers_import_numpy_and_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import softnll.data; "
        "print([n for n in ('sklearn', 'scipy', 'numba', 'torch', 'matplotlib', 'pandas', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
