"""``softnll report`` as a user runs it, and its page in a real browser."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

import softnll as sn
from softnll.cli import main
from softnll.report.inspection import MOST_CLASSES

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
    assert "0.9366" in out
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
    "too few names": (lambda _: {"classes": "a"}, "1 class names"),
    "a folder for a page": (lambda f: {"out": f}, "a folder"),
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
    opened, heard = [], []

    def _visit(path, width, scheme):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: (heard.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: heard.append(request.url[:60]))
        page.goto(path.as_uri())
        opened.append(context)
        heard[:] = [each for each in heard if not each.startswith(("data:", path.as_uri()[:60]))]
        return page

    yield _visit
    for context in opened:
        context.close()
    assert heard == []


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
    assert column(4) == sorted(column(4), key=float, reverse=True)
    page.focus("table.sortable button:text('accuracy')")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(3) == sorted(column(3), key=float)
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

    monkeypatch.setattr("softnll.files._flush", fail)
    assert report(digits) == 1
    assert (digits / "r.html").read_text() == "older"
