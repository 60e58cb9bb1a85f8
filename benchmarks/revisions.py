"""Two checkouts of softnll side by side: one process each, timed in turn, so that the ratios hold on a noisy machine.

    python benchmarks/revisions.py ../before .        # the medians of 15 rounds, and the ratio after / before

A checkout is a folder with ``src/softnll``. Each case runs for about 20 ms a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUND = 0.02  # seconds


def numpy_cases() -> dict[str, Callable[[], Any]]:
    """Return the cases on NumPy arrays."""
    import numpy as np

    import softnll as sn

    cases: dict[str, Callable[[], Any]] = {}
    rng = np.random.default_rng(0)
    for shape in ((1, 10), (128, 10), (8192, 1000), (100_000, 100)):
        x = rng.normal(size=shape).astype(np.float32)
        y, out, name = rng.integers(0, shape[1], shape[0]), np.empty_like(x), list(shape)
        cases[f"softmax out= {name}"] = lambda x=x, out=out: sn.softmax(x, out=out)
        cases[f"cross_entropy {name}"] = lambda x=x, y=y: sn.cross_entropy(x, y)
        cases[f"loss and gradient out= {name}"] = lambda x=x, y=y, out=out: sn.cross_entropy_and_grad(x, y, out=out)
    f, W = rng.normal(size=(1024, 256)).astype(np.float32), rng.normal(size=(8000, 256)).astype(np.float32)
    y = rng.integers(0, 8000, 1024)
    cases["linear loss and gradients [1024 x 256 → 8000]"] = lambda: sn.linear_cross_entropy_and_grad(f, W, y)
    return cases


def torch_cases() -> dict[str, Callable[[], Any]]:
    """Return the cases on tensors: forward and backward."""
    import torch

    import softnll.torch as snt

    torch.manual_seed(0)
    cases: dict[str, Callable[[], Any]] = {}

    def step(function: Callable[..., Any], *leaves: Any) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(*leaves), leaves)

    for shape in ((1, 10), (128, 10), (8192, 1000)):
        x, y, name = torch.randn(shape, requires_grad=True), torch.randint(0, shape[1], shape[:1]), list(shape)
        plain = x.detach()
        cases[f"torch cross_entropy forward {name}"] = lambda x=plain, y=y: snt.cross_entropy(x, y)
        cases[f"torch cross_entropy {name}"] = step(lambda x, y=y: snt.cross_entropy(x, y), x)
        options = {"label_smoothing": 0.1, "z_loss": 1e-4, "reduction": "sum"}
        cases[f"torch cross_entropy, options {name}"] = step(lambda x, y=y, o=options: snt.cross_entropy(x, y, **o), x)
        cases[f"torch softmax forward {name}"] = lambda x=plain: snt.softmax(x, 1)
    f, W = torch.randn(1024, 256, requires_grad=True), torch.randn(8000, 256, requires_grad=True)
    y = torch.randint(0, 8000, (1024,))
    few = torch.randn(16, 64, requires_grad=True), torch.randn(100, 64, requires_grad=True)
    cases["torch linear [1024 x 256 → 8000]"] = step(lambda f, W: snt.linear_cross_entropy(f, W, y), f, W)
    cases["torch linear [16 x 64 → 100]"] = step(lambda f, W: snt.linear_cross_entropy(f, W, y[:16] % 100), *few)
    cases["token_stats [1024 x 256 → 8000]"] = lambda: snt.token_stats(f.detach(), W.detach(), y)
    model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8000))
    fused, x = snt.fuse(model, head="2"), torch.randn(512, 256)
    parameters = list(model.parameters())
    cases["fused model [512 x 256 → 8000]"] = lambda: torch.autograd.grad(
        torch.nn.functional.cross_entropy(fused(x), y[:512]), parameters
    )
    return cases


def work() -> None:
    """Time cases by the names that come in, one a line, and print seconds a call."""
    cases = numpy_cases() | torch_cases()
    print(json.dumps(list(cases)), flush=True)
    calls: dict[str, int] = {}
    for line in sys.stdin:
        function = cases[line.strip()]
        n = calls.get(line, 0)
        if not n:
            function()
            begin = time.perf_counter()
            function()
            n = calls[line] = max(1, min(5000, round(ROUND / (time.perf_counter() - begin))))
        begin = time.perf_counter()
        for _ in range(n):
            function()
        print((time.perf_counter() - begin) / n, flush=True)


def start(checkout: Path) -> subprocess.Popen[str]:
    """Start a process that imports softnll from a checkout."""
    env = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src")}
    command = [sys.executable, str(Path(__file__).resolve()), "--work"]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], line: str = "") -> Any:
    """Send a line and return the answer."""
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101
    if line:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return json.loads(process.stdout.readline())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkouts", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", action="store_true")
    options = parser.parse_args()
    if options.work:
        work()
        return
    processes = [start(each) for each in options.checkouts]
    names = [ask(each) for each in processes][-1]
    print("| case | before, µs | after, µs | after / before |\n| --- | --- | --- | --- |")
    for name in names:
        times: list[list[float]] = [[], []]
        for _ in range(options.rounds + 1):
            for process, series in zip(processes, times, strict=True):
                series.append(ask(process, name))
        before, after = (statistics.median(series[1:]) for series in times)
        ratio = statistics.median(b / a for a, b in zip(times[0][1:], times[1][1:], strict=True))
        print(f"| {name} | {before * 1e6:.1f} | {after * 1e6:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
