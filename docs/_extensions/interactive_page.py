"""The interactive page of `softnll page`, beside the pages of the site."""

from __future__ import annotations

from sphinx.application import Sphinx

from softnll._cli.main import main


def _write(app: Sphinx, exception: Exception | None) -> None:
    """Write the page into the built site."""
    if exception is not None or app.builder.format != "html":
        return
    address = app.config.html_baseurl or "./"  # where the site is published; unknown: links relative to the page
    if main(["page", "--out", str(app.outdir / "page.html"), "--site", address]):
        raise RuntimeError("softnll page failed")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the page when everything else is there."""
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
