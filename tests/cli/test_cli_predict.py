"""``softnll train`` on tables as people have them, and ``softnll predict``."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest

import softnll as sn
from command_line import in_process, one_line, refused
from softnll._classifier.recipe import ColumnRecipe, FeatureRecipe


@pytest.fixture
def call(capsys, monkeypatch):
    return in_process(capsys, monkeypatch)


def people(N=240, seed=0):
    """Return a table of numbers with empty cells, words, truth values, a name and a constant, and the label."""
    rng = np.random.default_rng(seed)
    survived = rng.integers(0, 2, N)
    age = rng.normal(40, 10, N) - 15 * survived
    age[rng.random(N) < 0.2] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "sex": np.where(rng.random(N) < 0.2 + 0.6 * survived, "female", "male"),
            "deck": np.where(rng.random(N) < 0.3, None, rng.choice(list("ABC"), N)),
            "alone": rng.random(N) < 0.5,
            "name": [f"passenger {k:04}" for k in rng.permutation(N)],
            "ship": 1.0,
            "survived": np.where(survived, "yes", "no"),
        }
    )


FORMS = {
    "people.csv": lambda frame, path: frame.to_csv(path, index=False),
    "people.csv.gz": lambda frame, path: frame.to_csv(path),  # with its index
    "people.parquet": lambda frame, path: frame.astype(
        {"sex": "category", "deck": "category", "age": "Float64", "survived": "category"}
    ).to_parquet(path),
    "people.tsv": lambda frame, path: frame.to_csv(path, sep="\t", index=False),
}


@pytest.mark.parametrize("name", FORMS)
def test_words_and_empty_cells_are_features(call, tmp_path, name):
    frame, path, out = people(), tmp_path / name, tmp_path / "out"
    FORMS[name](frame, path)
    code, text, err = call("train", path, "--out", out, "--json", "--label-column", "survived")
    assert code == 0, err
    facts = json.loads(text)
    assert facts["test"]["accuracy"] > 0.7
    assert any("empty cells of age become its median" in note for note in facts["read"])
    assert any("name" in note for note in facts["read"])
    model = sn.SoftmaxClassifier.load(out / "model.npz")
    names = [name for column in model.recipe_.columns for name in column.feature_names()]
    assert [each for each in names if each.partition("=")[0] != "alone"] == [
        "age", "sex=female", "sex=male", "deck=", "deck=A", "deck=B", "deck=C", "ship"
    ]  # fmt: skip
    assert model.recipe_.class_names == ("no", "yes")
    # What is written is what the model gives: no label, other order, an unknown word, an empty cell.
    new = people(30, seed=1).drop(columns="survived").iloc[:, ::-1]
    new.loc[0, "sex"], new.loc[1, "age"] = "?", np.nan
    new.to_csv(tmp_path / "new.csv", index=False)
    code, text, err = call("predict", out, tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert code == 0, err
    p = pd.read_csv(tmp_path / "p.csv")
    assert list(p.columns) == ["no", "yes"]
    np.testing.assert_allclose(p.sum(axis=1), 1)
    sex = np.array([[each == "female", each == "male"] for each in new["sex"]], float)
    deck = np.array([[each is None or each != each] + [each == c for c in "ABC"] for each in new["deck"]], float)  # noqa: PLR0124
    fill = model.recipe_.columns[0].fill
    alone = np.array([[not each, each] for each in new["alone"]], float)
    blocks = {"age": new["age"].fillna(fill).to_numpy()[:, None], "sex": sex, "deck": deck, "alone": alone}
    X = np.hstack([blocks.get(column.name, np.ones((30, 1))) for column in model.recipe_.columns])
    np.testing.assert_allclose(p.to_numpy(), model.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".npy", ".parquet"])
def test_the_probabilities_of_images_are_the_models(call, tmp_path, ending):
    rng = np.random.default_rng(0)
    images, y = rng.integers(0, 256, (60, 3, 4), dtype=np.uint8), np.arange(60) % 3
    images[np.arange(60), 0, y] = 255
    np.savez(tmp_path / "data.npz", X=images, y=y)
    np.save(tmp_path / "new.npy", images[:7])
    assert call("train", tmp_path / "data.npz", "--out", tmp_path / "out")[0] == 0
    path = tmp_path / f"p{ending}"
    code, text, err = call("predict", tmp_path / "out" / "model.npz", tmp_path / "new.npy", "--out", path, "--json")
    assert code == 0, err
    facts = json.loads(text)
    read = {".csv": pd.read_csv, ".npy": np.load, ".parquet": pd.read_parquet}
    p = np.asarray((read.get(ending) or (lambda path: pd.read_csv(path, sep="\t")))(path))
    model = sn.SoftmaxClassifier.load(tmp_path / "out" / "model.npz")
    np.testing.assert_allclose(p, model.predict_proba(images[:7].reshape(7, -1) / np.float32(255)), rtol=1e-5)
    assert facts["rows"] == sum(facts["predicted"]) == 7
    assert facts["classes"] == ["0", "1", "2"]


def test_a_report_reads_the_probabilities(call, tmp_path):
    people().to_csv(tmp_path / "people.csv", index=False)
    assert call("train", tmp_path / "people.csv", "--out", tmp_path / "out")[0] == 0
    assert call("predict", tmp_path / "out", tmp_path / "people.csv", "--out", tmp_path / "p.csv")[0] == 0
    code, text, err = call("diagnose", tmp_path / "p.csv", tmp_path / "people.csv", "--json")
    assert code == 0, err
    assert json.loads(text)["classes"] == 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda t: (t / "new.csv").write_text("age,sex\n3,male\n") and t / "new.csv", "lacks"),
        (lambda t: (t / "new.csv").write_text(f"{HEADER}\nold,male,A,true,1\n2,male,A,true,1\n3,male,B,true,1\n")
         and t / "new.csv", "'old' is not a finite number"),
        (lambda t: (t / "new.csv").write_text(f"{HEADER}\n") and t / "new.csv", "no examples"),
        (lambda t: t / "nowhere.csv", "nowhere.csv"),
        (lambda t: np.save(t / "new.npy", np.zeros((3, 4))) or t / "new.npy", "trained on a table"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_the_model_are_one_line(call, tmp_path, make, says):
    people().drop(columns="name").to_csv(tmp_path / "people.csv", index=False)
    assert call("train", tmp_path / "people.csv", "--out", tmp_path / "out")[0] == 0
    refused(call("predict", tmp_path / "out", make(tmp_path), "--out", tmp_path / "p.csv"), says)
    assert not (tmp_path / "p.csv").exists()


HEADER = "age,sex,deck,alone,ship"


def test_models_that_are_none_are_one_line(call, tmp_path):
    (tmp_path / "model.npz").write_bytes(b"PK\x03\x04 no model")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    refused(call("predict", tmp_path / "model.npz", tmp_path / "x.csv", "--out", tmp_path / "p.csv"), "model.npz")
    refused(call("predict", tmp_path / "model.npz", tmp_path / "x.csv", "--out", tmp_path / "p.xlsx"), ".parquet")


def test_one_class_names_the_column_its_value_and_the_option(call, tmp_path):
    rows = "\n".join(f"{k % 10},{k / 7:.3f},7" for k in range(60))
    (tmp_path / "one.csv").write_text(f"digit,ink,edge\n{rows}\n")
    code, out, err = call("train", tmp_path / "one.csv", "--label-column", "edge", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    one_line(err, "'edge'", "'7'", "--label-column")
    assert call("train", tmp_path / "one.csv", "--label-column", "digit", "--out", tmp_path / "out")[0] == 0


def test_a_column_of_text_that_differs_in_most_rows_is_left_out_and_said(call, tmp_path):
    frame = people()[["age", "name", "survived"]]
    frame.loc[frame.index[:40], "name"] = "unknown"  # else it would be the index
    frame.to_csv(tmp_path / "t.csv", index=False)
    code, out, _ = call("train", tmp_path / "t.csv", "--out", tmp_path / "out", "--json", "--label-column", "survived")
    assert code == 0
    assert any(note.startswith("left out: name (") for note in json.loads(out)["read"])


def test_a_table_takes_its_labels_from_another_file(call, tmp_path):
    frame = people()
    frame[["age", "sex"]].to_csv(tmp_path / "X.csv", index=False)
    frame[["survived"]].to_csv(tmp_path / "y.csv", index=False)
    options = ("--labels", tmp_path / "y.csv", "--out", tmp_path / "out")
    code, out, err = call("train", tmp_path / "X.csv", *options, "--json")
    assert code == 0, err
    assert json.loads(out)["test"]["accuracy"] > 0.7
    frame[["survived"]].iloc[1:].to_csv(tmp_path / "y.csv", index=False)
    refused(call("train", tmp_path / "X.csv", *options), "240 rows but 239 labels")
    frame.rename(columns={"survived": "label"}).to_csv(tmp_path / "X.csv", index=False)
    refused(call("train", tmp_path / "X.csv", *options), "has a column of labels (label)", "--labels")


def test_numbers_among_which_a_word_stands_are_refused_with_their_line(call, tmp_path):
    text = "a,b,label\n" + "".join(f"{k},{k % 7},{'xy'[k % 2]}\n" for k in range(40))
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text.replace("\n5,5,", "\n5,five,"))
    refused(call("train", tmp_path / "t.csv.gz", "--out", tmp_path / "out"), "line 7", "five")


def test_a_recipe_survives_the_file_and_a_strange_one_is_refused():
    recipe = FeatureRecipe(("a", "b"), (ColumnRecipe("x", 1.5), ColumnRecipe("w", 0.0, ("", "é"))), label="y")
    plain = json.loads(json.dumps(recipe.to_plain()))
    assert FeatureRecipe.from_plain(plain, 2, 3) == recipe
    bad = [{}, None, [], plain | {"columns": [[1, 2, 3]]}, plain | {"scale": 0.0}, plain | {"shape": [1, "x"]}]
    for each in bad:
        with pytest.raises(ValueError, match="recipe"):
            FeatureRecipe.from_plain(each, 2, 3)
    with pytest.raises(ValueError, match="does not fit"):
        FeatureRecipe.from_plain(plain, 2, 4)
