"""The documentation site builds without a warning, is complete, needs no network, and fits a phone."""

from __future__ import annotations

import fcntl
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

for each in ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "latex2mathml"):
    pytest.importorskip(each, reason="the site is built with softnll[docs]")

from softnll._inspection.page.build import PICTURE  # noqa: E402 - after the reasons to skip

inventory = pytest.importorskip("sphinx.util.inventory")

ROOT = Path(__file__).parents[2]
PUBLIC = ("softnll", "softnll.torch", "softnll.torch.parallel", "softnll.jax", "softnll.dask", "softnll.data")
COMMAND = "python -m sphinx -W --keep-going -c docs . build/site"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Return the folder of the built site: one build for all workers; whoever comes second finds it up to date."""
    shared = tmp_path_factory.getbasetemp().parent
    words = COMMAND.split()
    out = shared / Path(words.pop()).name
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, *words[1:], "-q", out], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-5000:]
    return out


def pages(site):
    return sorted(each for each in site.rglob("*.html") if "_static" not in each.parts)


def test_the_command_is_the_one_of_the_readme_and_of_ci():
    assert f"`{COMMAND}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert COMMAND in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_no_public_name_is_missing(site):
    found = inventory.InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    there = {name for kind, names in found.items() if kind.startswith("py:") for name in names}
    for module in PUBLIC:
        wanted = {f"{module}.{name}" for name in importlib.import_module(module).__all__}
        assert wanted <= there, sorted(wanted - there)


def test_the_interactive_page_links_to_pages_that_are_there(site):
    page = (site / "page.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="(\./[^"#]*)"', page)
    assert len(links) == 4
    for link in [*links, PICTURE]:
        assert (site / link).is_file(), link


def test_every_command_and_option_is_there(site):
    typer = pytest.importorskip("typer")
    text = re.sub(r"<[^>]*>", "", (site / "docs/reference/command-line.html").read_text(encoding="utf-8"))
    app = typer.main.get_command(importlib.import_module("softnll._cli.commands").app)
    for name, command in app.commands.items():
        assert f"softnll {name}" in text
        for parameter in command.params:
            if parameter.opts[0].startswith("--"):
                assert parameter.opts[0] in text, (name, parameter.opts)


def test_nothing_is_fetched_from_elsewhere(site):
    tags = "script|img|iframe|source|video|audio|embed|object|link"
    fetched = re.compile(rf'<(?:{tags})\b[^>]*?(?:src|href|data)="([^"]*)', re.IGNORECASE)
    for path in pages(site):
        found = fetched.findall(path.read_text(encoding="utf-8"))
        assert not [link for link in found if re.match(r"(https?:)?//", link)], path
        assert "_static" in " ".join(found) or path.parent == site  # the expression finds what there is
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", text), path


def test_notebooks_have_their_figures_and_formulas(site):
    text = (site / "docs/tutorial.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<img[^>]*src="[^"]*\.png"', text)) >= 2
    assert "<math" in text


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_every_page_fits_a_phone_without_a_request_to_the_network(site, browser):
    view = browser.new_page(viewport={"width": 360, "height": 780})
    asked = []
    view.on("request", lambda request: asked.append(request.url))
    wide = {}
    for path in pages(site):
        if path == site / "index.html":  # leads to the first page
            continue
        view.goto(path.as_uri())
        # the theme lets the content scroll by itself, so that the document alone is never too wide
        width = view.evaluate("Math.max(...['html', '.content'].map(e => document.querySelector(e)?.scrollWidth ?? 0))")
        if width > 360:
            wide[path.relative_to(site).as_posix()] = width
    view.goto((site / "index.html").as_uri())
    view.wait_for_url("**/docs/index.html")
    view.close()
    assert not wide
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]


@pytest.mark.browser
def test_search_finds_and_dark_mode_darkens(site, browser):
    view = browser.new_page(color_scheme="dark")
    view.goto((site / "search.html").as_uri() + "?q=fit_temperature")
    view.wait_for_selector("#search-results li a")
    assert "temperature" in view.inner_text("#search-results")
    dark = view.evaluate("getComputedStyle(document.body).backgroundColor")
    view.emulate_media(color_scheme="light")
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    view.close()
