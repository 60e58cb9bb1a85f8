"""SoftmaxClassifier beside scikit-learn's LogisticRegression: the same objective, data, tolerance, threads and machine.

    python benchmarks/classifier.py --data digits|fashion-mnist|cifar10 [--C 1e-3] [--tol 1e-4] [--repeat 3]

Each fit runs in a process of its own, the two in turn, and tells its time, its peak memory beyond what it held before,
and the objective it reached (evaluated in float64 in the same way for both). Medians; a table and a csv in
``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np

from machine import describe, measured_fit
from page import table_first

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("softnll", "scikit-learn")


def rows(source: str):
    """Return float32 training and test rows, centred and of unit mean deviation, with labels."""
    from softnll.data import load  # noqa: PLC0415 - the parent process measures nothing and needs no data

    train, test = load(source)
    X, T = train.features().astype(np.float32), test.features().astype(np.float32)
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    X -= mean
    scale = np.float32(X.std(dtype=np.float64))
    X /= scale
    return X, train.labels, (T - mean) / scale, test.labels


def fit(library: str, arguments) -> dict:
    """Fit once and return what was measured."""
    X, y, T, t = rows(arguments.source or arguments.data)
    if library == "softnll":
        from softnll import SoftmaxClassifier as Model  # noqa: PLC0415 - each process loads its own library only
    else:
        from sklearn.linear_model import LogisticRegression as Model  # noqa: PLC0415
    options = {"C": arguments.C, "tol": arguments.tol, "max_iter": arguments.max_iter}
    some = np.concatenate([np.flatnonzero(y == k)[:5] for k in np.unique(y)])
    model, seconds, extra = measured_fit(Model, options, X, y, some)
    import softnll as sn  # noqa: PLC0415

    def nll(inputs, labels):
        scores = inputs.astype(np.float64) @ model.coef_.T.astype(np.float64) + model.intercept_
        return float(sn.cross_entropy(scores, labels)), float((scores.argmax(axis=1) == labels).mean())

    loss, _ = nll(X, y)
    test_nll, accuracy = nll(T, t)
    objective = loss + float((model.coef_.astype(np.float64) ** 2).sum()) / (2 * arguments.C * len(y))
    return {
        "seconds": seconds,
        "MiB beyond the data": extra / 2**20,
        "iterations": int(np.max(model.n_iter_)),
        "objective": objective,
        "test accuracy": accuracy,
        "test NLL": test_nll,
        "data": f"{X.shape[0]} x {X.shape[1]} {X.dtype} ({X.nbytes / 2**20:.0f} MiB), {len(np.unique(y))} classes",
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--source", help="folder of the data's files (default: where softnll.data.load finds them)")
    parser.add_argument("--C", type=float, default=1.0)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--max-iter", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=LIBRARIES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.only:
        print(json.dumps(fit(arguments.only, arguments)))
        return
    seen = {library: [] for library in LIBRARIES}
    for _ in range(arguments.repeat):
        for library in LIBRARIES:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--only", library], capture_output=True, text=True, check=True
            )
            seen[library].append(json.loads(done.stdout))
            print(library, done.stdout.strip(), flush=True)
    write(arguments, seen)


def write(arguments, seen) -> None:
    heads = ["seconds", "MiB beyond the data", "iterations", "objective", "test accuracy", "test NLL"]
    digits = {"seconds": 3, "MiB beyond the data": 1, "objective": 8, "test accuracy": 4, "test NLL": 4}
    table = []
    for library, runs in seen.items():
        values = {head: round(median(run[head] for run in runs), digits.get(head, 0)) for head in heads}
        table.append({"library": library, **values})
    ours, theirs = table
    name = f"classifier-speed-{arguments.data}"
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    lines = ["| " + " | ".join(table[0]) + " |", "|" + " --- |" * len(table[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in table]
    ratio = theirs["seconds"] / ours["seconds"]
    text = (
        f"# SoftmaxClassifier beside LogisticRegression: {arguments.data}\n\n"
        f"{seen['softnll'][0]['data']}; C = {arguments.C:g}, tol = {arguments.tol:g}; "
        f"medians of {arguments.repeat} runs, each in its own process, in turn.\n"
        f"{describe('numpy', 'scipy', 'numba', 'scikit-learn')}\n\n"
        + "\n".join(lines)
        + f"\n\nTime of scikit-learn's fit over ours: **{ratio:.2f}**.\n"
    )
    (RESULTS / f"{name}.md").write_text(table_first(text), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
