"""The look of all figures: the style sheet ``softnll/figures.mplstyle``, and the colours that code asks for by name."""

from __future__ import annotations

from contextlib import AbstractContextManager

STYLE = "softnll.figures"  # matplotlib's name of the style sheet in the package

# As in the style sheet; a test compares them.
INK, MUTED, GRID = "#1f2430", "#5b6475", "#d9dde5"
SERIES = ("#0063a3", "#b85500", "#00785a", "#a3387c", "#6a6f00", "#1f7fb8", "#8a4b2a", "#4d4dbf")


def figure_style() -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws in the style sheet's look; its settings are restored at the end."""
    from matplotlib import style  # noqa: PLC0415 - loaded to draw

    return style.context(STYLE)
