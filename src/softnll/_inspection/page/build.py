"""Build the interactive page from its HTML, style sheet and scripts."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib import resources

from softnll._version import __version__

SCRIPTS = (  # each uses those before it only
    "mathematics",
    "formulas",
    "data_sets",
    "state",
    "drawing",
    "panel",
    "player",
    "charts",
    "origins",
    "story_parts",
    "story_scores",
    "story_loss",
    "story_gradient",
    "room_story",
    "room_scores",
    "plane",
    "training_origins",
    "room_training",
    "room_mistakes",
    "main",
)


# What the page links to, below the address of the documentation.
DOCUMENTS = {
    "Documentation": "docs/index.html",
    "The derivation": "docs/derivation.html",
    "The tutorial": "docs/tutorial.html",
    "What diagnose finds": "docs/diagnose.html",
}
PICTURE = "docs/images/page-card.png"  # shown where the page is shared


def build(site: str = "") -> str:
    """Return the page: one HTML document that fetches nothing; its content security policy allows its own script only.

    Parameters
    ----------
    site
        The address where the documentation is published, such as ``https://example.org/softnll/``: the page links to
        its documents, and names its picture for sites that show a link with one. A relative address gives links
        only. Empty: the page names the documents without links.

    Raises
    ------
    ValueError
        If `site` is neither a web address nor a relative one.

    Examples
    --------
    >>> page = build()
    >>> page.startswith("<!doctype html>"), "http-equiv" in page, "{" + "script}" in page
    (True, True, False)
    >>> "https://example.org/docs/derivation.html" in build("https://example.org")
    True
    """
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w.~%/-]*)?|(?!//)[\w.~%/-]*", site, re.ASCII):
        raise ValueError(f"site is {site!r}; allowed: a web address without ? and #, or a relative one")
    base = site if not site or site.endswith("/") else f"{site}/"
    style = _part("style.css")
    # One function encloses all scripts: only the object that main.js exports for tests is global.
    script = '"use strict";(() => {\n' + "\n".join(_part(f"{name}.js") for name in SCRIPTS) + "})();\n"
    page = _part("page.html")
    parts = {"style_hash": _hash(style), "script_hash": _hash(script), "version": __version__}
    parts |= {"sharing": _sharing(base), "documents": _documents(base)}
    for name, value in {**parts, "style": style, "script": script}.items():
        page = page.replace("{" + name + "}", value)  # the largest last: braces in them are not replaced
    return page


def _sharing(base: str) -> str:
    """Return the elements that name the page's picture; it needs a whole address."""
    if not base.startswith("http"):
        return '<meta name="twitter:card" content="summary">'
    image = escape(base + PICTURE)
    size = '<meta property="og:image:width" content="1200"><meta property="og:image:height" content="630">'
    alt = '<meta property="og:image:alt" content="The scores of an image, its probabilities and its loss">'
    card = '<meta name="twitter:card" content="summary_large_image">'
    return f'<meta property="og:image" content="{image}">{size}{alt}\n{card}'


def _documents(base: str) -> str:
    """Return the links to the documents; without an address, where they lie in the source."""
    if not base:
        return "<p>Read on in the source: docs/derivation.md, docs/tutorial.ipynb, docs/diagnose.md.</p>"
    links = [f'<a href="{escape(base + path)}">{escape(name)}</a>' for name, path in DOCUMENTS.items()]
    return f"<p>{' · '.join(links)}</p>"


def _part(name: str) -> str:
    """Return one of the files that lie beside this one."""
    return resources.files("softnll._inspection.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which the content security policy names an inline style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
