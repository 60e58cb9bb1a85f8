"""One cell of the table, in a process of its own: all measures of one type, shape and number of threads.

    python cell.py '{"dtype": "float32", "shape": [128, 10], "threads": 1, ...}'

Prints a JSON line for each measure as soon as it is done. `cpu.py` starts it and says what to measure.
"""

from __future__ import annotations

import json
import sys

import ml_dtypes
import numpy as np

from library import LIMIT_OF, Library
from limits import LIMITS, Limits
from peers import ALWAYS, LIBRARIES
from ways import Timing, Unavailable, Way, time_together

LIKE = {"bfloat16": ml_dtypes.bfloat16}
CHECKED = 32  # rows at either end whose values are compared with ours
TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "float16": 0.01, "bfloat16": 0.05}
BLOCK = 1 << 24


def make(dtype: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return normal logits of deviation 3 and random targets."""
    rng = np.random.default_rng(0)
    x = np.empty(shape, LIKE.get(dtype, dtype))
    flat = x.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        part[:] = 3 * rng.standard_normal(part.size, np.float32)
    return x, rng.integers(0, shape[1], shape[0])


def sampled(library: Library, result, divisor: int) -> list[np.ndarray]:
    """Return a result's loss, and the first and last rows of its array, as float64."""
    parts = []
    for each in result if isinstance(result, tuple) else (result,):
        if each.ndim == 2:
            parts += [library.wide(each[:CHECKED]) / divisor, library.wide(each[-CHECKED:]) / divisor]
        elif each.ndim == 1:
            parts += [library.wide(each[:CHECKED]), library.wide(each[-CHECKED:])]
        else:
            parts.append(library.wide(each))
    return parts


def check(measure: str, got: list[np.ndarray], ours: list[np.ndarray], dtype: str) -> None:
    """Raise Unavailable where a peer does not compute what we do: nothing wrong is timed."""
    # A mean over many rows puts float16 gradients among its subnormals.
    least = 2 * float(ml_dtypes.finfo(LIKE.get(dtype, dtype)).smallest_subnormal)
    for a, b in zip(got, ours, strict=True):
        error = float(np.max(np.abs(a - b)))
        size = float(np.max(np.abs(b)))
        if not error <= TOLERANCE[dtype] * size + least:
            raise Unavailable(f"{measure} differs from ours by {error:.2g} of {size:.2g}")


class Cell:
    """Data, the libraries to be measured, and their limits."""

    def __init__(self, *, dtype: str, shape: tuple[int, int], threads: int, samples: int, budget: float, peers: str):
        self.dtype, self.threads, self.samples, self.budget = dtype, threads, samples, budget
        self.x, self.y = make(dtype, shape)
        self.libraries: dict[str, Library | Unavailable] = {}
        for library in LIBRARIES:
            if dtype != "float32" and peers != "all" and library.name not in ALWAYS:
                self.libraries[library.name] = Unavailable("not measured at this type")
                continue
            try:
                self.libraries[library.name] = library(self.x, self.y, threads)
            except ImportError as error:
                self.libraries[library.name] = Unavailable(f"not installed: {error}")
            except Unavailable as reason:
                self.libraries[library.name] = reason
        try:
            self.limits = Limits(self.x, threads)
        except Unavailable as reason:
            self.limits = reason

    def _warm(self, name: str, measure: str, ours: list[np.ndarray]) -> Way:
        """Return a way that has run once and whose value was checked."""
        library = self.libraries[name]
        if isinstance(library, Unavailable):
            raise library
        way = library.way(measure)
        divisor = library.divisor if measure.startswith("loss+grad") else 1
        values = sampled(library, way.call(), divisor)
        if not ours:
            ours += values
        check(measure, values, ours, self.dtype)
        return way

    def measure(self, measure: str) -> dict[str, dict]:
        """Return what each library took, or why it was not measured."""
        ways: dict[str, Way] = {}
        found: dict[str, Timing | Unavailable] = {}
        ours: list[np.ndarray] = []
        for name in self.libraries:
            try:
                ways[name] = self._warm(name, measure, ours)
            except Unavailable as reason:
                found[name] = reason
            except Exception as error:  # noqa: BLE001 - a peer that fails is told in the table and stops nothing
                found[name] = Unavailable(f"fails: {type(error).__name__} {str(error).splitlines()[:1]}")
            if not ways:
                raise RuntimeError(f"softnll {measure}: {found[name]}")
        if measure in LIMIT_OF:
            self._limit(LIMIT_OF[measure], "limit", ways, found)
        return self._told(ways, found | time_together(ways, self.samples, self.budget))

    def limit_rows(self) -> dict[str, dict]:
        """Return the time of each limit by itself."""
        ways: dict[str, Way] = {}
        found: dict[str, Timing | Unavailable] = {}
        for limit in LIMITS:
            self._limit(limit, limit, ways, found)
        return self._told(ways, found | time_together(ways, self.samples, self.budget))

    def _limit(self, limit: str, name: str, ways: dict, found: dict) -> None:
        try:
            if isinstance(self.limits, Unavailable):
                raise self.limits
            ways[name] = self.limits.way(limit)
        except Unavailable as reason:
            found[name] = reason

    @staticmethod
    def _told(ways: dict[str, Way], found: dict[str, Timing | Unavailable]) -> dict[str, dict]:
        """Return timings and reasons as plain values."""
        return {
            name: {"note": str(each)}
            if isinstance(each, Unavailable)
            else {
                "value": each.median,
                "low": each.low,
                "high": each.high,
                "samples": each.samples,
                "note": ways[name].note,
            }
            for name, each in found.items()
        }


def main() -> None:
    asked = json.loads(sys.argv[1])
    measures = asked.pop("measures")
    asked["shape"] = tuple(asked["shape"])
    cell = Cell(**asked)
    for measure in measures:
        lines = cell.limit_rows() if measure == "limits" else cell.measure(measure)
        print(json.dumps({"measure": measure, "libraries": lines}), flush=True)


if __name__ == "__main__":
    main()
