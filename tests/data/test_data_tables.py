"""Tables of text."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_files import answers, refused
from softnll.data import delimited, load


@pytest.fixture
def table(tmp_path):
    def write(text, name="iris.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "features", "names", "labels"),
    [
        ("1,2,a\n3,4,b\n", [[1, 2], [3, 4]], ("a", "b"), [0, 1]),
        ("p,q,kind\n1,2,b\n3,4,a\n", [[1, 2], [3, 4]], ("a", "b"), [1, 0]),
        ("p,label,q\n1,b,2\n3,a,4\n", [[1, 2], [3, 4]], ("a", "b"), [1, 0]),
        ("Class,p,q\nb,1,2\na,3,4\n", [[1, 2], [3, 4]], ("a", "b"), [1, 0]),
        ("y,target,q\n1,b,2\n3,a,4\n", [[1, 2], [3, 4]], ("a", "b"), [1, 0]),  # the surest name wins
        ("0,1,label\n1,2,b\n3,4,a\n", [[1, 2], [3, 4]], ("a", "b"), [1, 0]),  # columns named by numbers
        ("1,2,10\n3,4,9\n5,6,10\n", [[1, 2], [3, 4], [5, 6]], ("9", "10"), [1, 0, 1]),
        ("\ufeff1,2,a\r\n\r\n3,4e-1,b", [[1, 2], [3, 0.4]], ("a", "b"), [0, 1]),
        ('"1"," 2 ","a, ""b"""\n3,-4.5,c\n', [[1, 2], [3, -4.5]], ('a, "b"', "c"), [0, 1]),
        ("1,é\n2,ü\n", [[1], [2]], ("é", "ü"), [0, 1]),
    ],
)
def test_tables_with_and_without_a_header(text, features, names, labels, table):
    data, test = load(table(text))
    assert test is None
    np.testing.assert_array_equal(data.inputs, features)
    assert data.inputs.dtype == np.float64
    assert (data.class_names, data.labels.tolist()) == (names, labels)
    assert (data.name, data.split) == ("iris.csv", "all")


def test_tabs(table):
    assert load(table("1\t2\ta\n3\t4\tb\n", "iris.TSV"))[0].class_names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["an empty table"]),
        ("\n\n\n", ["an empty table"]),
        ("a,b,c\n", ["no examples"]),
        ("1\n2\n", ["one column, no features"]),
        ("1:2:a\n2:2:a\n", ["one column, no features"]),
        ("1,2,a\n3,b\n", ["line 2: 2 columns, expected 3"]),
        ("1,2,a\n\n3,4,5,b\n", ["line 3: 4 columns, expected 3"]),
        ("1,2,a\n3,x,b\n", ["line 2, column 2: 'x' is not a finite number"]),
        ("p,petal width,kind\n1,2,a\n3,,b\n", ["line 3, column 2 (petal width): '' is not"]),
        ("1,nan,a\n", ["line 1, column 2: 'nan' is not a finite number"]),
        ("1,2,a\n1,NaN,a\n", ["line 2, column 2: 'NaN'"]),
        ("1,2,a\ninf,2,a\n", ["line 2, column 1: 'inf'"]),
        ("1,2,a\n1e999,2,a\n", ["line 2, column 1: '1e999'"]),
        ("1,2,a\n1_0,2,a\n", ["line 2, column 1: '1_0'"]),
        ("1,2,a\n1,0x10,a\n", ["'0x10'"]),
        ("1,2,a\n3,4, \n", ["line 2, column 3: an empty label"]),
        ("1,2,a\n3,\x1b[2J\u202e,b\n", ["'\\\\x1b[2J\\\\u202e'"]),
        ("\x1b]0;x\x07,q,k\n3,z,b\n", ["line 2"]),
        ("1,2,a\n3,4\0,b\n", ["line 2"]),
        ('1,2,a\n3,"4,b\n5,6,c\n', ["line 3"]),
        ('1,2,a\n3,"4"x,b\n', ["line 2"]),
        ('1,2,"a"b\n', ["line 1: ',' expected after"]),
        ('1,2,"a\n', ["unexpected end of data"]),
        (b"1,2,a\n\xff\xfe,4,b\n", ["not UTF-8"]),
        ("1,2,a\n" + "9" * 200_000 + ",2,b\n", ["field"]),
        ("1,2," + "a" * 200_000 + "\n", ["field"]),
    ],
)
def test_tables_that_are_none_are_refused_with_their_place(text, parts, table):
    refused(lambda: load(table(text)), "iris.csv", *parts)


def test_a_line_without_an_end_is_refused_before_it_is_read_whole(table, monkeypatch):
    monkeypatch.setattr(delimited, "_MAX_LINE", 100)
    refused(lambda: load(table("1,2,a\n" + "1," * 500)), "line 2: more than 100 characters")


def test_the_limit_of_a_cell_does_not_rest_on_the_csv_module(table):
    before = csv.field_size_limit(1 << 30)
    try:
        refused(lambda: load(table("1,2," + "a" * 200_000 + "\n")), "line 1: a cell of more than 131072")
        assert csv.field_size_limit() == 1 << 30
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("name", ["labels.csv", "labels.npy"])
@pytest.mark.parametrize("header", ["", "label\n"])
def test_labels_of_another_file(name, header, table, tmp_path):
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, np.array(["b", "a"]))
    else:
        path.write_text(header + "b\na\n")
    data = load(table("1,2\n3,4\n"), labels=path)[0]
    np.testing.assert_array_equal(data.inputs, [[1, 2], [3, 4]])
    assert (data.class_names, data.labels.tolist()) == (("a", "b"), [1, 0])


def test_labels_in_one_column_of_several(table, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    labels = table("id,Label\n1,b\n2,a\n", "y.csv")
    assert load(tmp_path / "x.npy", labels=labels)[0].labels.tolist() == [1, 0]
    for text, part in [
        ("", "an empty table"),
        ("label\n", "no labels"),
        ("1,b\n2,a\n", "2 columns (no names), none called label"),
        ("id,label\n1,b\n2\n", "line 3: 1 column,"),
        ("label\na\n\nb\nc\n", "2 inputs but 3 labels"),
        ("label,id\na,1\n ,2\n", "line 3, column 1 (label): an empty label"),
    ]:
        refused(lambda: load(tmp_path / "x.npy", labels=table(text, "y.csv")), part)  # noqa: B023


def test_labels_given_twice_are_refused(table, tmp_path):
    np.save(tmp_path / "y.npy", np.array([0, 1]))
    refused(lambda: load(table("p,label\n1,2\n3,4\n"), labels=tmp_path / "y.npy"), "has a column of labels (label)")
    refused(lambda: load(table("1,3\n3,4\n5,6\n"), labels=tmp_path / "y.npy"), "3 inputs but 2 labels")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='01.,-e"\n\r\t\0 ax\x1b\u202e', max_size=40))
def test_whatever_the_text_the_answer_is_data_or_a_refusal(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, newline="")
    answers(lambda: load(tmp_path / "a.csv"), tuple)


@pytest.mark.parametrize("last", ["zero", "few", "pixel", "two"])
def test_images_without_a_header_whose_label_comes_first(tmp_path, last):
    rng = np.random.default_rng(0)
    labels, pixels = rng.integers(0, 10, 200), rng.integers(0, 256, (200, 64)) * (rng.random((200, 64)) > 0.7)
    pixels[:, -1] = {"zero": 0, "few": np.where(np.arange(200) == 7, 3, 0), "pixel": pixels[:, -1], "two": labels > 4}[
        last
    ]
    path = tmp_path / "images.csv"
    path.write_text("\n".join(",".join(map(str, [y, *x])) for y, x in zip(labels, pixels, strict=True)))
    data, _ = load(path)
    np.testing.assert_array_equal(data.labels, labels)
    np.testing.assert_array_equal(data.inputs, pixels)
    path.write_text("\n".join(",".join(map(str, [*x, y])) for y, x in zip(labels, pixels[:, ::-1], strict=True)))
    np.testing.assert_array_equal(load(path)[0].labels, labels)
