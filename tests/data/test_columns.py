"""Which column of a table is what, and training tables in the forms in which they are published."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from data_files import refused
from softnll.data import load
from softnll.data.column_names import family, label_rank, names_row, without_family
from softnll.data.columns import Choice, Column, decide
from softnll.data.headers import header_state

IRIS = load_iris(as_frame=True)
SPECIES = np.array(["setosa", "versicolor", "virginica"])[IRIS.target]
FRAME = IRIS.data.assign(species=SPECIES)
X = IRIS.data.to_numpy()
SHUFFLED = FRAME.sample(frac=1, random_state=0)


def text(frame, **options):
    return frame.to_csv(**options)


def numbers(table):
    return "".join(",".join(f"{x:.9g}" for x in row) + "\n" for row in table)


def quoted(frame, delimiter):
    """What R writes: names of rows without a header of their own in write.table."""
    rows = [f'"{k + 1}"{delimiter}' + delimiter.join(map(repr, row[:-1])) + f'{delimiter}"{row[-1]}"\n'
            for k, row in enumerate(frame.to_numpy().tolist())]  # fmt: skip
    head = delimiter.join(f'"{name}"' for name in frame.columns)
    return ('"",' if delimiter == "," else "") + head + "\n" + "".join(rows)


WINE, DIGITS, CANCER = load_wine(), load_digits(), load_breast_cancer()
BENIGN = np.array(["M", "B"])[CANCER.target]
IDS = np.random.default_rng(0).permutation(100_000)[: len(BENIGN)]
WDBC = pd.DataFrame(CANCER.data).assign(id=IDS, diagnosis=BENIGN, empty=np.nan)
WDBC = WDBC[["id", "diagnosis", *range(30), "empty"]].rename(columns={"empty": "Unnamed: 32"})
PIXELS = DIGITS.data.astype(int)

PUBLISHED = {
    "iris.csv": (text(FRAME, index=False), X, SPECIES, "label column: species; header: yes"),
    "iris with the index of pandas.csv": (text(FRAME), X, SPECIES, "ignored: index column 1 (no name)"),
    "iris shuffled.csv": (text(SHUFFLED), SHUFFLED.to_numpy()[:, :4], SHUFFLED.species, "ignored: index column 1"),
    "Iris of Kaggle.csv": (
        text(FRAME.assign(Id=range(1, 151))[["Id", *FRAME.columns]], index=False), X, SPECIES, "index column Id",
    ),
    "iris.data": (text(FRAME, index=False, header=False), X, SPECIES, "label column: 5; header: no"),
    "iris of write.csv.csv": (quoted(FRAME, ","), X, SPECIES, "index column 1 (no name)"),
    "iris of write.table.txt": (quoted(FRAME, " "), X, SPECIES, "index column 1 (no name)"),
    "iris in Europe.csv": (
        text(FRAME, index=False, sep=";", decimal=","), X, SPECIES, "label column: species; header: yes",
    ),
    "numbers as header.csv": (text(pd.DataFrame(np.c_[X, IRIS.target]), index=False), X, IRIS.target, "header: yes"),
    "numbers and an index.csv": (text(pd.DataFrame(np.c_[X, IRIS.target])), X, IRIS.target, "label column: 4; ignored"),
    "wine.data": (
        numbers(np.c_[WINE.target + 1, WINE.data]), WINE.data, WINE.target,
        "column 1 was taken for the labels; column 14 has 121 values in 178 rows, which looks like a measurement",
    ),
    "digits.csv.gz": (
        gzip.compress(numbers(np.c_[PIXELS, DIGITS.target]).encode()), PIXELS, DIGITS.target, "label column: 65",
    ),
    "mnist_train.csv": (
        numbers(np.c_[DIGITS.target, PIXELS, 0 * DIGITS.target]), np.c_[PIXELS, 0 * DIGITS.target], DIGITS.target,
        "label column: 1",
    ),
    "wdbc of Kaggle.csv": (
        text(WDBC, index=False), CANCER.data, BENIGN,
        "label column: diagnosis; ignored: index column id, empty column 'Unnamed: 32'",
    ),
    "wdbc.data": (
        text(WDBC.iloc[:, :-1], index=False, header=False), np.c_[IDS, CANCER.data], BENIGN,
        "label column: 2; header: no; column 1 differs in all rows and was taken for a feature",
    ),
    "churn.csv": (
        text(pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "churn": SPECIES == "setosa"}), index=False), X[:, :2],
        SPECIES == "setosa", "label column: churn",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_tables_as_they_are_published(name, tmp_path):
    content, features, labels, said = PUBLISHED[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data, test = load(tmp_path / name)
    assert test is None
    np.testing.assert_allclose(data.inputs, np.asarray(features, float), rtol=1e-8)
    np.testing.assert_array_equal(data.labels, np.unique(labels, return_inverse=True)[1])
    assert said in data.read


@pytest.mark.parametrize("index", [False, True])
def test_parquet_is_a_table_too(index, tmp_path):
    frame = SHUFFLED.assign(species=SHUFFLED.species.astype("category"))
    frame.to_parquet(tmp_path / "iris.parquet", index=index)
    data, _ = load(tmp_path / "iris.parquet")
    np.testing.assert_array_equal(data.inputs, SHUFFLED.to_numpy()[:, :4].astype(float))
    assert data.class_names == tuple(np.unique(SPECIES))
    assert ("__index_level_0__" in data.read) == index


def test_measurements_at_both_ends_are_no_labels(tmp_path):
    (tmp_path / "a.csv").write_text(numbers(X))
    refused(lambda: load(tmp_path / "a.csv"), "column 4 holds fractions, and so no label", "--label-column")
    refused(lambda: load(tmp_path / "a.csv", choice=Choice(label="3")), "label 1.4 (row 0) is not a whole number")


def test_the_choice_of_the_user_counts(tmp_path):
    FRAME.assign(note="x").to_csv(tmp_path / "a.csv", index=False)
    refused(lambda: load(tmp_path / "a.csv"), "column 6 (note): 'x' is not a finite number")
    data, _ = load(tmp_path / "a.csv", choice=Choice(drop=("note",)))
    np.testing.assert_array_equal(data.inputs, X)
    assert "ignored: dropped column note" in data.read


def column(name, **facts):
    return Column(name, facts.pop("kind", "number"), **facts)


COUNTS = {"whole": True, "distinct": 50, "high": 49.0, "order": "counting", "unique": True}
CLASSES = {"whole": True, "distinct": 2, "high": 1.0}


@pytest.mark.parametrize(
    ("name", "facts", "is_index"),
    [
        ("", {}, True),
        ("Unnamed: 0", COUNTS, True),
        ("Unnamed: 0.1", COUNTS | {"order": "permutation"}, True),
        ("__index_level_0__", {"kind": "word", "distinct": 9}, True),
        ("level_1", {"whole": True, "distinct": 5}, True),
        ("PassengerId", COUNTS | {"order": ""}, True),
        ("image_id", {"kind": "word", "distinct": 50, "unique": True}, True),
        ("id", {}, False),  # fractions: a class of this name
        ("anything", COUNTS, True),
        ("no", {"whole": True, "distinct": 3}, False),
        ("no", COUNTS | {"order": ""}, True),
        ("cat", {"whole": True, "distinct": 30}, False),
    ],
)
def test_columns_that_name_rows(name, facts, is_index):
    columns = [column(name, **facts), column("cat"), column("dog"), column("label", **CLASSES)]
    roles = decide(columns, 50, "scores", header=True)
    assert roles.index == ((0,) if is_index else ())
    assert roles.label == 3
    assert len(roles.values) == 3 - is_index


def test_a_column_without_a_name_is_an_index_only_where_it_stands_first():
    columns = [column("cat"), column(""), column("dog")]
    assert decide(columns, 50, "scores", header=True).index == ()
    assert decide(columns[1:], 50, "scores", header=True).index == (0,)
    assert decide([column(""), column("", **COUNTS), column("dog")], 50, "scores", header=True).index == (0, 1)


def test_names():
    assert label_rank("Label") == 0
    assert label_rank(" # True label") is not None
    assert label_rank("cat") is None
    assert names_row("class_id") == ""
    assert without_family(["prob_cat", "prob_dog"]) == ("cat", "dog")
    assert without_family(["cat", "prob_dog"]) == ("cat", "prob_dog")
    assert family(["prob_a", "prob_b", "logit_a", "logit_b"]) == ("", {})


@pytest.mark.parametrize(
    ("first", "body", "state"),
    [
        (["label"], [["cat"], ["dog"]], "yes"),
        (["y"], [["n"], ["y"]], "unlikely"),  # a label that occurs again
        (["species"], [["cat"], ["dog"]], "likely"),
        (["bird"], [["cat"], ["dog"]], "unlikely"),
        (["0"], [["3"], ["1"]], "unlikely"),
        (["7"], [["3"], ["1"]], "no"),
        (["30", "10", "20"], [["0.5", "0.25", "0.25"]] * 5, "likely"),
        (["1", "2", "3", "4", "5"], [["9", "8", "7", "6", "5"]], "likely"),
        (["", "0"], [["0", "3"], ["1", "4"]], "yes"),
        (["", "x"], [["1", "cat"], ["2", "dog"]], "yes"),
        (["a", "b"], [["1", "cat"], ["2", "dog"]], "yes"),
        (["5.1", "setosa"], [["4.9", "setosa"]], "no"),
        (["nan", "1.5"], [["0.5", "2.5"]], "no"),
    ],
)
def test_headers(first, body, state):
    found = header_state(first, body)
    assert found == state or (state == "unlikely" and found == "no")


def test_a_decision_that_leaves_nothing_is_refused():
    refused(
        lambda: decide([column("a", kind="other"), column("b")], 9, "labels"), "2 columns (a, b), none called label"
    )
