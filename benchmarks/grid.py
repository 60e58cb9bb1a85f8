"""The grid: softmax, log_softmax and both losses, every option and shape, beside PyTorch, JAX and SciPy.

    python benchmarks/grid.py [--function cross_entropy] [--option smoothing] [--shape 64x1000] [--type bfloat16]
                              [--threads 1] [--library torch] [--samples 5] [--out DIR]

Each shape, type and number of threads has a process of its own, in which all libraries take turns. A library's first
result is compared with ours: nothing wrong is timed. Lines replace those of the same cell in `results/grid.csv`, and
`results/grid.md` is written anew from the whole file. `--page` writes the page only.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from grid_page import FIELDS, markdown, merge, read
from launch import cores, start
from machine import commit, describe

RESULTS = Path(__file__).parent / "results"
LONGEST = 3600
TYPES = ("float32", "bfloat16")
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}
PACKAGES = ("numpy", "scipy", "numba", "torch", "jax")


def parse() -> argparse.Namespace:
    from grid_problems import FUNCTIONS, OPTIONS, PASSES, SHAPES  # noqa: PLC0415 - needs torch
    from grid_ways import LIBRARIES  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, allowed in (("function", FUNCTIONS), ("pass", PASSES), ("option", OPTIONS), ("shape", tuple(SHAPES))):
        parser.add_argument(f"--{name}", action="append", choices=allowed, dest=f"{name}s", help="may be repeated")
    parser.add_argument("--type", action="append", choices=TYPES, dest="types", help="may be repeated")
    parser.add_argument(
        "--library", action="append", choices=tuple(LIBRARIES), dest="libraries", help="may be repeated"
    )
    parser.add_argument("--threads", action="append", type=int, help="may be repeated; default 1 and 2")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument(
        "--budget", type=float, default=20.0, help="seconds of three calls beyond which a peer is left out"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of grid.csv and grid.md")
    parser.add_argument("--page", action="store_true", help="write the page from the file, measure nothing")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.functions, given.passs = given.functions or list(FUNCTIONS), given.passs or list(PASSES)
    given.options, given.shapes = given.options or list(OPTIONS), given.shapes or list(SHAPES)
    given.types, given.threads = given.types or list(TYPES), given.threads or [1, 2]
    given.libraries = given.libraries or list(LIBRARIES)
    return given


def numbers(value):
    """Return a result as float64: the whole, or the first and last of it where it is large."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    flat = value.detach().reshape(-1) if isinstance(value, torch.Tensor) else np.asarray(value).reshape(-1)
    flat = [flat] if flat.shape[0] < 1 << 16 else [flat[: 1 << 15], flat[-(1 << 15) :]]
    parts = [part.double().numpy() if isinstance(part, torch.Tensor) else part.astype(np.float64) for part in flat]
    return np.concatenate(parts)


def check(name: str, got: tuple, ours: tuple, tolerance: float) -> None:
    """Raise Unavailable where a library's result is not ours."""
    from ways import Unavailable  # noqa: PLC0415

    for a, b in zip(map(numbers, got), ours, strict=True):
        error, size = abs(a - b).max(), abs(b).max()
        if not error <= tolerance * size + 1e-7:
            raise Unavailable(f"{name} differs from ours by {error:.2g} of {size:.2g}")


def cell(asked: dict) -> None:
    """Print a JSON line for each cell of one shape, type and number of threads."""
    import torch  # noqa: PLC0415

    from grid_problems import SHAPES, make  # noqa: PLC0415
    from grid_ways import LIBRARIES  # noqa: PLC0415
    from ways import Unavailable, Way, time_together  # noqa: PLC0415

    torch.set_num_threads(asked["threads"])
    shape, tolerance = SHAPES[asked["shape"]], TOLERANCE[asked["type"]]
    for function in asked["functions"]:
        for option in asked["options"]:
            if not shape.has(function, option):
                continue
            problem = make(function, option, shape, getattr(torch, asked["type"]))
            for which in asked["passes"]:
                ways, found, ours = {}, {}, ()
                for name in sorted(asked["libraries"], key=lambda name: "softnll" not in name):  # ours first
                    try:
                        call = LIBRARIES[name](function, problem, which != "forward")
                        ours = ours or tuple(map(numbers, call()))
                        check(name, call(), ours, tolerance)
                        ways[name] = Way(call)
                    except Unavailable as reason:
                        found[name] = str(reason)
                    except Exception as error:  # noqa: BLE001 - a peer that fails is told and stops nothing
                        found[name] = f"fails: {type(error).__name__} {str(error).splitlines()[:1]}"
                times = time_together(ways, asked["samples"], asked["budget"]) if ways else {}
                for name, each in times.items():
                    found[name] = str(each) if isinstance(each, Unavailable) else [each.median, each.low, each.high]
                print(json.dumps({"cell": [function, which, option], "found": found}), flush=True)
                del ways


def run(given: argparse.Namespace, shape: str, dtype: str, threads: int) -> None:
    """Measure the cells of one shape, type and number of threads in a process of its own."""
    asked = {"shape": shape, "type": dtype, "threads": threads, "functions": given.functions, "passes": given.passs}
    asked |= {"options": given.options, "libraries": given.libraries, "samples": given.samples, "budget": given.budget}
    process = start(["grid.py", "--cell", json.dumps(asked)], threads)
    stop = threading.Timer(LONGEST, process.kill)
    stop.start()
    common = {"shape": shape, "type": dtype, "threads": threads, "commit": commit(), "machine": machine()}
    for text in process.stdout or ():
        if not text.startswith('{"cell"'):  # a peer's chatter
            continue
        told = json.loads(text)
        lines = []
        for library, each in told["found"].items():
            values = dict(zip(("function", "pass", "option"), told["cell"], strict=True), library=library, **common)
            known = isinstance(each, list)
            values |= dict(zip(("median_s", "min_s", "max_s"), each if known else ("",) * 3, strict=True))
            lines.append({name: str(values.get(name, "")) for name in FIELDS} | {"note": "" if known else each})
        merge(given.out / "grid.csv", lines)
        shown = ", ".join(
            f"{name} {each[0] * 1e6:.4g} µs" for name, each in told["found"].items() if isinstance(each, list)
        )
        print(*told["cell"], shape, dtype, threads, "|", shown, sep=" ", flush=True)
    code = process.wait()
    stop.cancel()
    if code:
        print(f"{shape} {dtype} {threads}: its process ended with {code}", file=sys.stderr)


def machine() -> str:
    return describe(*PACKAGES).split("; commit")[0]


def main() -> None:
    given = parse()
    if given.cell:
        cell(json.loads(given.cell))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    for shape in () if given.page else given.shapes:
        for dtype in given.types:
            for threads in given.threads:
                if threads <= len(cores()):
                    run(given, shape, dtype, threads)
    (given.out / "grid.md").write_text(markdown(read(given.out / "grid.csv")), encoding="utf-8")
    print(f"{(time.perf_counter() - begin) / 60:.1f} minutes; {given.out / 'grid.md'}", file=sys.stderr)


if __name__ == "__main__":
    main()
