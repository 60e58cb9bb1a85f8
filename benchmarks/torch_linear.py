"""softnll.torch.linear_cross_entropy beside unfused torch, torch's own fused function and the bare matrix products.

    OMP_NUM_THREADS=2 python benchmarks/torch_linear.py [--shape 4096x1024x32000] [--samples 3] [--out DIR]

Forward and backward, float32, hard targets. Ways take turns in one process; the peak of the memory is measured in a
process of each way's own, beyond the inputs. With ``--ignored 0.8`` that share of targets is ignored.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

import torch

import softnll.torch as snt
from machine import describe, memory, reset_peak
from page import table_first

RESULTS = Path(__file__).parent / "results"
SHAPES = ((4096, 1024, 32_000), (1024, 2048, 128_256))
F = torch.nn.functional


def shape(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split("x"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", type=shape, metavar="NxHxC", help="may be repeated")
    parser.add_argument("--ignored", type=float, action="append", help="share of targets; default 0 and 0.8")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of torch-linear.csv and .md")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    return parser.parse_args()


def inputs(n, H, C, ignored):
    torch.manual_seed(0)
    f, W = torch.randn(n, H).mul_(H**-0.5).requires_grad_(), torch.randn(C, H).requires_grad_()
    y = torch.randint(0, C, (n,))
    y[: int(n * ignored)] = -100
    return f, W, y


def ways(f, W, y):
    """Return each way's forward and backward; 'bare products' are three of the same shapes, and nothing else."""

    def through(loss):
        def call():
            f.grad = W.grad = None
            loss().backward()

        return call

    def bare():
        with torch.no_grad():
            z = torch.mm(f, W.t())
            torch.mm(z.t(), f)
            torch.mm(z, W)

    found = {
        "softnll.torch": through(lambda: snt.linear_cross_entropy(f, W, y)),
        "linear + cross_entropy": through(lambda: F.cross_entropy(F.linear(f, W), y)),
    }
    if hasattr(F, "linear_cross_entropy"):
        chunked = torch.nn.LinearCrossEntropyOptions()
        found["F.linear_cross_entropy"] = through(lambda: F.linear_cross_entropy(f, W, y, options=chunked))
    found["bare products"] = bare
    return found


def peak(n, H, C, ignored, way) -> int:
    """Return the most bytes beyond the inputs and what a small call has left, in this process."""
    small = ways(*inputs(64, 32, 100, 0.0))[way]
    small()
    given = inputs(n, H, C, ignored)
    call = ways(*given)[way]
    reset_peak()
    before = memory("VmRSS")
    call()
    return memory("VmHWM") - before


def peak_elsewhere(arguments) -> int:
    command = [sys.executable, __file__, "--peak", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def measured(n, H, C, ignored, samples):
    """Return seconds of each way's samples."""
    for call in ways(*inputs(64, 32, 100, 0.0)).values():
        call()
    calls = ways(*inputs(n, H, C, ignored))
    taken = {way: [] for way in calls}
    for _ in range(samples):
        for way, call in calls.items():
            start = time.perf_counter()
            call()
            taken[way].append(time.perf_counter() - start)
    return taken


def main() -> None:
    arguments = parse()
    if arguments.peak:
        print(peak(*json.loads(arguments.peak)))
        return
    lines = []
    for n, H, C in arguments.shape or SHAPES:
        for ignored in arguments.ignored or (0.0, 0.8):
            for way, taken in measured(n, H, C, ignored, arguments.samples).items():
                bytes_ = peak_elsewhere([n, H, C, ignored, way]) if way != "bare products" else 0
                lines.append((f"{n}x{H}x{C}", ignored, way, median(taken), min(taken), max(taken), bytes_))
                print(*lines[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "torch-linear.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("shape", "ignored", "way", "median_s", "min_s", "max_s", "peak_bytes"))
        writer.writerows(lines)
    page = ["# The linear layer and its loss on PyTorch tensors, CPU", "", describe("numpy", "numba", "torch"), ""]
    page += [
        f"Forward and backward, float32, {torch.get_num_threads()} threads; medians of {arguments.samples}, in turn."
    ]
    page += ["Peak: memory beyond inputs, gradients among it; of a process of its own.", ""]
    page += [
        "| N x H x C | ignored | way | seconds | of the bare products | peak MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in lines:
        limit = next(other[3] for other in lines if other[:2] == each[:2] and other[2] == "bare products")
        memory = f"{each[6] / 2**20:.0f}" if each[6] else "-"
        page.append(f"| {each[0]} | {each[1]:.0%} | {each[2]} | {each[3]:.3g} | {each[3] / limit:.2f} | {memory} |")
    (arguments.out / "torch-linear.md").write_text(table_first("\n".join(page)), encoding="utf-8")


if __name__ == "__main__":
    main()
