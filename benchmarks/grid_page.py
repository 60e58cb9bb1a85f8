"""The grid's file, a line for each library and cell, and its page."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

from table import SECOND, told

KEY = ("function", "pass", "option", "shape", "type", "threads")
FIELDS = (*KEY, "library", "median_s", "min_s", "max_s", "note", "commit", "machine")
DOORS = ("softnll.torch", "softnll")
EAGER, COMPILED = "torch", "torch.compile"
TINY = {"1x10", "32x10", "128x10"}  # their arithmetic takes less than 5 µs
GOAL, TINY_GOAL, COMPILED_GOAL, MEDIAN_GOAL = 1.0, 0.75, 0.9, 2.5

Lines = list[dict[str, str]]


def read(path: Path) -> Lines:
    """Return the lines of the file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def merge(path: Path, new: Lines) -> None:
    """Put lines into the file in place of those of the same cell and library; all others stay."""
    replaced = {tuple(line[name] for name in (*KEY, "library")) for line in new}
    lines = [line for line in read(path) if tuple(line[name] for name in (*KEY, "library")) not in replaced] + new
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    partial.replace(path)


def cells(lines: Lines) -> dict[tuple, dict[str, float]]:
    """Return the median seconds of each library by cell."""
    found: dict[tuple, dict[str, float]] = defaultdict(dict)
    for line in lines:
        if line["median_s"]:
            found[tuple(line[name] for name in KEY)][line["library"]] = float(line["median_s"])
    return found


def ratio(cell: dict[str, float], peer: str, ours: str) -> float | None:
    return cell[peer] / cell[ours] if peer in cell and ours in cell else None


def summary(found: dict[tuple, dict[str, float]]) -> list[str]:
    """Return how many cells meet the goals, and the median of each door."""
    text = ["| door | peer | cells | median ratio | goal | least allowed | cells below | lowest |", "| --- " * 8 + "|"]
    for door in DOORS:
        for peer, allowed in ((EAGER, GOAL), (COMPILED, COMPILED_GOAL)):
            ratios = {key: value for key, cell in found.items() if (value := ratio(cell, peer, door)) is not None}
            if not ratios:
                continue
            least = {key: TINY_GOAL if key[3] in TINY else allowed for key in ratios}
            below = sum(value < least[key] for key, value in ratios.items())
            lowest = min(ratios, key=lambda key: ratios[key])
            goal = str(MEDIAN_GOAL) if peer == EAGER else "-"
            row = (door, peer, len(ratios), f"{median(ratios.values()):.2f}", goal, f"{allowed} (tiny {TINY_GOAL})")
            text.append("| " + " | ".join(map(str, (*row, below, f"{ratios[lowest]:.2f}: {', '.join(lowest)}"))) + " |")
    return text


def table(found: dict[tuple, dict[str, float]]) -> list[str]:
    """Return a table for each function and pass, a row for each other part of a cell."""
    text = []
    sections: dict[tuple, list[tuple]] = defaultdict(list)
    for key in found:
        sections[key[:2]].append(key)
    for (function, which), keys in sections.items():
        peers = [name for name in (EAGER, COMPILED, "jax", "SciPy") if any(name in found[key] for key in keys)]
        heads = [
            "option",
            "shape",
            "type",
            "threads",
            *DOORS,
            *peers,
            "torch / ours",
            "compiled / ours",
            "torch / NumPy door",
        ]
        text += [f"\n## {function}, {which}\n", "| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        for key in keys:
            cell = found[key]
            ratios = (ratio(cell, EAGER, DOORS[0]), ratio(cell, COMPILED, DOORS[0]), ratio(cell, EAGER, DOORS[1]))
            values = [*key[2:], *(told(cell.get(name), SECOND) for name in (*DOORS, *peers))]
            values += ["" if each is None else f"**{each:.2f}**" if each < GOAL else f"{each:.2f}" for each in ratios]
            text.append("| " + " | ".join(values) + " |")
    return text


def markdown(lines: Lines) -> str:
    """Return the page: what a reader wants first, machine and method last."""
    found = cells(lines)
    text = ["# The grid: every function, option and shape beside its peers", ""]
    text += ["Ratios of medians: a peer's time over ours, above 1 ours is faster; below 1 in bold.", ""]
    text += summary(found) + table(found)
    notes = sorted({f"{line['library']}: {line['note']}" for line in lines if line["note"]})
    text += ["", "## How it was measured", "", *(f"{line}  " for line in sorted({line["machine"] for line in lines}))]
    text += [f"commit {', '.join(sorted({line['commit'] for line in lines}))}", ""]
    text += ["All libraries of a cell take turns in one process on as many cores as threads; outputs of a call are"]
    text += [
        "dropped before the next. Written by `benchmarks/grid.py`; the csv has the fastest and slowest samples.",
        "",
    ]
    text += ["Not measured:", "", *(f"- {note}" for note in notes)]
    return "\n".join(text) + "\n"
