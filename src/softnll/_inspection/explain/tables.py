"""The tables of an explanation; plain text, HTML and the terminal show the same ones."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll._inspection.explain.notebook import styled
from softnll._inspection.explain.table import Table
from softnll._inspection.format import rounded_loss
from softnll.data.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softnll._inspection.explain.numbers import ExplanationNumbers

__all__ = ["as_html", "as_text", "shown_classes", "tables"]

MOST_ROWS = 20
MOST_CLASSES = 8


def tables(explained: ExplanationNumbers, *, bits: bool = False) -> list[Table]:
    """Return scores, probabilities and, where the true classes are known, losses and gradient."""
    # With more classes than columns, as many rows as columns: each row's true class then has one.
    N = min(len(explained.logits), MOST_ROWS if explained.logits.shape[1] <= MOST_CLASSES else MOST_CLASSES)
    classes = shown_classes(explained, N, MOST_CLASSES)
    columns = tuple(printable(explained.class_names[c]) for c in classes)
    left_out = _left_out(explained, N, len(classes))
    names = tuple(_row_name(explained, n) for n in range(N))
    place = {int(c): i for i, c in enumerate(classes)}
    marks = tuple(None if explained.targets is None else place[int(explained.targets[n])] for n in range(N))

    def table(title: str, values: NDArray[Any], show: Any, note: str = "") -> Table:
        rows = tuple(tuple(show(float(values[n, c])) for c in classes) for n in range(N))
        return Table(columns, names, rows, marks, title=title, note=note)

    found = [
        table("Scores f, as the network gave them", explained.logits, lambda x: f"{x:.4g}", left_out),
        table("Probabilities p = exp(f) / sum of the row's exp(f)", explained.probabilities, _probability),
    ]
    found.append(_confidence(explained, N, names, bits=bits))
    if explained.losses is None:
        return found
    targets, nll, gradient, total, mean = explained.losses
    unit, scale = ("bits", 1 / math.log(2)) if bits else ("nats", 1.0)
    rows = tuple(
        (
            printable(explained.class_names[targets[n]]),
            _probability(float(explained.probabilities[n, targets[n]])),
            rounded_loss(float(nll[n]) * scale),
        )
        for n in range(N)
    )
    logarithm = "log2" if bits else "ln"
    found.append(
        Table(
            ("true class", "p", "NLL"),
            names,
            rows,
            (None,) * N,
            title=f"Negative log-likelihood, -{logarithm} p at the true class, in {unit}",
            note=f"total {rounded_loss(total * scale)}   mean {rounded_loss(mean * scale)}   {unit}",
        )
    )
    note = "each row sums to 0; a step against it raises the true class and lowers the others"
    if bits:
        note += " (of the loss in nats: times 1.4427 for bits)"
    title = "Gradient of the total by each score, p - 1 at the true class, p elsewhere"
    found.append(table(title, gradient, _slope, note))
    return found


def _confidence(explained: ExplanationNumbers, N: int, names: tuple[str, ...], *, bits: bool) -> Table:
    """Return the table of each row's prediction, confidence, margin and entropy."""
    unit, scale = ("bits", 1 / math.log(2)) if bits else ("nats", 1.0)
    rows = tuple(
        (
            printable(explained.class_names[explained.prediction[n]]),
            _probability(float(explained.confidence[n])),
            _probability(float(explained.margin[n])),
            rounded_loss(float(explained.entropy[n]) * scale),
        )
        for n in range(N)
    )
    C = explained.logits.shape[1]
    most = f"{math.log(C) * scale:.2f}"
    note = f"entropy, the loss that the row itself expects: 0 for a certain prediction, {most} for a uniform one"
    columns = ("prediction", "confidence", "margin", "entropy")
    title = f"How sure each row is: margin to the next class, entropy in {unit}"
    return Table(columns, names, rows, (None,) * N, title=title, note=note)


def shown_classes(explained: ExplanationNumbers, N: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` classes to show for the first N rows: the true ones and the likeliest, in their order."""
    C = explained.logits.shape[1]
    if most >= C:
        return np.arange(C)
    weight = explained.probabilities[:N].max(axis=0).astype(np.float64)
    kept = np.array([], np.int64)
    if explained.targets is not None:
        kept = np.unique(explained.targets[:N]).astype(np.int64)
        weight[kept] = -1
    free = max(most - len(kept), 0)
    return np.sort(np.concatenate([kept, np.argsort(-weight, kind="stable")[:free]]))


def as_text(explained: ExplanationNumbers, *, bits: bool) -> str:
    """Return the tables as aligned plain text; a star marks the true class."""
    parts = [
        [one.title, *one.as_lines(2), *([f"  {one.note}"] if one.note else [])] for one in tables(explained, bits=bits)
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def as_html(explained: ExplanationNumbers, words: list[str]) -> str:
    """Return the tables and the sentences as HTML in which every name is text and nothing else."""
    items = "".join(f"<li>{html.escape(word)}</li>" for word in words)
    return styled("softnll-explanation", f"{''.join(one.as_html() for one in tables(explained))}<ul>{items}</ul>")


def _row_name(explained: ExplanationNumbers, n: int) -> str:
    """Return the name of a row: its number, and its true class where one is given."""
    return f"{n}" if explained.targets is None else f"{n} {printable(explained.class_names[explained.targets[n]])}"


def _left_out(explained: ExplanationNumbers, rows: int, classes: int) -> str:
    """Return how many rows and classes are not shown; "" if there are none."""
    N, C = explained.logits.shape
    parts = [f"{N - rows} more rows"] * (rows < N) + [f"{C - classes} less likely classes"] * (classes < C)
    return f"not shown: {' and '.join(parts)}" if parts else ""


def _probability(p: float) -> str:
    """Return a probability to four digits, and a small one with an exponent, so that it does not look like 0."""
    return f"{p:.4f}" if p == 0 or p >= 0.00005 else f"{p:.0e}"


def _slope(g: float) -> str:
    """Return a derivative with its sign."""
    return f"{g:+.4f}" if g == 0 or abs(g) >= 0.00005 else f"{g:+.0e}"
