"""A derivation as HTML for notebooks: formulas as MathML, tables, and colours that follow a light or dark page."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from softnll.derivation_steps import heading
from softnll.formula import as_mathml
from softnll.notebook import cell, styled

if TYPE_CHECKING:
    from softnll.derivation import Derivation
    from softnll.derivation_steps import Grid, Step

__all__ = ["as_html"]


def as_html(derived: Derivation, found: list[Step]) -> str:
    """Return the steps as HTML in which every name is text and nothing else."""
    parts = "".join(_step(step) for step in found)
    return styled("softnll-derivation", f"<p><b>{html.escape(heading(derived))}</b></p><ol>{parts}</ol>")


def _step(step: Step) -> str:
    """Return one step as an item of the list."""
    says = f"<p>{_prose(step.says)}</p>" if step.says else ""
    formulas = "".join(f'<div class="formula">{as_mathml(formula)}</div>' for formula in step.formulas)
    grid = _grid(step.grid) if step.grid is not None else ""
    then = f"<p>{_prose(step.then)}</p>" if step.then else ""
    return f"<li><b>{_prose(step.title)}</b>{says}{formulas}{grid}{then}</li>"


def _prose(text: str) -> str:
    """Return a sentence of ours, its indices lowered."""
    return re.sub(r"\b([efp])_([iky])\b", r"<i>\1</i><sub>\2</sub>", html.escape(text, quote=False))


def _grid(grid: Grid) -> str:
    """Return a table, the true class's column marked."""
    head = "".join(cell("th", name, i == grid.mark, ' scope="col"') for i, name in enumerate(grid.columns))
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(cell("td", value, i == grid.mark) for i, value in enumerate(row))
        + "</tr>"
        for name, row in zip(grid.names, grid.rows, strict=True)
    )
    return f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'
