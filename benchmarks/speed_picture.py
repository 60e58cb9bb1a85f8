"""Draw the pictures of speed and memory from the committed results: docs/images/speed-and-memory.svg and cpu.svg.

python benchmarks/speed_picture.py
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softnll._inspection.figure_style import figure_style
from table import Group, best_peer, grouped, read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
BLUE, ORANGE, GREY = "#0a5fb4", "#c4580a", "#5f6b76"  # ours; the usual way; another way: apart also without colour
# Beside the style sheet of all figures: texts that a search finds, and small ones.
STYLE = {"svg.fonttype": "none", "font.size": 9, "axes.labelsize": 9, "font.family": "sans-serif", "axes.grid": False}


@dataclass(frozen=True)
class Row:
    """One thing that was measured: ours, and its peers by name."""

    label: str
    ours: float
    peers: dict[str, float]


def lines(name: str) -> list[dict[str, str]]:
    """Return the lines of a csv file of the results."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shape(text: str) -> str:
    """Return a shape as people write it."""
    numbers = [f"{int(n):,}".replace(",", "\u2009") for n in text.split("x")]
    return " × ".join(numbers[:2]) + (f" → {numbers[2]}" if len(numbers) > 2 else "")  # noqa: RUF001 - a multiplication sign


def speeds() -> dict[str, list[Row]]:
    """Return seconds: of losses, of heads with their loss, of a small model, of classifiers."""
    losses: dict[str, dict[str, float]] = {}
    for line in lines("torch-losses"):
        if line["measure"] == "forward + backward" and line["type"] == "float32":
            losses.setdefault(line["shape"], {})[line["way"]] = float(line["median_s"])
    heads: dict[str, dict[str, float]] = {}
    for line in lines("torch-linear"):
        if float(line["ignored"]) == 0:
            heads.setdefault(line["shape"], {})[line["way"]] = float(line["median_s"])
    models: dict[str, dict[str, float]] = {}
    for line in lines("fuse"):
        models.setdefault(line["vocabulary"], {})[line["head"]] = float(line["median_s"])
    fits = {
        name: {line["library"]: float(line["seconds"]) for line in lines(f"classifier-speed-{name}")} for name in DATA
    }
    return {
        "Loss and gradient, float32, beside torch": [
            Row(shape(name), ways["softnll.torch"], {"torch": ways["torch"], "torch.compile": ways["torch.compile"]})
            for name, ways in losses.items()
        ],
        "Linear head, loss and gradients, beside torch": [
            Row(
                shape(name),
                ways["softnll.torch"],
                {"torch": ways["linear + cross_entropy"], "F.linear_cross_entropy": ways["F.linear_cross_entropy"]},
            )
            for name, ways in heads.items()
        ],
        "Step of a small Llama, fused, beside itself": [
            Row(f"{int(name):,} classes".replace(",", "\u2009"), ways["fused"], {"as it is": ways["as it is"]})
            for name, ways in models.items()
        ],
        "Linear classifier, beside scikit-learn": [
            Row(DATA[name], ways["softnll"], {"scikit-learn": ways["scikit-learn"]}) for name, ways in fits.items()
        ],
    }


DATA = {"cifar10": "CIFAR-10", "fashion-mnist": "Fashion-MNIST", "digits": "digits (0.2 MB)"}


def memory() -> dict[str, list[Row]]:
    """Return peaks in MiB: of heads with their loss, of a small model, of classifiers."""
    heads: dict[str, dict[str, float]] = {}
    for line in lines("torch-linear"):
        if float(line["ignored"]) == 0 and line["peak_bytes"]:
            heads.setdefault(line["shape"], {})[line["way"]] = float(line["peak_bytes"]) / 2**20
    models: dict[str, dict[str, float]] = {}
    for line in lines("fuse"):
        models.setdefault(line["vocabulary"], {})[line["head"]] = float(line["peak_bytes"]) / 2**20
    fits = {
        name: {line["library"]: float(line["MiB beyond the data"]) for line in lines(f"classifier-speed-{name}")}
        for name in DATA
    }
    return {
        "Linear head, loss and gradients": [
            Row(
                shape(name),
                ways["softnll.torch"],
                {"torch": ways["linear + cross_entropy"], "F.linear_cross_entropy": ways["F.linear_cross_entropy"]},
            )
            for name, ways in heads.items()
        ],
        "Step of a small Llama": [
            Row(f"{int(name):,} classes".replace(",", "\u2009"), ways["fused"], {"as it is": ways["as it is"]})
            for name, ways in models.items()
        ],
        "Linear classifier, beyond the data": [
            Row(DATA[name], ways["softnll"], {"scikit-learn": ways["scikit-learn"]})
            for name, ways in fits.items()
            if name != "digits"
        ],
    }


def number(value: float) -> str:
    """Return a ratio or a size with two digits that count."""
    return f"{value:,.0f}".replace(",", "\u2009") if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _rows(ax: Axes, groups: dict[str, list[Row]]) -> list[tuple[float, Row]]:
    """Label the rows of an axes, with a heading above each group; return each row's place."""
    places, ticks, labels, y = [], [], [], 0.0
    for heading, rows in groups.items():
        ax.text(
            0,
            y,
            heading,
            transform=ax.get_yaxis_transform(),
            weight="bold",
            va="center",
            ha="left",
            bbox={"color": "white", "pad": 1},
        )
        for row in rows:
            y -= 1
            places.append((y, row))
            ticks.append(y)
            labels.append(row.label)
        y -= 1.4
    ax.set_yticks(ticks, labels)
    ax.set_ylim(y + 0.9, 0.8)
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    return places


def _bar(ax: Axes, y: float, ratio: float) -> None:
    """Draw a ratio as a bar from 1, with its number at the end."""
    faster = ratio >= 1
    right = ratio >= 1.1  # beside a bar that is hardly there, the place on the right is the second peer's
    ax.barh(y, ratio - 1, left=1, height=0.62, color=BLUE if faster else ORANGE)
    ax.annotate(
        number(ratio),
        (ratio, y),
        xytext=(4 if right else -4, 0),
        textcoords="offset points",
        va="center",
        ha="left" if right else "right",
        color=BLUE if faster else ORANGE,
        weight="bold",
    )


def draw_speed(ax: Axes) -> None:
    """Draw how many times as fast as each peer softnll is, on a logarithmic axis; 1 is equal."""
    ax.set_xscale("log")
    ax.axvline(1, color=GREY, lw=1)
    for y, row in _rows(ax, speeds()):
        for i, seconds in enumerate(row.peers.values()):
            ratio = seconds / row.ours
            if i == 0:
                _bar(ax, y, ratio)
            else:
                ax.plot(ratio, y - 0.36, "d", color="white", markeredgecolor=GREY, markersize=6)
    ax.set_xlim(0.25, 30)
    ax.set_xticks([0.5, 1, 2, 5, 10, 20], ["½", "1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set_xlabel(
        "times as fast as the library named; orange: slower\n◇ beside torch.compile, or torch's F.linear_cross_entropy"
    )


def draw_memory(ax: Axes) -> None:
    """Draw peaks of memory: ours, and each peer's."""
    for y, row in _rows(ax, memory()):
        each = [
            ("softnll", row.ours, BLUE),
            *((n, v, GREY if i else ORANGE) for i, (n, v) in enumerate(row.peers.items())),
        ]
        height = 0.84 / len(each)
        for i, (_, value, colour) in enumerate(each):
            place = y + 0.42 - height * (i + 0.5)
            ax.barh(place, value, height=height * 0.94, color=colour)
            ax.annotate(
                number(value), (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5
            )
    ax.set_xlim(0, 3600)
    ax.set_xlabel(
        "peak, MiB. Blue: softnll; orange: torch or scikit-learn;\ngrey: torch's F.linear_cross_entropy, in chunks"
    )


def speed_and_memory() -> Figure:
    """Return the picture of the README."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    left.set_title("Speed on two CPU cores", loc="left", fontsize=11, weight="bold")
    right.set_title("Memory", loc="left", fontsize=11, weight="bold")
    draw_speed(left)
    draw_memory(right)
    return figure


MEASURES = {
    "loss": "loss",
    "loss+grad fresh": "loss and gradient",
    "loss+grad out": "loss and gradient, out=",
    "softmax out": "softmax, out=",
    "logsumexp": "logsumexp",
}


def _size(item: tuple[tuple, Group]) -> tuple[int, int]:
    """Return the classes and rows of a group."""
    rows, columns = item[0][2].split("x") if "x" in item[0][2] else (0, 0)
    return int(columns), int(rows)


def cpu_ratios() -> dict[str, list[Row]]:
    """Return the fastest peer's time over ours for each measure: float32, two threads."""
    groups: dict[str, list[Row]] = {heading: [] for heading in MEASURES.values()}
    for (measure, dtype, _, threads), group in sorted(grouped(read(RESULTS / "cpu.csv")).items(), key=_size):
        peer = best_peer(group)
        if measure in MEASURES and (dtype, threads) == ("float32", 2) and peer and peer.over_ours:
            label = f"{shape(peer.shape)} ({peer.library})"
            groups[MEASURES[measure]].append(Row(label, 1.0, {"best peer": peer.over_ours}))
    return groups


def cpu() -> Figure:
    """Return the picture of the NumPy functions beside the best of their peers: float32, two threads."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    ax = figure.subplots()
    ax.set_xscale("log")
    ax.axvline(1, color=GREY, lw=1)
    for y, row in _rows(ax, cpu_ratios()):
        _bar(ax, y, row.peers["best peer"])
    ax.set_xlim(0.2, 20)
    ax.set_xticks([0.5, 1, 2, 5, 10, 20], ["½", "1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set_xlabel("times as fast as the fastest peer, which is in brackets (1: equal; orange: slower)")
    return figure


PICTURES = {"speed-and-memory.svg": (speed_and_memory, (speeds, memory)), "cpu.svg": (cpu, (cpu_ratios,))}


def described(groups: Iterable[dict[str, list[Row]]]) -> str:
    """Return all values that a picture shows, for its description: other programs read them there."""
    rows = [
        f"{heading}, {row.label}: softnll {row.ours:.4g}, "
        + ", ".join(f"{name} {value:.4g}" for name, value in row.peers.items())
        for each in groups
        for heading, rows in each.items()
        for row in rows
    ]
    return "; ".join(rows)


def main(folder: Path = IMAGES) -> None:
    """Write the pictures into a folder."""
    with figure_style(), mpl.rc_context(STYLE):
        for name, (draw, values) in PICTURES.items():
            about = {"Date": None, "Creator": None, "Title": name, "Description": described(each() for each in values)}
            draw().savefig(folder / name, metadata=about, facecolor="white")


if __name__ == "__main__":
    main()
