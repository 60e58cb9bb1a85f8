"""The interactive page of `softnll page`, beside the pages of the site."""

from __future__ import annotations

import shutil

from sphinx.application import Sphinx

from softnll._cli.main import main
from softnll._inspection.page.build import PICTURE


def _write(app: Sphinx, exception: Exception | None) -> None:
    """Write the page into the built site."""
    if exception is not None or app.builder.format != "html":
        return
    address = app.config.html_baseurl or "./"  # where the site is published; unknown: links relative to the page
    if main(["page", "--out", str(app.outdir / "page.html"), "--site", address]):
        raise RuntimeError("softnll page failed")
    picture = app.outdir / PICTURE  # sites that show a link to the page read it there
    picture.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(app.srcdir / PICTURE, picture)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the page when everything else is there."""
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
