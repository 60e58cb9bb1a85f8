"""The goals of the CPU kernels, each held against every measured row it speaks of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from table import EVERYWHERE, LIMIT, OURS, SECOND, Group, Line, best_peer, classes, grouped, told

TYPES = ("float32", "float64", "bfloat16", "float16")
SCRATCH = 1 << 20  # bytes allowed for thread stacks and page granularity


@dataclass(frozen=True)
class Verdict:
    """One row against a goal: `score` ≥ 1 where it is met."""

    score: float
    text: str
    row: Line


@dataclass(frozen=True)
class Goal:
    """A goal: the measures it speaks of, and a verdict on a group of them (None where it does not apply)."""

    what: str
    target: str
    measures: tuple[str, ...]
    judge: Callable[[Group], Verdict | None]


def at_least(figure: float | None, needed: float, row: Line, unit: str = "x") -> Verdict | None:
    """Return the verdict on a figure that should be large."""
    if figure is None:
        return None
    return Verdict(figure / needed, f"{figure:.2f}{unit} of {needed:g}{unit}", row)


def at_most(figure: float | None, allowed: float, unit: str, row: Line) -> Verdict | None:
    """Return the verdict on a value that should be small."""
    if figure is None:
        return None
    return Verdict(allowed / max(figure, 1e-12), f"{told(figure, unit)} of {told(allowed, unit)}", row)


def best(needed: Callable[[int], float]) -> Callable[[Group], Verdict | None]:
    """Judge the best peer's time over ours; what is needed depends on the number of classes."""

    def judge(group: Group) -> Verdict | None:
        peer = best_peer(group)
        return peer and at_least(peer.over_ours, needed(classes(peer)), peer)

    return judge


def against(library: str, needed: Callable[[int], float]) -> Callable[[Group], Verdict | None]:
    """Judge one peer's time over ours."""

    def judge(group: Group) -> Verdict | None:
        peer = group.get(library)
        return peer and at_least(peer.over_ours, needed(classes(peer)), peer)

    return judge


def share(needed: float, least_classes: int = 0) -> Callable[[Group], Verdict | None]:
    """Judge the share of the limit."""

    def judge(group: Group) -> Verdict | None:
        limit = group.get(LIMIT)
        return at_least(limit.over_ours, needed, limit, "") if limit and classes(limit) >= least_classes else None

    return judge


def ours(allowed: float, shape: str | None = None) -> Callable[[Group], Verdict | None]:
    """Judge our seconds."""

    def judge(group: Group) -> Verdict | None:
        line = group.get(OURS)
        return at_most(line.value, allowed, SECOND, line) if line and shape in (None, line.shape) else None

    return judge


def beyond_numpy(group: Group) -> Verdict | None:
    """Judge how much longer our import takes than NumPy's."""
    line, numpy = group.get(OURS), group.get("NumPy")
    if not (line and numpy and line.value and numpy.value):
        return None
    return at_most(max(0.0, line.value - numpy.value), 0.020, SECOND, line)


def memory(group: Group) -> Verdict | None:
    """Judge bytes beyond input and output: a row of float64 a thread."""
    line = group.get(OURS)
    if line is None or line.value is None:
        return None
    rows, columns = map(int, line.shape.split("x"))
    item = {"float64": 8, "float32": 4}.get(line.dtype, 2)
    output = rows * columns * item if line.measure.endswith("fresh") else 8 * rows  # losses, also where out is given
    return at_most(line.value, output + 8 * rows + 8 * columns * line.threads + SCRATCH, line.unit, line)


GOALS = (
    Goal(
        "loss forward",
        "≥ 2.5x the best peer (≥ 1.7x at 100 classes)",
        ("loss",),
        best(lambda C: 1.7 if C == 100 else 2.5),
    ),
    Goal("loss forward", "≥ 0.75 of the read limit from 32 000 classes", ("loss",), share(0.75, 32000)),
    Goal("loss + gradient, fresh", "≥ 2x the best peer", ("loss+grad fresh",), best(lambda _: 2)),
    Goal(
        "loss + gradient, `out=`",
        "≥ 3x the best peer to 1000 classes, ≥ 6x beyond",
        ("loss+grad out",),
        best(lambda C: 3 if C <= 1000 else 6),
    ),
    Goal(
        "loss + gradient, in place",
        "≥ 3x the best peer to 1000 classes, ≥ 6x beyond",
        ("loss+grad in place",),
        best(lambda C: 3 if C <= 1000 else 6),
    ),
    Goal("loss + gradient, `out=`", "≥ 0.65 of the non-temporal copy", ("loss+grad out",), share(0.65)),
    Goal("loss + gradient, in place", "≥ 0.65 of the in-place scale", ("loss+grad in place",), share(0.65)),
    Goal(
        "softmax, log_softmax with `out=`",
        "≥ 1.8x torch's `out=` (≥ 1.2x at 100 classes)",
        ("softmax out", "log_softmax out"),
        against("torch", lambda C: 1.2 if C == 100 else 1.8),
    ),
    Goal("logsumexp", "≥ 10x SciPy", ("logsumexp",), against("SciPy", lambda _: 10)),
    Goal("logsumexp", "≥ 2x jax", ("logsumexp",), against("jax", lambda _: 2)),
    Goal("[1, 10] softmax", "≤ 3 µs", ("softmax fresh", "softmax out"), ours(3e-6, "1x10")),
    Goal("[1, 10] cross_entropy", "≤ 5 µs", ("loss",), ours(5e-6, "1x10")),
    Goal("first call, warm cache", "≤ 0.5 s", ("first call",), ours(0.5)),
    Goal("import", "within 20 ms of NumPy", ("import",), beyond_numpy),
    Goal(
        "memory",
        "output + losses + one row of float64 a thread (+ 1 MiB)",
        ("memory loss", "memory loss+grad fresh", "memory loss+grad out", "memory loss+grad in place"),
        memory,
    ),
)


def where(line: Line) -> str:
    """Return where a verdict stands."""
    shape = "" if line.shape == EVERYWHERE else f"{line.shape}, "
    return f"{shape}{line.threads} thread{'s' * (line.threads > 1)}"


def judged(lines: Iterable[Line]) -> str:
    """Return the goals beside what was measured, and every miss, as markdown."""
    groups = list(grouped(lines).values())
    types = [name for name in TYPES if any(name == next(iter(group.values())).dtype for group in groups)]
    heads = ["what", "goal", *types]
    table = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    misses = []
    for goal in GOALS:
        cells = []
        for name in types:
            mine = [group for group in groups if next(iter(group.values())).measure in goal.measures]
            found = [goal.judge(group) for group in mine if next(iter(group.values())).dtype in (name, EVERYWHERE)]
            verdicts = sorted((verdict for verdict in found if verdict), key=lambda verdict: verdict.score)
            if not verdicts:
                cells.append("not measured")
                continue
            met = sum(verdict.score >= 1 for verdict in verdicts)
            mark = "**met**" if met == len(verdicts) else f"missed in {len(verdicts) - met} of {len(verdicts)}"
            cells.append(f"{mark}; least: {verdicts[0].text} ({where(verdicts[0].row)})")
            misses += [
                f"- {goal.what}, {goal.target}: {name} {where(verdict.row)}, {verdict.row.measure}: {verdict.text}"
                f" ({verdict.score:.0%} of the goal; {verdict.row.library})"
                for verdict in verdicts
                if verdict.score < 1
            ]
        table.append("| " + " | ".join([goal.what, goal.target, *cells]) + " |")
    return "\n".join(table + (["\nMissed:\n", *dict.fromkeys(misses)] if misses else ["\nNothing measured is missed."]))
