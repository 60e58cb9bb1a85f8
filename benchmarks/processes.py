"""What only a new process shows: the time of an import, of the first call, and the peak of memory.

    python processes.py softnll "loss+grad out" float32 8192x1000

prints the bytes that one call of that measure takes beyond its inputs (and beyond a given output).
"""

from __future__ import annotations

import ctypes
import sys
from statistics import median

from launch import output

IMPORTS = {"softnll": "softnll", "NumPy": "numpy", "torch": "torch", "jax": "jax"}
# What is imported, what turns NumPy's arrays into the library's own (not counted), and the call.
FIRST = {
    "softnll": ("import softnll as sn", "", "sn.cross_entropy_and_grad(x, y)"),
    "torch": (
        "import torch",
        "x, y = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)",
        "torch.autograd.grad(torch.nn.functional.cross_entropy(x, y), x)",
    ),
    "jax": (
        "import jax; import jax.numpy as jnp",
        (
            "x, y = jnp.asarray(x), jnp.asarray(y)\n"
            "def loss(x): return (jax.nn.logsumexp(x, axis=1) - jnp.take_along_axis(x, y[:, None], 1)[:, 0]).mean()"
        ),
        "jax.block_until_ready(jax.jit(jax.value_and_grad(loss))(x))",
    ),
}
FIRST_CALL = """import time
begin = time.perf_counter()
{load}
imported = time.perf_counter() - begin
import numpy as np
x, y = np.random.default_rng(0).standard_normal({shape}, np.float32), np.zeros({shape}[0], np.int64)
{convert}
begin = time.perf_counter()
{call}
print(imported + time.perf_counter() - begin)"""
MEMORY = ("memory loss", "memory loss+grad fresh", "memory loss+grad out", "memory loss+grad in place")


def timed(code: str) -> str:
    """Return a program that prints the seconds some code takes in it."""
    return f"import time\nbegin = time.perf_counter()\n{code}\nprint(time.perf_counter() - begin)"


def in_turn(programs: dict[str, str], threads: int, samples: int) -> dict[str, dict]:
    """Return what each program prints, run in turn in new processes; the first round warms caches."""
    seen: dict[str, list[float]] = {name: [] for name in programs}
    notes = dict.fromkeys(programs, "")
    for turn in range(samples + 1):
        for name, program in programs.items():
            try:
                seconds = float(output(["-c", program], threads))
            except Exception as error:  # noqa: BLE001 - a peer that is not installed is told and stops nothing
                notes[name] = f"fails: {type(error).__name__}"
                continue
            if turn:
                seen[name].append(seconds)
    return {
        name: {"value": median(each), "low": min(each), "high": max(each), "samples": len(each), "note": notes[name]}
        if each
        else {"note": notes[name]}
        for name, each in seen.items()
    }


def imports(threads: int, samples: int) -> dict[str, dict]:
    """Return the seconds of each import, Python's own start not counted."""
    return in_turn({name: timed(f"import {module}") for name, module in IMPORTS.items()}, threads, samples)


def first_calls(shape: tuple[int, int], threads: int, samples: int) -> dict[str, dict]:
    """Return the seconds of import and first loss + gradient, caches on disk warm; making the data is not in it."""
    programs = {
        name: FIRST_CALL.format(load=load, convert=convert, call=call, shape=shape)
        for name, (load, convert, call) in FIRST.items()
    }
    return in_turn(programs, threads, samples)


def peaks(measure: str, dtype: str, shape: tuple[int, int], threads: int) -> dict[str, dict]:
    """Return the bytes that one call takes beyond its inputs: ours and PyTorch's."""
    found = {}
    for name in ("softnll", "torch"):
        arguments = [__file__, name, measure.removeprefix("memory "), dtype, "x".join(map(str, shape))]
        try:
            value, note = output(arguments, threads).rstrip("\n").split("\t")
        except Exception as error:  # noqa: BLE001
            found[name] = {"note": f"fails: {type(error).__name__}"}
        else:
            found[name] = {"value": float(value), "samples": 1, "note": note}
    return found


def main() -> None:
    from cell import make  # noqa: PLC0415 - the processes started above measure themselves without these
    from classifier import memory, reset_peak  # noqa: PLC0415
    from launch import cores  # noqa: PLC0415
    from peers import LIBRARIES  # noqa: PLC0415

    name, measure, dtype, shape = sys.argv[1:]
    library = next(each for each in LIBRARIES if each.name == name)
    rows, columns = map(int, shape.split("x"))
    x, y = make(dtype, (rows, columns))
    library(x[:2], y[:2], len(cores())).way(measure).call()  # imports and compiles
    way = library(x, y, len(cores())).way(measure)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
    before = memory("VmRSS")
    reset_peak()
    result = way.call()
    print(memory("VmHWM") - before, way.note, sep="\t")
    del result


if __name__ == "__main__":
    main()
