"""The last layer on a CPU beside its peers and beside what memory allows: one table, csv and markdown.

    python benchmarks/cpu.py                                   # everything; hours
    python benchmarks/cpu.py --quick --out quick          # a few small shapes, float32, 3 samples
    python benchmarks/cpu.py --only loss --dtype float32 --shape 8192x1000 --threads 2

Each type, shape and number of threads has a process of its own, on as many cores as threads; in it ours and every
peer take turns. What is measured again replaces its rows of the table and no others. Peers, and what counts as
their best way: `peers.py`; limits: `limits.c`; goals: `goals.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

import processes
from goals import judged
from launch import cores, start
from library import MEASURES
from machine import commit, describe
from table import BYTE, EVERYWHERE, OURS, SECOND, Line, markdown, merge, read

RESULTS = Path(__file__).parent / "results"
SHAPES = ((1, 10), (128, 10), (8192, 1000), (1_000_000, 10), (100_000, 100), (4096, 32_000), (2048, 128_256))
QUICK = ((1, 10), (128, 10), (512, 1000))
DTYPES = ("float32", "float64", "bfloat16", "float16")
THREADS = (1, 2)
BYTES = {"float32": 4, "float64": 8}
ALL = (*MEASURES, "limits", "first call", "import", *processes.MEMORY)
IN_CELL = (*MEASURES, "limits")
FIRST_CALLS = ((128, 10), (8192, 1000))
ARRAYS = {"float32": 8, "float64": 8}  # arrays of the input's size that live at once in the greediest peer
HALF_ARRAYS = 12  # half types: some peers compute in float32
LEAST_MEMORY = 1 << 24  # bytes of input from which the peak of a process says something
LONGEST = 3600.0  # seconds after which a cell is stopped
PACKAGES = ("numpy", "scipy", "numba", "torch", "jax", "scikit-learn", "ml_dtypes")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes, float32, 3 samples")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="may be repeated")
    parser.add_argument("--shape", action="append", type=shape, metavar="NxC", help="any shape; may be repeated")
    parser.add_argument("--threads", action="append", type=int, help="may be repeated (default: 1 and 2)")
    parser.add_argument("--only", action="append", choices=ALL, metavar="MEASURE", help=f"of: {', '.join(ALL)}")
    parser.add_argument("--peers", choices=("usual", "all"), default="usual", help="all: every peer at every type")
    parser.add_argument("--samples", type=int, help="of each way (default: 7; 3 where a call takes over 2 s)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for 3 samples of one way (default: 60)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of cpu.csv and cpu.md")
    parser.add_argument("--goals", action="store_true", help="measure nothing: judge and write what the csv holds")
    arguments = parser.parse_args()
    arguments.dtype = arguments.dtype or (DTYPES[:1] if arguments.quick else DTYPES)
    arguments.shape = arguments.shape or (QUICK if arguments.quick else SHAPES)
    arguments.threads = arguments.threads or THREADS
    arguments.only = arguments.only or ALL
    arguments.samples = arguments.samples or (3 if arguments.quick else 7)
    return arguments


def shape(text: str) -> tuple[int, int]:
    rows, columns = text.split("x")
    return int(rows), int(columns)


def available() -> int:
    """Return the bytes of memory that new arrays may take."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


class Table:
    """The csv file, with what every new line of it carries."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.csv, self.page = folder / "cpu.csv", folder / "cpu.md"
        self.commit, self.machine = commit(), describe(*PACKAGES).split("; commit")[0]

    def add(self, measure: str, dtype: str, shape: str, threads: int, libraries: dict[str, dict]) -> None:
        """Put a group of lines into the file, and tell it."""
        ours = libraries.get(OURS, {}).get("value")
        unit = BYTE if measure.startswith("memory") else SECOND
        lines = [
            Line(
                measure=measure,
                dtype=dtype,
                shape=shape,
                threads=threads,
                library=name,
                value=each.get("value"),
                unit=unit,
                low=each.get("low"),
                high=each.get("high"),
                samples=each.get("samples", 0),
                over_ours=each["value"] / ours if ours and "value" in each else None,
                note=each["note"],
                commit=self.commit,
                machine=self.machine,
            )
            for name, each in libraries.items()
        ]
        merge(self.csv, lines, ALL)
        values = ", ".join(f"{line.library} {line.value:.3g}" for line in lines if line.value is not None)
        print(f"{measure} | {dtype} {shape} {threads}: {values or lines[0].note}", flush=True)

    def close(self) -> None:
        """Write the page and print the goals."""
        lines = read(self.csv)
        goals = judged(lines)
        self.page.write_text(markdown(lines, goals), encoding="utf-8")
        print(f"\n{goals}\n\n{self.csv}\n{self.page}")


def bandwidths(libraries: dict[str, dict], bytes_: int) -> dict[str, dict]:
    """Note the bytes a second of each limit."""
    from limits import TRAFFIC  # noqa: PLC0415 - needs NumPy, which nothing else here does

    return {
        name: each | ({"note": f"{TRAFFIC[name] * bytes_ / each['value'] / 1e9:.1f} GB/s"} if "value" in each else {})
        for name, each in libraries.items()
    }


def run_cell(table: Table, arguments, dtype: str, shape: tuple[int, int], threads: int) -> None:
    """Measure one cell in a process of its own; what it does not reach is told in the table."""
    missing = [measure for measure in IN_CELL if measure in arguments.only]
    if not missing:
        return
    name = "x".join(map(str, shape))
    size = shape[0] * shape[1] * BYTES.get(dtype, 2)
    needed = size * ARRAYS.get(dtype, HALF_ARRAYS)
    if len(cores()) < threads:
        reason = f"this machine has {len(cores())} cores"
    elif needed > available():
        reason = f"needs {needed >> 30} GiB of memory, {available() >> 30} GiB are free"
    else:
        reason = ""
        asked = {"dtype": dtype, "shape": shape, "threads": threads, "measures": missing.copy()}
        asked |= {"samples": arguments.samples, "budget": arguments.budget, "peers": arguments.peers}
        process = start(["cell.py", json.dumps(asked)], threads)
        stop = threading.Timer(LONGEST, process.kill)
        stop.start()
        for text in process.stdout:
            if not text.startswith('{"measure"'):  # a peer's chatter
                continue
            told = json.loads(text)
            libraries = told["libraries"]
            if told["measure"] == "limits":
                libraries = bandwidths(libraries, size)
            table.add(told["measure"], dtype, name, threads, libraries)
            missing.remove(told["measure"])
        code = process.wait()
        stop.cancel()
        reason = f"its process ended with {code}"
    for measure in missing:
        table.add(measure, dtype, name, threads, {OURS: {"note": reason}})


def run_processes(table: Table, arguments) -> None:
    """Measure what only new processes show."""
    threads = min(max(arguments.threads), len(cores()))
    if "import" in arguments.only:
        table.add("import", EVERYWHERE, EVERYWHERE, threads, processes.imports(threads, arguments.samples))
    if "first call" in arguments.only:
        for each in FIRST_CALLS:
            lines = processes.first_calls(each, threads, arguments.samples)
            table.add("first call", "float32", "x".join(map(str, each)), threads, lines)
    for dtype in arguments.dtype:
        for each in arguments.shape:
            size = each[0] * each[1] * BYTES.get(dtype, 2)
            for measure in (measure for measure in processes.MEMORY if measure in arguments.only):
                if size < LEAST_MEMORY:
                    lines = {OURS: {"note": f"inputs under {LEAST_MEMORY >> 20} MiB: the peak shows pages, not arrays"}}
                else:
                    lines = processes.peaks(measure, dtype, each, threads)
                table.add(measure, dtype, "x".join(map(str, each)), threads, lines)


def main() -> None:
    arguments = parse()
    table = Table(arguments.out)
    begin = time.perf_counter()
    if not arguments.goals:
        run_processes(table, arguments)
        for dtype in arguments.dtype:
            for each in arguments.shape:
                for threads in arguments.threads:
                    run_cell(table, arguments, dtype, each, threads)
        print(f"measured in {(time.perf_counter() - begin) / 60:.1f} minutes", file=sys.stderr)
    table.close()


if __name__ == "__main__":
    main()
