"""Labels of every type as columns: by name, by value, and never by alphabet in silence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import softnll as sn
from softnll._inspection.diagnose.read_labels import as_classes, as_numbers
from softnll.data.class_labels import by_name, by_sorted_value, informative, whole_numbers

N, C = 400, 4
RNG = np.random.default_rng(0)
L = RNG.normal(size=(N, C)) * 2.5
Y = (L + RNG.gumbel(size=L.shape)).argmax(axis=1)
NAMES = ("zebra", "cat", "ant", "fox")
WORDS = np.array(NAMES)[Y]
FRAME = pd.DataFrame(L, columns=NAMES)


def read(labels, names=None, shape=(N, C)):
    y, found = as_classes(labels, shape, names)
    return y.tolist(), [each.code for each in found if each.severity != "note"]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4", ">u2"])
def test_every_type_of_integers(dtype):
    assert read(Y.astype(dtype)) == (Y.tolist(), [])
    assert sn.diagnose(L, Y.astype(dtype)) == []
    ignored = np.where(np.arange(N) < 9, -100, Y)
    assert read(ignored.astype(dtype)) == (ignored.tolist(), [])  # 156, 65436, ... where the type has no sign
    assert [each.code for each in sn.diagnose(L, ignored.astype(dtype))] == ["labels-ignored"]


ONE_TO_ONE = {
    "objects": Y.astype(object),
    "whole floats": Y.astype(np.float32),
    "numbers as text": [f"{y}.0" for y in Y],
    "exponents": [f"{y}e0" for y in Y],
    "signs and blanks": [f" +{y} " for y in Y],
    "decimal commas": [f"{y},0" for y in Y],
    "bytes": np.array([str(y).encode() for y in Y]),
    "a column": Y[:, None],
    "a row": Y[None, :],
    "one-hot": np.eye(C, dtype=np.uint8)[Y],
    "a tensor": torch.tensor(Y, dtype=torch.uint8),
    "nullable": pd.Series(Y, dtype="Int8"),
    "Arrow": pd.Series(Y, dtype="int16[pyarrow]"),
    "a frame": pd.DataFrame({"label": Y}),
    "a frame with an index": pd.DataFrame({"id": range(N), "label": Y}),
}


@pytest.mark.parametrize("name", ONE_TO_ONE)
def test_numbers_in_any_spelling(name):
    y, codes = read(ONE_TO_ONE[name])
    assert y == Y.tolist()
    assert set(codes) <= {"labels-one-hot"}


BY_NAME = {
    "text": WORDS,
    "a list": WORDS.tolist(),
    "objects": WORDS.astype(object),
    "bytes": WORDS.astype("S"),
    "capitals": np.char.upper(WORDS),
    "blanks": np.char.add(WORDS, " "),
    "pandas' text": pd.Series(WORDS, dtype="string"),
    "Arrow text": pd.Series(WORDS, dtype="string[pyarrow]"),
    "categories": pd.Categorical(WORDS),
    "a series of categories": pd.Series(pd.Categorical(WORDS, categories=NAMES)),
    "one-hot with names": pd.get_dummies(pd.Series(WORDS)),
    "a frame": pd.DataFrame({"y": WORDS}),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_names_of_columns(name):
    y, codes = read(BY_NAME[name], NAMES)
    assert y == Y.tolist()
    assert set(codes) <= {"labels-one-hot"}
    assert {each.code for each in sn.diagnose(FRAME, BY_NAME[name])} <= {"labels-one-hot"}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["30", "10", "20", "40"], np.array([30, 10, 20, 40])[Y]),
        (["1", "0", "3", "2"], np.array([1, 0, 3, 2])[Y]),
        (["1", "2", "3", "4"], Y + 1),
        (["0", "1", "2", "3"], Y),
        (["V1", "V2", "V3", "V4"], Y),
        (["class_2", "class_1", "class_0", "class_3"], np.array([2, 1, 0, 3])[Y]),
        (["P(zebra)", "P(cat)", "P(ant)", "P(fox)"], WORDS),
        (["zebra_prob", "cat_prob", "ant_prob", "fox_prob"], WORDS),
        (["01", "02", "03", "10"], np.array([1, 2, 3, 10])[Y]),
    ],
)
def test_columns_named_by_numbers_or_with_more(names, labels):
    assert read(labels, tuple(names)) == (Y.tolist(), [])


@pytest.mark.parametrize("values", [[3, 5, 6, 8], [-3, -2, 7, 90], [10, 20, 30, 40], [-1, 1], [0, 255], [0, 7]])
def test_as_many_values_as_columns_are_read_in_their_order_and_said(values):
    y = Y % len(values)
    assert read(np.array(values)[y], shape=(N, len(values))) == (y.tolist(), ["labels-by-value"])


def test_counted_from_1():
    assert read(Y + 1) == (Y.tolist(), ["labels-by-value"])
    assert read(np.where(Y == 2, 4, Y + 1))[0] == np.where(Y == 2, 3, Y).tolist()  # no row has the third class
    assert sn.diagnose(L, Y + 1)[0].code == "labels-off-by-one"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.where(np.arange(N) == 7, 9, Y), "label 9 in row 7"),
        (np.where(Y == 3, 9, Y), "label 9 in row"),  # one class, or a mark: not for us to say
        (Y - 1, "label -1 in row"),
        (np.where(np.arange(N) == 7, np.nan, Y), "not whole numbers, the first is nan in row 7"),
        (pd.Series(Y, dtype="Int64").where(np.arange(N) != 7), "not whole numbers"),
        (np.where(np.arange(N) == 7, None, WORDS.astype(object)), "1 labels are missing, the first in row 7"),
        (np.where(Y == 3, "cat", WORDS), "3 different words.*4 columns without names: .*--classes"),
        ([*WORDS[:-1], "bird"], "5 different words"),
        (np.array(["2024-01-01"] * N, "M8[D]"), "dtype datetime64"),
        (Y[:-1], r"shape \(399,\)"),
    ],
)
def test_what_is_no_class_is_an_error(labels, message):
    with pytest.raises(ValueError, match=message):
        read(labels)


def test_alphabet_is_said():
    y, codes = read(WORDS)
    assert codes == ["labels-strings"]
    assert y == np.unique(WORDS, return_inverse=True)[1].tolist()
    for names in (("0", "1", "2", "3"), ("V1", "V2", "V3", "V4")):  # no names, but numbers
        assert read(WORDS, names)[1] == ["labels-strings"]
    with pytest.raises(ValueError, match="do not fit the class names"):
        read(WORDS, ("a", "b", "c", "d"))


@pytest.mark.parametrize("names", [None, ("no", "yes"), ("yes", "no"), ("1", "0"), ("False", "True")])
def test_booleans(names):
    truth = Y % 2 == 0
    column = 1 - truth if names in (("yes", "no"), ("1", "0")) else truth
    for labels in (
        truth,
        pd.Series(truth, dtype="boolean"),
        pd.Series(truth, dtype="bool[pyarrow]"),
        truth.astype(str),
    ):
        y, found = as_numbers(labels, (N, 2), names)
        np.testing.assert_array_equal(y, column)
        assert {each.severity for each in found} <= {"note"}


def test_parts():
    assert whole_numbers(["1.5"]) is None
    assert whole_numbers(["1e400"]) is None
    assert by_name(["Cat", "cat"], ["cat", "dog"]) is None  # two labels would be one
    assert by_name(["cat"], ["cat", "CAT"]).tolist() == [0]
    assert by_sorted_value(np.array([0, 1, 2]), 3) is None
    assert not informative(["class 0", "class 1"])
    assert informative(["cat", "dog"])
    assert informative(["3", "1"])


def test_explain_reads_frames_and_names():
    explained = sn.explain(FRAME, pd.Categorical(WORDS))
    assert explained.class_names == NAMES
    np.testing.assert_array_equal(explained.targets, Y)
    labelled = FRAME.assign(label=WORDS)
    np.testing.assert_array_equal(sn.explain(labelled).logits, L)
    assert [each.code for each in sn.diagnose(labelled.reset_index(), WORDS)] == []
