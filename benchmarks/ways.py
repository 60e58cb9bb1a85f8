"""Ways to compute the same thing, timed in turn: one round after another, each way once a round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

LONG = 2.0  # seconds of a call above which FEW samples are enough
FEW = 3
SAMPLE = 0.02  # seconds a sample lasts at least: short calls are repeated
SETTLE = 0.05  # calls shorter than this run once untimed before each sample: threads awake, caches their own
PAUSE = 0.01  # seconds between samples, in which the threads of the way before go to sleep


class Unavailable(Exception):  # noqa: N818 - it is an answer, not a fault
    """Why a way is not measured."""


@dataclass(frozen=True)
class Way:
    """One way: a call without arguments; `refill`, untimed, restores what a call in place overwrote.

    A call makes `passes` passes over its array; times are those of one.
    """

    call: Callable[[], Any]
    refill: Callable[[], Any] | None = None
    passes: int = 1
    note: str = ""


@dataclass(frozen=True)
class Timing:
    """Seconds of one pass: the median, the fastest and the slowest sample."""

    median: float
    low: float
    high: float
    samples: int


def once(way: Way) -> float:
    """Return the seconds of one call."""
    if way.refill:
        way.refill()
    begin = time.perf_counter()
    way.call()
    return time.perf_counter() - begin


def sample(way: Way, seconds: float, calls: int) -> float:
    """Return the seconds of one call, of `calls` in a row; in place, all but the first work on their own result."""
    call = way.call
    time.sleep(PAUSE)
    if seconds < SETTLE:
        call()
    if way.refill:
        way.refill()
    repeats = range(calls)
    begin = time.perf_counter()
    for _ in repeats:
        call()
    return (time.perf_counter() - begin) / calls


def time_together(ways: dict[str, Way], samples: int, budget: float) -> dict[str, Timing | Unavailable]:
    """Time warm ways in turn; but for the first, one whose FEW samples would take longer than `budget` is not timed."""
    found: dict[str, Timing | Unavailable] = {}
    plans = {}
    for name, way in ways.items():
        seconds = min(once(way) for _ in range(2))
        if plans and seconds * FEW > budget:
            found[name] = Unavailable(f"too slow for the budget: one call takes {seconds:.2g} s")
            continue
        count = min(samples, FEW) if seconds > LONG else samples
        plans[name] = (way, seconds, max(1, round(SAMPLE / seconds)), set(spread(count, samples)))
    times: dict[str, list[float]] = {name: [] for name in plans}
    gc.collect()
    gc.disable()
    try:
        for turn in range(samples):
            for name, (way, seconds, calls, turns) in plans.items():
                if turn in turns:
                    times[name].append(sample(way, seconds, calls) / way.passes)
    finally:
        gc.enable()
    for name, each in times.items():
        found[name] = Timing(median(each), min(each), max(each), len(each))
    return found


def spread(count: int, rounds: int) -> list[int]:
    """Return `count` of the rounds, evenly spread: a slow way is measured early, midway and late."""
    return [round(i * (rounds - 1) / max(1, count - 1)) for i in range(count)]
