"""What `softnll train` gives by default: time and quality of each data set, as README and documentation state them.

    python benchmarks/train.py [--only digits iris cifar10 "cifar10 --mirror" fashion-mnist]

Each command runs in a process of its own. The table in ``benchmarks/results/train.md`` and the one in README.md are
written from the commands' own JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from machine import describe
from page import table_first

ROOT = Path(__file__).resolve().parents[1]
RUNS = ("digits", "iris", "fashion-mnist", "cifar10", "cifar10 --mirror")
BEGIN, END = "<!-- benchmarks/train.py -->", "<!-- end -->"


def iris(folder: Path) -> Path:
    """Write scikit-learn's iris as a table and return its path."""
    from sklearn.datasets import load_iris  # noqa: PLC0415 - only this data set needs it

    data = load_iris()
    rows = [",".join([*map(str, x), str(data.target_names[y])]) for x, y in zip(data.data, data.target, strict=True)]
    path = folder / "iris.csv"
    path.write_text("\n".join(["sepal_length,sepal_width,petal_length,petal_width,species", *rows]) + "\n")
    return path


def measure(name: str, folder: Path) -> dict:
    """Run a command and return its row; the longest time without a line on standard error is among it."""
    source, *options = name.split()
    data = str(iris(folder)) if source == "iris" else source
    command = [
        sys.executable,
        "-m",
        "softnll._cli.main",
        "train",
        data,
        *options,
        "--json",
        "--out",
        str(folder / "out"),
    ]
    begin = last = time.perf_counter()
    silence = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        for _ in running.stderr:
            now = time.perf_counter()
            silence, last = max(silence, now - last), now
        facts = json.loads(running.stdout.read())
    seconds = time.perf_counter() - begin
    test = facts["test"]
    return {
        "command": f"softnll train {source + '.csv' if source == 'iris' else name}",
        "C": f"{facts['C']:g}",
        "test accuracy": f"{test['accuracy']:.4f}",
        "NLL": f"{test['nll']:.4f}",
        "ECE": f"{test['ece']:.3f}",
        "iterations": f"{facts['iterations']}",
        "seconds": f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}",
        "longest silence, s": f"{silence:.2f}",
    }


def as_table(rows: list[dict], heads: list[str]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row[head] for head in heads) + " |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=RUNS, default=RUNS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in parser.parse_args().only:
            rows.append(measure(name, Path(folder)))
            print(rows[-1], flush=True)
    if len(rows) < len(RUNS):
        return
    text = as_table(rows, list(rows[0]))
    described = describe("numpy", "scipy", "numba", "scikit-learn")
    load = " and ".join(f"{each:.1f}" for each in np.loadtxt("/proc/loadavg", usecols=(0, 2), max_rows=1))
    note = f"Load averages of the machine at the end, over 1 and 15 minutes: {load}."
    result = f"# softnll train, by default\n\n{described}. {note}\n\n{text}\n"
    (ROOT / "benchmarks/results/train.md").write_text(table_first(result), encoding="utf-8")
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    short = as_table(rows, ["command", "C", "test accuracy", "NLL", "ECE"])
    readme.write_text(f"{before}{BEGIN}\n\n{short}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
