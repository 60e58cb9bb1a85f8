"""How the time grows: loss, and loss with gradient into a given array, against rows and against classes.

    python benchmarks/scaling.py [--threads 2] [--most 1e9]
    python benchmarks/scaling.py --most 1e6 --out scaling --image scaling.svg   # seconds
    python benchmarks/scaling.py --draw                                         # the figure again, from the csv

From 10³ to 10⁹ bytes of float32 logits, with neighbours of 128, 4096 and 65 536 classes. Writes the times, the fitted
slopes of log time against log bytes, and every cliff (the time of an entry jumps by more than half from one point to
the next) to ``benchmarks/results/scaling.csv`` and ``.md``, and the figure to ``docs/images/scaling.svg``.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from launch import start
from machine import describe
from page import table_first

ROOT = Path(__file__).resolve().parents[1]
ITEM = 4  # bytes of a float32
LEAST, MOST = 1e3, 1e9
PER_DECADE = 4
BESIDE = (127, 128, 129, 4095, 4096, 4097, 65_535, 65_536, 65_537)
CLASSES = (10, 1000)  # fixed while rows grow
ROWS = (64, 2048)  # fixed while classes grow
MEASURES = ("loss", "loss+grad out")
LINEAR = 1e6  # bytes from which calls and threads cost nothing beside the entries
CLIFF = 1.5
CLOSE = 1.1  # between points that close a fall is a cliff too; elsewhere it is the call's own time spread thinner


@dataclass(frozen=True)
class Point:
    """One measured size."""

    against: str
    fixed: int
    measure: str
    rows: int
    classes: int
    threads: int
    seconds: float
    low: float
    high: float

    @property
    def bytes(self) -> int:
        return self.rows * self.classes * ITEM

    @property
    def entry(self) -> float:
        """Return the seconds of one entry."""
        return self.seconds / (self.rows * self.classes)


def sizes(most: float) -> list[tuple[str, int, int, int]]:
    """Return what grows, what is fixed, rows and classes of every point."""
    exponents = np.arange(np.log10(LEAST), np.log10(most) + 1e-9, 1 / PER_DECADE)
    points = []
    for fixed in CLASSES:
        rows = sorted({max(1, round(10**e / ITEM / fixed)) for e in exponents})
        points += [("rows", fixed, n, fixed) for n in rows]
    for fixed in ROWS:
        grid = {round(10**e / ITEM / fixed) for e in exponents} | {c for c in BESIDE if ITEM * fixed * c <= most}
        points += [("classes", fixed, fixed, c) for c in sorted(grid) if c >= 2]
    return points


def work(threads: int, most: float, samples: int) -> None:
    """Measure every point in this process, a JSON line each."""
    from cell import make  # noqa: PLC0415 - the parent measures nothing
    from peers import Softnll  # noqa: PLC0415
    from ways import time_together  # noqa: PLC0415

    for against, fixed, rows, classes in sizes(most):
        library = Softnll(*make("float32", (rows, classes)), threads)
        ways = {measure: library.way(measure) for measure in MEASURES}
        for way in ways.values():
            way.call()
        for measure, timing in time_together(ways, samples, float("inf")).items():
            point = Point(against, fixed, measure, rows, classes, threads, timing.median, timing.low, timing.high)
            print(json.dumps(asdict(point)), flush=True)


def lines_of(points: list[Point]) -> dict[tuple, list[Point]]:
    """Return the points of each line, small ones first."""
    lines: dict[tuple, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.bytes):
        lines.setdefault((point.against, point.fixed, point.measure), []).append(point)
    return lines


def slope(line: list[Point]) -> float:
    """Return the slope of log time against log bytes where entries are what costs; NaN with too few points."""
    large = [point for point in line if point.bytes >= LINEAR]
    if len(large) < 3:
        return float("nan")
    return float(np.polyfit(np.log([p.bytes for p in large]), np.log([p.seconds for p in large]), 1)[0])


def cliffs(line: list[Point]) -> list[str]:
    """Return the jumps of the time of an entry between neighbours."""
    found = []
    for a, b in pairwise(line):
        jump = b.entry / a.entry
        close = b.bytes / a.bytes < CLOSE
        if jump > CLIFF or (close and 1 / jump > CLIFF):
            found.append(
                f"{a.measure}: {a.rows}x{a.classes} to {b.rows}x{b.classes}: {a.entry * 1e9:.3g} to "
                f"{b.entry * 1e9:.3g} ns an entry ({jump:.2f}x)"
            )
    return found


def draw(lines: dict[tuple, list[Point]], path: Path) -> None:
    """Draw time against bytes, one panel for rows and one for classes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - the process that measures loads
    from matplotlib.figure import Figure  # noqa: PLC0415 - nothing it does not measure

    from softnll._inspection.figure_style import MUTED, figure_style  # noqa: PLC0415 - likewise

    with figure_style():
        figure = Figure(figsize=(11, 4.6))
        FigureCanvasSVG(figure)
        for axes, against in zip(figure.subplots(1, 2, sharey=True), ("rows", "classes"), strict=True):
            panel = [(key, line) for key, line in lines.items() if key[0] == against]
            for (_, fixed, measure), line in panel:
                kept = "classes" if against == "rows" else "rows"
                told = f"{measure}, {fixed} {kept}: slope {slope(line):.2f}"
                x, y = [point.bytes for point in line], [point.seconds for point in line]
                axes.plot(x, y, marker="o", markersize=3, linewidth=1.2, label=told)
            axes.set(xscale="log", yscale="log", xlabel="bytes of float32 logits", title=f"Against {against}")
            axes.legend(loc="upper left", frameon=True, facecolor="white", edgecolor="none", framealpha=1)
            if against == "classes":
                for classes in (128, 4096, 65_536):
                    for rows, style in zip(ROWS, (":", "--"), strict=True):
                        axes.axvline(ITEM * rows * classes, color=MUTED, linewidth=0.6, linestyle=style)
                note = f"lines at 128, 4096 and 65 536 classes:\ndotted {ROWS[0]} rows, dashed {ROWS[1]} rows"
                box = {"color": "white", "pad": 1}
                place = {"transform": axes.transAxes, "ha": "right"}
                axes.text(0.98, 0.03, note, fontsize=8.5, color=MUTED, bbox=box, **place)
            else:
                axes.set_ylabel("seconds a call")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
    # matplotlib leaves spaces at the ends of lines.
    path.write_text("\n".join(line.rstrip() for line in path.read_text("utf-8").splitlines()) + "\n", "utf-8")


def write(points: list[Point], folder: Path, image: Path, threads: int) -> None:
    """Write csv, page and figure, and print the page."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(point) | {"bytes": point.bytes} for point in points]
    with (folder / "scaling.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    lines = lines_of(points)
    draw(lines, image)
    found = [cliff for line in lines.values() for cliff in cliffs(line)]
    table = [
        f"| {against} | {fixed} | {measure} | {slope(line):.3f} | {line[-1].bytes:.3g} | {line[-1].seconds:.3g} |"
        for (against, fixed, measure), line in lines.items()
    ]
    text = "\n".join(
        [
            "# Time against rows and classes\n",
            f"{describe('numpy', 'numba')}; {threads} threads\n",
            f"float32; medians. The slope is that of log time against log bytes from {LINEAR:.0e} bytes: 1 is linear.",
            "Written by `benchmarks/scaling.py`; points in the csv, figure in `docs/images/scaling.svg`.\n",
            "| against | fixed | measure | slope | most bytes | seconds there |",
            "| --- | --- | --- | --- | --- | --- |",
            *table,
            f"\n## Jumps of the time of an entry by more than {CLIFF}x\n",
            *([f"- {cliff}" for cliff in found] or ["None."]),
        ]
    )
    (folder / "scaling.md").write_text(table_first(text), encoding="utf-8")
    print(text)


def read(path: Path) -> list[Point]:
    """Return the points of the csv."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts, times = ("fixed", "rows", "classes", "threads"), ("seconds", "low", "high")
    return [
        Point(
            row["against"],
            measure=row["measure"],
            **{k: int(row[k]) for k in counts},
            **{k: float(row[k]) for k in times},
        )
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=float, default=MOST, help="bytes of the largest array (default: 1e9)")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of csv and page")
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "images" / "scaling.svg")
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw what the csv holds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.threads, arguments.most, arguments.samples)
        return
    if arguments.draw:
        draw(lines_of(read(arguments.out / "scaling.csv")), arguments.image)
        return
    process = start([__file__, "--worker", *sys.argv[1:]], arguments.threads)
    points = []
    for text in process.stdout:
        points.append(Point(**json.loads(text)))
        print(text.strip(), flush=True)
    if process.wait():
        raise SystemExit(f"the measuring process ended with {process.returncode}")
    write(points, arguments.out, arguments.image, arguments.threads)


if __name__ == "__main__":
    main()
