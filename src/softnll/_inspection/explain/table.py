"""A table as strings, with the true class's cells marked, as plain text and as HTML; the style of HTML in notebooks."""

from __future__ import annotations

import html
from dataclasses import dataclass

# Colours are the page's own ink, thinned: no background is set, so that nothing is unreadable on any theme.
# Notebook front ends style tables themselves (stripes, right-aligned heads), hence the specific selectors.
_STYLE = """
.NAME { font: 14px/1.45 system-ui, sans-serif; max-width: 60rem; font-variant-numeric: tabular-nums; }
.NAME .wide { overflow-x: auto; margin: .4em 0; }
.NAME table { border-collapse: collapse; border: 0; margin: 0; width: auto; font-size: 13px; }
.NAME table caption { text-align: left; font-weight: 600; padding: .3em 0; caption-side: top; color: inherit;
  white-space: nowrap; }
.NAME table tr, .NAME table tr:nth-child(even) { background: none; color: inherit; }
.NAME table th, .NAME table td { padding: .2em .8em; text-align: right; border: 0; color: inherit;
  white-space: nowrap; }
.NAME table thead th { border-bottom: 1px solid; border-color: color-mix(in srgb, currentColor 35%, transparent); }
.NAME table th[scope=row] { text-align: left; font-weight: 500; padding-left: 0; }
.NAME table .true { background: color-mix(in srgb, currentColor 12%, transparent); font-weight: 700; }
.NAME p { margin: .35em 0; max-width: 46rem; }
.NAME .note { opacity: .8; font-size: 13px; margin-bottom: 1em; }
.NAME ul { padding-left: 1.2em; max-width: 46rem; }
.NAME ol { padding-left: 1.6em; }
.NAME ol > li { margin: 0 0 1.1em; }
.NAME .formula { overflow-x: auto; padding: .25em 0; }
.NAME math { font-size: 1.12em; }
"""


@dataclass(frozen=True)
class Table:
    """A table as strings: the names of columns and rows, and the cells of each row."""

    columns: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[int | None, ...]  # of each row, the column of the true class
    true_column: int | None = None  # that column where it is the same in all rows, so that its head is marked
    title: str = ""  # a line above
    note: str = ""  # a line below

    def as_lines(self, indent: int) -> list[str]:
        """Return the heads and rows as aligned lines; a star marks the true class, in its head or in each row."""
        marks = self.marks if self.true_column is None else (None,) * len(self.marks)
        cells = [["", *(_starred(column, i == self.true_column) for i, column in enumerate(self.columns))]]
        for name, row, mark in zip(self.names, self.rows, marks, strict=True):
            cells.append([name, *(_starred(value, i == mark) for i, value in enumerate(row))])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        found = []
        for first, *others in cells:
            right = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            found.append(" " * indent + "  ".join([first.ljust(widths[0]), *right]).rstrip())
        return found

    def as_html(self) -> str:
        """Return the table as HTML in which every cell is text and nothing else."""
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        head = "".join(_cell("th", name, i == self.true_column, ' scope="col"') for i, name in enumerate(self.columns))
        body = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            + "".join(_cell("td", value, i == mark) for i, value in enumerate(row))
            + "</tr>"
            for name, row, mark in zip(self.names, self.rows, self.marks, strict=True)
        )
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        table = f"<table>{caption}<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div class="wide">{table}</div>{note}'


def _starred(text: str, true: bool) -> str:
    """Return a cell of plain text, with a star where it is the true class's."""
    return text + ("*" if true else " ")


def _cell(tag: str, value: str, true: bool, attributes: str = "") -> str:
    """Return a cell of HTML; the true class's cell has a background, and a title for screen readers."""
    marked = ' class="true" title="the true class"' if true else ""
    return f"<{tag}{attributes}{marked}>{html.escape(value)}</{tag}>"


def styled(name: str, content: str) -> str:
    """Return HTML in a ``div`` with its style."""
    return f'<style>{_STYLE.replace("NAME", name)}</style><div class="{name}">{content}</div>'
