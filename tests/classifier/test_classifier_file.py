"""Model files: what is written is read, and what `save` would not write is refused in one line."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from numpy.lib import format as npy
from sklearn.datasets import load_iris

import softnll as sn

X, Y = load_iris(return_X_y=True, as_frame=True)
OPTIONS = {"C": 0.5, "max_iter": 1000, "label_smoothing": 0.1}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def fit(y=Y, features=X, **options):
    return sn.SoftmaxClassifier(**OPTIONS | options).fit(features, y)


WORDS = np.array(["Setosa", "versicolor", "Žluťásek"])[Y]


@pytest.mark.parametrize(
    ("y", "options"),
    [
        (Y.to_numpy(), {}),
        (WORDS, {"class_weight": {"Setosa": 2.0, "versicolor": 0.5, "Žluťásek": 1}}),
        (WORDS.astype(object), {"class_weight": "balanced", "random_state": 3}),
        (Y.to_numpy() > 0, {"class_weight": {False: 2.0}}),
        (Y.to_numpy() / 1.0, {"class_weight": {0.0: 2.0}, "C": np.float32(0.5), "max_iter": np.int64(999)}),
        (np.eye(3)[Y], {"fit_intercept": False}),
    ],
)
@pytest.mark.parametrize("features", [X, X.to_numpy(np.float32)], ids=["frame", "float32"])
def test_what_is_written_is_read(path, y, options, features):
    model = fit(y, features, **options)
    model.save(path)
    again = sn.SoftmaxClassifier.load(path)
    assert again.get_params() == model.get_params()
    for name in ("coef_", "intercept_", "classes_"):
        mine, other = getattr(model, name), getattr(again, name)
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(again.predict(features), model.predict(features))
    assert (again.n_iter_, again.n_features_in_) == (model.n_iter_, model.n_features_in_)
    assert list(getattr(again, "feature_names_in_", [])) == list(getattr(model, "feature_names_in_", []))
    if np.ndim(y) == 1:
        again.partial_fit(features, y) if options.get("class_weight") != "balanced" else again.fit(features, y)


def test_equal_models_are_equal_bytes_and_plain_numpy_reads_them(path, tmp_path):
    fit().save(path)
    fit().save(tmp_path / "again.npz")
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["coef"], fit().coef_)
        assert json.loads(arrays["about"].tobytes())["version"] == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again.npz", "model.npz"]


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    model = fit()
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        fit(C=2.0).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_a_file_does_not_hold_is_refused(path):
    for change in ({"random_state": np.random.RandomState(0)}, {"random_state": object()}):
        with pytest.raises(TypeError, match="random_state is a"):
            fit(**change).save(path)
    model = fit()
    model.classes_ = np.array([1, "a", None], object)
    with pytest.raises(TypeError, match="not text"):
        model.save(path)
    model.classes_ = np.array(["a", "b\0", "c"], object)
    with pytest.raises(TypeError, match="zero character"):
        model.save(path)
    assert not path.exists()


def members(path):
    """Return the members' bytes."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def as_npy(array, **options):
    stream = io.BytesIO()
    npy.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def header(description):
    """Return an .npy header of version 1.0 that says what it likes."""
    text = description.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def about(**change):
    def replace(content):
        old = json.loads(content["about.npy"][128:] if len(content["about.npy"]) > 128 else b"{}")
        content["about.npy"] = as_npy(np.frombuffer(json.dumps(old | change).encode(), np.uint8))

    return replace


def put(name, data):
    def replace(content):
        content[f"{name}.npy"] = data() if callable(data) else data

    return replace


def array(name, value):
    return put(name, lambda: as_npy(value))


def objects():
    return as_npy(np.array([{}, {}, {}], object), allow_pickle=True)


F8 = "{'descr': '<f8', 'fortran_order': %s, 'shape': %s, }"

HOSTILE = {
    "no coef": (lambda content: content.pop("coef.npy"), "members"),
    "one more": (put("more", b""), "members"),
    "a path": (lambda content: content.update({"../coef.npy": b""}), "members"),
    "objects": (put("classes", objects), "holds object"),
    "objects in coef": (put("coef", objects), "holds object"),
    "a huge shape": (
        put("coef", header(F8 % (False, "(3, 1 << 60)".replace("1 << 60", str(1 << 60))))),
        "takes another",
    ),
    "a shape that overflows": (put("coef", header(F8 % (False, f"({1 << 40}, {1 << 40})"))), "takes another"),
    "a negative shape": (put("coef", header(F8 % (False, "(-3, -4)"))), "shape"),
    "empty items": (put("classes", header("{'descr': '<U0', 'fortran_order': False, 'shape': (3,), }")), "is no array"),
    "a header that is code": (put("coef", header("__import__('os').abort()")), "[Hh]eader|malformed"),
    "a header too deep": (put("coef", header("(" * 100)), "."),
    "no array": (put("coef", b"hello"), "."),
    "an empty member": (put("coef", b""), "."),
    "version 3": (put("coef", lambda: as_npy(np.zeros((3, 4)), version=(3, 0))), "version 1.0"),
    "Fortran": (array("coef", np.zeros((4, 3)).T), "shape"),
    "a longer member": (put("coef", lambda: as_npy(np.zeros((3, 4))) + b"x"), "takes another"),
    "complex": (array("coef", np.zeros((3, 4), complex)), "holds complex"),
    "half": (array("coef", np.zeros((3, 4), np.float16)), "float16"),
    "NaN": (array("coef", np.full((3, 4), np.nan)), "not finite"),
    "too few classes": (array("classes", np.arange(2)), "do not fit"),
    "one class": (
        lambda content: [
            array("classes", np.arange(1))(content),
            array("coef", np.zeros((1, 4)))(content),
            array("intercept", np.zeros(1))(content),
        ],
        "do not fit",
    ),
    "classes twice": (array("classes", np.zeros(3)), "twice"),
    "records": (array("classes", np.zeros(3, [("a", "f8")])), "holds"),
    "too few names": (array("feature_names", np.array(["a", "b"])), "2 feature names for 4"),
    "another version": (about(version=2), "version is 2"),
    "no version": (about(version=None), "version is None"),
    "another format": (about(format="pickle"), "does not say"),
    "no JSON": (array("about", np.zeros(3, np.uint8)), "."),
    "not UTF-8": (array("about", np.full(3, 255, np.uint8)), "."),
    "deep JSON": (array("about", np.frombuffer(b"[" * 100_000, np.uint8)), "."),
    "a list": (array("about", np.frombuffer(b"[]", np.uint8)), "does not say"),
    "unknown parameters": (about(parameters={"code": 1}), "code"),
    "a parameter out of range": (about(parameters={"C": -1}), "C is -1"),
    "a parameter of another type": (about(parameters={"C": "1"}), "C is '1'"),
    "a parameter that is a list": (about(parameters={"class_weight": [1, 2]}), "."),
    "a class weight without hash": (about(parameters={"class_weight": [[[1], 2]]}), "."),
    "no iterations": (about(n_iter="x"), "n_iter"),
    "a bool for a number": (about(n_iter=True), "n_iter"),
    "a negative weight": (about(weight_seen=-1.0), "out of range"),
    "objects that are numbers": (about(object_classes=True), "text"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(path, case):
    change, match = HOSTILE[case]
    fit(features=X.to_numpy()).save(path)
    sn.SoftmaxClassifier.load(path)
    content = members(path)
    change(content)
    pack(path, content)
    with pytest.raises(ValueError, match=match) as caught:
        sn.SoftmaxClassifier.load(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_damaged_and_oversized_files_are_refused(path):
    fit().save(path)
    whole = path.read_bytes()
    for size in (*range(0, 200, 20), *range(200, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a model"):
            sn.SoftmaxClassifier.load(path)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="max_bytes"):
        sn.SoftmaxClassifier.load(path, max_bytes=len(whole) - 1)
    assert sn.SoftmaxClassifier.load(path, max_bytes=len(whole)).n_features_in_ == 4


def test_flipped_bits_are_refused_or_harmless(path):
    model = fit()
    model.save(path)
    whole = bytearray(path.read_bytes())
    for position in range(0, len(whole), 3):
        path.write_bytes(bytes(whole[:position]) + bytes([whole[position] ^ 0x10]) + bytes(whole[position + 1 :]))
        # Nothing but ValueError may come out; where a bit does not matter (a date), the model is the same.
        with suppress(ValueError):
            np.testing.assert_array_equal(sn.SoftmaxClassifier.load(path).coef_, model.coef_)


def test_bombs_take_no_memory(path):
    fit().save(path)
    content = members(path)
    content["coef.npy"] = header(F8 % (False, "(3, 4000000)")) + bytes(3 * 4_000_000 * 8)
    pack(path, content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        sn.SoftmaxClassifier.load(path)


def test_a_file_holds_nothing_but_the_model(path):
    fit().save(path)
    path.write_bytes(bytes(100_000) + path.read_bytes())  # to a zip reader, a zip behind something else
    with pytest.raises(ValueError, match="its members promise"):
        sn.SoftmaxClassifier.load(path)


def test_a_missing_file_is_an_os_error(path):
    with pytest.raises(FileNotFoundError):
        sn.SoftmaxClassifier.load(path)
