"""Fixtures of the tests of explanations."""

from __future__ import annotations

import pytest

import softnll as sn
from cases import SCORES, TRUE
from softnll._inspection.page.build import build


@pytest.fixture
def explained():
    """Return the explanation of three images, of a cat, a horse and a dog."""
    return sn.explain(SCORES, TRUE, class_names=["cat", "dog", "horse"])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(build(), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser, file):
    """Open the page, and close it; fail for whatever it says, asks for or throws."""
    opened, messages = [], []

    def _visit(hash_="#room=scores", width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.on("console", lambda message: messages.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: messages.append(f"error: {error}"))
        page.on("request", lambda request: messages.append(request.url[:80]))
        page.goto(file.as_uri() + hash_)
        opened.append(context)
        return page

    yield _visit
    for context in opened:
        context.close()
    assert [each for each in messages if not each.startswith(("data:", file.as_uri()[:80]))] == []
