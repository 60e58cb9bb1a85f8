"""The tables of an explanation; plain text, HTML and the terminal show the same ones."""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core.words import counted
from softnll._inspection.explain.numbers import ExplanationNumbers
from softnll._inspection.explain.table import Table, styled
from softnll._inspection.format import middle, rounded_loss
from softnll.data.text import printable

MOST_ROWS = 20
MOST_CLASSES = 8
COLUMNS = 80  # of a terminal
DETAILED = 4  # rows with a table of their own, where there are many classes
LIKELIEST = 5  # classes in that table


def tables(explained: ExplanationNumbers, *, bits: bool = False) -> list[Table]:
    """Return scores, probabilities and, where the true classes are known, losses and gradient.

    Where all classes fit beside each other, each table has a column a class; otherwise each row has a table of its
    likeliest classes.
    """
    matrices = _by_class(explained, bits=bits) if explained.logits.shape[1] <= MOST_CLASSES else []
    if matrices and max(map(_width, matrices)) <= COLUMNS:
        return matrices
    return _by_row(explained, bits=bits)


def _by_class(explained: ExplanationNumbers, *, bits: bool) -> list[Table]:
    """Return the tables with a column a class."""
    shown = explained.order[:MOST_ROWS]
    columns, names = tuple(map(_name, explained.class_names)), _row_names(explained, shown)
    marks = tuple(None if explained.targets is None else int(explained.targets[n]) for n in shown)

    def table(title: str, values: NDArray[Any], show: Any, note: str = "") -> Table:
        rows = tuple(tuple(map(show, map(float, values[n]))) for n in shown)
        return Table(columns, names, rows, marks, title=title, note=note)

    found = [
        table("Scores f, as the network gave them", explained.logits, _score, _left_out(explained, len(shown))),
        table("Probabilities p = exp(f) / sum of the row's exp(f)", explained.probabilities, _probability),
        _confidence(explained, shown, bits=bits),
    ]
    if explained.losses is not None:
        title = "Gradient of the total by each score, p - 1 at the true class, p elsewhere"
        found += [_losses(explained, shown, bits=bits), table(title, explained.losses.gradient, _slope, _slopes(bits))]
    return found


def _by_row(explained: ExplanationNumbers, *, bits: bool) -> list[Table]:
    """Return the tables with a row a class, of the likeliest classes and the true one, for a few rows."""
    shown = explained.order[:MOST_CLASSES]
    found = [_confidence(explained, shown, bits=bits, note=_left_out(explained, len(shown)))]
    if explained.losses is not None:
        found.append(_losses(explained, shown, bits=bits))
    columns = ("score f", "p", "gradient") if explained.losses is not None else ("score f", "p")
    for n in explained.order[:DETAILED]:
        p = explained.probabilities[n]
        classes = np.argsort(-p.astype(np.float64), kind="stable")[:LIKELIEST].tolist()
        true = None if explained.targets is None else int(explained.targets[n])
        if true is not None and true not in classes:
            classes.append(true)
        rows = []
        for c in classes:
            slope = () if explained.losses is None else (_slope(float(explained.losses.gradient[n, c])),)
            rows.append((_score(float(explained.logits[n, c])), _probability(float(p[c])), *slope))
        names = tuple(_name(explained.class_names[c], 30) + " *" * (c == true) for c in classes)
        rest = float(np.delete(p.astype(np.float64), classes).sum())
        left = len(p) - len(classes)
        note = f"not shown: {counted(left, 'less likely class')}, p = {_probability(rest)} in all" if left else ""
        title = f"Row {n}: the likeliest classes" + ("" if true is None else ", and the true one (*)")
        found.append(Table(columns, names, tuple(rows), (None,) * len(rows), title=title, note=note))
    return found


def _losses(explained: ExplanationNumbers, shown: NDArray[np.int64], *, bits: bool) -> Table:
    """Return the table of each row's loss."""
    losses = explained.losses
    assert losses is not None  # noqa: S101 - callers ask first; for type checkers
    unit, scale = ("bits", 1 / math.log(2)) if bits else ("nats", 1.0)
    rows = tuple(
        (
            _name(explained.class_names[losses.targets[n]]),
            _probability(float(explained.probabilities[n, losses.targets[n]])),
            rounded_loss(float(losses.nll[n]) * scale),
        )
        for n in shown
    )
    logarithm = "log2" if bits else "ln"
    return Table(
        ("true class", "p", "NLL"),
        _row_names(explained, shown),
        rows,
        (None,) * len(shown),
        title=f"Negative log-likelihood, -{logarithm} p at the true class, in {unit}",
        note=f"total {rounded_loss(losses.total * scale)}   mean {rounded_loss(losses.mean * scale)}   {unit}",
    )


def _slopes(bits: bool) -> str:
    """Return what the table of the gradient says."""
    note = "each row sums to 0; a step against it raises the true class and lowers the others"
    return f"{note} (of the loss in nats: times 1.4427 for bits)" if bits else note


def _confidence(explained: ExplanationNumbers, shown: NDArray[np.int64], *, bits: bool, note: str = "") -> Table:
    """Return the table of each row's prediction, confidence, margin and entropy."""
    unit, scale = ("bits", 1 / math.log(2)) if bits else ("nats", 1.0)
    rows = tuple(
        (
            _name(explained.class_names[explained.prediction[n]]),
            _probability(float(explained.confidence[n])),
            _probability(float(explained.margin[n])),
            rounded_loss(float(explained.entropy[n]) * scale),
        )
        for n in shown
    )
    most = f"{math.log(explained.logits.shape[1]) * scale:.2f}"
    meaning = f"entropy, the loss that the row itself expects: 0 for a certain prediction, {most} for a uniform one"
    columns = ("prediction", "confidence", "margin", "entropy")
    title = f"How sure each row is: margin to the next class, entropy in {unit}"
    note = f"{note}; {meaning}" if note else meaning
    return Table(columns, _row_names(explained, shown), rows, (None,) * len(shown), title=title, note=note)


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


def _row_names(explained: ExplanationNumbers, shown: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names of rows: their numbers, and their true classes where they are given."""
    targets = explained.targets
    return tuple(f"{n}" if targets is None else f"{n} {_name(explained.class_names[targets[n]])}" for n in shown)


def _name(name: str, letters: int = 16) -> str:
    """Return the name of a class, of at most so many letters."""
    return middle(printable(name), letters)


def _width(table: Table) -> int:
    """Return the width of a table on the terminal, with four spaces between columns."""
    cells = zip(*([table.columns, *table.rows]), strict=True)
    return max(map(len, table.names)) + sum(4 + max(map(len, column)) + 1 for column in cells)


def _left_out(explained: ExplanationNumbers, shown: int) -> str:
    """Return how many rows are not shown; "" if there are none."""
    left = len(explained.logits) - shown
    happier = "more" if explained.losses is None else "happier"
    return f"not shown: {counted(left, f'{happier} row')}" if left else ""


def _score(f: float) -> str:
    """Return a score to four digits."""
    return f"{f:.4g}"


def _probability(p: float) -> str:
    """Return a probability to four digits, and a small one with an exponent, so that it does not look like 0."""
    return f"{p:.4f}" if p == 0 or p >= 0.00005 else f"{p:.0e}"


def _slope(g: float) -> str:
    """Return a derivative with its sign."""
    return f"{g:+.4f}" if g == 0 or abs(g) >= 0.00005 else f"{g:+.0e}"
