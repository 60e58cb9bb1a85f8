"""The first use of each function on a machine: how long it takes in a new process, and how many kernels it compiles.

    python benchmarks/first_use.py --installation "wheel with kernels" [--python wheel/bin/python] [--call TEXT]

Each call has two new processes: one with an empty cache of kernels, one with what the first has left there. Seconds are
those of the whole process, Python's start and the import of NumPy included; for calls on tensors, those from after the
import of PyTorch. CPU seconds, as other work may share the cores. Lines replace those of the same installation and call
in `results/first-use.csv`; `results/first-use.md` is written anew from the whole file.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe

RESULTS = Path(__file__).parent / "results"
FIELDS = ("installation", "call", "first", "again", "kernels", "machine")
ROWS, IMAGES = {"10 classes": "64, 10", "1000 classes": "64, 1000"}, "2, 19, 16, 16"
OPTIONS = {
    "class weights": "class_weight=w",
    "smoothing": "label_smoothing=0.1",
    "z-loss": "z_loss=1e-4",
    "soft cap": "softcap=30.0",
    "temperature": "temperature=1.7",
    "none": "reduction='none'",
}
NUMPY = """import numpy as np
shape = ({shape})
C, places, random = shape[1], shape[:1] + shape[2:], np.random.default_rng(0)
x, y, w = random.standard_normal(shape, np.float32), random.integers(0, C, places), np.ones(C)
q, v = np.full(shape, 1 / C, np.float32), np.ones(shape, np.float32)
features, head = np.ones((64, 32), np.float32), np.ones((C, 32), np.float32)
import softnll as sn
"""
TORCH = """import torch
shape = ({shape})
C, places = shape[1], shape[:1] + shape[2:]
x, y, w = torch.randn(shape), torch.randint(0, C, places), torch.ones(C)
q, features, head = torch.softmax(x, 1), torch.randn(64, 32), torch.randn(C, 32, requires_grad=True)
x.requires_grad_()
begin = time.process_time()
import softnll.torch as sn
"""


def numpy_calls() -> dict[str, str]:
    """Return the calls on NumPy arrays."""
    found = {}
    for name, shape in (*ROWS.items(), ("images", IMAGES)):
        start = NUMPY.format(shape=shape)
        calls = {each: f"sn.{each}(x, axis=1)" for each in ("softmax", "log_softmax", "logsumexp")}
        calls |= {
            "nll_loss": "sn.nll_loss(np.log(q), y, axis=1)",
            "cross_entropy": "sn.cross_entropy(x, y, axis=1)",
            "cross_entropy_and_grad": "sn.cross_entropy_and_grad(x, y, axis=1)",
            "… soft targets": "sn.cross_entropy_and_grad(x, q, axis=1)",
        }
        calls |= {f"… {each}": f"sn.cross_entropy_and_grad(x, y, axis=1, {OPTIONS[each]})" for each in OPTIONS}
        calls["… half ignored"] = "y[::2] = -100\nsn.cross_entropy_and_grad(x, y, axis=1)"
        calls["… float64"] = "sn.cross_entropy_and_grad(x.astype(np.float64), y, axis=1)"
        calls["… float16"] = "sn.cross_entropy_and_grad(x.astype(np.float16), y, axis=1)"
        calls["… a row that is not finite"] = "x[:1] = np.inf\nsn.cross_entropy_and_grad(x, y, axis=1)"
        if name != "images":
            calls["softmax, masked"] = "sn.softmax(x, where=x < 9)"
            calls["softmax, temperature"] = "sn.softmax(x, temperature=2.0)"
            calls["softmax_vjp"] = "sn.softmax_vjp(x, v)"
            calls["cross_entropy_hvp"] = "sn.cross_entropy_hvp(x, y, v)"
            calls["linear_cross_entropy"] = "sn.linear_cross_entropy(features, head, y)"
            calls["linear_cross_entropy_and_grad"] = "sn.linear_cross_entropy_and_grad(features, head, y)"
            calls["fit_temperature"] = "sn.fit_temperature(x, (x + v * 2 * random.gumbel(size=shape)).argmax(1))"
        found |= {f"NumPy, {name}: {each}": start + call for each, call in calls.items()}
    return found


def torch_calls() -> dict[str, str]:
    """Return the calls on tensors, forward and backward."""
    found = {}
    for name, shape in (*ROWS.items(), ("images", IMAGES)):
        start = TORCH.format(shape=shape)
        calls = {each: f"sn.{each}(x, 1).square().sum().backward()" for each in ("softmax", "log_softmax")}
        calls |= {
            "cross_entropy": "sn.cross_entropy(x, y).backward()",
            "… upstream gradient": "(3 * sn.cross_entropy(x, y)).backward()",
            "… none": "sn.cross_entropy(x, y, reduction='none').sum().backward()",
            "… soft targets": "sn.cross_entropy(x, q).backward()",
            "… smoothing": "sn.cross_entropy(x, y, label_smoothing=0.1).backward()",
            "… class weights": "sn.cross_entropy(x, y, w).backward()",
            "… bfloat16": "sn.cross_entropy(x.bfloat16(), y).backward()",
        }
        if name != "images":
            calls["linear_cross_entropy"] = "sn.linear_cross_entropy(features, head, y).backward()"
        found |= {f"torch, {name}: {each}": start + call for each, call in calls.items()}
    return found


COMMANDS = {
    "softnll explain 2 1 0 --target 0": ["explain", "2", "1", "0", "--target", "0"],
    "softnll train digits": ["train", "digits", "--out", "{folder}/model"],
}
PROGRAM = """import time
begin = 0
{call}
print(time.process_time() - begin)
"""
COMMAND = """import sys, time
sys.argv = ["softnll", *{arguments!r}]
from softnll._cli.main import main
try:
    main()
except SystemExit:
    pass
print(time.process_time())
"""


def programs(folder: str) -> dict[str, str]:
    """Return a program for each call; it prints its CPU seconds at last."""
    found = {name: PROGRAM.format(call=call) for name, call in (numpy_calls() | torch_calls()).items()}
    for name, arguments in COMMANDS.items():
        found[name] = COMMAND.format(arguments=[each.format(folder=folder) for each in arguments])
    return found


def measure(python: str, name: str) -> dict[str, str]:
    """Return the CPU seconds of a call's first and second process, and the number of kernels compiled."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for _ in range(2):
            done = subprocess.run(
                [python, "-c", programs(folder)[name]],
                env=os.environ | {"NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                cwd=folder,
                check=False,
            )
            if done.returncode:
                return {"first": "fails: " + done.stderr.strip().splitlines()[-1][:60], "again": "", "kernels": ""}
            seconds.append(f"{float(done.stdout.split()[-1]):.2f}")
        kernels = len(list(Path(folder).rglob("*.kernel")))
    return {"first": seconds[0], "again": seconds[1], "kernels": str(kernels)}


def read(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return the lines of the file by installation and call."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {(line["installation"], line["call"]): line for line in csv.DictReader(file)}


def page(lines: dict[tuple[str, str], dict[str, str]]) -> str:
    """Return the table: a row a call, columns of each installation."""
    installations = list(dict.fromkeys(name for name, _ in lines))
    heads = ["call", *(f"{name}: {each}" for name in installations for each in ("first", "again", "kernels compiled"))]
    text = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for call in dict.fromkeys(call for _, call in lines):
        cells = [call]
        for name in installations:
            line = lines.get((name, call), {})
            cells += [line.get(each, "") for each in ("first", "again", "kernels")]
        text.append("| " + " | ".join(cells) + " |")
    begin = (
        "# The first use of each function on a machine\n\nCPU seconds of a new process (`benchmarks/first_use.py`), "
        "first with an empty cache of kernels, then again with what the\nfirst process left there. Calls on tensors: "
        "from after the import of PyTorch.\n\n"
    )
    notes = [
        f"{name}: {next(line['machine'] for (n, _), line in lines.items() if n == name)}" for name in installations
    ]
    return begin + "\n".join(text) + "\n\n" + "\n\n".join(notes) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--installation", required=True, help="what is installed, as it stands in the table")
    parser.add_argument("--python", default=sys.executable, help="the Python that has it")
    parser.add_argument("--call", default="", help="measure the calls whose name has this in it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    path = given.out / "first-use.csv"
    lines = read(path)
    for name in programs(""):
        if given.call in name:
            found = measure(given.python, name)
            print(name, *found.values(), flush=True)
            key = given.installation, name
            lines[key] = dict(zip(FIELDS, (*key, *found.values(), describe("numpy", "numba", "torch")), strict=True))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines.values())
    (given.out / "first-use.md").write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
