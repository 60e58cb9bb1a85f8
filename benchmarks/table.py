"""The table of `cpu.py`: lines of a csv file, merged by what they measure, and their markdown."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

OURS, LIMIT = "softnll", "limit"
ORDER = {name: i for i, name in enumerate(("float32", "float64", "bfloat16", "float16", OURS, LIMIT))}
EVERYWHERE = "-"  # the type or shape of a measure that has none
SECOND, BYTE = "s", "B"


@dataclass(frozen=True)
class Line:
    """What one library took for one measure, or why that is not known."""

    measure: str
    dtype: str
    shape: str
    threads: int
    library: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    samples: int
    over_ours: float | None  # their value / ours in the same run; of the limit: the share of it that we reach
    note: str
    commit: str
    machine: str

    @property
    def group(self) -> tuple[str, str, str, int]:
        """Return what was measured: the lines of a group come from one run."""
        return self.measure, self.dtype, self.shape, self.threads


Group = dict[str, Line]


def read(path: Path) -> list[Line]:
    """Return the lines of a csv file, none where there is no file."""
    if not path.exists():
        return []
    number = {"float | None": lambda text: float(text) if text else None, "int": int, "str": str}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Line(**{field.name: number[field.type](row[field.name]) for field in fields(Line)})
            for row in csv.DictReader(file)
        ]


def merge(path: Path, new: Iterable[Line], measures: Iterable[str]) -> None:
    """Put lines into a csv file in place of those of the same groups; all others stay."""
    new = list(new)
    replaced = {line.group for line in new}
    lines = [line for line in read(path) if line.group not in replaced] + new
    lines.sort(key=lambda line: rank(line, list(measures)))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Line)])
        writer.writeheader()
        for line in lines:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(line).items()})
    partial.replace(path)


def rank(line: Line, measures: list[str]) -> tuple:
    """Return where a line stands: measures as given, float32 first, small shapes first, ours first."""
    measure = measures.index(line.measure) if line.measure in measures else len(measures)
    return measure, ORDER.get(line.dtype, 9), classes(line), line.shape, line.threads, ORDER.get(line.library, 9)


def classes(line: Line) -> int:
    """Return the number of classes of a line's array."""
    return int(line.shape.split("x")[1]) if line.shape != EVERYWHERE else 0


def grouped(lines: Iterable[Line]) -> dict[tuple, Group]:
    """Return the lines of each group by library."""
    groups: dict[tuple, Group] = defaultdict(dict)
    for line in lines:
        groups[line.group][line.library] = line
    return groups


def best_peer(group: Group) -> Line | None:
    """Return the line of the fastest (or lightest) peer."""
    peers = [line for line in group.values() if line.library not in (OURS, LIMIT) and line.value is not None]
    return min(peers, key=lambda line: line.value, default=None)


def told(value: float | None, unit: str) -> str:
    """Return a value with three digits and a unit of its size."""
    if value is None:
        return "-"
    if unit == BYTE:
        return f"{value / 2**20:.1f} MiB"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or name == "µs":
            return f"{value * factor:.3g} {name}"
    return ""


def entry(group: Group, name: str, notes: list[str]) -> str:
    """Return what a library took, with the number of its note, which joins the others."""
    line = group.get(name)
    if line is None:
        return ""
    text = told(line.value, line.unit)
    if line.measure == "limits" and line.value is not None:
        return f"{text} ({line.note})"
    if line.note and line.note not in notes:
        notes.append(line.note)
    return f"{text} [{notes.index(line.note) + 1}]" if line.note else text


def section(measure: str, groups: list[Group], several: bool) -> list[str]:
    """Return a measure's heading, table and notes."""
    libraries: list[str] = []
    for group in groups:
        libraries += [
            name for name, line in group.items() if name not in libraries and (name == OURS or line.value is not None)
        ]
    libraries.sort(key=lambda name: ORDER.get(name, 9))
    limited = LIMIT in libraries
    shown = [name for name in libraries if name != LIMIT]
    compared = OURS in libraries
    heads = ["type", "shape", "threads", *shown]
    heads += ["best peer", "peer / ours"] * compared + ["share of the limit"] * limited + ["commit"] * several
    notes: list[str] = []
    lines = [f"\n## {measure}\n", "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for group in groups:
        first = next(iter(group.values()))

        cells = [first.dtype, first.shape, str(first.threads), *(entry(group, name, notes) for name in shown)]
        best = best_peer(group)
        if compared:
            cells += [best.library, f"**{best.over_ours:.2f}**" if best.over_ours else "-"] if best else ["-", "-"]
        if limited:
            limit = group.get(LIMIT)
            cells.append(f"{limit.over_ours:.0%}" if limit and limit.over_ours else entry(group, LIMIT, notes))
        lines.append("| " + " | ".join([*cells, *([first.commit] * several)]) + " |")
    missing = sorted({f"{n}: {x.note}" for g in groups for n, x in g.items() if x.value is None and n not in libraries})
    lines += ["", *(f"[{i + 1}] {note}  " for i, note in enumerate(notes))]
    lines += [f"Not in the table: {'; '.join(missing)}."] if missing else []
    return lines


def overview(lines: list[Line]) -> list[str]:
    """Return a table of each function beside its fastest peer: float32, two threads."""
    table = ["| function | shape | softnll | fastest peer | its time | peer / ours |", "|" + " --- |" * 6]
    for (measure, dtype, shape, threads), group in grouped(lines).items():
        peer = best_peer(group)
        if (
            (dtype, threads) == ("float32", 2)
            and peer
            and peer.unit == SECOND
            and peer.over_ours
            and shape != EVERYWHERE
        ):
            times = told(group[OURS].value, SECOND), peer.library, told(peer.value, SECOND)
            table.append(f"| {measure} | {shape} | {' | '.join(times)} | **{peer.over_ours:.2f}** |")
    return table


def markdown(lines: list[Line], goals: str) -> str:
    """Return the page: an overview, the machine, a table for each measure, and the goals, met or missed."""
    commits = sorted({line.commit for line in lines})
    machines = sorted({line.machine for line in lines})
    text = [
        "# CPU kernels beside their peers\n",
        *overview(lines),
        "\nfloat32, two threads; other types, one thread and every peer follow. Medians; all of a row in turn in one",
        "process on as many cores as threads; outputs of a call are dropped before the next. `peer / ours` is a ratio",
        "of medians: above 1 ours is faster (or lighter). The share of the limit is the time of a measured read,",
        "non-temporal copy or in-place scale of the same array over ours. The last section has the [goals](#goals).",
        "Written by `benchmarks/cpu.py`; the csv beside this page has the spread and the number of samples.\n",
        *(f"{machine}  " for machine in machines),
        f"commit {', '.join(commits)}",
    ]
    by_measure: dict[str, list[Group]] = defaultdict(list)
    for group in grouped(lines).values():
        by_measure[next(iter(group.values())).measure].append(group)
    for measure, groups in by_measure.items():
        text += section(measure, groups, len(commits) > 1)
    return "\n".join([*text, "\n## Goals\n", goals]) + "\n"
