"""SoftmaxClassifier on Dask: rows a second with one and two worker processes, beside the local estimator.

    python benchmarks/dask_classifier.py [--samples 5] [--out FOLDER]

Three tables. "same rows": a fit of one table by the local estimator, and on one and two worker processes of one thread,
in turn; times are medians, also those of one evaluation of the objective. "overhead": evaluations of a table of few
rows, which are all overhead. "beyond memory": one fit of a table larger than the memory limits of both workers
together, which reads its partitions anew in each pass, and the largest memory that a worker had.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
import warnings
from pathlib import Path
from statistics import median

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import softnll as sn
from machine import describe
from page import table_first
from softnll.dask import SoftmaxClassifier
from softnll.dask._scheduler import Scheduler

RESULTS = Path(__file__).parent / "results"
H, K, LIMIT = 100, 10, 500 << 20


def rows(n, dtype, block_info=None):
    """Return a partition: features, and the class in the last column."""
    random = np.random.default_rng(block_info[None]["chunk-location"][0])
    X = random.random((n, H + 1), dtype=dtype)
    X[:, H] = (X[:, :K] + 0.3 * random.random((n, K), dtype=dtype)).argmax(axis=1)
    return X


def table(n, partitions, dtype):
    """Return X and y of so many partitions of n rows."""
    chunks = ((n,) * partitions, (H + 1,))
    whole = da.map_blocks(rows, n, dtype, chunks=chunks, dtype=dtype, meta=np.zeros((0, 0), dtype))
    return whole[:, :H], whole[:, H].astype(np.int64)


def cluster(count, **options):
    """Return worker processes of one thread each."""
    silent = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    return LocalCluster(n_workers=count, threads_per_worker=1, processes=True, **silent, **options)


def fit(model, X, y):
    """Return the seconds of a fit, and of one evaluation of the objective of the iterations."""
    marks = [time.perf_counter()]
    model.fit(X, y, callback=lambda *_: marks.append(time.perf_counter()))
    return time.perf_counter() - marks[0], median(np.diff(marks[1:]))


def same_rows(samples, n, partitions):
    """Return rows of a table: way, seconds of a fit and of an iteration, iterations."""
    X, y = table(n, partitions, np.float32)
    local = X.compute(scheduler="threads"), y.compute(scheduler="threads")
    with cluster(1) as one, cluster(2) as two, Client(one, set_as_default=False) as first:
        second = Client(two, set_as_default=False)
        times = {"local": [], "1 process": [], "2 processes": []}
        models = {}
        for _ in range(samples + 1):
            for way, client in zip(times, (None, first, second), strict=True):
                model = (sn.SoftmaxClassifier if client is None else SoftmaxClassifier)(tol=5e-3)
                if client is None:
                    times[way].append(fit(model, *local))
                else:
                    with client.as_current():
                        times[way].append(fit(model, X, y))
                models[way] = model
        second.close()
    if not np.array_equal(models["1 process"].coef_, models["2 processes"].coef_):
        raise SystemExit("one and two processes gave other bits")
    total = n * partitions
    for way, found in times.items():
        whole, step = (median(each[k] for each in found[1:]) for k in (0, 1))
        yield f"| {way} | {whole:.2f} | {1000 * step:.0f} | {total / step / 1e6:.2f} | {models[way].n_iter_} |"


def beyond_memory(partitions, n):
    """Return a sentence about one fit of a table larger than the memory of the workers."""
    X, y = table(n, partitions, np.float64)
    with cluster(2, memory_limit=LIMIT) as workers, Client(workers) as client:
        pids = client.run(lambda: __import__("os").getpid())
        model = SoftmaxClassifier(tol=0.01)
        passes, compute = [], Scheduler.compute
        Scheduler.compute = lambda self, task: (passes.append(1), compute(self, task))[1]
        begin = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - begin
        Scheduler.compute = compute
        peak = max(client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).values()) >> 10
        lost = pids != client.run(lambda: __import__("os").getpid())
    return (
        f"A table of {X.nbytes >> 20} MiB ({len(X)} x {H} float64, {partitions} partitions) on 2 workers of "
        f"{LIMIT >> 20} MiB each: {seconds:.0f} s for {len(passes)} passes, {model.n_iter_} iterations; a worker had "
        f"{peak} MiB at most, {'some were' if lost else 'none was'} stopped."
    )


def main():
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--note", default="", help="a sentence about the machine's load")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = ["# SoftmaxClassifier on Dask", "", describe(), ""]
    lines += [f"Made by `benchmarks/dask_classifier.py`, {options.samples} samples in turn. {options.note}".strip(), ""]
    head = ["| way | fit, s | iteration, ms | million rows a second | iterations |", "|---|---|---|---|---|"]
    lines += [*head, *same_rows(options.samples, 25_000, 8), ""]
    lines += [f"The rows of this table: 200 000 x {H} float32 of {K} classes, 8 partitions.", ""]
    print(*lines, sep="\n", flush=True)
    lines += [f"**Overhead**, 400 x {H} in 8 partitions: nearly all of an iteration is Dask's:", "", *head]
    lines += [*same_rows(options.samples, 50, 8), ""]
    print(*lines[-7:], sep="\n", flush=True)
    lines += ["**Beyond memory.** " + beyond_memory(112, 12_500)]
    text = "\n".join(lines) + "\n"
    print(lines[-1])
    (options.out / "dask.md").write_text(table_first(text), encoding="utf-8")


if __name__ == "__main__":
    main()
