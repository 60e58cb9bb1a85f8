"""A derivation as HTML for notebooks: formulas as MathML, tables, colours for light and dark pages."""

from __future__ import annotations

import html
import re

from softnll._inspection.explain.derivation.formula import as_mathml
from softnll._inspection.explain.derivation.numbers import DerivationNumbers
from softnll._inspection.explain.derivation.steps import Step, heading
from softnll._inspection.explain.notebook import styled

__all__ = ["as_html"]


def as_html(derived: DerivationNumbers, found: list[Step]) -> str:
    """Return the steps as HTML in which every name is text and nothing else."""
    parts = "".join(_step(step) for step in found)
    return styled("softnll-derivation", f"<p><b>{html.escape(heading(derived))}</b></p><ol>{parts}</ol>")


def _step(step: Step) -> str:
    """Return one step as an item of the list."""
    text = f"<p>{_prose(step.text)}</p>" if step.text else ""
    formulas = "".join(f'<div class="formula">{as_mathml(formula)}</div>' for formula in step.formulas)
    table = step.table.as_html() if step.table is not None else ""
    then = f"<p>{_prose(step.then)}</p>" if step.then else ""
    return f"<li><b>{_prose(step.title)}</b>{text}{formulas}{table}{then}</li>"


def _prose(text: str) -> str:
    """Return one of our sentences as HTML, with the indices as subscripts."""
    return re.sub(r"\b([efp])_([iky])\b", r"<i>\1</i><sub>\2</sub>", html.escape(text, quote=False))
