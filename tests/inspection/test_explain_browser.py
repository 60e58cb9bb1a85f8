"""What a notebook shows of an explanation and a derivation, in a real browser, on light and on dark pages."""

from __future__ import annotations

import numpy as np
import pytest

import softnll as sn

pytestmark = pytest.mark.browser
HOSTILE = "<script>document.title = 'owned'</script>"


@pytest.fixture(params=[("#ffffff", "#111111"), ("#111111", "#dddddd")], ids=["light", "dark"])
def show(browser, request):
    """Show some HTML at a width, on a light or dark page; an error or warning of the browser fails the test."""
    pages, messages = [], []
    paper, ink = request.param

    def _show(shown, width=800):
        page = browser.new_page(viewport={"width": width, "height": 800})
        pages.append(page)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        style = f"background: {paper}; color: {ink}; margin: 8px"
        page.set_content(f'<!doctype html><title>mine</title><body style="{style}">{shown}</body>')
        return page

    yield _show
    for page in pages:
        page.close()
    assert messages == []


@pytest.fixture(scope="module")
def explained():
    scores = np.random.default_rng(0).normal(size=(3, 1000)) * 3
    return sn.explain(scores, [7, 8, 9], class_names=[HOSTILE, *(f"class {c}" for c in range(1, 1000))])


@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_never_scrolls_sideways(show, explained, width):
    for shown in (explained._repr_html_(), explained.derivation(0)._repr_html_()):
        page = show(shown, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_true_class_is_marked_and_ink_is_the_pages(show):
    explained = sn.explain([[5.0, 4, 2]], [0], class_names=["cat", "dog", HOSTILE])
    for shown in (explained._repr_html_(), explained.derivation(0)._repr_html_()):
        page = show(shown)
        ink = page.evaluate("getComputedStyle(document.body).color")
        colors = page.evaluate("[...document.querySelectorAll('td, th, p, mi')].map(e => getComputedStyle(e).color)")
        assert set(colors) == {ink}
        plain = page.evaluate("getComputedStyle(document.querySelector('td:not(.true)')).backgroundColor")
        marked = page.evaluate("getComputedStyle(document.querySelector('td.true')).backgroundColor")
        assert marked != plain
        assert page.title() == "mine"
        assert page.get_by_text("<script>").count() >= 1  # shortened, and text


def test_formulas_are_drawn_as_formulas(show):
    page = show(sn.explain([[5.0, 4, 2]], [0]).derivation(0)._repr_html_())
    fraction = page.evaluate(
        "(() => { const [a, b] = document.querySelector('mfrac').children;"
        " return a.getBoundingClientRect().bottom <= b.getBoundingClientRect().top + 1; })()"
    )
    assert fraction
    assert page.evaluate("[...document.querySelectorAll('math')].every(e => e.namespaceURI.endsWith('MathML'))")
