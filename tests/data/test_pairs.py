"""Scores and labels in the files that people have: which column is what, and what is said about it."""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pytest

from data_files import refused
from softnll.data.columns import Choice
from softnll.data.pairs import open_pair

N, C = 60, 4
RNG = np.random.default_rng(0)
L = RNG.normal(size=(N, C)).round(6) * 2.5
P = np.exp(L) / np.exp(L).sum(axis=1, keepdims=True)
Y = np.append([3, 0, 1, 2], RNG.integers(0, C, N - 4))
NAMES = np.array(["cat", "dog", "eel", "fox"])
WORDS = NAMES[Y]
D = pd.DataFrame(P, columns=NAMES)
SHUFFLED = RNG.permutation(1000)[:N]
LEVELS = pd.MultiIndex.from_arrays([np.arange(N) // 10, np.arange(N) % 10])


def prefixed(pattern, frame=D):
    return frame.rename(columns={name: pattern.format(name) for name in NAMES})


ONE_TABLE = {
    "label at the end": D.assign(label=WORDS),
    "file names first": D.assign(label=WORDS).set_axis([f"img_{k}.png" for k in range(N)]).reset_index(names="image"),
    "true and predicted": D.assign(y_true=Y, y_pred=P.argmax(1)),
    "prob_, confidence": prefixed("prob_{}").assign(y_true=WORDS, confidence=P.max(1)),
    "P(a), id": prefixed("P({})").assign(Class=Y, ID=SHUFFLED),
    "suffixes": prefixed("{} probability").assign(target=Y, weight=RNG.normal(size=N)),
    "caret": D.assign(pred=NAMES[P.argmax(1)], obs=WORDS, rowIndex=1 + RNG.permutation(N), Resample="Fold1"),
    "tidymodels": prefixed(".pred_{}").assign(**{".pred_class": NAMES[P.argmax(1)], "truth": WORDS}),
    "mlr": prefixed("prob.{}").assign(truth=WORDS, response=NAMES[P.argmax(1)]),
    "an unknown name, whole numbers": D.assign(Klasse=Y),
    "an unknown name, words": D.assign(Klasse=WORDS, split="test"),
    "a date": D.assign(label=WORDS, when=pd.Timestamp("2024-01-01")),
    "nullable": D.convert_dtypes().assign(label=pd.array(Y, dtype="Int8")),
    "categories": D.assign(label=pd.Categorical(WORDS, categories=NAMES[::-1])),
    "several levels": D.assign(label=Y).set_axis(LEVELS).reset_index(),
}


def check(pair, scores=P, labels=None):
    np.testing.assert_allclose(pair.rows.rows(slice(None)), scores, rtol=1e-6)
    wanted = WORDS if pair.labels.dtype.kind == "U" else Y
    np.testing.assert_array_equal(pair.labels, wanted if labels is None else labels)


@pytest.mark.parametrize("kind", ["csv", "csv with index", "parquet"])
@pytest.mark.parametrize("name", ONE_TABLE)
def test_one_table_holds_scores_and_labels(name, kind, tmp_path):
    path = tmp_path / f"a.{kind[:7].strip()}".replace(".csv wit", ".csv")
    frame = ONE_TABLE[name]
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=kind != "csv")
    for labels in (None, path):
        pair = open_pair(path, labels)
        check(pair)
        assert "label column: " in pair.stated[0]
        assert "4 scores" in pair.stated[0]


def lines(rows, delimiter=",", decimal="."):
    return "".join(delimiter.join(str(x).replace(".", decimal) for x in row) + "\n" for row in rows)


HEAD = "cat,dog,eel,fox\n"
TEXT = {
    "plain.csv": HEAD + lines(L),
    "no header.csv": lines(L),
    "bom.csv": "\ufeff" + HEAD + lines(L),
    "utf-16.csv": (HEAD + lines(L)).replace(",", "\t").encode("utf-16"),
    "carriage returns.csv": (HEAD + lines(L)).replace("\n", "\r\n"),
    "semicolons.csv": HEAD.replace(",", ";") + lines(L, ";"),
    "decimal commas.csv": HEAD.replace(",", ";") + lines(L, ";", ","),
    "tabs and decimal commas.tsv": HEAD.replace(",", "\t") + lines(L, "\t", ","),
    "quoted decimal commas.csv": HEAD + lines([[f'"{x}"' for x in row] for row in L], ",", ","),
    "bars.psv": HEAD.replace(",", "|") + lines(L, "|"),
    "blanks.txt": lines(L, " "),
    "blanks.csv": lines(L, "  "),
    "excel.csv": "sep=;\n" + HEAD.replace(",", ";") + lines(L, ";"),
    "savetxt with a header.csv": "# " + HEAD + lines(L),
    "comments.csv": "# my model\n# of today\n" + HEAD + lines(L[:9]) + "# epoch 2\n" + lines(L[9:]),
    "trailing commas.csv": HEAD.replace("\n", ",\n") + lines(L).replace("\n", ",\n"),
    "trailing commas below.csv": HEAD + lines(L).replace("\n", ",\n"),
    "empty rows.csv": HEAD + lines(L) + ",,,\n,,,\n",
    "numbers.csv": "0,1,2,3\n" + lines(L),
    "numbers from 1.csv": '"1","2","3","4"\n' + lines(L),
    "pandas.csv": ",0,1,2,3\n" + "".join(f"{k},{line}\n" for k, line in enumerate(lines(L).split())),
    "write.csv": '"","cat","dog","eel","fox"\n' + "".join(f'"{k + 1}",{x}\n' for k, x in enumerate(lines(L).split())),
    "write.table.txt": '"cat" "dog" "eel" "fox"\n' + lines([[f'"r{k}"', *row] for k, row in enumerate(L)], " "),
    "a.csv.gz": gzip.compress((HEAD + lines(L)).encode()),
    "a.tsv.bz2": bz2.compress((HEAD + lines(L)).replace(",", "\t").encode()),
    "a.txt.xz": lzma.compress((HEAD + lines(L)).encode()),
}  # fmt: skip
LABELS = {
    "words.csv": "\n".join(WORDS),
    "headed.csv": "species\n" + "\n".join(WORDS),
    "y_true.csv": "y_true\n" + lines(Y[:, None]),
    "unknown header.csv": "Kategorie\n" + "\n".join(WORDS),
    "savetxt.csv": "# label\n" + lines(Y[:, None]),
    "number as header.csv": "0\n" + lines(Y[:, None]),
    "whole floats.csv": "y\n" + "".join(f"{y}.0\n" for y in Y),
    "exponents.txt": "".join(f"{y:.18e}\n" for y in Y),
    "with an index.csv": ",0\n" + "".join(f"{k},{y}\n" for k, y in enumerate(Y)),
    "with ids.csv": "Id,Category\n" + "".join(f"{k},{word}\n" for k, word in enumerate(WORDS)),
    "with predictions.csv": "file,truth,prediction\n" + "".join(f"f{k},{word},cat\n" for k, word in enumerate(WORDS)),
    "write.csv": '"","x"\n' + "".join(f'"{k + 1}","{word}"\n' for k, word in enumerate(WORDS)),
    "write.table.txt": '"x"\n' + "".join(f'"{k + 1}" "{word}"\n' for k, word in enumerate(WORDS)),
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", TEXT)
def test_text_of_every_make(name, tmp_path):
    np.save(tmp_path / "y.npy", Y)
    pair = open_pair(write(tmp_path / name, TEXT[name]), tmp_path / "y.npy")
    check(pair, L)
    named = any(word in TEXT[name] for word in ("cat",)) if isinstance(TEXT[name], str) else True
    assert pair.class_names is None or not named or pair.class_names == tuple(NAMES)


@pytest.mark.parametrize("scores", ["plain.csv", "numbers.csv", "pandas.csv", "no header.csv", "npy"])
@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_make(name, scores, tmp_path):
    np.save(tmp_path / "s.npy", L)
    path = tmp_path / "s.npy" if scores == "npy" else write(tmp_path / "s.csv", TEXT[scores])
    check(open_pair(path, write(tmp_path / name, LABELS[name])), L)


def test_integers_below_a_header_of_numbers_need_the_count_of_labels(tmp_path):
    whole = np.rint(L * 10).astype(int)
    path = write(tmp_path / "s.csv", "0,1,2,3\n" + lines(whole))
    for labels, scores in ((Y, whole), (np.append(0, Y), np.vstack([[0, 1, 2, 3], whole]))):
        np.save(tmp_path / "y.npy", labels)
        check(open_pair(path, tmp_path / "y.npy"), scores, labels)
    check(open_pair(path, write(tmp_path / "y.csv", "0\n" + lines(Y[:, None]))), whole)
    refused(lambda: open_pair(path, needed=False), "line 1 (0, 1, 2, 3) may be a header or a row", "--no-header")
    for header, rows in ((True, N), (False, N + 1)):
        assert open_pair(path, needed=False, choice=Choice(header=header)).rows.shape == (rows, 4)


def test_rows_that_have_names_are_matched_by_them(tmp_path):
    scores, labels = pd.DataFrame(L, columns=NAMES, index=SHUFFLED), pd.Series(WORDS, SHUFFLED, name="species")
    scores.to_csv(tmp_path / "s.csv")
    more = pd.concat([labels, pd.Series("cat", sorted(set(range(1000)) - set(SHUFFLED)), name="species")])
    for other, said in ((labels, ""), (labels.sample(frac=1, random_state=1), "another order"), (more, "1000 rows")):
        other.to_csv(tmp_path / "y.csv")
        pair = open_pair(tmp_path / "s.csv", tmp_path / "y.csv")
        check(pair, L)
        assert said in " ".join(pair.guesses)
        assert bool(said) == bool(pair.guesses)
    labels.set_axis(SHUFFLED + 1).to_csv(tmp_path / "y.csv")
    assert "the names of the rows differ from row 0 on" in " ".join(
        open_pair(tmp_path / "s.csv", tmp_path / "y.csv").stated
    )


@pytest.mark.parametrize("write_to", ["to_csv", "to_parquet"])
def test_one_hot_columns_are_matched_by_name(write_to, tmp_path):
    write(tmp_path / "s.csv", TEXT["plain.csv"])
    hot = pd.get_dummies(pd.Series(WORDS))[NAMES[::-1]]
    getattr(hot, write_to)(tmp_path / "y.csv", index=False)
    check(open_pair(tmp_path / "s.csv", tmp_path / "y.csv"), L, np.eye(C)[Y])


@pytest.mark.parametrize("first", [False, True])
def test_whole_numbers_beside_fractions_without_a_header_are_labels(first, tmp_path):
    table = np.c_[Y, P] if first else np.c_[P, Y]
    np.savetxt(tmp_path / "a.csv", table, delimiter=",", fmt="%.9g")
    pair = open_pair(tmp_path / "a.csv")
    np.testing.assert_array_equal(pair.labels, Y)
    assert "taken for labels, not for scores" in pair.guesses[0]


def test_options_name_what_guessing_gets_wrong(tmp_path):
    D.assign(found=Y, noise=L[:, 0]).to_csv(tmp_path / "a.csv", index=False)
    for choice in (
        Choice(label="found", drop=("noise",)),
        Choice(label="5", drop=("6",)),
        Choice(label="found", scores=tuple(NAMES)),
        Choice(label="Found", scores=("1", "2", "3", "4")),
    ):
        check(open_pair(tmp_path / "a.csv", choice=choice))
    order = open_pair(tmp_path / "a.csv", choice=Choice(label="found", scores=("fox", "cat")))
    np.testing.assert_allclose(order.rows.rows(slice(None)), P[:, [3, 0]])
    assert order.class_names == ("fox", "cat")
    refused(
        lambda: open_pair(tmp_path / "a.csv", choice=Choice(label="none")), "no column 'none'", "cat, dog", "from 1"
    )
    refused(lambda: open_pair(tmp_path / "a.csv", choice=Choice(drop=("7",))), "no column '7'")
    refused(lambda: open_pair(tmp_path / "a.csv"), "no column of labels", "--label-column")


def test_class_names_that_could_be_a_labels_name_are_scores(tmp_path):
    for names in (["x", "y", "z"], ["class", "target", "other"]):
        frame = pd.DataFrame(P[:, :3], columns=names)
        frame.to_csv(tmp_path / "a.csv", index=False)
        assert open_pair(tmp_path / "a.csv", needed=False).class_names == tuple(names)
    pd.DataFrame(np.rint(L[:, :3] * 9).astype(int), columns=list("xyz")).to_csv(tmp_path / "a.csv", index=False)
    assert open_pair(tmp_path / "a.csv", needed=False).class_names == tuple("xyz")


def test_arrays_of_one_file(tmp_path):
    np.savez(tmp_path / "a.npz", logits=L, label_ids=Y)
    check(open_pair(tmp_path / "a.npz"), L)
    np.savez(tmp_path / "a.npz", logits=L)
    refused(lambda: open_pair(tmp_path / "a.npz"), "scores without labels")
    np.savez(tmp_path / "a.npz", labels=Y)
    refused(lambda: open_pair(tmp_path / "a.npz"), "holds labels; expected one array, or one called scores")


BROKEN = {
    "a word among numbers": (HEAD + lines(L[:3000]) + "1,2,x,4\n", "line 62, column 3 (eel): 'x' is not a number"),
    "an empty cell": (HEAD + lines(L) + "1,,3,4\n", "line 62, column 2 (dog): '' is not a number"),
    "a short row": (HEAD + lines(L) + "1,2,3\n", "line 62: 3 columns, expected 4"),
    "underscores": (HEAD + lines(L) + "1,2,3,4_0\n", "'4_0' is not a number"),
    "a class twice": ("cat,dog,dog\n1.5,2.5,3.5\n", "one class name twice"),
    "nothing": ("", "an empty table"),
    "nothing but a header": (HEAD, "no scores"),
    "nothing but words": ("a,b\nx,y\nx,z\n", "is not a number"),
    "a bomb": (gzip.compress(b"1,2\n" * 3000)[:-9], "truncated or damaged"),
    "no xz": (b"\xfd7zXZ\0nothing", "truncated or damaged"),
    "no bz2": (b"BZh9nothing at all", "truncated or damaged"),
    "latin-1": (HEAD.replace("cat", "K\xe4tze").encode("latin-1") + lines(L).encode(), "not UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_text_is_one_line(name, tmp_path):
    content, message = BROKEN[name]
    refused(lambda: open_pair(write(tmp_path / "a.csv", content), needed=False), "a.csv", message)


def test_decompressed_text_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("softnll.data.delimited._MAX_BYTES", 1000)
    write(tmp_path / "a.csv.gz", gzip.compress(b"1,2\n" * 300))
    refused(lambda: open_pair(tmp_path / "a.csv.gz", needed=False), "more than 1000 bytes of text")


def test_text_takes_little_memory(tmp_path):
    import tracemalloc  # noqa: PLC0415

    write(tmp_path / "a.csv", lines(np.tile(L, (300, 1)).round(3)))
    size = (tmp_path / "a.csv").stat().st_size
    tracemalloc.start()
    pair = open_pair(tmp_path / "a.csv", needed=False)
    assert pair.rows.shape == (300 * N, C)
    assert tracemalloc.get_traced_memory()[1] < 4 * size + (8 << 20)
    tracemalloc.stop()
