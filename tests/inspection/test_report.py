"""The report's page: its numbers, that names in it are inert, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import re

import numpy as np
import pytest
from PIL import Image

import softnll as sn
from softnll._inspection.calibration import reliability
from softnll._inspection.report.build import Report, as_data_uri, colour_ramp, render, weight_images
from softnll._inspection.report.charts import ticks

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "</title><script src=//example.org/x.js></script>",
    "\x1b[31m\u2028\u2029{{ 7 * 7 }}",
    "very long " * 40,
)


def make(names=tuple("abcdef"), *, N=300, images="colour", seed=0, title="made up"):
    """Return a report on random scores."""
    rng = np.random.default_rng(seed)
    C = len(names)
    targets = rng.integers(0, C, N)
    logits = rng.normal(size=(N, C))
    logits[np.arange(N), targets] += 1.5
    shape = {"colour": (8, 8, 3), "grey": (8, 8), None: None}[images]
    return Report(
        title=title,
        class_names=tuple(names),
        logits=logits,
        targets=targets,
        pixels=None if shape is None else rng.integers(0, 256, (N, *shape), dtype=np.uint8),
        history=tuple((i, 1.8 / i, 1 - 0.8 / i) for i in range(1, 60)),
        weight=None if shape is None else rng.normal(size=(C, math.prod(shape))),
        settings=(("C", "10"),),
    )


def text_of(page):
    """Return what is written on a page, without its marks."""
    body = page[page.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_numbers_are_softnlls():
    report = make()
    text = text_of(render(report))
    nll = sn.cross_entropy(report.logits, report.targets, reduction="none")
    right = report.logits.argmax(axis=1) == report.targets
    ece = reliability(sn.softmax(report.logits).max(axis=1), right).ece
    assert f"Right on {right.sum()} of 300" in text
    assert f"Accuracy {100 * right.mean():.2f} % chance 16.67 %" in text
    assert f"Mean NLL {nll.mean():.4f} nats chance ln 6 = 1.7918" in text
    assert f"Perplexity {math.exp(nll.mean()):.3f} chance 6" in text
    assert f"Calibration error {ece:.4f}" in text


def test_the_unhappiest_come_first_and_the_happiest_too():
    report = make()
    page = render(report)
    order = np.argsort(-sn.cross_entropy(report.logits, report.targets, reduction="none"), kind="stable")
    rows = [int(row) for row in re.findall(r'<span class="row">example (\d+)</span>', page)]
    assert rows == order[:24].tolist()
    happiest = [int(row) for row in re.findall(r'alt="Example (\d+),', page[page.index('id="happiest"') :])]
    assert happiest == order[::-1][:24].tolist()


def test_the_thumbnails_are_the_pixels():
    report = make(images="grey")
    page = render(report)
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="Example (\d+),', page)
    assert len(found) == 48
    for data, row in found:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), report.pixels[int(row)])


def test_the_confusions_add_up():
    report = make()
    page = render(report)
    cells = re.findall(r"<title>true (\w), predicted (\w): (\d+)</title>", page)
    assert sum(int(count) for _, _, count in cells) == 300
    right = sum(int(count) for true, predicted, count in cells if true == predicted)
    assert right == (report.logits.argmax(axis=1) == report.targets).sum()


@pytest.mark.parametrize("images", ["colour", "grey", None])
def test_names_are_text_whatever_they_hold(images):
    page = render(make(HOSTILE, images=images, title=HOSTILE[0]))
    assert "<script" not in page.lower()
    assert not re.search(r"<[^>]*\son\w+\s*=", re.sub(r'"[^"]*"', '""', page))
    assert "{{ 7 * 7 }}" in text_of(page)
    assert page.count("</style>") == 1
    assert not set("\x1b\u2028\u2029") & set(page)
    assert "&lt;script&gt;" in page


def test_the_policy_allows_the_style_by_its_hash_and_nothing_else():
    page = render(make())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in html.unescape(policy)
    assert "default-src 'none'" in html.unescape(policy)
    assert not re.search(r"\sstyle=", page)
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "url(" not in style
    assert "@import" not in style


def test_the_same_scores_give_the_same_page():
    assert render(make()) == render(make())


@pytest.mark.parametrize(
    "report",
    [
        Report("one row", ("a",), np.zeros((1, 1)), np.array([0])),
        Report("all right", ("a", "b"), np.array([[9.0, 0], [0, 9]]), np.array([0, 1])),
        Report("never", ("a", "b"), np.array([[0.0, -math.inf]] * 3), np.array([1, 0, 1])),
        Report("half", ("a", "b"), np.zeros((4, 2), np.float16), np.array([1, 0, 1, 0])),
        Report("no history", ("a", "b"), np.eye(2), np.array([1, 0]), interrupted=True),
        Report("one step", ("a", "b"), np.eye(2), np.array([1, 0]), history=((1, 0.5, 0.5),)),
        Report("ended at once", ("a", "b"), np.eye(2), np.array([1, 0]), history=((0, 0.7, 0.0), (1, 0.0, 1.0))),
    ],
    ids=lambda report: report.title,
)
def test_small_and_odd_reports(report):
    page = render(report)
    assert page.startswith("<!doctype html>")
    assert "nan" not in text_of(page).lower()


def test_many_classes_have_a_list_instead_of_a_matrix():
    page = render(make([f"c{i}" for i in range(100)], images=None))
    assert "Most frequent mistakes" in page
    assert "confusion-title" not in page


def test_the_colours_of_weights_are_symmetric_about_none():
    none, least, most = colour_ramp(np.array([0.0, -1.0, 1.0])).astype(int)
    assert none.tolist() == [247, 247, 247]
    assert (least.tolist(), most.tolist()) == ([8, 48, 107], [127, 39, 4])
    images = weight_images(np.array([[1.0, -2.0, 0.0, 2.0]]), (2, 2))
    assert images[0].shape == (2, 2, 3)
    assert np.array_equal(images[0][1, 0], none)
    assert np.array_equal(images[0][0, 1], least)
    colour = weight_images(np.array([[-2.0, 0.0, 2.0]]), (1, 1, 3))[0]
    assert colour.tolist() == [[[0, 128, 255]]]
    assert weight_images(np.zeros((1, 4)), (2, 2))[0].min() > 240


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 3)])
def test_an_image_survives_its_encoding(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = base64.b64decode(as_data_uri(pixels).partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (1, 23, [5, 10, 15, 20]), (0, 2.486, [0, 0.5, 1, 1.5, 2]), (0, 1, None)],
)
def test_ticks_are_round(low, high, expected):
    found = ticks(low, high)
    assert expected is None or found == expected
    assert low <= found[0] <= found[-1] <= high


def visit(browser, path, width, scheme):
    """Open a page; return it and everything it said, asked for and tried."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    messages = []
    page.on("console", lambda message: messages.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: messages.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: messages.append(f"request: {request.url[:60]}"))
    page.goto(path.as_uri())
    return page, [
        line for line in messages if not line.startswith(("request: data:", f"request: {path.as_uri()[:60]}"))
    ]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 1600])
@pytest.mark.parametrize("names", [tuple("0123456789"), HOSTILE], ids=["digits", "hostile"])
def test_in_a_browser(browser, tmp_path, width, scheme, names):
    path = tmp_path / "report.html"
    path.write_text(render(make(names, title=names[0])), encoding="utf-8")
    page, messages = visit(browser, path, width, scheme)
    try:
        assert messages == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.scripts.length") == 0
        assert page.title().startswith(names[0])
        # The style is in force: the policy's hash is that of the style as the browser sees it.
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[scheme]
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
        assert page.evaluate("document.querySelectorAll('main, header, footer, h1').length") == 4
        assert page.evaluate("[...document.querySelectorAll('svg[role=img]')].every(s => s.querySelector('title'))")
        # On paper it is dark on white, whatever the screen shows.
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        page.context.close()


@pytest.mark.browser
def test_this_test_would_notice_a_script_and_a_request(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><img src='https://example.invalid/x.png'><script>console.error(1)</script>")
    page, messages = visit(browser, path, 360, "light")
    page.context.close()
    assert any(line.startswith("request: https://example.invalid") for line in messages)
    assert "console: 1" in messages
