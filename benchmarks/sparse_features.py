"""SoftmaxClassifier beside LogisticRegression's saga and lbfgs on sparse features: 20 000 × 100 000 at 0.1 %.

    python benchmarks/sparse_features.py [--rows 20000] [--features 100000] [--density 1e-3] \
        [--classes 5] [--C 1] [--repeat 3]

The features are made: counts of words whose frequencies follow Zipf's law, and classes that depend on them. Each fit
runs in a process of its own, the three in turn, with the same C and tol, and reports its time, its peak memory beyond
what it held before, and the objective it reached, evaluated in float64 in the same way for all. The saga solver passes
over the data at most 100 times, as by default. Medians; a table and a csv in ``benchmarks/results/``.
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
import scipy.sparse as sp

from machine import describe, measured_fit
from page import table_first

RESULTS = Path(__file__).parent / "results"
WAYS = ("softnll", "lbfgs", "saga")


def words(N: int, H: int, density: float, K: int):
    """Return counts of words, ``(N, H)`` CSR, and classes."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, H + 1)
    frequency /= frequency.sum()
    count = round(density * H)
    # Words that occur twice in a row become one entry of 2, so that some more are drawn.
    columns = np.searchsorted(np.cumsum(frequency), rng.random(int(1.35 * N * count))).clip(max=H - 1)
    rows = np.repeat(np.arange(N), len(columns) // N)
    X = sp.csr_matrix((np.ones(len(rows)), (rows, columns[: len(rows)])), shape=(N, H))
    X.sum_duplicates()
    topics = rng.normal(size=(H, K)) * np.minimum(1, 30 * np.sqrt(frequency.mean() / frequency))[:, None]
    return X, (X @ topics + rng.gumbel(size=(N, K))).argmax(axis=1)


def fit(way: str, arguments) -> dict:
    """Fit once and return what was measured."""
    X, y = words(arguments.rows, arguments.features, arguments.density, arguments.classes)
    options = {"C": arguments.C, "tol": arguments.tol}
    if way == "softnll":
        from softnll import SoftmaxClassifier as Model  # noqa: PLC0415 - each process loads its own library only
    else:
        from sklearn.linear_model import LogisticRegression as Model  # noqa: PLC0415

        options["solver"] = way
    options["max_iter"] = 100 if way == "saga" else 1000
    model, seconds, extra = measured_fit(Model, options, X, y, slice(200))
    import softnll as sn  # noqa: PLC0415

    coef = np.asarray(model.coef_, np.float64)
    loss = float(sn.cross_entropy(X @ coef.T + model.intercept_, y))
    return {
        "seconds": seconds,
        "MiB beyond the data": extra / 2**20,
        "iterations": int(np.max(model.n_iter_)),
        "objective": loss + float((coef**2).sum()) / (2 * arguments.C * len(y)),
        "data": f"{X.shape[0]} x {X.shape[1]} {X.dtype}, {X.nnz} non-zeros ({100 * X.nnz / np.prod(X.shape):.3f} %)",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--density", type=float, default=1e-3)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--C", type=float, default=1.0)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(fit(arguments.only, arguments)))
        return
    seen = {way: [] for way in WAYS}
    for _ in range(arguments.repeat):
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seen[way].append(json.loads(done.stdout))
            print(way, done.stdout.strip(), flush=True)
    write(arguments, seen)


def write(arguments, seen) -> None:
    """Write the table."""
    digits = {"seconds": 2, "MiB beyond the data": 0, "iterations": 0, "objective": 8}
    rows = [
        {"solver": way, **{head: round(median(run[head] for run in runs), n) for head, n in digits.items()}}
        for way, runs in seen.items()
    ]
    with (RESULTS / "classifier-sparse.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    text = (
        "# SoftmaxClassifier beside LogisticRegression on sparse features\n\n"
        f"{seen['softnll'][0]['data']}, {arguments.classes} classes; C = {arguments.C:g}, tol = {arguments.tol:g}; "
        f"medians of {arguments.repeat} runs, each in its own process, in turn. saga ends after 100 passes.\n"
        f"{describe('numpy', 'scipy', 'numba', 'scikit-learn')}\n\n" + "\n".join(lines) + "\n"
    )
    (RESULTS / "classifier-sparse.md").write_text(table_first(text), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
