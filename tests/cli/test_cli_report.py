"""``softnll report`` as a user runs it, and its page in a real browser."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import precision_recall_fscore_support

import softnll as sn
from softnll._cli.main import main
from softnll._inspection.report.build import MOST_CLASSES

HOSTILE = ("<script>alert(1)</script>", "</style><b>", '"><img src=x onerror=alert(1)>', "a" * 300)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Return a folder of scores, labels and images of the digits that the classifier was not trained on."""
    folder = tmp_path_factory.mktemp("digits")
    X, y = load_digits(return_X_y=True)
    model = sn.SoftmaxClassifier(C=10.0).fit(X[:898] / 16, y[:898])
    np.save(folder / "scores.npy", model.decision_function(X[898:] / 16).astype(np.float32))
    np.save(folder / "labels.npy", y[898:])
    np.save(folder / "images.npy", np.rint(X[898:].reshape(-1, 8, 8) * 255 / 16).astype(np.uint8))
    return folder


def report(folder, *more, scores="scores.npy", labels="labels.npy"):
    return main(
        ["report", str(folder / scores), str(folder / labels), "--out", str(folder / "r.html"), *map(str, more)]
    )


def test_digits(digits, capsys):
    assert report(digits, "--images", digits / "images.npy") == 0
    out = capsys.readouterr().out
    assert "93.66 % are predicted right" in out
    assert "0.2481" in out
    assert "wrote" in out
    page = (digits / "r.html").read_text()
    assert page.count("data:image/png") >= 48
    assert "suspicious" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_json_is_the_summary(digits, capsys):
    assert report(digits, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    scores, labels = np.load(digits / "scores.npy"), np.load(digits / "labels.npy")
    assert figures["nll"] == pytest.approx(float(sn.cross_entropy(scores, labels)), rel=1e-6)
    assert figures["accuracy"] == pytest.approx(float((scores.argmax(1) == labels).mean()))
    assert figures["temperature"] == pytest.approx(sn.fit_temperature(scores, labels))
    assert set(figures) >= {"perplexity", "ece", "brier", "prior_nll", "chance_nll", "suspicious_labels"}


def _data(N, C, scale=2.5, seed=0):
    """Return logits and labels of a calibrated classifier."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, C)) * scale
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


LOGITS, LABELS = _data(800, 4)
P = sn.softmax(LOGITS)
TRUE_NLL = float(sn.cross_entropy(LOGITS, LABELS))


def _json(tmp_path, capsys, scores, labels, *more):
    """Return what ``report --json`` prints about arrays."""
    np.save(tmp_path / "scores.npy", scores)
    np.save(tmp_path / "labels.npy", labels)
    assert report(tmp_path, "--json", *more) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("scores", "labels", "kind", "codes"),
    [
        (LOGITS, LABELS, "logits", []),
        (P, LABELS, "probabilities", ["probabilities-as-logits"]),
        (P * 100, LABELS, "probabilities", ["probabilities-as-logits"]),
        (P + 1e-7, LABELS, "probabilities", ["probabilities-as-logits"]),
        (np.log2(P), LABELS, "log-probabilities", ["log-base-of-scores"]),
        (np.log10(P), LABELS, "log-probabilities", ["log-base-of-scores"]),
        (-np.log(P), LABELS, "log-probabilities", ["negative-log-probabilities"]),
        (np.log(P), LABELS, "log-probabilities", ["log-probabilities-as-logits"]),
        (1 - P, LABELS, "complements", ["complements-as-logits"]),
        (-LOGITS, LABELS, "negated", ["scores-negated"]),
        (P, LABELS + 1, "probabilities", ["labels-off-by-one", "probabilities-as-logits"]),
    ],
)
def test_scores_of_any_kind_give_the_same_figures(tmp_path, capsys, scores, labels, kind, codes):
    got = _json(tmp_path, capsys, scores, labels)
    assert got["nll"] == pytest.approx(TRUE_NLL, rel=1e-5)
    assert got["ece"] < 0.06
    assert got["score_kind"] == kind
    assert [each["code"] for each in got["findings"]] == codes
    page = (tmp_path / "r.html").read_text()
    assert page.index('id="findings"') < page.index('id="distribution"')
    assert all(f"<code>{code}</code>" in page for code in codes)
    assert ("The scores are logits." in page) == (kind == "logits")
    assert report(tmp_path) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(f"[{code}]" in out for code in codes)
    assert ("their logarithm is used" in out) == (kind == "probabilities")


def test_one_probability_a_row_is_that_of_class_1(tmp_path, capsys):
    logits, labels = _data(500, 2)
    got = _json(tmp_path, capsys, sn.softmax(logits)[:, 1], labels)
    assert (got["classes"], got["examples"]) == (2, 500)
    assert got["nll"] == pytest.approx(float(sn.cross_entropy(logits, labels)))
    assert "single-column" in {each["code"] for each in got["findings"]}


def test_every_suspicious_row_is_in_json_and_in_the_table(tmp_path, capsys):
    wrong = LABELS.copy()
    wrong[:60] = (wrong[:60] + 1) % 4
    wrong[300:310] = -100  # ignored rows keep their numbers, and those of the others
    got = _json(tmp_path, capsys, LOGITS, wrong, "--classes", "cat,dog,=1+1,horse")
    rows = got["suspicious_rows"]
    assert len(rows) == got["suspicious_labels"] > 40
    assert got["ignored_rows"] == 10
    assert got["nll"] == pytest.approx(float(sn.cross_entropy(LOGITS, wrong)))
    for each in rows:
        row, p = each["row"], P[each["row"]]
        assert (each["label"], each["prediction"]) == (wrong[row], p.argmax())
        assert each["margin"] == pytest.approx(p[wrong[row]] - p.max())
    assert [each["margin"] for each in rows] == sorted(each["margin"] for each in rows)
    with (tmp_path / "r-suspicious.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [int(line["row"]) for line in table] == [each["row"] for each in rows]
    assert {line["label_name"] for line in table} == {"cat", "dog", "'=1+1", "horse"}
    page = (tmp_path / "r.html").read_text()
    assert "r-suspicious.csv" in page
    assert "10 rows have a label that losses ignore" in page


def test_precision_recall_and_f1_are_scikit_learns(tmp_path, capsys):
    got = _json(tmp_path, capsys, LOGITS, LABELS)
    expected = precision_recall_fscore_support(LABELS, LOGITS.argmax(1))
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [each[name] for each in got["per_class"]] == pytest.approx(values.tolist())
    macro = precision_recall_fscore_support(LABELS, LOGITS.argmax(1), average="macro")
    assert [got["macro_precision"], got["macro_recall"], got["macro_f1"]] == pytest.approx(macro[:3])
    never = np.where(np.arange(4) == 2, -50.0, LOGITS)
    got = _json(tmp_path, capsys, never, np.where(LABELS == 3, 0, LABELS))
    labels = np.where(LABELS == 3, 0, LABELS)
    macro = precision_recall_fscore_support(labels, never.argmax(1), average="macro", zero_division=0)
    assert [got["macro_precision"], got["macro_recall"], got["macro_f1"]] == pytest.approx(macro[:3])
    assert got["per_class"][2]["precision"] is None
    assert got["per_class"][3]["recall"] is None


@pytest.mark.parametrize("N", [1, 2, 3, 40, 800])
def test_no_example_is_shown_twice(tmp_path, capsys, N):
    wrong = LABELS[:N].copy()
    wrong[: N // 8] = (wrong[: N // 8] + 1) % 4
    _json(tmp_path, capsys, LOGITS[:N], wrong)
    page = (tmp_path / "r.html").read_text()
    shown = re.findall(r"example (\d+)</span>", page)
    assert len(shown) == len(set(shown)) > 0


def test_the_contents_lead_to_every_section(tmp_path, capsys):
    _json(tmp_path, capsys, LOGITS, LABELS)
    page = (tmp_path / "r.html").read_text()
    linked = re.findall(r'<li><a href="#(\w+)">', page)
    assert linked == re.findall(r'<section aria-labelledby="(\w+)">', page)
    assert all(page.count(f'id="{each}"') == 1 for each in linked)


def write(folder, name, array):
    np.save(folder / name, array)
    return name


REFUSED = {
    "a label out of range": (lambda f: {"labels": write(f, "y.npy", np.array([0, 1, 5]))}, "label 5 in row 2"),
    "too few labels": (lambda f: {"labels": write(f, "y.npy", np.array([0, 1]))}, r"labels have shape \(2,\)"),
    "text for labels": (lambda f: {"labels": write(f, "y.npy", np.array(["a", "b", "c", "d"])[:3])}, None),
    "nan": (lambda f: {"scores": write(f, "x.npy", np.full((3, 2), np.nan))}, "row 0 of the scores has no softmax"),
    "images of another number": (lambda f: {"images": write(f, "i.npy", np.zeros((2, 4, 4), np.uint8))}, "images of"),
    "images of floats": (lambda f: {"images": write(f, "i.npy", np.zeros((3, 4, 4)))}, "expected uint8"),
    "too few names": (lambda _: {"classes": "a"}, "1 name"),
    "a folder for a page": (lambda f: {"out": f}, "a folder"),
    "predictions": (lambda f: {"scores": write(f, "x.npy", np.array([0, 1, 0]))}, "predicted classes"),
    "swapped": (lambda _: {"scores": "labels.npy", "labels": "scores.npy"}, "swapped"),
    "all ignored": (lambda f: {"labels": write(f, "y.npy", np.full(3, -100))}, "no row has a label that counts"),
    "no such file": (lambda _: {"scores": "none.npy"}, "no such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line(name, tmp_path, capsys):
    np.save(tmp_path / "scores.npy", np.zeros((3, 2)))
    np.save(tmp_path / "labels.npy", np.array([0, 1, 0]))
    (tmp_path / "report.html").write_text("older")
    change, message = REFUSED[name]
    given = change(tmp_path)
    command = ["report", tmp_path / given.get("scores", "scores.npy"), tmp_path / given.get("labels", "labels.npy")]
    command += ["--out", given.get("out", tmp_path / "report.html")]
    for option in ("images", "classes"):
        if option in given:
            command += [f"--{option}", tmp_path / given[option] if option == "images" else given[option]]
    code = main(list(map(str, command)))
    error = capsys.readouterr().err
    if message is None:  # three words for two classes
        message = "no classes"
    assert code == 2, error
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert (tmp_path / "report.html").read_text() == "older"


def test_many_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "scores.npy", rng.normal(size=(3000, 1000)).astype(np.float16))
    np.save(tmp_path / "labels.npy", rng.integers(0, 1000, 3000))
    assert report(tmp_path) == 0
    page = (tmp_path / "r.html").read_text()
    assert page.count('<th scope="row">class ') >= MOST_CLASSES
    assert "those that carry most of the loss" in page
    assert "confusion-title" not in page
    assert "above that of ignoring the scores" in page  # the scores are noise
    assert len(page) < 1 << 20
    assert "0.00" in capsys.readouterr().out


@pytest.fixture
def visit(browser):
    opened, messages = [], []

    def _visit(path, width, scheme):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: (messages.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: messages.append(request.url[:60]))
        page.goto(path.as_uri())
        opened.append(context)
        messages[:] = [each for each in messages if not each.startswith(("data:", path.as_uri()[:60]))]
        return page

    yield _visit
    for context in opened:
        context.close()
    assert messages == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_fits(digits, visit, width, scheme):
    assert report(digits, "--images", digits / "images.npy") == 0
    page = visit(digits / "r.html", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[scheme]
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.browser
def test_the_table_is_sorted_by_click_and_by_key(digits, visit):
    assert report(digits) == 0
    page = visit(digits / "r.html", 1280, "light")

    def column(k):
        return page.locator(f"table.sortable tbody tr td:nth-child({k})").all_inner_texts()

    page.click("table.sortable button:text('mean NLL')")
    assert column(6) == sorted(column(6), key=float, reverse=True)
    page.focus("table.sortable button:text('recall')")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(4) == sorted(column(4), key=float)
    assert page.locator("th[aria-sort]").count() == 1
    page.click("table.sortable button:text('class')")
    names = page.locator("table.sortable tbody th").all_inner_texts()
    assert names == sorted(names, reverse=True)


@pytest.mark.browser
def test_hostile_names_are_text(tmp_path, visit):
    np.save(tmp_path / "scores.npy", np.random.default_rng(0).normal(size=(60, 4)))
    np.save(tmp_path / "labels.npy", np.arange(60) % 4)
    (tmp_path / "names.txt").write_text("\n".join(HOSTILE))
    assert report(tmp_path, "--classes", tmp_path / "names.txt") == 0
    page = visit(tmp_path / "r.html", 360, "light")
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert "<script>" in page.locator("table.sortable").inner_text()


def test_a_page_is_written_whole(digits, monkeypatch):
    (digits / "r.html").write_text("older")

    def fail(*_):
        raise OSError(28, os.strerror(28), "r.html")

    monkeypatch.setattr("softnll.data.atomic._flush", fail)
    assert report(digits) == 1
    assert (digits / "r.html").read_text() == "older"


def table(folder, name="predictions.csv", **more):
    """Write a table of probabilities and labels; return its path."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3)) * 2
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    frame = pd.DataFrame(sn.softmax(logits), columns=["dog", "cat", "eel"])
    frame.assign(**{"label": np.array(["dog", "cat", "eel"])[y], **more}).to_csv(folder / name)
    return folder / name, logits, y


@pytest.mark.parametrize("twice", [False, True])
def test_one_table_of_scores_and_labels(twice, tmp_path, capsys):
    path, logits, y = table(tmp_path)
    assert main(["report", *map(str, [path] * (1 + twice)), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert (facts["classes"], facts["examples"]) == (3, 300)
    assert facts["accuracy"] == pytest.approx(float((logits.argmax(1) == y).mean()))
    said = "label column: label; 3 scores; ignored: index column 1 (no name); header: yes"
    assert said in err
    assert any(said in line for line in facts["read"])
    assert said in (tmp_path / "r.html").read_text()


def test_columns_by_option(tmp_path, capsys):
    path, *_ = table(tmp_path, noise=1.5, found=0)
    options = ["--label-column", "label", "--drop", "noise, found", "--header"]
    assert main(["report", str(path), "--out", str(tmp_path / "r.html"), "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 3
    options = ["--label-column", "label", "--score-columns", "2-4"]
    assert main(["report", str(path), "--out", str(tmp_path / "r.html"), "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 3
    assert main(["report", str(path), "--drop", "none", "--out", str(tmp_path / "r.html")]) == 2
    assert "no column 'none'; allowed: dog, cat, eel" in capsys.readouterr().err


def test_words_read_by_alphabet_are_said(digits, tmp_path, capsys):
    scores, labels = np.load(digits / "scores.npy"), np.load(digits / "labels.npy")
    np.save(tmp_path / "scores.npy", scores)
    words = np.array([f"kind {9 - y}" for y in labels])
    np.save(tmp_path / "labels.npy", words)
    assert report(tmp_path, "--json") == 0
    out, err = capsys.readouterr()
    assert "read by alphabet" in err
    assert "read by alphabet" in json.loads(out)["read"][-1]
    page = (tmp_path / "r.html").read_text()
    assert "read by alphabet" in page
    assert "kind 9" in page
    np.save(tmp_path / "labels.npy", np.where(labels == 3, "kind 0", words))
    assert report(tmp_path) == 2
    assert "class names (--classes)" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u4", "f4"])
def test_labels_of_every_type(digits, dtype, tmp_path, capsys):
    np.save(tmp_path / "scores.npy", np.load(digits / "scores.npy"))
    np.save(tmp_path / "labels.npy", np.load(digits / "labels.npy").astype(dtype))
    assert report(tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(0.9366, abs=1e-4)


def test_labels_of_mnists_format(digits, tmp_path, capsys):
    np.save(tmp_path / "scores.npy", np.load(digits / "scores.npy"))
    labels = np.load(digits / "labels.npy").astype(np.uint8)
    raw = b"\0\0\x08\x01" + len(labels).to_bytes(4, "big") + labels.tobytes()
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(raw)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(raw))
    for name in ("t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz"):
        assert report(tmp_path, "--json", labels=name) == 0
        assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(0.9366, abs=1e-4)


def test_page_escapes_the_name_that_it_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("softnll._inspection.page.build.build", lambda _site: "page")
    out = tmp_path / "a\x1b[31mb.html"
    assert main(["page", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "a\\x1b[31mb.html" in printed
    assert out.read_text() == "page"
