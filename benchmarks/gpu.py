"""The CUDA kernels on a GPU: checked against float64 there, timed beside their peers and beside the machine's limits.

    python benchmarks/gpu.py --out results        # all of it, in at most nine minutes
    python benchmarks/gpu.py --interpret          # the script's own logic, in Triton's interpreter, with a fake timer

Needs NumPy, torch and Triton only. Every section has its share of the time; what does not fit is told in the table.
Ours and its peers take turns; a figure is a median. Traffic counts one read and one write of the logits (forward alone:
one read), the limit is a copy measured in the same run.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]
if "--interpret" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"
# torch.compile would have Triton look elsewhere for what is compiled, from its first call on.
os.environ.setdefault("TRITON_CACHE_DIR", str(Path.home() / ".triton" / "cache"))

import torch
import torch.nn.functional as F  # noqa: N812
import triton

import softnll.torch as snt
from gpu_check import TYPES, cases, outcomes, reason
from gpu_peers import LINEAR, LOGITS, OURS, Missing
from gpu_profile import SHAPE, Unavailable, throughput
from softnll.torch._base import backend

RESULTS = Path(__file__).parent / "results"
LOGIT_SHAPES = (
    (8192, 1000),
    (4096, 128_256),
    (16_384, 131_072),
    (8192, 32_000),
    (1_000_000, 10),
    (100_000, 100),
    (4, 128_256),
)
LINEAR_SHAPES = ((4096, 4096, 128_256), (8192, 4096, 128_256), (8192, 2304, 256_000))
SMALL_LOGITS, SMALL_LINEAR = ((4, 10), (2, 300)), ((6, 8, 20),)
TIMED = ("bfloat16", "float32")
SHARES = {"check": 75.0, "logits": 185.0, "linear": 190.0, "max_bytes": 50.0, "profile": 25.0}  # seconds
LAST = time.monotonic() + 525  # what is begun by then may still end within nine minutes
SAMPLES = 15


@dataclass
class Line:
    """A measurement."""

    section: str
    what: str
    dtype: str
    shape: str
    library: str
    milliseconds: float | None = None
    over_ours: float | None = None
    share_of_limit: float | None = None
    memory_mib: float | None = None
    error: str = ""
    note: str = ""


class Gpu:
    """A real device: its clock, its memory."""

    device = "cuda"
    most_samples = SAMPLES

    def time(self, work: Callable[[], Any]) -> float:
        """Return milliseconds."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def peak(self, work: Callable[[], Any]) -> float:
        """Return the MiB that a call takes beyond what is held."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def holds(self, size: int) -> bool:
        """Whether there is so much memory left, in bytes."""
        self.release()
        return size <= torch.cuda.mem_get_info()[0]

    def release(self) -> None:
        """Give memory back that nobody holds."""
        gc.collect()
        torch.cuda.empty_cache()

    def describe(self) -> str:
        """Return the machine in words."""
        p = torch.cuda.get_device_properties(0)
        return f"{p.name}, {p.total_memory / 2**30:.0f} GiB, {p.multi_processor_count} SMs, CUDA {torch.version.cuda}"


class Pretended:
    """The CPU, whose tensors the interpreter takes for a device's, and a clock that only counts."""

    device = "cpu"
    most_samples = 2

    def __init__(self) -> None:
        self.calls = 0
        backend.kind_of = lambda _: "triton"

    def time(self, work: Callable[[], Any]) -> float:
        self.calls += 1
        work()
        return float(self.calls)

    def peak(self, work: Callable[[], Any]) -> float:
        work()
        return 0.0

    def holds(self, _: int) -> bool:
        return True

    def release(self) -> None:
        pass

    def describe(self) -> str:
        return "no GPU: Triton's interpreter, times are not times"


class Clock:
    """The time that a section has, and with it the whole."""

    def __init__(self, seconds: float):
        self.end = min(time.monotonic() + seconds, LAST)

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end


def in_turn(gpu: Any, ways: dict[str, Callable[[], Any]], clock: Clock, samples: int) -> dict[str, list[float]]:
    """Return the milliseconds of each way, all of them in turn, after a call of each that is not counted."""
    for work in ways.values():
        gpu.time(work)
        gpu.time(work)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(min(samples, gpu.most_samples)):
        for name, work in ways.items():
            times[name].append(gpu.time(work))
        if clock.over and i >= 2:
            break
    return times


def built(builders: dict[str, Callable[[], Any]], use: Callable[[Any], Callable[[], Any]]) -> tuple[dict, dict]:
    """Return the ways that can run, and why the others cannot."""
    ways, missing = {}, {}
    for name, build in builders.items():
        try:
            way = use(build())
            way()
        except Missing as error:
            missing[name] = str(error)
        except Exception as error:
            if name == OURS:
                raise
            missing[name] = reason(error)
        else:
            ways[name] = way
    return ways, missing


def limits(gpu: Any, small: bool) -> tuple[float, float]:
    """Return bytes a millisecond of a copy (read and write), and multiply-adds a millisecond of bfloat16 products."""
    n = 1 << (10 if small else 30)
    a = torch.zeros(n, dtype=torch.bfloat16, device=gpu.device)
    b = torch.empty_like(a)
    copy = statistics.median(gpu.time(lambda: b.copy_(a)) for _ in range(12))
    size = 16 if small else 8192
    x = torch.randn(size, size, device=gpu.device).bfloat16()
    out = torch.empty_like(x)
    gemm = statistics.median(gpu.time(lambda: torch.mm(x, x, out=out)) for _ in range(12))
    return 2 * a.nbytes / copy, size**3 / gemm


def check(gpu: Any, small: bool) -> Iterator[Line]:
    """Compare every case with float64 on the device, and have the kernels compiled that are timed later."""
    begin, prepared = time.monotonic(), 0
    chosen = cases(small, () if small else LOGIT_SHAPES, TIMED)
    workers = 0 if small else min(16, len(os.sched_getaffinity(0)))
    for case, error, note in outcomes(chosen, gpu.device, Clock(SHARES["check"]).left, workers):
        prepared += not case.compared and not note
        if case.compared or note:
            yield Line("check", case.option, case.dtype, case.label, OURS, error=error, note=note)
    told = f"{prepared} of {sum(not case.compared for case in chosen)} cases that are timed later compiled"
    yield Line("check", "", "", "", OURS, note=f"{told}; {time.monotonic() - begin:.0f} s in all")


def guarded(lines: Iterator[Line], section: str, dtype: str, label: str, gpu: Any) -> Iterator[Line]:
    """Yield the lines of a group; what goes wrong there ends the group alone, and its memory is given back."""
    try:
        yield from lines
    except Exception as error:
        if isinstance(gpu, Pretended):
            raise
        yield Line(section, "", dtype, label, OURS, note=reason(error))
    finally:
        gpu.release()


def logits(gpu: Any, small: bool, copy: float) -> Iterator[Line]:
    """Time cross_entropy on logits beside the peers and the copy."""
    clock = Clock(SHARES["logits"])
    for shape in SMALL_LOGITS if small else LOGIT_SHAPES:
        for name in TIMED:
            label = f"{shape[0]}x{shape[1]}"
            if clock.over or not gpu.holds(5 * shape[0] * shape[1] * TYPES[name].itemsize):
                yield Line("logits", "", name, label, OURS, note="no time left" if clock.over else "too large here")
                continue
            yield from guarded(logits_of(shape, name, gpu, clock, copy), "logits", name, label, gpu)


def logits_of(shape: tuple[int, int], name: str, gpu: Any, clock: Clock, copy: float) -> Iterator[Line]:
    """Time one shape and type."""
    label = f"{shape[0]}x{shape[1]}"
    x = (torch.randn(shape, device=gpu.device) * 3).to(TYPES[name]).requires_grad_()
    y = torch.randint(0, shape[1], shape[:1], device=gpu.device)

    def forward(loss: Any) -> Callable[[], Any]:
        def work() -> Any:
            with torch.no_grad():
                return loss(x, y)

        return work

    def both(loss: Any) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(loss(x, y), x)

    for what, use, traffic in (("forward", forward, 1), ("forward + backward", both, 2)):
        ways, missing = built(LOGITS, use)
        times = in_turn(gpu, ways, clock, SAMPLES)
        yield from told("logits", what, name, label, times, missing, x.nbytes * traffic / copy, gpu, ways)
    out = torch.empty_like(x, requires_grad=False)
    ways = {OURS: lambda: snt.softmax(x.detach(), 1), "torch": lambda: torch.softmax(x.detach(), 1, out=out)}
    times = in_turn(gpu, ways, clock, SAMPLES)
    yield from told("logits", "softmax", name, label, times, {}, 2 * x.nbytes / copy, gpu, {})


def told(
    section: str, what: str, dtype: str, label: str, times: dict, missing: dict, limit: float, gpu: Any, ways: dict
) -> Iterator[Line]:
    """Yield the lines of a group."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        memory = gpu.peak(ways[name]) if name in ways else None
        yield Line(section, what, dtype, label, name, value, value / medians[OURS], limit / value, memory)
    for name, why in missing.items():
        yield Line(section, what, dtype, label, name, note=f"not available: {why}")


def linear(gpu: Any, small: bool) -> Iterator[Line]:
    """Time linear_cross_entropy beside the peers and three bare products."""
    clock = Clock(SHARES["linear"])
    for shape in SMALL_LINEAR if small else LINEAR_SHAPES:
        label = "x".join(map(str, shape))
        if clock.over:
            yield Line("linear", "", "bfloat16", label, OURS, note="no time left")
            continue
        yield from guarded(linear_of(shape, gpu, clock), "linear", "bfloat16", label, gpu)


def layer(shape: tuple[int, int, int], gpu: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features, head and targets."""
    N, H, V = shape
    f = torch.randn(N, H, device=gpu.device).bfloat16().requires_grad_()
    W = (torch.randn(V, H, device=gpu.device) * H**-0.5).bfloat16().requires_grad_()
    return f, W, torch.randint(0, V, (N,), device=gpu.device)


def linear_of(shape: tuple[int, int, int], gpu: Any, clock: Clock) -> Iterator[Line]:
    """Time one shape."""
    label = "x".join(map(str, shape))
    f, W, y = layer(shape, gpu)

    def products() -> None:
        z = f.detach() @ W.detach().t()
        z @ W.detach()
        z.t() @ f.detach()

    def both(loss: Any) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(loss(f, W, y), (f, W))

    ways, missing = built(LINEAR, both)
    times = in_turn(gpu, ways | {"three bare products": products}, clock, 5)
    bare = statistics.median(times["three bare products"])
    yield from told("linear", "forward + backward", "bfloat16", label, times, missing, bare, gpu, ways)
    for library, loss in ((OURS, snt.linear_cross_entropy), ("torch, unfused", LINEAR["torch, unfused"]())):
        yield Line("linear", "error", "bfloat16", label, library, error=linear_errors(f, W, y, loss))
    ignored = torch.where(torch.rand(shape[0], device=gpu.device) < 0.8, -100, y)
    ways = {OURS: lambda: torch.autograd.grad(snt.linear_cross_entropy(f, W, ignored), (f, W))}
    times = in_turn(gpu, ways, clock, 5)
    yield from told("linear", "80 % ignored", "bfloat16", label, times, {}, bare, gpu, {})


def linear_errors(f: torch.Tensor, W: torch.Tensor, y: torch.Tensor, loss: Any) -> str:
    """Return the errors of loss and gradients of the first rows, against float64."""
    f, y = f.detach()[:64].requires_grad_(), y[:64]
    got = loss(f, W, y)
    (to_f,) = torch.autograd.grad(got, f)
    z = f.detach().double() @ W.detach().double().t()
    value = F.cross_entropy(z, y)
    p = torch.softmax(z, 1)
    p[torch.arange(len(y)), y] -= 1
    grad = (p / len(y)) @ W.detach().double()
    relative = ((to_f.double() - grad).norm() / grad.norm()).item()
    return f"loss {abs(got.item() - value.item()) / value.item():.1e}, d features {relative:.1e} (relative)"


def curve(gpu: Any, small: bool) -> Iterator[Line]:
    """Time linear_cross_entropy against max_bytes."""
    clock = Clock(SHARES["max_bytes"])
    shape = SMALL_LINEAR[0] if small else LINEAR_SHAPES[0]
    label = "x".join(map(str, shape))
    f, W, y = layer(shape, gpu)
    for mib in (1, 64) if small else (16, 32, 64, 128, 256, 512, 1024, 2048):
        if clock.over:
            yield Line("max_bytes", f"{mib} MiB", "bfloat16", label, OURS, note="no time left")
            continue
        yield from guarded(budgeted(f, W, y, mib, label, gpu, clock), "max_bytes", "bfloat16", label, gpu)


def budgeted(
    f: torch.Tensor, W: torch.Tensor, y: torch.Tensor, mib: int, label: str, gpu: Any, clock: Clock
) -> Iterator[Line]:
    """Time one budget."""
    plan = snt.plan(f, W, y, max_bytes=mib << 20)
    work = {OURS: lambda: torch.autograd.grad(snt.linear_cross_entropy(f, W, y, max_bytes=mib << 20), (f, W))}
    value = statistics.median(in_turn(gpu, work, clock, 3)[OURS])
    note = f"{plan.rows} rows a chunk, {plan.chunks} chunks"
    yield Line("max_bytes", f"{mib} MiB", "bfloat16", label, OURS, value, note=note)


def profile() -> Iterator[Line]:
    """Tell how near the two main kernels come to the memory's rate."""
    label = f"{SHAPE[0]}x{SHAPE[1]}"
    try:
        for kernel, told in throughput(Clock(SHARES["profile"]).left).items():
            yield Line("profile", kernel, "bfloat16", label, OURS, note=told)
    except Unavailable as error:
        yield Line("profile", "", "bfloat16", label, OURS, note=f"not available: {error}")


def commit() -> str:
    """Return what is measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return "unknown"
    return done.stdout.strip() or "unknown"


def page(lines: list[Line], machine: str) -> str:
    """Return the table."""
    names = [each.name for each in fields(Line)]

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = ["| " + " | ".join(shown(value) for value in asdict(line).values()) + " |" for line in lines]
    head = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + " --- |" * len(names)]
    return "\n".join(["# CUDA kernels beside their peers\n", *head, *rows, "\n" + machine]) + "\n"


def write(lines: list[Line], machine: str, out: Path) -> None:
    """Write the table."""
    with (out / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Line)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)
    (out / "gpu.md").write_text(page(lines, machine), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interpret", action="store_true", help="tiny shapes in the interpreter, with a fake timer")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.csv and gpu.md")
    parser.add_argument("--section", action="append", choices=list(SHARES), help="may be repeated")
    arguments = parser.parse_args()
    small = arguments.interpret
    if not small and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --interpret tries the script's logic")
    gpu = Pretended() if small else Gpu()
    copy, products = limits(gpu, small)
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}, commit {commit()}"
    )
    rates = f"copy {copy / 1e6:.0f} GB/s (read and write), bfloat16 products {2 * products / 1e9:.0f} TFLOP/s"
    machine = f"{gpu.describe()}; {versions}; {rates}"
    print(machine, flush=True)
    sections = {
        "check": lambda: check(gpu, small),
        "logits": lambda: logits(gpu, small, copy),
        "linear": lambda: linear(gpu, small),
        "max_bytes": lambda: curve(gpu, small),
        "profile": profile,
    }
    lines: list[Line] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.section or sections:
        try:
            for line in sections[name]():
                lines.append(line)
                write(lines, machine, arguments.out)  # whatever may come
                print(*(value for value in asdict(line).values() if value not in (None, "")), sep=" | ", flush=True)
        except Exception as error:  # what was measured before is kept
            if small:
                raise
            lines.append(Line(name, "", "", "", OURS, note=reason(error)))
            print(lines[-1], file=sys.stderr)
        write(lines, machine, arguments.out)


if __name__ == "__main__":
    main()
