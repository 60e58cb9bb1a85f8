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

import torch
import torch.nn.functional as F  # noqa: N812
import triton

import softnll.torch as snt
from gpu_peers import LINEAR, LOGITS, OURS, Missing
from softnll.torch import devices

RESULTS = Path(__file__).parent / "results"
LOGIT_SHAPES = (
    (8192, 1000),
    (8192, 32_000),
    (4096, 128_256),
    (16_384, 131_072),
    (1_000_000, 10),
    (100_000, 100),
    (4, 128_256),
)
LINEAR_SHAPES = ((4096, 4096, 128_256), (8192, 4096, 128_256), (8192, 2304, 256_000))
SMALL_LOGITS, SMALL_LINEAR = ((4, 10), (2, 300)), ((6, 8, 20),)
CHECKED = ((64, 3), (64, 10), (33, 1000), (8, 5001), (4, 50_257), (3, 128_256), (400, 40_000))
SMALL_CHECKED = ((4, 3), (3, 40))
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "z_loss": {"z_loss": 1e-2},
    "softcap": {"softcap": 30.0},
    "temperature": {"temperature": 2.0},
}
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
SHARES = {"check": 60.0, "logits": 190.0, "linear": 200.0, "max_bytes": 50.0}  # seconds
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

    def describe(self) -> str:
        """Return the machine in words."""
        p = torch.cuda.get_device_properties(0)
        return f"{p.name}, {p.total_memory / 2**30:.0f} GiB, {p.multi_processor_count} SMs, CUDA {torch.version.cuda}"


class Pretended:
    """The CPU, whose tensors the interpreter takes for a device's, and a clock that only counts."""

    device = "cpu"

    def __init__(self) -> None:
        self.calls = 0
        devices.on_cuda = lambda _: True

    def time(self, work: Callable[[], Any]) -> float:
        self.calls += 1
        work()
        return float(self.calls)

    def peak(self, work: Callable[[], Any]) -> float:
        work()
        return 0.0

    def describe(self) -> str:
        return "no GPU: Triton's interpreter, times are not times"


class Clock:
    """The time that a section has."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end


def in_turn(gpu: Any, ways: dict[str, Callable[[], Any]], clock: Clock, samples: int) -> dict[str, list[float]]:
    """Return the milliseconds of each way, all of them in turn, after a call of each that is not counted."""
    for work in ways.values():
        gpu.time(work)
        gpu.time(work)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(samples):
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
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
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


def ulps(got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the largest error in units in the last place of a type, absolute below its normal numbers."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(exact)[1].clamp(min=torch.frexp(torch.tensor(info.tiny, dtype=torch.float64))[1].item())
    unit = torch.ldexp(torch.ones_like(exact), exponent - 1) * info.eps
    off = ((got.double() - exact).abs() / unit)[torch.isfinite(exact)]
    return off.max().item() if off.numel() else 0.0


def exact(x: torch.Tensor, y: torch.Tensor, options: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return losses and the gradient of their sum in float64, of which nothing cancels, and the unit."""
    cap, tau = options.get("softcap"), options.get("temperature", 1.0)
    eps, zeta = options.get("label_smoothing", 0.0), options.get("z_loss", 0.0)
    u = x.double()
    slope = torch.ones_like(u)
    if cap:
        slope = 1 / torch.cosh(u / cap) ** 2
        u = cap * torch.tanh(u / cap)
    m, a = u.max(1, keepdim=True)
    d = u - m
    part = d - u
    lost = ((u - (d - part)) - (m + part)) / tau  # of the difference (Knuth): an error of the exponent
    d = d / tau
    e = torch.exp(d) * (1 + lost)
    rest = e.scatter(1, a, 0.0).sum(1, keepdim=True)
    log_r = torch.log1p(rest)
    log_p = d - log_r
    p = e / (1 + rest)
    complement = (1 - p).scatter(1, a, rest / (1 + rest))
    t = torch.full_like(p, eps / x.shape[1]).scatter_add(1, y[:, None], torch.full_like(log_r, 1 - eps))
    lse = m / tau + log_r
    loss = -(t * log_p).sum(1) + zeta * lse[:, 0] ** 2
    grad = ((1 - t) * p - t * complement + 2 * zeta * lse * p) * slope / tau
    return loss, grad, torch.maximum(loss, -(log_p * (t > 0)).sum(1))


def check(gpu: Any, small: bool) -> Iterator[Line]:
    """Compare every case with float64 on the device."""
    clock = Clock(SHARES["check"])
    generator = torch.Generator().manual_seed(0)
    for name, dtype in TYPES.items():
        for shape in SMALL_CHECKED if small else CHECKED:
            for option, options in OPTIONS.items():
                label = f"{shape[0]}x{shape[1]}"
                if clock.over:
                    yield Line("check", option, name, label, OURS, note="no time left")
                    continue
                x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
                gaps = torch.linspace(0, 60 if dtype != torch.float16 else 12, shape[0], dtype=torch.float64)
                x[:, 0] += gaps  # rows from undecided to certain
                x = x.to(dtype).to(gpu.device).requires_grad_()
                y = (torch.arange(shape[0]) % 2 * (shape[1] - 1)).to(gpu.device)
                loss = snt.cross_entropy(x, y, reduction="none", **options)
                (grad,) = torch.autograd.grad(loss.sum(), x)
                one, both, _ = exact(x.detach(), y, options)
                wide = torch.float64 if dtype == torch.float64 else torch.float32
                spread = "label_smoothing" in options  # differences: in units of 1
                of = torch.ones_like(both) if spread else both
                errors = [ulps(loss.detach(), one, wide)]
                if spread:
                    off = (grad.double() - both).abs().max().item() / torch.finfo(dtype).eps
                    errors.append(off)
                else:
                    errors.append(ulps(grad, of, dtype))
                fused = snt.cross_entropy(x, y, reduction="sum", **options)
                (again,) = torch.autograd.grad(fused, x)
                same = torch.equal(again, grad)
                told = f"loss {errors[0]:.2f}, gradient {errors[1]:.2f} ulp"
                yield Line(
                    "check", option, name, label, OURS, error=told, note="" if same else "one pass and two differ"
                )


def logits(gpu: Any, small: bool, copy: float) -> Iterator[Line]:
    """Time cross_entropy on logits beside the peers and the copy."""
    clock = Clock(SHARES["logits"])
    for shape in SMALL_LOGITS if small else LOGIT_SHAPES:
        for name in ("bfloat16", "float32"):
            dtype = TYPES[name]
            label = f"{shape[0]}x{shape[1]}"
            if clock.over or (not small and shape[0] * shape[1] * dtype.itemsize * 5 > torch.cuda.mem_get_info()[0]):
                yield Line("logits", "", name, label, OURS, note="no time left" if clock.over else "too large here")
                continue
            x = (torch.randn(shape, device=gpu.device) * 3).to(dtype).requires_grad_()
            y = torch.randint(0, shape[1], shape[:1], device=gpu.device)
            bytes_ = x.nbytes

            def forward(loss: Any) -> Callable[[], Any]:
                def work() -> Any:
                    with torch.no_grad():
                        return loss(x, y)  # noqa: B023 - used before the loop goes on

                return work

            def both(loss: Any) -> Callable[[], Any]:
                return lambda: torch.autograd.grad(loss(x, y), x)  # noqa: B023

            for what, use, traffic in (("forward", forward, 0.5), ("forward + backward", both, 1.0)):
                ways, missing = built(LOGITS, use)
                times = in_turn(gpu, ways, clock, SAMPLES)
                yield from told("logits", what, name, label, times, missing, 2 * bytes_ * traffic / copy, gpu, ways)
            out = torch.empty_like(x, requires_grad=False)
            ways = {
                OURS: lambda: snt.softmax(x.detach(), 1),  # noqa: B023
                "torch": lambda: torch.softmax(x.detach(), 1, out=out),  # noqa: B023
            }
            times = in_turn(gpu, ways, clock, SAMPLES)
            yield from told("logits", "softmax", name, label, times, {}, 2 * bytes_ / copy, gpu, {})
            x = y = out = None  # before the next are made


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
    for N, H, V in SMALL_LINEAR if small else LINEAR_SHAPES:
        label = f"{N}x{H}x{V}"
        if clock.over:
            yield Line("linear", "", "bfloat16", label, OURS, note="no time left")
            continue
        f = torch.randn(N, H, device=gpu.device).bfloat16().requires_grad_()
        W = (torch.randn(V, H, device=gpu.device) * H**-0.5).bfloat16().requires_grad_()
        y = torch.randint(0, V, (N,), device=gpu.device)

        def products() -> None:
            z = f.detach() @ W.detach().t()  # noqa: B023
            z @ W.detach()  # noqa: B023
            z.t() @ f.detach()  # noqa: B023

        def both(loss: Any) -> Callable[[], Any]:
            return lambda: torch.autograd.grad(loss(f, W, y), (f, W))  # noqa: B023

        ways, missing = built(LINEAR, both)
        times = in_turn(gpu, ways | {"three bare products": products}, clock, 5)
        bare = statistics.median(times["three bare products"])
        yield from told("linear", "forward + backward", "bfloat16", label, times, missing, bare, gpu, ways)
        yield Line("linear", "error", "bfloat16", label, OURS, error=linear_errors(f, W, y, snt.linear_cross_entropy))
        yield Line(
            "linear",
            "error",
            "bfloat16",
            label,
            "torch, unfused",
            error=linear_errors(f, W, y, LINEAR["torch, unfused"]()),
        )
        ignored = torch.where(torch.rand(N, device=gpu.device) < 0.8, -100, y)
        ways = {OURS: lambda: torch.autograd.grad(snt.linear_cross_entropy(f, W, ignored), (f, W))}  # noqa: B023
        times = in_turn(gpu, ways, clock, 5)
        yield from told("linear", "80 % ignored", "bfloat16", label, times, {}, bare, gpu, {})
        f = W = y = None  # before the next are made


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
    N, H, V = SMALL_LINEAR[0] if small else LINEAR_SHAPES[0]
    f = torch.randn(N, H, device=gpu.device).bfloat16().requires_grad_()
    W = (torch.randn(V, H, device=gpu.device) * H**-0.5).bfloat16().requires_grad_()
    y = torch.randint(0, V, (N,), device=gpu.device)
    for mib in (1, 64) if small else (16, 32, 64, 128, 256, 512, 1024, 2048):
        if clock.over:
            yield Line("max_bytes", f"{mib} MiB", "bfloat16", f"{N}x{H}x{V}", OURS, note="no time left")
            continue
        plan = snt.plan(f, W, y, max_bytes=mib << 20)
        work = {OURS: lambda: torch.autograd.grad(snt.linear_cross_entropy(f, W, y, max_bytes=mib << 20), (f, W))}  # noqa: B023
        value = statistics.median(in_turn(gpu, work, clock, 3)[OURS])
        note = f"{plan.rows} rows a chunk, {plan.chunks} chunks"
        yield Line("max_bytes", f"{mib} MiB", "bfloat16", f"{N}x{H}x{V}", OURS, value, note=note)


def commit() -> str:
    """Return what is measured."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def page(lines: list[Line], machine: str) -> str:
    """Return the table."""
    names = [each.name for each in fields(Line)]

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = ["| " + " | ".join(shown(value) for value in asdict(line).values()) + " |" for line in lines]
    head = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + " --- |" * len(names)]
    return "\n".join(["# CUDA kernels beside their peers\n", machine + "\n", *head, *rows]) + "\n"


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
    }
    lines: list[Line] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.section or sections:
        try:
            for line in sections[name]():
                lines.append(line)
                print(*(value for value in asdict(line).values() if value not in (None, "")), sep=" | ", flush=True)
        except Exception as error:  # what was measured before is kept
            if small:
                raise
            lines.append(Line(name, "", "", "", OURS, note=f"{type(error).__name__}: {error}".splitlines()[0]))
            print(lines[-1], file=sys.stderr)
        with (arguments.out / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [each.name for each in fields(Line)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(line) for line in lines)
        (arguments.out / "gpu.md").write_text(page(lines, machine), encoding="utf-8")


if __name__ == "__main__":
    main()
