"""Dask arrays and dataframes as partitions: X, y and weights row by row, checked as far as that needs no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask import delayed

from softnll.dask._tasks import Partition

_ALLOWED = "allowed: a Dask array or dataframe; softnll.SoftmaxClassifier takes arrays in memory"


@dataclass(frozen=True)
class Partitions:
    """The partitions of a table as tasks, each a `Partition`, and the names of its columns, or None."""

    partitions: list[Any]
    names: list[str] | None


def is_frame(value: Any) -> bool:
    """Whether a value is a Dask dataframe or series."""
    return hasattr(value, "dask") and hasattr(value, "npartitions") and hasattr(value, "divisions")


def is_dask(value: Any) -> bool:
    """Whether a value is a Dask array, dataframe or series."""
    return isinstance(value, da.Array) or is_frame(value)


def align(X: Any, y: Any, sample_weight: Any) -> Partitions:
    """Return the partitions of X with their y and weights.

    Arrays of known lengths get the chunks of X; others must have as many partitions as X, and the tasks compare the
    lengths of each.

    Raises
    ------
    TypeError, ValueError
        For arguments that are no Dask arrays or dataframes, of other dimensions, or that do not match.
    """
    if not is_dask(X):
        raise TypeError(f"X is a {type(X).__name__}; {_ALLOWED}")
    if X.ndim != 2:
        raise ValueError(f"X has {X.ndim} dimensions; allowed: 2, (N, H)")
    names = [*X.columns] if is_frame(X) else None
    if names is not None and not all(isinstance(each, str) for each in names):
        names = None
    if isinstance(X, da.Array):
        X = _whole_rows(X, "X")
    y = _beside(X, y, "y")
    given = [X, y]
    if sample_weight is not None:
        if getattr(sample_weight, "ndim", 1) != 1:
            raise ValueError(f"sample_weight has {sample_weight.ndim} dimensions; allowed: 1, (N,)")
        given.append(_beside(X, sample_weight, "sample_weight"))
    blocks = [_blocks(each) for each in given]
    if sample_weight is None:
        blocks.append([None] * len(blocks[0]))
    partition = delayed(Partition, pure=False)
    return Partitions([partition(i, *each) for i, each in enumerate(zip(*blocks, strict=True))], names)


def as_array(X: Any) -> Any:
    """Return a Dask array or dataframe as an array whose rows are not divided."""
    return _whole_rows(X.to_dask_array() if is_frame(X) else X, "X")


def _whole_rows(X: Any, name: str) -> Any:
    """Return a Dask array whose chunks have all columns."""
    if np.isnan(X.shape[1]):
        raise ValueError(f"{name} has an unknown number of columns; compute it first: {name}.compute_chunk_sizes()")
    return X if len(X.chunks[1]) == 1 else X.rechunk({1: -1})


def _beside(X: Any, value: Any, name: str) -> Any:
    """Return y or weights with the partitions of X."""
    if not is_dask(value):
        value = np.asarray(value)
        if value.ndim == 0:
            raise TypeError(f"{name} is {value!r}; {_ALLOWED}")
        if not _known(X):
            raise ValueError(
                f"{name} is in memory, and the lengths of X's partitions are unknown; {_remedy(X)}, or make {name} "
                "from the same table"
            )
        value = da.from_array(value, chunks=value.shape)
    if value.ndim > 2:
        raise ValueError(f"{name} has {value.ndim} dimensions; allowed: 1 or 2")
    if isinstance(value, da.Array) and value.ndim == 2:
        value = _whole_rows(value, name)
    if _known(X) and _known(value):
        if X.shape[0] != value.shape[0]:
            raise ValueError(f"X has {X.shape[0]} rows, {name} {value.shape[0]}")
        value = value.rechunk({0: X.chunks[0]})
    if X.npartitions != value.npartitions:
        raise ValueError(
            f"X has {X.npartitions} partitions and {name} {value.npartitions}, and their lengths are unknown; "
            f"{_remedy(X)} and {name}'s, or give both the same partitions"
        )
    return value


def _known(value: Any) -> bool:
    """Whether the lengths of an array's chunks are known; those of dataframes never are."""
    return isinstance(value, da.Array) and not np.isnan(value.shape[0])


def _remedy(X: Any) -> str:
    """Return how the lengths become known."""
    return "compute them: X.to_dask_array(lengths=True)" if is_frame(X) else "compute them: X.compute_chunk_sizes()"


def _blocks(value: Any) -> list[Any]:
    """Return the partitions of an array, dataframe or series as tasks."""
    # The graphs of arrays are fused one by one: what X and y are both made of would be made twice.
    return list(np.ravel(value.to_delayed(optimize_graph=is_frame(value))))
