"""Whether rows repeat for a reason: in an order, all equally often, or where no value repeats otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.diagnose.chance import ALPHA, sum_tail
from softnll.data.rows import Rows

ENOUGH = 20  # different rows, below which equal counts show nothing
SMALL = 4  # rows a group: larger ones are what trees, neighbours and votes give
HALF = 0.5
LARGER = 0.05  # of the pairs: so many groups of three and more come with doubles that are drawn at random
DISTINCT = 0.999  # of a column's values among different rows: then the classifier's values do not repeat
LOOKED_AT = 10_000  # different rows whose columns are counted
COLUMNS = 256


def wrapped(digest: NDArray[np.uint64], group: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """Return how many rows at the end repeat those at the start, in order, as after a sampler that pads; 0 by accident.

    ``group`` is the number of each row's group of equal rows, ``counts`` their sizes. Two rows agree by accident with
    the frequency of such pairs, ``q``; so many in order with ``q**length``.
    """
    n = len(digest)
    pairs = float((counts * (counts - 1.0)).sum()) / max(n * (n - 1.0), 1.0)
    for start in np.flatnonzero(digest[1:] == digest[0]) + 1:
        length = n - int(start)
        if length < n / 2 and bool((digest[start:] == digest[:length]).all()):
            rare = float((counts[group[:length]] <= SMALL).mean())
            return length if rare >= HALF and length * np.log(max(pairs, 1e-300)) <= np.log(ALPHA) else 0
    return 0


def in_order(group: NDArray[np.int64], counts: NDArray[np.int64]) -> bool:
    """Whether rows repeat all equally often, or half of those that repeat do so at one distance.

    Examples
    --------
    >>> twice = np.tile(np.arange(50), 2)
    >>> in_order(twice, np.full(50, 2))
    True
    """
    if len(counts) >= ENOUGH and counts.min() == counts.max() > 1:
        return True
    n = len(group)
    order = np.argsort(group, kind="stable")
    following = np.flatnonzero(group[order][1:] == group[order][:-1])
    here, there = order[following], order[following + 1]
    few = counts[group[here]] <= SMALL
    apart = (there - here)[few]
    if apart.size < 2:
        return False
    distances, times = np.unique(apart, return_counts=True)
    # Neighbours in a series are alike, and fall into the same leaves of trees: a distance of 1 shows nothing.
    times = np.where(distances == 1, 0, times)
    most = int(times.max())
    by_accident = min(1.0, 2.0 * apart.size / n)
    return most >= 2 and most >= HALF * apart.size and sum_tail(most, by_accident, apart.size) * n <= ALPHA


def in_pairs(counts: NDArray[np.int64]) -> bool:
    """Whether rows repeat in many pairs and hardly a larger group: doubles in the data do, leaves of trees do not."""
    pairs, larger = int((counts == 2).sum()), int((counts > 2).sum())
    return pairs >= ENOUGH and larger <= LARGER * pairs and len(counts) >= HALF * counts.sum()


def distinct_values(scores: Rows, rows: NDArray[np.int64]) -> bool:
    """Whether hardly a value of a column is in two of the ``rows``, which all differ: equal rows are no accident then.

    A tree, its ensembles, neighbours, votes and isotonic calibration give equal rows to different inputs, and values
    that also repeat in rows that differ. With two classes a value is the whole row: it says nothing.
    """
    part = scores.rows(rows[:LOOKED_AT])[:, :COLUMNS]
    enough = scores.shape[1] >= 3 and len(part) >= ENOUGH
    return enough and all(len(np.unique(column)) >= DISTINCT * len(column) for column in part.T)
