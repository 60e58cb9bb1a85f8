"""The order of a page of results: its table first."""

from __future__ import annotations


def table_first(page: str) -> str:
    """Return a page of results with its first table right below the title: machine and method follow the table."""
    title, *blocks = page.strip().split("\n\n")
    at = next(i for i, block in enumerate(blocks) if block.lstrip().startswith("|"))
    return "\n\n".join(block.strip("\n") for block in (title, blocks[at], *blocks[:at], *blocks[at + 1 :])) + "\n"
