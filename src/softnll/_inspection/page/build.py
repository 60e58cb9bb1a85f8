"""Putting the page together from its parts."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import softnll

__all__ = ["build"]

SCRIPTS = ("mathematics", "formulas", "state", "drawing", "room_scores", "room_training", "room_mistakes", "main")


def build() -> str:
    """Return the page: one HTML document that fetches nothing, with a policy that lets only its own script run.

    Examples
    --------
    >>> page = build()
    >>> page.startswith("<!doctype html>"), "http-equiv" in page, "{" + "script}" in page
    (True, True, False)
    """
    style = _part("style.css")
    # One function around everything: nothing of the page is global but what main.js leaves for tests.
    script = '"use strict";(() => {\n' + "\n".join(_part(f"{name}.js") for name in SCRIPTS) + "})();\n"
    page = _part("page.html")
    parts = {"style_hash": _hash(style), "script_hash": _hash(script), "version": softnll.__version__}
    for name, value in {**parts, "style": style, "script": script}.items():
        page = page.replace("{" + name + "}", value)  # the largest last: what they hold is not looked at
    return page


def _part(name: str) -> str:
    """Return one of the files that lie beside this one."""
    return resources.files("softnll.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the name that the page's policy has for an inline style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
