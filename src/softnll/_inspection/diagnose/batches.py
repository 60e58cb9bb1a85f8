"""Losses over batches, as training loops print them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.diagnose.conventions import Convention
from softnll._inspection.survey import Vector

USUAL_SIZES = (2, 4, 8, 10, 16, 20, 24, 25, 32, 48, 50, 64, 96, 100, 128, 200, 256, 500, 512, 1000, 1024, 2048, 4096)
ALL_SIZES = tuple(sorted({*range(2, 1025), *(1 << k for k in range(11, 17)), 1500, 2000, 2500, 3000, 5000, 10_000}))


def batch_conventions(nll: Vector, counted: NDArray[np.bool_], sizes: Iterable[int]) -> Iterator[Convention]:
    """Yield means and sums over the real batches of ``(N,)`` rows in their order, the smaller last one included.

    Rows that are not ``counted`` are ignored by the loss, and have a place in a batch.

    Examples
    --------
    >>> nll = np.array([1.0, 2.0, 3.0, 4.0, 8.0])
    >>> found = {each.code: each.value for each in batch_conventions(nll, nll > 0, (2,))}
    >>> found["mean-of-batch-means-2"], found["drop-last-2"], found["last-batch-2"]
    (4.333333333333333, 2.5, 8.0)
    """
    known = counted & ~np.isnan(nll)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, nll, 0.0), known))
    N = len(nll)
    for size in sizes:
        if size >= N:
            continue
        edges = np.append(np.arange(0, N, size), N)
        total, rows = np.diff(sums[edges]), np.diff(counts[edges])
        if rows.min() > 0 and np.isfinite(sums[-1]):
            yield from _of_size(total, rows, size, N)


def _of_size(total: Vector, rows: Vector, size: int, N: int) -> Iterator[Convention]:
    """Yield the conventions of one batch size: ``total`` and ``rows`` are each batch's sum of losses and its rows."""
    means, batches, n = total / rows, len(rows), float(rows.sum())
    summed, of = float(means.sum()), f"batch means (of {size})"

    def convention(code: str, words: str, value: float) -> Convention:
        return Convention(f"{code}-{size}", words, float(value))

    yield convention("sum-over-rows", f"the sum of {batches} {of}, divided by all {N} rows", summed / N)
    yield convention(
        "mean-over-batch", f"the mean of {batches} {of}, divided by {size} once more", summed / batches / size
    )
    yield convention("mean-of-batch-sums", f"the mean sum of a batch of {size}", total.mean())
    yield convention("batch-means", f"the sum of {batches} {of}", summed)
    if batches > 1:
        yield convention(
            "last-batch", f"the mean loss of the last batch of {size}, rows {size * (batches - 1)} on", means[-1]
        )
        yield convention("first-batch", f"the mean loss of the first batch of {size}", means[0])
    if N % size:
        yield convention("mean-of-batch-means", f"the mean of {batches} {of}, the last batch smaller", summed / batches)
        words = f"{of} times {size}, summed and divided by all rows, though the last batch is smaller"
        yield convention("batch-means-times-size", words, summed * size / n)
        words = f"the mean loss without the last {N % size} rows (batches of {size}, drop_last=True)"
        yield convention("drop-last", words, total[:-1].sum() / rows[:-1].sum())
        words = f"the sum of {batches} {of}, divided by {N // size}, the number of whole batches"
        yield convention("sum-over-whole-batches", words, summed / (N // size))
