"""Tables of the tests of softnll.dask: made partition by partition, so that a lost one can be made again."""

from __future__ import annotations

import dask.array as da
import numpy as np

H, K = 12, 4


def rows_of(number, n, dtype=np.float64):
    """Return features and labels of one partition."""
    rng = np.random.default_rng(number)
    X = rng.normal(size=(n, H)) * np.geomspace(2, 0.5, H)
    y = (X[:, :K] + rng.gumbel(size=(n, K))).argmax(axis=1)
    return X.astype(dtype), y


def _block(sizes, dtype, block_info=None):
    k = block_info[None]["chunk-location"][0]
    X, y = rows_of(k, sizes[k], dtype)
    return np.column_stack([X, y]).astype(dtype)


def table(sizes=(300, 200, 250, 250), dtype=np.float64):
    """Return X and y as Dask arrays whose partitions are made where they are needed."""
    chunks = (tuple(sizes), (H + 1,))
    whole = da.map_blocks(_block, sizes, dtype, chunks=chunks, dtype=dtype, meta=np.zeros((0, 0), dtype))
    return whole[:, :H], whole[:, H].astype(np.int64)


def in_memory(sizes=(300, 200, 250, 250), dtype=np.float64):
    """Return the same rows as arrays."""
    parts = [rows_of(k, n, dtype) for k, n in enumerate(sizes)]
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def unknown(array):
    """Return a Dask array whose lengths are unknown."""
    result = array.copy()
    result._chunks = ((np.nan,) * len(array.chunks[0]), *array.chunks[1:])
    return result
