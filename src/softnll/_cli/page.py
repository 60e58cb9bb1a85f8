"""``softnll page``: the interactive page as one file."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def page(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("softnll-page.html"),
    site: Annotated[
        str,
        typer.Option(
            help="Address of the published documentation: the page links to it and names a picture for sharing."
        ),
    ] = "",
    opened: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write the interactive page: scores, loss, gradient and training to play with, in one file that works offline."""
    from softnll._inspection.page.build import build
    from softnll.data.atomic import write_whole
    from softnll.data.text import printable

    write_whole(out, build(site).encode())
    typer.echo(f"wrote {printable(str(out), 400)}")
    if opened:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
