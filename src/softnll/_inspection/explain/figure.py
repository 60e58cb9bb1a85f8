"""The figure of an explanation: probabilities as a table, losses on the curve of −ln p, the gradient as bars."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from softnll._inspection.explain.numbers import ExplanationNumbers, Losses
from softnll._inspection.explain.tables import shown_classes
from softnll._inspection.figure_style import GRID, INK, MUTED, figure_style
from softnll._inspection.figure_style import SERIES as ROWS  # a colour a row
from softnll._inspection.format import rounded_loss
from softnll.data.text import printable

FORMATS = ("png", "svg", "pdf")
MOST_ROWS = 8
MOST_CLASSES = 8


def shown(explained: ExplanationNumbers) -> tuple[int, NDArray[np.int64]]:
    """Return how many rows are drawn, and which classes."""
    N = min(len(explained.logits), MOST_ROWS)
    return N, shown_classes(explained, N, MOST_CLASSES)


def draw_panels(explained: ExplanationNumbers, axes: list[Axes]) -> None:
    """Draw an explanation into its panels: the probabilities and, where there are losses, those and the gradient."""
    N, classes = shown(explained)
    _draw_probabilities(axes[0], explained, N, classes)
    if explained.losses is not None:
        _draw_losses(axes[1], explained, explained.losses, N)
        _draw_gradient(axes[2], explained, explained.losses, N, classes)


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return the figure as a file of one of `FORMATS`; the same figure gives the same bytes."""
    stream = io.BytesIO()
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with figure_style(), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(stream, format=kind, dpi=150, metadata=undated.get(kind))
    return stream.getvalue()


def _draw_probabilities(ax: Axes, explained: ExplanationNumbers, N: int, classes: NDArray[np.int64]) -> None:
    """Draw the table of scores and probabilities: one colour for each row, the true class framed."""
    roomy = len(classes) <= 5
    for n in range(N):
        color = ROWS[n % len(ROWS)]
        for i, c in enumerate(classes):
            p = float(explained.probabilities[n, c])
            cell: dict[str, Any] = {"xy": (i + 0.04, n + 0.06), "width": 0.92, "height": 0.88}
            ax.add_patch(Rectangle(**cell, facecolor=color, alpha=0.06 + 0.9 * p, lw=0))
            if explained.targets is not None and c == explained.targets[n]:
                ax.add_patch(Rectangle(**cell, fill=False, edgecolor=color, lw=2.5))
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": "white" if p > 0.55 else INK}
            ax.text(
                i + 0.5,
                n + (0.42 if roomy else 0.5),
                f"{p:.{3 if roomy else 2}f}",
                fontsize=12 if roomy else 9,
                **style,
            )
            if roomy:
                ax.text(i + 0.5, n + 0.76, f"score {float(explained.logits[n, c]):.3g}", fontsize=8, **style)
    ax.set(xlim=(0, len(classes)), ylim=(N, 0))
    _class_axis(ax.xaxis, np.arange(len(classes)) + 0.5, explained, classes)
    ax.set_yticks(np.arange(N) + 0.5, [_row_name(explained, n) for n in range(N)], fontsize=10, parse_math=False)
    ax.tick_params(length=0)
    for n, label in enumerate(ax.get_yticklabels()):
        label.set(color=ROWS[n % len(ROWS)], fontweight="bold")
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    _title(ax, "Softmax" + (", true class framed" if explained.targets is not None else ""))


def _draw_losses(ax: Axes, explained: ExplanationNumbers, losses: Losses, N: int) -> None:
    """Draw the curve −ln p with a dot for each row."""
    truth = np.array([explained.probabilities[n, losses.targets[n]] for n in range(N)], np.float64)
    nll = losses.nll[:N].astype(np.float64)
    top = float(np.clip(1.25 * nll.max(), 3.0, 12.0))
    heights = np.minimum(nll, top)  # beyond the curve, the dot is at the top edge
    p = np.geomspace(math.exp(-top), 1, 400)
    ax.plot(p, -np.log(p), color=INK, lw=1.6)
    # A label is to the right of its dot; near the right edge to the left, and there above the curve.
    left = truth > 0.75
    floor = np.where(left, -np.log(np.maximum(truth - 0.1, 0.1)), heights)
    base = np.maximum(heights, floor)
    order = np.argsort(base, kind="stable")
    places = _spread(base[order] + 0.06 * top, gap=0.075 * top, top=0.97 * top)
    for n, place in zip(order, places, strict=True):
        color = ROWS[n % len(ROWS)]
        ax.plot([truth[n]] * 2, [0, heights[n]], color=color, lw=1, ls=(0, (3, 3)), clip_on=False)
        ax.plot(truth[n], heights[n], "o", ms=9, color=color, mec="white", mew=1.5, clip_on=False, zorder=3)
        side = "right" if left[n] else "left"
        label = rounded_loss(float(nll[n]))
        x = min(truth[n] + 0.02, 0.99)
        ax.text(x, place, label, ha=side, va="center", color=color, fontsize=10, parse_math=False)
    ax.set(xlim=(0, 1), ylim=(0, top))
    ax.set_xticks(np.linspace(0, 1, 5), ["0", "0.25", "0.5", "0.75", "1"])
    ax.set_yticks(np.arange(1, math.floor(top) + 1, 1 if top <= 6 else 2))  # without 0: the corner has that of p
    ax.set_xlabel("probability p of the true class", color=MUTED, fontsize=10)
    ax.set_ylabel("loss \N{MINUS SIGN}ln p, nats", color=MUTED, fontsize=10)
    ax.grid(color=GRID, lw=0.7)
    _remove_frame(ax)
    _title(ax, f"Unhappiness \N{MINUS SIGN}ln p, total {rounded_loss(losses.total)}")


def _draw_gradient(ax: Axes, explained: ExplanationNumbers, losses: Losses, N: int, classes: NDArray[np.int64]) -> None:
    """Draw the derivative of the total by each score as bars, grouped by class, one colour for each row."""
    height = 0.8 / N
    places = np.arange(len(classes))
    for n in range(N):
        slopes = losses.gradient[n, classes].astype(np.float64)
        rows = places + (n - (N - 1) / 2) * height
        ax.barh(rows, slopes, 0.88 * height, color=ROWS[n % len(ROWS)])
        if N * len(classes) <= 16:
            for y, g in zip(rows, slopes, strict=True):
                text = f"{g:+.3f}".replace("-", "\N{MINUS SIGN}")
                side = "left" if g >= 0 else "right"
                style: dict[str, Any] = {"ha": side, "va": "center", "fontsize": 8, "color": MUTED}
                ax.annotate(text, (g, y), (4 if g >= 0 else -4, 0), textcoords="offset points", **style)
    ax.axvline(0, color=INK, lw=1)
    ax.margins(x=0.32)
    ax.set_ylim(len(classes) - 0.5, -0.5)
    _class_axis(ax.yaxis, places, explained, classes)
    ax.set_xlabel("derivative by the score", color=MUTED, fontsize=10)
    ax.grid(visible=False)
    ax.grid(axis="x", color=GRID, lw=0.7)
    ax.locator_params(axis="x", nbins=5)
    _remove_frame(ax)
    _title(ax, "Gradient p \N{MINUS SIGN} onehot")


def _spread(places: NDArray[np.float64], gap: float, top: float) -> NDArray[np.float64]:
    """Move ascending places apart by at least ``gap``, upwards, and back down where that passes ``top``."""
    places = places.copy()
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + gap)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], top - gap * (len(places) - 1 - k))
    return places


def _class_axis(
    axis: XAxis | YAxis, places: NDArray[Any], explained: ExplanationNumbers, classes: NDArray[np.int64]
) -> None:
    """Label an axis with the class names, shortened where there are more than five."""
    many = len(classes) > 5
    names = [printable(explained.class_names[c], 10 if many else 14) for c in classes]
    axis.set_ticks(places, names, fontsize=8 if many else 10, color=INK, parse_math=False)
    if many and axis.axis_name == "x":
        for label in axis.get_ticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")


def _row_name(explained: ExplanationNumbers, n: int) -> str:
    """Return the label of a row: its number, and its true class where one is given."""
    return (
        f"row {n}" if explained.targets is None else f"{n} {printable(explained.class_names[explained.targets[n]], 14)}"
    )


def _title(ax: Axes, text: str) -> None:
    """Set a panel's title."""
    ax.set_title(text, loc="left", fontsize=11, color=INK, pad=12)


def _remove_frame(ax: Axes) -> None:
    """Remove the ticks, and the upper and right edges of the panel."""
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    ax.tick_params(length=0)
