"""What the page of ``softnll report`` says, from a pass over the scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.data.text import printable
from softnll.functional import softmax
from softnll.report.charts import confusion_cells, histogram, reliability_bars
from softnll.report.images import as_data_uri
from softnll.report.page import MOST_BARS, MOST_LETTERS, MOST_MATRIX, MOST_MISTAKES, environment, percent, rounded
from softnll.report.survey import Kept, Survey
from softnll.report.suspicious import suspicious

__all__ = ["Inspection", "inspect", "summary"]

MOST_CLASSES = 300  # rows of the table of classes; beyond, those that carry most of the loss
MOST_SUSPICIOUS = 24


@dataclass(frozen=True, eq=False)
class Inspection:
    """What the page is made from.

    Attributes
    ----------
    title
        What the scores are called.
    class_names
        ``C`` names.
    found
        The pass over all rows.
    pixels
        ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 images, or None.
    """

    title: str
    class_names: tuple[str, ...]
    found: Survey
    pixels: NDArray[np.uint8] | None = None


def summary(found: Survey) -> dict[str, Any]:
    """Return the figures of the summary, in the types of JSON; None for what is not finite."""
    figures = {
        "examples": len(found.y),
        "classes": found.classes,
        "accuracy": float(found.right.mean()),
        "nll": found.mean,
        "chance_nll": math.log(found.classes),
        "prior_nll": found.prior_nll,
        "perplexity": math.exp(found.mean) if found.mean < 700 else math.inf,
        "ece": found.reliability.ece,
        "brier": found.brier,
        "confidence": float(found.confidence.mean()),
        "worst_hundredth_of_loss": found.worst_share,
        "temperature": found.temperature,
        "temperature_gain": found.gain,
        "temperature_rows": found.sampled,
        "suspicious_labels": suspicious(found, 0)[1],
    }
    return {
        name: None if isinstance(each, float) and not math.isfinite(each) else each for name, each in figures.items()
    }


def inspect(given: Inspection) -> str:
    """Return the page: one HTML document that needs nothing else and fetches nothing.

    Examples
    --------
    >>> from softnll.report.survey import survey
    >>> from softnll.score_rows import as_rows
    >>> found = survey(as_rows([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    >>> inspect(Inspection("two", ("cat", "dog"), found)).startswith("<!doctype html>")
    True
    """
    found = given.found
    names = tuple(printable(name, MOST_LETTERS) for name in given.class_names)
    doubted, doubtful = suspicious(found, MOST_SUSPICIOUS)
    counts = None
    if found.classes <= MOST_MATRIX:
        counts = np.zeros((found.classes, found.classes), np.int64)
        np.add.at(counts, (found.y, found.prediction), 1)
    true, taken, times = found.confusions()
    mistakes = [
        {"true": names[a], "predicted": names[b], "count": int(n), "share": percent(float(n / found.support[a]))}
        for a, b, n in zip(true[:MOST_MISTAKES], taken[:MOST_MISTAKES], times[:MOST_MISTAKES], strict=True)
    ]
    page, shared = environment()
    return page.get_template("inspection.html.j2").render(
        **shared,
        title=printable(given.title, 200),
        class_names=names,
        figures=summary(found),
        bars=reliability_bars(found.reliability),
        histogram=histogram(found.nll),
        unhappiest=[_example(given, names, found.worst, k) for k in range(_shown(len(found.y)))],
        happiest=[_example(given, names, found.happiest, k) for k in range(_shown(len(found.y)))],
        suspects=[
            _example(given, names, found.doubtful, int(k[0]))
            for row in doubted
            if len(k := np.flatnonzero(found.doubtful.rows == row))
        ],
        doubtful=doubtful,
        table=_classes(found, names),
        hidden_classes=max(0, found.classes - MOST_CLASSES),
        cells=None if counts is None else confusion_cells(counts),
        mistakes=mistakes,
    )


def _shown(examples: int) -> int:
    """Return how many examples are shown as the worst, and as many as the happiest."""
    return min(24, max(examples // 2, 1))


def _example(given: Inspection, names: tuple[str, ...], kept: Kept, k: int) -> dict[str, Any]:
    """Return what is shown of one example."""
    found, row = given.found, int(kept.rows[k])
    p = softmax(kept.logits[k])
    true, predicted = int(found.y[row]), int(found.prediction[row])
    likeliest = [int(c) for c in np.argsort(-p, kind="stable")[:MOST_BARS]]
    if true not in likeliest:
        likeliest[-1] = true
    bars = [
        {"name": names[c], "p": min(float(p[c]), 1.0), "percent": percent(float(p[c])), "true": c == true}
        for c in likeliest
    ]
    return {
        "row": row,
        "image": None if given.pixels is None else as_data_uri(given.pixels[row]),
        "true": names[true],
        "predicted": names[predicted],
        "right": predicted == true,
        "nll": rounded(float(found.nll[row])),
        "bars": bars,
    }


def _classes(found: Survey, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the lines of the table of classes."""
    accuracy, nll, confidence = (found.per_class(each) for each in (found.right, found.nll, found.confidence))
    true, taken, times = found.confusions()
    first: dict[int, tuple[int, int]] = {}
    for a, b, n in zip(true.tolist(), taken.tolist(), times.tolist(), strict=True):
        first.setdefault(a, (b, n))
    carried = np.nan_to_num(nll) * found.support
    shown = np.sort(np.argsort(-carried, kind="stable")[:MOST_CLASSES])
    lines = []
    for c in shown.tolist():
        other, count = first.get(c, (None, 0))
        empty = found.support[c] == 0
        lines.append(
            {
                "name": names[c],
                "support": int(found.support[c]),
                "accuracy": None if empty else float(accuracy[c]),
                "nll": None if empty else float(nll[c]),
                "confidence": None if empty else float(confidence[c]),
                "other": "" if other is None else names[other],
                "count": count,
            }
        )
    return lines
