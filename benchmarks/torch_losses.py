"""softnll.torch.cross_entropy beside torch's own, eager and compiled: time, forward alone and with backward; errors.

    OMP_NUM_THREADS=2 python benchmarks/torch_losses.py [--shape 8192x1000] [--samples 7] [--softcap 30] [--out DIR]

All ways take turns in one process, with the same tensors and number of threads (that of ``torch.get_num_threads``);
gradients are dropped before each call. Medians; a table and a csv in ``benchmarks/results/``. With ``--softcap``, of
logits with a soft cap, which for torch is ``c * tanh(x / c)`` before its loss.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

import numpy as np
import torch

import softnll.torch as snt
from machine import describe
from page import table_first

RESULTS = Path(__file__).parent / "results"
SHAPES = ((128, 10), (8192, 1000), (100_000, 100), (4096, 32_000), (1024, 128_256))
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WAYS = ("softnll.torch", "torch", "torch.compile")
LEAST_SECONDS = 0.002  # of a sample: what is shorter is called several times


def shape(text: str) -> tuple[int, int]:
    rows, classes = text.split("x")
    return int(rows), int(classes)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", type=shape, metavar="NxC", help="may be repeated")
    parser.add_argument("--type", action="append", choices=TYPES, help="may be repeated")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--softcap", type=float)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of torch-losses.csv and .md")
    return parser.parse_args()


def losses(cap):
    """Return each way's loss of logits and targets."""
    eager = torch.nn.functional.cross_entropy
    if cap is not None:

        def eager(x, y, **options):
            return torch.nn.functional.cross_entropy(cap * torch.tanh(x / cap), y, **options)

    torch.compiler.reset()  # it compiles a function for eight shapes, and then no more
    ours = partial(snt.cross_entropy, softcap=cap)
    return dict(zip(WAYS, (ours, eager, torch.compile(eager, dynamic=False)), strict=True))


def calls(loss, x, y):
    """Return the two things that are timed, of one way."""
    leaf = x.clone().requires_grad_()

    def forward():
        with torch.no_grad():
            loss(x, y)

    def both():
        leaf.grad = None
        loss(leaf, y).backward()

    return {"forward": forward, "forward + backward": both}


def seconds(call, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def measure(n, C, dtype, samples, cap):
    """Yield (measure, way, seconds of each sample)."""
    torch.manual_seed(0)
    x, y = torch.randn(n, C).to(dtype), torch.randint(0, C, (n,))
    ways = {way: calls(loss, x, y) for way, loss in losses(cap).items()}
    for what in ("forward", "forward + backward"):
        times = {}
        for way, of in ways.items():
            of[what]()
            of[what]()
            times[way] = max(1, int(LEAST_SECONDS / max(seconds(of[what], 1), 1e-7)))
        taken = {way: [] for way in ways}
        for _ in range(samples):
            for way, of in ways.items():
                taken[way].append(seconds(of[what], times[way]))
        for way in ways:
            yield what, way, taken[way]


def errors(cap):
    """Return the worst error of loss and gradient, relative to float64's, by kind of logits and way."""
    rng = np.random.default_rng(0)
    sets = {
        "random": rng.normal(size=(500, 50)) * 3,
        "confident, 0 to 60 ahead": np.eye(50)[np.arange(500) % 50] * np.linspace(0, 60, 500)[:, None],
        "offset by 1e4": rng.normal(size=(500, 50)) * 3 + 1e4,
    }
    lines = []
    for name, values in sets.items():
        y = torch.from_numpy(values.argmax(axis=1))
        x = torch.from_numpy(values).float()
        exact = x.double().requires_grad_()
        snt.cross_entropy(exact, y, reduction="sum", softcap=cap).backward()
        truth = snt.cross_entropy(x.double(), y, reduction="none", softcap=cap)
        for way, loss in losses(cap).items():
            leaf = x.clone().requires_grad_()
            loss(leaf, y, reduction="sum").backward()
            off = (loss(x, y, reduction="none").double() - truth).abs() / truth
            at = torch.arange(len(y)), y
            grad = (leaf.grad.double()[at] - exact.grad[at]).abs() / exact.grad[at].abs()
            lines.append((name, way, off.max().item(), grad.max().item()))
    return lines


def shown(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def main() -> None:
    arguments = parse()
    lines = []
    for n, C in arguments.shape or SHAPES:
        for name in arguments.type or TYPES:
            for what, way, taken in measure(n, C, TYPES[name], arguments.samples, arguments.softcap):
                lines.append((what, name, f"{n}x{C}", way, median(taken), min(taken), max(taken)))
                print(*lines[-1][:4], shown(lines[-1][4]), flush=True)
    exact = errors(arguments.softcap)
    stem = "torch-losses" if arguments.softcap is None else "torch-losses-softcap"
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("measure", "type", "shape", "way", "median_s", "min_s", "max_s"))
        writer.writerows(lines)
    capped = "" if arguments.softcap is None else f" of logits with a soft cap of {arguments.softcap:g}"
    page = [f"# Cross-entropy on PyTorch tensors, CPU{capped}", "", describe("numpy", "numba", "torch"), ""]
    page += [f"Medians of {arguments.samples}, {torch.get_num_threads()} threads, all ways in turn.", ""]
    page += ["| measure | type | shape | " + " | ".join(WAYS) + " | torch / ours | compiled / ours |"]
    page += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for i in range(0, len(lines), len(WAYS)):
        ours, eager, compiled = (line[4] for line in lines[i : i + len(WAYS)])
        times = " | ".join(map(shown, (ours, eager, compiled)))
        page.append(f"| {' | '.join(lines[i][:3])} | {times} | **{eager / ours:.2f}** | {compiled / ours:.2f} |")
    page += ["", "Worst relative error, float32 logits, of a row's loss and of its gradient at the target, against"]
    page += ["softnll's in float64 (which is held against mpmath by the tests).", ""]
    page += ["| logits | way | loss | gradient at the target |", "| --- | --- | --- | --- |"]
    page += [f"| {name} | {way} | {loss:.1e} | {grad:.1e} |" for name, way, loss, grad in exact]
    (arguments.out / f"{stem}.md").write_text(table_first("\n".join(page)), encoding="utf-8")


if __name__ == "__main__":
    main()
