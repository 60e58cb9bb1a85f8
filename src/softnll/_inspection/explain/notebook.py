"""The style of explanations in a notebook, with the colours of the page, light or dark."""

from __future__ import annotations

__all__ = ["styled"]

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


def styled(name: str, content: str) -> str:
    """Return HTML in a ``div`` with its style."""
    return f'<style>{_STYLE.replace("NAME", name)}</style><div class="{name}">{content}</div>'
