"""What tests of the interactive page share: waiting for a state, and calling the page's functions."""

from __future__ import annotations


def until(page, says):
    """Wait for something to be true; playwright's own way to wait needs the eval that the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(says):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {says}")


def call(page, function, *arguments):
    return page.evaluate(f"([...given]) => softnllPage.mathematics.{function}(...given)", list(arguments))


def address(page):
    """Return what stands after '#', once it is written."""
    until(page, "softnllPage.state.settled()")
    return page.evaluate("location.hash")
