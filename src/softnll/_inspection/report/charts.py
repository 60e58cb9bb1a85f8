"""The coordinates of the shapes in the page's charts, which the templates draw."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from softnll._core.words import counted
from softnll._inspection.calibration import Reliability
from softnll._inspection.format import compact
from softnll._inspection.survey import largest_bin

# Units of the charts' coordinates; the page scales them. Small enough that text is legible on a phone.
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 18, 38


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from low to high, at most ``most`` steps apart.

    Examples
    --------
    >>> ticks(0, 2.3)
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    rough = max(high - low, 1e-12) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def curve(title: str, xs: list[int], ys: list[float], *, top: float, chance: tuple[float, str]) -> dict[str, Any]:
    """Return the line through (x, y), x an iteration, on axes from 0; ``chance`` is a level to compare with."""
    start, end = min(xs), max(*xs, min(xs) + 1)

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - start) / (end - start), 2)

    def up(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(y, top) / top, 2)

    # More points than the chart has units of width lengthen the page and show nothing.
    chosen = sorted({round(k) for k in np.linspace(0, len(xs) - 1, min(len(xs), 400))})
    points = " ".join(f"{across(xs[k])},{up(ys[k])}" for k in chosen)
    return {
        "title": title,
        "description": f"{title}: {ys[0]:.3f} at iteration {xs[0]}, {ys[-1]:.3f} at iteration {xs[-1]}.",
        "points": points,
        "last": (across(xs[-1]), up(ys[-1]), f"{ys[-1]:.3f}"),
        "x_ticks": [(across(x), f"{x:g}") for x in ticks(start, end) if x == int(x)],
        "y_ticks": [(up(y), f"{y:g}") for y in ticks(0, top)],
        "chance": (up(chance[0]), chance[1]) if chance[0] <= top else None,
    }


def reliability_bars(found: Reliability) -> list[dict[str, Any]]:
    """Return the bins that hold examples: accuracy as a bar, confidence as a mark, the count below."""
    plot, low = 200, 330  # height of the diagram, and base line of the counts
    most = int(found.counts.max())
    bars = []
    for b in np.flatnonzero(found.counts):
        left = LEFT + (WIDTH - LEFT - RIGHT) * float(found.edges[b])
        width = (WIDTH - LEFT - RIGHT) * float(found.edges[b + 1] - found.edges[b])
        height = 50 * int(found.counts[b]) / most
        text = f"confidence {found.confidence[b]:.3f}, accuracy {found.accuracy[b]:.3f}, examples {found.counts[b]}"
        bars.append(
            {
                "x": round(left + 1, 2),
                "width": round(width - 2, 2),
                "middle": round(left + width / 2, 2),
                "y": round(TOP + plot * (1 - float(found.accuracy[b])), 2),
                "height": round(plot * float(found.accuracy[b]), 2),
                "mark": round(TOP + plot * (1 - float(found.confidence[b])), 2),
                "count": compact(int(found.counts[b])),
                "count_y": round(low - height, 2),
                "count_height": round(height, 2),
                "text": text,
            }
        )
    return bars


def confusion_cells(counts: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Return the cells of a confusion matrix that are not empty, shaded by their share of the true class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        {
            "row": int(i),
            "column": int(j),
            "count": int(counts[i, j]),
            # With the square root, single mistakes are visible.
            "shade": round(float(np.sqrt(shares[i, j])), 3),
            "right": bool(i == j),
            "strong": bool(shares[i, j] > 0.55),
        }
        for i, j in np.argwhere(counts)
    ]


def histogram(nll: np.ndarray[Any, Any], bins: int = 38) -> dict[str, Any]:
    """Return the bars of a distribution of losses; the last bar holds the largest thousandth."""
    top = largest_bin(nll)
    counts, _ = np.histogram(np.clip(nll, 0, top), bins=bins, range=(0.0, top))
    most, plot = max(int(counts.max()), 1), HEIGHT - TOP - BOTTOM
    width = (WIDTH - LEFT - RIGHT) / bins
    bars = [
        {
            "x": round(LEFT + k * width + 0.5, 2),
            "width": round(width - 1, 2),
            "y": round(TOP + plot * (1 - int(n) / most), 2),
            "height": round(plot * int(n) / most, 2),
            "text": f"loss {top * k / bins:.3g} to {top * (k + 1) / bins:.3g}: {counted(n, 'example')}",
        }
        for k, n in enumerate(counts)
        if n
    ]
    return {
        "bars": bars,
        "x_ticks": [(round(LEFT + (WIDTH - LEFT - RIGHT) * x / top, 2), f"{x:g}") for x in ticks(0, top)],
        "y_ticks": [(round(TOP + plot * (1 - y / most), 2), f"{y:g}") for y in ticks(0, most, 4) if y == int(y)],
    }
