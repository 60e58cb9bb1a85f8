"""softnll.torch.token_stats beside linear_cross_entropy: forward and backward, float32.

    OMP_NUM_THREADS=2 python benchmarks/token_stats.py [--shape 4096x1024x32000] [--samples 3] [--out DIR]

token_stats computes the logits twice, as does linear_cross_entropy with reduction="none": four matrix products, unless
max_bytes has room for all logits, which the forward then keeps. A reduced linear_cross_entropy needs three.
Ways take turns in one process; a ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

import torch

import softnll.torch as snt
from machine import describe
from page import table_first
from torch_linear import RESULTS, inputs, shape

LOSS, ROWS = "linear_cross_entropy", "linear_cross_entropy, none"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=shape, default=(4096, 1024, 32_000), metavar="NxHxC")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of token-stats.csv and .md")
    return parser.parse_args()


def ways(f, W, y):
    """Return each way's forward and backward."""
    upstream = torch.linspace(-1, 1, len(y))

    def through(loss):
        def call():
            f.grad = W.grad = None
            loss().backward()

        return call

    room = 2 * len(y) * len(W) * f.element_size() + (1 << 25)

    def rows(max_bytes=None):
        return (upstream * snt.linear_cross_entropy(f, W, y, reduction="none", max_bytes=max_bytes)).sum()

    def stats(*fields, max_bytes=None):
        found = snt.token_stats(f, W, y, max_bytes=max_bytes)
        return sum((upstream * getattr(found, name)).sum() for name in fields)

    return {
        LOSS: through(lambda: snt.linear_cross_entropy(f, W, y)),
        ROWS: through(rows),
        "token_stats, log_prob": through(lambda: stats("log_prob")),
        "token_stats, all": through(lambda: stats("log_prob", "entropy", "lse")),
        f"{ROWS}, logits kept": through(lambda: rows(room)),
        "token_stats, log_prob, logits kept": through(lambda: stats("log_prob", max_bytes=room)),
        "token_stats, all, logits kept": through(lambda: stats("log_prob", "entropy", "lse", max_bytes=room)),
    }


def measured(n, H, C, samples):
    """Return (seconds, seconds of all CPUs) of each way's samples."""
    for call in ways(*inputs(64, 32, 100, 0.0)).values():
        call()
    calls = ways(*inputs(n, H, C, 0.0))
    taken = {way: [] for way in calls}
    for _ in range(samples):
        for way, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            taken[way].append((time.perf_counter() - start, time.process_time() - used))
    return taken


def main() -> None:
    arguments = parse()
    taken = measured(*arguments.shape, arguments.samples)
    lines = []
    for way, each in taken.items():
        ratios = [
            median(one[k] / other[k] for one, other in zip(each, taken[base], strict=True))
            for base in (LOSS, ROWS)
            for k in (0, 1)
        ]
        lines.append((way, median(s for s, _ in each), median(cpu for _, cpu in each), *ratios))
        print(*lines[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ("way", "median_s", "median_cpu_s", "of_loss", "of_loss_cpu", "of_rows", "of_rows_cpu")
    with (arguments.out / "token-stats.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(lines)
    size = "x".join(map(str, arguments.shape))
    page = ["# Statistics of tokens beside the loss, CPU", "", describe("numpy", "numba", "torch"), ""]
    page += [
        f"{size}, float32, forward and backward, {torch.get_num_threads()} threads; medians of {arguments.samples}.",
        f'Ratios to `{LOSS}` (three matrix products) and to that with `reduction="none"` (four, as here).',
        "",
        "| way | seconds | CPU seconds | of the loss | of its CPU time | of the rows' loss | of its CPU time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    page += [f"| {way} | " + " | ".join(f"{each:.3g}" for each in numbers) + " |" for way, *numbers in lines]
    (arguments.out / "token-stats.md").write_text(table_first("\n".join(page)), encoding="utf-8")


if __name__ == "__main__":
    main()
