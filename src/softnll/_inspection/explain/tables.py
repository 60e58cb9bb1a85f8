"""The tables of an explanation, built once as strings; plain text, HTML and the terminal draw the same ones."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll.data.text import printable
from softnll.notebook import cell, styled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softnll.explanation import Explanation

__all__ = ["Stage", "as_html", "as_text", "rounded_loss", "shown_classes", "stages"]

MOST_ROWS = 20
MOST_CLASSES = 8


@dataclass(frozen=True)
class Stage:
    """One table: where the numbers come from, their columns, and which entry of each row belongs to the true class."""

    title: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[int | None, ...]
    note: str = ""


def stages(told: Explanation, *, bits: bool = False) -> list[Stage]:
    """Return scores, probabilities and, where the true classes are known, losses and gradient."""
    # With more classes than columns, as many rows as columns: each row's true class then has one.
    N = min(len(told.logits), MOST_ROWS if told.logits.shape[1] <= MOST_CLASSES else MOST_CLASSES)
    classes = shown_classes(told, N, MOST_CLASSES)
    columns = tuple(printable(told.class_names[c]) for c in classes)
    left_out = _left_out(told, N, len(classes))
    names = tuple(_row_name(told, n) for n in range(N))
    place = {int(c): i for i, c in enumerate(classes)}
    marks = tuple(None if told.targets is None else place[int(told.targets[n])] for n in range(N))

    def table(title: str, values: NDArray[Any], show: Any, note: str = "") -> Stage:
        rows = tuple(tuple(show(float(values[n, c])) for c in classes) for n in range(N))
        return Stage(title, columns, names, rows, marks, note)

    found = [
        table("Scores f, as the network gave them", told.logits, lambda x: f"{x:.4g}", left_out),
        table("Probabilities p = exp(f) / sum of the row's exp(f)", told.probabilities, _probability),
    ]
    found.append(_sureness(told, N, names, bits=bits))
    if told.losses is None:
        return found
    targets, nll, gradient, total, mean = told.losses
    unit, scale = ("bits", 1 / math.log(2)) if bits else ("nats", 1.0)
    rows = tuple(
        (
            printable(told.class_names[targets[n]]),
            _probability(float(told.probabilities[n, targets[n]])),
            rounded_loss(float(nll[n]) * scale),
        )
        for n in range(N)
    )
    logarithm = "log2" if bits else "ln"
    found.append(
        Stage(
            f"Negative log-likelihood, -{logarithm} p at the true class, in {unit}",
            ("true class", "p", "NLL"),
            names,
            rows,
            (None,) * N,
            f"total {rounded_loss(total * scale)}   mean {rounded_loss(mean * scale)}   {unit}",
        )
    )
    note = "each row sums to 0; a step against it raises the true class and lowers the others"
    if bits:
        note += " (of the loss in nats: times 1.4427 for bits)"
    title = "Gradient of the total by each score, p - 1 at the true class, p elsewhere"
    found.append(table(title, gradient, _slope, note))
    return found


def _sureness(told: Explanation, N: int, names: tuple[str, ...], *, bits: bool) -> Stage:
    """Return how sure each row is: what it predicts, how far ahead, and how much is left open."""
    unit, scale = ("bits", 1 / math.log(2)) if bits else ("nats", 1.0)
    rows = tuple(
        (
            printable(told.class_names[told.prediction[n]]),
            _probability(float(told.confidence[n])),
            _probability(float(told.margin[n])),
            rounded_loss(float(told.entropy[n]) * scale),
        )
        for n in range(N)
    )
    C = told.logits.shape[1]
    most = f"{math.log(C) * scale:.2f}"
    note = f"entropy, the loss that the row itself expects: 0 where it is certain, {most} where it knows nothing"
    columns = ("prediction", "confidence", "margin", "entropy")
    title = f"How sure each row is: margin to the next class, entropy in {unit}"
    return Stage(title, columns, names, rows, (None,) * N, note)


def shown_classes(told: Explanation, N: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` classes to show for the first N rows: the true ones and the likeliest, in their order."""
    C = told.logits.shape[1]
    if most >= C:
        return np.arange(C)
    weight = told.probabilities[:N].max(axis=0).astype(np.float64)
    kept = np.array([], np.int64)
    if told.targets is not None:
        kept = np.unique(told.targets[:N]).astype(np.int64)
        weight[kept] = -1
    free = max(most - len(kept), 0)
    return np.sort(np.concatenate([kept, np.argsort(-weight, kind="stable")[:free]]))


def rounded_loss(value: float) -> str:
    """Return a loss to two digits, and a small one so that it is not mistaken for none at all."""
    return f"{value:.2f}" if value == 0 or value >= 0.005 else f"{value:.1e}"


def as_text(tables: list[Stage]) -> str:
    """Return the tables as aligned plain text; a star stands at the true class."""
    return "\n\n".join(_one_as_text(table) for table in tables)


def as_html(tables: list[Stage], words: list[str]) -> str:
    """Return the tables and the words as HTML in which every name is text and nothing else."""
    parts = [_one_as_html(table) for table in tables]
    said = "".join(f"<li>{html.escape(word)}</li>" for word in words)
    return styled("softnll-explanation", f"{''.join(parts)}<ul>{said}</ul>")


def _one_as_text(table: Stage) -> str:
    """Return one table as text."""
    cells = [
        [name, *(value + ("*" if i == mark else " ") for i, value in enumerate(row))]
        for name, row, mark in zip(table.names, table.rows, table.marks, strict=True)
    ]
    head = ["", *(f"{column} " for column in table.columns)]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    lines = [table.title]
    for line in [head, *cells]:
        first, *others = (text.rjust(width) for text, width in zip(line, widths, strict=True))
        lines.append("  " + "  ".join([line[0].ljust(len(first)), *others]).rstrip())
    return "\n".join([*lines, *([f"  {table.note}"] if table.note else [])])


def _one_as_html(table: Stage) -> str:
    """Return one table as HTML; the true class's cells are marked."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    body = ""
    for name, row, mark in zip(table.names, table.rows, table.marks, strict=True):
        cells = "".join(cell("td", value, i == mark) for i, value in enumerate(row))
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    caption = f"<caption>{html.escape(table.title)}</caption>"
    head = f"<thead><tr><td></td>{head}</tr></thead>"
    return f'<div class="wide"><table>{caption}{head}<tbody>{body}</tbody></table></div>{note}'


def _row_name(told: Explanation, n: int) -> str:
    """Return what a row is called: its number and its true class."""
    return f"{n}" if told.targets is None else f"{n} {printable(told.class_names[told.targets[n]])}"


def _left_out(told: Explanation, rows: int, classes: int) -> str:
    """Say how much of a large table is not shown."""
    N, C = told.logits.shape
    parts = [f"{N - rows} more rows"] * (rows < N) + [f"{C - classes} less likely classes"] * (classes < C)
    return f"not shown: {' and '.join(parts)}" if parts else ""


def _probability(p: float) -> str:
    """Return a probability to four digits, and a small one so that it is not mistaken for 0."""
    return f"{p:.4f}" if p == 0 or p >= 0.00005 else f"{p:.0e}"


def _slope(g: float) -> str:
    """Return a derivative with its sign."""
    return f"{g:+.4f}" if g == 0 or abs(g) >= 0.00005 else f"{g:+.0e}"
