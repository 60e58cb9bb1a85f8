"""Fit a softmax classifier to a table that no process holds whole, on two worker processes; save an ordinary model.

python examples/dask_classifier.py                              two processes of this machine
python examples/dask_classifier.py tcp://scheduler:8786         the workers of a cluster
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import softnll as sn
from softnll.dask import SoftmaxClassifier

ROWS, FEATURES, CLASSES = 20_000, 20, 5


def rows(block_info=None):
    """Return one partition: features, and the class in the last column. A real one is read from a file."""
    random = np.random.default_rng(block_info[None]["chunk-location"][0])
    X = random.normal(size=(ROWS, FEATURES))
    y = (2 * X[:, :CLASSES] + random.gumbel(size=(ROWS, CLASSES))).argmax(axis=1)
    return np.column_stack([X, y])


def main(address: str | None = None, partitions: int = 8) -> float:
    """Fit, predict, save; return the accuracy on rows that were not fitted."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") if address is None else address
    with Client(cluster) as client:
        chunks = ((ROWS,) * partitions, (FEATURES + 1,))
        table = da.map_blocks(rows, chunks=chunks, dtype=np.float64, meta=np.zeros((0, 0)))
        X, y = table[:, :FEATURES], table[:, FEATURES].astype(int)
        test = ROWS * (partitions - 1)  # the last partition
        model = SoftmaxClassifier(C=1.0).fit(X[:test], y[:test])
        print(f"{test} rows on {len(client.nthreads())} workers: {model.n_iter_} iterations")
        print(
            "probabilities of the first two test rows:", model.predict_proba(X[test:])[:2].compute().round(3).tolist()
        )
        accuracy = model.score(X[test:], y[test:])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.npz"
            model.to_local().save(path)
            print("read again:", sn.SoftmaxClassifier.load(path))
    if address is None:
        cluster.close()
    return accuracy


if __name__ == "__main__":
    print(f"accuracy {main(*sys.argv[1:2]):.3f}")
