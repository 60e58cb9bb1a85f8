"""The directive `softnll-commands`: the reference of the command line, as Typer writes it from the commands."""

from __future__ import annotations

import re
import subprocess
import sys

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Commands(SphinxDirective):
    """Every command with its arguments and options."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of Typer's Markdown, without its heading of the whole program."""
        written = subprocess.run(
            [sys.executable, "-m", "typer", "softnll._cli.commands", "utils", "docs", "--name", "softnll"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        text = re.sub(
            r"^Example: (.*)$", r"Example:\n\n```console\n$ \1\n```", written.partition("\n")[2], flags=re.MULTILINE
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("softnll-commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
