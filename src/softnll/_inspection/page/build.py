"""Build the interactive page from its HTML, style sheet and scripts."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from softnll._version import __version__

__all__ = ["build"]

SCRIPTS = ("mathematics", "formulas", "state", "drawing", "room_scores", "room_training", "room_mistakes", "main")


def build() -> str:
    """Return the page: one HTML document that fetches nothing; its content security policy allows its own script only.

    Examples
    --------
    >>> page = build()
    >>> page.startswith("<!doctype html>"), "http-equiv" in page, "{" + "script}" in page
    (True, True, False)
    """
    style = _part("style.css")
    # One function encloses all scripts: only the object that main.js exports for tests is global.
    script = '"use strict";(() => {\n' + "\n".join(_part(f"{name}.js") for name in SCRIPTS) + "})();\n"
    page = _part("page.html")
    parts = {"style_hash": _hash(style), "script_hash": _hash(script), "version": __version__}
    for name, value in {**parts, "style": style, "script": script}.items():
        page = page.replace("{" + name + "}", value)  # the largest last: braces in them are not replaced
    return page


def _part(name: str) -> str:
    """Return one of the files that lie beside this one."""
    return resources.files("softnll._inspection.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which the content security policy names an inline style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
