"""IDX files and the folders of MNIST's family."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_files import answers, idx, refused
from softnll.data import DownloadError, load, mnist
from softnll.data.idx import read_idx
from softnll.data.mnist import FILES, Known, find_files, read_folder

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 3, 2, 2, 1, 0, 3], dtype=np.uint8)
TEST_IMAGES, TEST_LABELS = IMAGES[:2] ^ 255, LABELS[:2]


@pytest.fixture
def file(tmp_path):
    def write(data, name="file"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, ">u1"), (9, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (3, 2, 1, 1), (0, 3)])
@pytest.mark.parametrize("packed", [False, True])
def test_every_type_and_shape_is_read(code, dtype, shape, packed, file):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    data = idx(array, code)
    found, md5 = read_idx(file(gzip.compress(data) if packed else data))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.dtype.isnative
    assert md5 == hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "starts with nothing"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x01\0\x08\x01\0\0\0\1x", "not an IDX file"),
        (b"\0\x01\x08\x01\0\0\0\1x", "not an IDX file"),
        (b"\0\0\x07\x01\0\0\0\1x", "not an IDX file"),
        (b"\0\0\x0a\x01\0\0\0\1x", "not an IDX file"),
        (b"\0\0\x08\x00", "0 dimensions"),
        (b"\0\0\x08\x05" + b"\0\0\0\1" * 5 + b"x", "5 dimensions"),
        (b"\0\0\x08\xff", "255 dimensions"),
        (b"\0\0\x08\x03\0\0\0\1\0\0", "truncated within its header"),
        (idx(IMAGES)[:-1], "truncated"),
        (idx(IMAGES) + b"x", "more than the 140 bytes"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "its header promises"),
        (b"\0\0\x0e\x03" + struct.pack(">3I", 60_000, 28, 28), "truncated"),
    ],
)
def test_files_that_do_not_hold_what_they_say_are_refused(data, part, packed, file):
    refused(lambda: read_idx(file(gzip.compress(data) if packed else data)), "file: ", part)


def test_sizes_are_refused_before_memory_is_asked_for(file, monkeypatch):
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("memory was asked for"))
    promise = b"\0\0\x08\x03" + struct.pack(">3I", 60_000, 100, 100)
    refused(lambda: read_idx(file(promise)), "more than the file can hold")
    refused(lambda: read_idx(file(gzip.compress(promise))), "more than the file can hold")
    refused(lambda: read_idx(file(promise + bytes(100)), max_bytes=1000), "allowed are 1000")


def test_a_gzip_file_made_to_explode_stops_at_what_its_header_says(file):
    bomb = gzip.compress(idx(LABELS) + bytes(64 << 20), 1)
    refused(lambda: read_idx(file(bomb)), "more than the 7 bytes")


def wrong_sum(data):
    """Change one bit of the gzip checksum, which stands before the four bytes of the length."""
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d[:-9], lambda d: d[:12], lambda d: d + b"junk", wrong_sum]
)
def test_damaged_gzip_files_are_refused(change, file):
    refused(lambda: read_idx(file(change(gzip.compress(idx(IMAGES))))), "truncated or damaged")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.booleans(), st.booleans())
def test_whatever_the_bytes_the_answer_is_an_array_or_a_refusal(tmp_path, data, headed, packed):
    data = (b"\0\0\x08\x01" if headed else b"") + data
    (tmp_path / "file").write_bytes(gzip.compress(data) if packed else data)
    answers(lambda: read_idx(tmp_path / "file"), tuple)


def folder(path, *, dotted=False, packed=False, **parts):
    arrays = {"a": IMAGES, "b": LABELS, "c": TEST_IMAGES, "d": TEST_LABELS} | parts
    for name, array in zip(FILES, arrays.values(), strict=True):
        data = array if isinstance(array, bytes) else idx(array)
        target = path / ((name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else ""))
        target.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_four_files_in_a_folder_are_train_and_test(dotted, packed, tmp_path):
    train, test = load(folder(tmp_path, dotted=dotted, packed=packed))
    np.testing.assert_array_equal(train.inputs, IMAGES)
    np.testing.assert_array_equal(test.inputs, TEST_IMAGES)
    np.testing.assert_array_equal(train.labels, LABELS)
    np.testing.assert_array_equal(test.labels, TEST_LABELS)
    assert (train.name, train.split, test.split) == (tmp_path.name, "train", "test")
    assert train.class_names == test.class_names == ("0", "1", "2", "3")


def known(path):
    sums = tuple(read_idx(file)[1] for file in find_files(path))
    return {"mnist": Known("MNIST", ("nought", "one", "two", "three"), sums)}


def test_checksums_name_the_data_and_its_classes(tmp_path):
    family = known(folder(tmp_path))
    train, test = read_folder(tmp_path, family=family)
    assert (train.name, test.name) == ("MNIST", "MNIST")
    assert train.class_names == ("nought", "one", "two", "three")
    folder(tmp_path, a=IMAGES ^ 1)
    assert read_folder(tmp_path, family=family)[0].name == tmp_path.name
    refused(lambda: read_folder(tmp_path, "mnist", family), "its checksums are not those of MNIST")


def test_names_are_found_in_the_cache_and_must_be_what_they_say(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "SYSTEM_FOLDER", tmp_path / "system")
    inner = tmp_path / "mnist"
    inner.mkdir()
    refused(lambda: load("mnist", cache=tmp_path), str(inner), "train-images-idx3-ubyte", error=DownloadError)
    folder(inner)
    refused(lambda: load("mnist", cache=tmp_path), "not those of MNIST")
    monkeypatch.setattr(mnist, "FAMILY", known(inner))
    assert load("mnist", cache=tmp_path)[0].name == "MNIST"
    assert load("MNIST", cache=inner)[1].name == "MNIST"
    inner.rename(tmp_path / "elsewhere")
    (tmp_path / "system").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "system" / "mnist")
    assert load("mnist", cache=tmp_path)[0].name == "MNIST"


@pytest.mark.parametrize(
    ("parts", "part"),
    [
        ({"b": LABELS[:6]}, "7 inputs but 6 labels"),
        ({"d": LABELS}, "2 inputs but 7 labels"),
        ({"a": LABELS}, "images are uint8"),
        ({"b": IMAGES}, "labels are integers"),
        ({"b": idx(LABELS.astype(">f4"), 0x0D)}, "labels are integers"),
        ({"a": idx(IMAGES.astype(">f4"), 0x0D)}, "images are uint8"),
        ({"b": idx((LABELS - 1.0).astype(">i4"), 0x0C)}, "label -1"),
        ({"b": idx((LABELS + 1e6).astype(">i4"), 0x0C)}, "65535"),
        ({"a": IMAGES[:0], "b": LABELS[:0]}, "no examples"),
    ],
)
def test_images_and_labels_that_do_not_belong_together_are_refused(parts, part, tmp_path):
    refused(lambda: load(folder(tmp_path, **parts)), part)


def test_labels_beyond_the_known_classes_are_refused(tmp_path):
    family = known(folder(tmp_path))
    few = {"mnist": Known("MNIST", ("a", "b"), family["mnist"].md5)}
    refused(lambda: read_folder(tmp_path, family=few), "label 3 is not one of the 2 classes")


def test_a_folder_with_three_files_says_what_lacks(tmp_path):
    (folder(tmp_path) / FILES[2]).unlink()
    refused(lambda: load(tmp_path), "MNIST", FILES[2])
    refused(lambda: read_folder(tmp_path), f"lacks {FILES[2]} (")


def test_one_file_of_images_takes_the_labels_beside_it(tmp_path):
    folder(tmp_path, packed=True)
    train, test = load(tmp_path / f"{FILES[0]}.gz")
    assert test is None
    assert train.split == "all"
    np.testing.assert_array_equal(train.labels, LABELS)
    np.save(tmp_path / "words.npy", np.array(["b", "a", "b", "a", "b", "a", "b"]))
    other = load(tmp_path / f"{FILES[0]}.gz", labels=tmp_path / "words.npy")[0]
    assert other.class_names == ("a", "b")
    np.testing.assert_array_equal(
        load(tmp_path / f"{FILES[0]}.gz", labels=tmp_path / f"{FILES[1]}.gz")[0].labels, LABELS
    )
    (tmp_path / f"{FILES[1]}.gz").unlink()
    refused(lambda: load(tmp_path / f"{FILES[0]}.gz"), "no labels beside it", "train-labels-idx1-ubyte")
    refused(lambda: load(tmp_path / f"{FILES[3]}.gz"), "no labels beside it")


def test_the_real_fashion_mnist():
    places = [mnist.SYSTEM_FOLDER, Path(os.environ.get("SOFTNLL_DATA", mnist.SYSTEM_FOLDER))]
    if not any(find_files(place / "fashion-mnist") for place in places):
        pytest.skip("Fashion-MNIST is neither in Debian's folder nor in SOFTNLL_DATA")
    train, test = load("fashion-mnist")
    assert train.inputs.shape == (60_000, 28, 28)
    assert test.inputs.shape == (10_000, 28, 28)
    assert train.class_names[9] == "Ankle boot"
    np.testing.assert_array_equal(np.bincount(train.labels), [6000] * 10)
    assert train.features().mean() == pytest.approx(0.2860, abs=1e-4)
