""".npy and .npz files."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_files import answers, refused
from softnll.data import arrays, load
from softnll.data.arrays import read_npy
from softnll.data.npz import read_npz

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([1, 0, 2, 1])


def npy(header, data=b"", version=b"\x01\x00"):
    """A .npy file with any text for its header."""
    text = header.encode("latin-1")
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text + data


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.fixture
def write(tmp_path):
    def inner(data, name="x.npy"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return inner


@pytest.mark.parametrize("dtype", ["f4", ">f4", "f8", ">f8", "f2", "i1", "u1", "i2", ">i4", "i8", "u8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("mapped", [False, True])
def test_features_of_every_type(dtype, order, mapped, write, monkeypatch):
    monkeypatch.setattr(arrays, "MAP_FROM", 1 if mapped else 1 << 30)
    values = np.asarray(X, dtype=dtype, order=order)
    path, labels = write(saved(values)), write(saved(Y), "y.npy")
    assert isinstance(read_npy(path), np.memmap) == mapped
    data, test = load(path, labels=labels)
    assert test is None
    assert (data.split, data.name, data.class_names) == ("all", "x.npy", ("0", "1", "2"))
    np.testing.assert_array_equal(data.features(), values)
    wide = np.dtype(dtype).itemsize > 2 and np.dtype(dtype) != np.float32 and dtype != ">f4"
    assert data.inputs.dtype == (np.float64 if wide else np.float32)
    assert data.inputs.dtype.isnative
    np.testing.assert_array_equal(data.labels, Y)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3)])
def test_bytes_in_three_or_four_dimensions_are_images(shape, write):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = load(write(saved(images)), labels=write(saved(Y), "y.npy"))[0]
    assert data.has_images
    np.testing.assert_array_equal(data.inputs, images[..., 0] if shape[-1] == 1 else images)
    assert data.features().max() <= 1


def test_many_columns_of_floats_become_features(write):
    data = load(write(saved(np.ones((4, 2, 3, 3)))), labels=write(saved(Y), "y.npy"))[0]
    assert data.inputs.shape == (4, 18)


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        (np.array([3, 8, 3, 5]), ("3", "5", "8"), [0, 2, 0, 1]),
        (np.array([-1, 1, 1, -1]), ("-1", "1"), [0, 1, 1, 0]),
        (np.array([[0], [1], [2], [1]]), ("0", "1", "2"), [0, 1, 2, 1]),
        (np.array([0.0, 1.0, 2.0, 1.0]), ("0", "1", "2"), [0, 1, 2, 1]),
        (np.array([True, False, True, True]), ("0", "1"), [1, 0, 1, 1]),
        (np.array(["dog", "cat", "dog", "horse"]), ("cat", "dog", "horse"), [1, 0, 1, 2]),
        (np.array([b"dog", b"cat", b"dog", b"\xff"]), ("cat", "dog", "\ufffd"), [1, 0, 1, 2]),
        (np.array(["10", "9", "10", "9"]), ("9", "10"), [1, 0, 1, 0]),
        (np.array([2**63 - 1, 0, 0, 0], dtype=np.uint64), ("0", str(2**63 - 1)), [1, 0, 0, 0]),
    ],
)
def test_labels_become_indices_of_sorted_classes(labels, names, indices, write):
    data = load(write(saved(X)), labels=write(saved(labels), "y.npy"))[0]
    assert data.class_names == names
    np.testing.assert_array_equal(data.labels, indices)
    assert data.labels.dtype == np.int64


def test_names_of_classes_cannot_steer_a_terminal(write):
    labels = np.array(["\x1b[2J", "a\nb", "\u202egod", "x" * 200])
    data = load(write(saved(X)), labels=write(saved(labels), "y.npy"))[0]
    assert data.class_names == ("\\x1b[2J", "a\\x0ab", "x" * 79 + "…", "\\u202egod")


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (Y[:3], "4 inputs but 3 labels"),
        (np.array([0.5, 1, 2, 3]), "0.5 (row 0) is not a whole number"),
        (np.array([0, 1, np.nan, 3]), "nan (row 2)"),
        (np.array([0, 1, 2, np.inf]), "inf (row 3)"),
        (np.ones((4, 2)), "shape (4, 2)"),
        (np.array(3), "shape ()"),
        (np.ones(4, complex), "real numbers and short text"),
        (np.array([2**63, 0, 0, 0], dtype=np.uint64), "does not fit 64 bits"),
        (np.array(["x" * 2000] * 4), "short text"),
    ],
)
def test_labels_that_are_none_are_refused(labels, part, write):
    refused(lambda: load(write(saved(X)), labels=write(saved(labels), "y.npy")), part)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(bad, write):
    values = X.copy()
    values[2, 1] = bad
    refused(lambda: load(write(saved(values)), labels=write(saved(Y), "y.npy")), "x.npy", "row 2, column 1")


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("/nonexistent/softnll",)


def test_objects_are_refused_and_not_unpickled(write):
    objects = np.empty(4, dtype=object)
    objects[:] = [Exploit()] * 4
    path = write(saved(objects, allow_pickle=True))
    refused(lambda: read_npy(path), "no objects")
    with pytest.raises(FileNotFoundError):
        np.load(path, allow_pickle=True)  # the exploit is real
    np.savez(path.with_name("x.npz"), X=objects, y=Y, allow_pickle=True)
    refused(lambda: load(path.with_name("x.npz")), "no objects")


FINE = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }\n"


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"\x93NUMPY", "header"),
        (b"\x93NUMPY\x01\x00", "header"),
        (b"\x93NUMPY\x01\x00\x76\x00{", "header"),
        (npy(FINE, bytes(48), b"\x03\x00"), "header"),
        (npy(FINE, bytes(48), b"\x09\x00"), "header"),
        (npy(FINE, bytes(47)), "47 bytes after the header, which promises 48"),
        (npy(FINE, bytes(49)), "49 bytes after the header, which promises 48"),
        (npy(FINE.replace("4, 3", "4000000000, 4000000000"), bytes(48)), "promises"),
        (npy(FINE.replace("4, 3", "-4, -3"), bytes(48)), "is no array"),
        (npy(FINE.replace("4, 3", f"{10**30}, 0")), "is no array"),
        (npy(FINE.replace("4, 3", "1, " * 20), bytes(4)), "is no array"),
        (npy(FINE.replace("'<f4'", "'|S0'")), "is no array"),
        (npy(FINE.replace("'<f4'", "'|O'"), pickle.dumps(X)), "no objects"),
        (npy(FINE.replace("'<f4'", "[('a', '<f4')]"), bytes(48)), "no objects"),
        (npy(FINE.replace("'<f4'", "[('a', '|O')]"), bytes(96)), "no objects"),
        (npy(FINE.replace("'<f4'", "'|V4'"), bytes(48)), "no objects"),
        (npy(FINE.replace("'<f4'", "'<c8'"), bytes(96)), "no objects"),
        (npy(FINE.replace("'<f4'", "('<f4', (2,))"), bytes(96)), "x.npy"),
        (npy(FINE.replace("'<f4'", "'<M8[D]'"), bytes(96)), "no objects"),
        (npy("__import__('os').system('echo')"), "header"),
        (npy("(" * 5000), "header"),
        (npy("{" * 9000), "header"),
        (npy("[" * 50 + "]" * 50), "header"),
        (npy("'\n"), "header"),
        (npy("\x1b[2J\x00"), "header"),
        (npy(FINE + " " * 20_000, bytes(48)), "header"),
        (npy(FINE.replace("False", "'yes'"), bytes(48)), "header"),
        (npy(FINE.replace("4, 3", "4.0, 3"), bytes(48)), "header"),
        (npy(FINE.replace("'shape'", "'form'"), bytes(48)), "header"),
    ],
)
def test_headers_that_do_not_fit_are_refused(data, part, write):
    refused(lambda: load(write(data), labels=write(saved(Y), "y.npy")), part)


def test_headers_of_python_2_are_read(write):
    path = write(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 3L), }\n", X.tobytes()))
    np.testing.assert_array_equal(read_npy(path), X)
    wide = write(npy(FINE, X.tobytes(), b"\x02\x00"))
    np.testing.assert_array_equal(read_npy(wide), X)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_header_the_answer_is_an_array_or_a_refusal(tmp_path, data):
    base = bytearray(saved(X))
    for _ in range(data.draw(st.integers(1, 4))):
        base[data.draw(st.integers(6, 75))] = data.draw(st.integers(0, 255))
    (tmp_path / "x.npy").write_bytes(base)
    answers(lambda: read_npy(tmp_path / "x.npy"), np.ndarray)


def test_inputs_that_are_none_are_refused(write):
    labels = write(saved(Y), "y.npy")
    refused(lambda: load(write(saved(Y)), labels=labels), "expected real numbers, (N, F)")
    refused(lambda: load(write(saved(np.array([["a"]] * 4))), labels=labels), "expected real numbers")
    refused(lambda: load(write(saved(X[:0])), labels=labels), "0 inputs but 4 labels")
    refused(lambda: load(write(saved(X[:, :0])), labels=labels), "no examples")
    refused(lambda: load(write(saved(X))), "x.npy", "labels=")


@pytest.mark.parametrize("inputs", ["X", "x", "features", "images"])
@pytest.mark.parametrize("labels", ["y", "labels", "targets"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_under_its_usual_names(inputs, labels, save, tmp_path):
    save(tmp_path / "a.npz", **{inputs: X, labels: Y, "unread": np.ones(3)})
    data, test = load(tmp_path / "a.npz")
    assert test is None
    np.testing.assert_array_equal(data.inputs, X)
    np.testing.assert_array_equal(data.labels, Y)
    assert (data.name, data.class_names) == ("a.npz", ("0", "1", "2"))


def test_npz_with_class_names_and_with_splits(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=X, y=Y, class_names=np.array(["cat", "dog", "horse", "\x1b[1mcow"]))
    assert load(path)[0].class_names == ("cat", "dog", "horse", "\\x1b[1mcow")
    np.savez(path, x_train=X, y_train=Y[:, None], x_test=X[:2], y_test=np.array([[7], [1]]))
    train, test = load(path)
    assert (train.split, test.split) == ("train", "test")
    assert train.class_names == test.class_names == ("0", "1", "2", "7")
    np.testing.assert_array_equal(test.labels, [3, 1])


@pytest.mark.parametrize(
    ("contents", "part"),
    [
        ({"X": X}, "no labels"),
        ({"y": Y}, "no inputs"),
        ({}, "no inputs"),
        ({"X": X, "y": Y[:2]}, "4 inputs but 2 labels"),
        ({"X": X, "y": Y, "class_names": np.array(["a", "b"])}, "label 2 is not one of the 2 classes"),
        ({"X": X, "y": -Y, "class_names": np.array(["a", "b"])}, "label -2 is not one of the 2 classes"),
        ({"X": X, "y": Y, "class_names": np.array(["a", "b", "a"])}, "one class name twice"),
        ({"X": X, "y": Y, "class_names": np.arange(3)}, "class names must be text"),
        ({"X": X, "x": X, "y": Y}, "two members"),
        ({"X": X * np.nan, "y": Y}, "row 0, column 0"),
    ],
)
def test_npz_that_does_not_fit_is_refused(contents, part, tmp_path):
    np.savez(tmp_path / "a.npz", **contents)
    with open(tmp_path / "a.npz", "rb") as file:  # noqa: PTH123
        empty = not file.read(4).startswith(b"PK\x03\x04")
    refused(lambda: load(tmp_path / "a.npz"), "not known" if empty else part)


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_member_made_to_explode_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.npz", {"X.npy": npy(FINE, bytes(32 << 20)), "y.npy": saved(Y)})
    assert path.stat().st_size < 100_000
    refused(lambda: load(path), "which promises 48")
    refused(lambda: read_npz(path, max_bytes=1 << 20), "at most 1048576")
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("memory was asked for"))
    liar = FINE.replace("4, 3", "400000000, 3")
    refused(
        lambda: load(zipped(tmp_path / "b.npz", {"X.npy": npy(liar, b"abc"), "y.npy": saved(Y)})), "promises 4800000000"
    )


def test_a_member_that_claims_more_than_deflate_can_give_is_refused(tmp_path):
    path = zipped(tmp_path / "a.npz", {"X.npy": saved(X), "y.npy": saved(Y)})
    size = struct.pack("<I", len(saved(X)))
    data = path.read_bytes().replace(size, struct.pack("<I", 2_000_000_000))
    path.write_bytes(data)
    refused(lambda: load(path), "promise 2000000000")


@pytest.mark.parametrize("keep", [4, 30, 100, 200, -1, -22, -60])
def test_a_truncated_npz_is_refused(keep, tmp_path):
    path = zipped(tmp_path / "a.npz", {"X.npy": saved(X), "y.npy": saved(Y)})
    path.write_bytes(path.read_bytes()[:keep])
    refused(lambda: load(path), "a.npz: truncated or damaged")


def test_damage_and_encryption_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=X, y=Y)
    whole = path.read_bytes()
    at = whole.index(X.tobytes())
    path.write_bytes(whole[: at + 5] + b"\xff" + whole[at + 6 :])
    refused(lambda: load(path), "CRC")
    central = whole.index(b"PK\x01\x02")
    path.write_bytes(whole[: central + 8] + b"\x01" + whole[central + 9 :])
    refused(lambda: load(path), "encrypted")


def test_a_member_before_the_start_of_the_file_is_refused(tmp_path):
    path = zipped(tmp_path / "a.npz", {"X.npy": saved(X), "y.npy": saved(Y)})
    data = bytearray(path.read_bytes())
    end = data.index(b"PK\x05\x06") + 16  # the offset of the directory, from which those of the members are computed
    data[end : end + 4] = struct.pack("<I", struct.unpack("<I", data[end : end + 4])[0] + 10_000)
    path.write_bytes(data)
    refused(lambda: load(path), "a.npz: ")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_zip_the_answer_is_data_or_a_refusal(tmp_path, data):
    base = bytearray(zipped(tmp_path / "a.npz", {"X.npy": saved(X), "y.npy": saved(Y)}).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        base[data.draw(st.integers(4, len(base) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.npz").write_bytes(base)
    answers(lambda: load(tmp_path / "a.npz"), tuple)
