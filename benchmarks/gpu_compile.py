"""What the Triton kernels compile to, on a machine without a GPU: registers, spills and shared memory of each variant.

    python benchmarks/gpu_compile.py                 # writes results/gpu-compile.{csv,md}
    python benchmarks/gpu_compile.py --target sm_90 --only "loss + gradient"

The kernels are launched as always, but for a target that is not there: Triton compiles and nothing runs. For NVIDIA's
chips ``ptxas -v`` says what a program takes; for AMD's the compiler's own notes do.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from page import table_first
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.cuda import interface as cuda

RESULTS = Path(__file__).parent / "results"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHAPES = ((1_000_000, 10), (100_000, 100), (8192, 1000), (8192, 8192), (8192, 16_384), (8192, 128_256), (4, 128_256))
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
OPTIONS = {
    "": {},
    "z-loss": {"z_loss": 1e-4},
    "smoothing": {"label_smoothing": 0.1},
    "softcap": {"softcap": 30.0},
    "temperature": {"temperature": 2.0},
    "class weights": {"w": True},
    "sample weights": {"s": True},
    "soft targets": {"q": True},
}
CALLS = ("softmax", "log_softmax", "logsumexp", "loss", "loss + gradient", "gradient")


@dataclass
class Line:
    """A compiled kernel."""

    target: str
    call: str
    dtype: str
    shape: str
    options: str
    kernel: str
    warps: int
    registers: int | None
    spilled_bytes: int | None
    shared_bytes: int
    seconds: float


class Elsewhere:
    """A device that is not there, of some target: what Triton asks of a driver before it compiles."""

    def __init__(self, target: GPUTarget):
        self.target = target

    def get_current_device(self) -> str:
        return str(self.target)  # Triton keeps what it compiled by device, and would give one target's to another

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


def compiling(target: GPUTarget, record: Callable[[str, Any, float], None]) -> None:
    """Let each launch compile for a target, tell of it, and run nothing."""
    driver.set_active(Elsewhere(target))
    cuda.WARPS = 1024 // target.warp_size  # torch says of what is here, not there
    cuda.tile_of.cache_clear()

    def launch(kernel: JITFunction, grid: tuple[int, ...]) -> Callable[..., None]:
        def compile_only(*args: Any, **options: Any) -> None:
            begin = time.perf_counter()
            compiled = kernel.run(*args, grid=grid, warmup=True, **options)
            record(kernel.__name__, compiled, time.perf_counter() - begin)

        return compile_only

    JITFunction.__getitem__ = launch


def problem(shape: tuple[int, int], dtype: torch.dtype, options: dict[str, Any]) -> Problem:
    """Return a Problem of this shape; what its arrays hold is no matter, and one row's memory serves for all."""
    N, C = shape
    chosen = dict(options)
    w = torch.ones(C) if chosen.pop("w", False) else None
    s = torch.ones(1).expand(N) if chosen.pop("s", False) else None
    soft = chosen.pop("q", False)
    q = torch.empty(1, C, dtype=dtype).expand(N, C) if soft else None
    y = None if soft else torch.zeros(1, dtype=torch.int64).expand(N)
    x = Strided(torch.empty(1, C, dtype=dtype), shape)
    return Problem(x, CrossEntropy(**chosen), y, q, w, s, None, None, float(N))


class Strided:
    """A tensor as a kernel's launch sees one, of more rows than there is memory."""

    is_cuda = False

    def __init__(self, row: torch.Tensor, shape: tuple[int, int]):
        self.row, self.shape, self.dtype, self.device = row, shape, row.dtype, row.device

    def data_ptr(self) -> int:
        return self.row.data_ptr()

    def stride(self, dim: int) -> int:
        return (self.shape[1], 1)[dim]


def call(name: str, given: Problem) -> None:
    """Launch the kernels of a function."""
    out = given.x
    if name in ("softmax", "log_softmax"):
        getattr(cuda, name)(given, out)
    elif name == "logsumexp":
        cuda.logsumexp(given)
    elif name == "loss":
        cuda.losses(given)
    elif name == "loss + gradient":
        cuda.forward_backward(given, out)
    else:
        m, r = torch.empty(2, 1, dtype=torch.float64).expand(2, given.x.shape[0])
        cuda.backward(given, m, r, out)


def usage(compiled: Any, target: str) -> tuple[int | None, int | None]:
    """Return registers a thread and bytes spilled a thread."""
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        registers = re.search(r"\.vgpr_count:\s+(\d+)", text)
        spilled = re.search(r"\.vgpr_spill_count:\s+(\d+)", text)
        return int(registers[1]) if registers else None, 4 * int(spilled[1]) if spilled else None
    found = get_ptxas(TARGETS[target].arch)  # the one that Triton itself compiled with
    ptxas = found[0] if isinstance(found, tuple) else found.path  # before 3.4 with its version
    name = re.search(r"\.target (\w+)", compiled.asm["ptx"])[1]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(compiled.asm["ptx"], encoding="utf-8")
        command = [ptxas, "-v", "--fmad=false", f"--gpu-name={name}", source, "-o", Path(folder) / "kernel.cubin"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    text = done.stdout + done.stderr
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", text)
    return int(re.search(r"Used (\d+) registers", text)[1]), int(spilled[1]) + int(spilled[2])


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str, tuple[int, int], str]]:
    """Yield what is compiled: every call at every shape and type, and the gradients with every option."""
    for target in arguments.target:
        for name in arguments.only:
            for dtype in arguments.dtype:
                for shape in arguments.shape:
                    yield target, name, dtype, shape, ""
                if name in ("loss + gradient", "gradient"):
                    for option in list(OPTIONS)[1:]:
                        for shape in set(arguments.shape) & {(8192, 1000), (8192, 128_256)}:
                            yield target, name, dtype, shape, option


def lines(chosen: Iterator[tuple[str, str, str, tuple[int, int], str]]) -> Iterator[Line]:
    """Compile and yield what comes of it, once for what is compiled once."""
    seen: set[tuple[str, str]] = set()
    for target, name, dtype, shape, option in chosen:
        found: list[Line] = []

        def record(kernel: str, compiled: Any, seconds: float) -> None:
            key = (target, compiled.hash)  # noqa: B023 - used before the loop goes on
            if key in seen:
                return
            seen.add(key)
            registers, spilled = usage(compiled, target)  # noqa: B023
            warps, shared = compiled.metadata.num_warps, compiled.metadata.shared
            size = "x".join(map(str, shape))  # noqa: B023
            told = (target, name, dtype, size, option, kernel, warps)  # noqa: B023
            found.append(Line(*told, registers, spilled, shared, round(seconds, 1)))  # noqa: B023

        compiling(TARGETS[target], record)
        call(name, problem(shape, DTYPES[dtype], OPTIONS[option]))
        yield from found


def size(text: str) -> tuple[int, int]:
    """Return a shape."""
    rows, classes = text.split("x")
    return int(rows), int(classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--only", action="append", choices=CALLS)
    parser.add_argument("--dtype", action="append", choices=list(DTYPES))
    parser.add_argument("--shape", action="append", type=size, metavar="NxC", help="may be repeated")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu-compile.csv and gpu-compile.md")
    arguments = parser.parse_args()
    arguments.target = arguments.target or list(TARGETS)
    arguments.only = arguments.only or CALLS
    arguments.dtype = arguments.dtype or list(DTYPES)
    arguments.shape = arguments.shape or SHAPES
    made = []
    for line in lines(cases(arguments)):
        made.append(line)
        print(*asdict(line).values(), sep=" | ", flush=True)
    names = [each.name for each in fields(Line)]
    with (arguments.out / "gpu-compile.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(line) for line in made)
    page = [
        "# What the Triton kernels compile to\n",
        f"Triton {triton.__version__}, compiled without a GPU by `benchmarks/gpu_compile.py`; registers and spills",
        "a thread, from `ptxas -v` (AMD: the compiler's notes). A kernel that several calls share is listed once.\n",
        "| " + " | ".join(name.replace("_", " ") for name in names[:-1]) + " |",
        "|" + " --- |" * (len(names) - 1),
        *("| " + " | ".join(str(value) for value in list(asdict(line).values())[:-1]) + " |" for line in made),
    ]
    (arguments.out / "gpu-compile.md").write_text(table_first("\n".join(page)), encoding="utf-8")
    spilling = [line for line in made if line.spilled_bytes]
    print(
        f"{len(made)} kernels in {sum(line.seconds for line in made):.0f} s, {len(spilling)} of them spill",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
