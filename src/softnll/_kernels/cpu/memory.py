"""The memory that the kernels take beside their arguments, with a bound for a whole call; how results are written."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

import numpy as np

from softnll._core.problem import Problem
from softnll._core.targets import SparseRows
from softnll._kernels.cpu.parameters import CAPPED_BLOCK
from softnll._kernels.cpu.threads import threads_of

FEW = 160  # classes up to which rows are taken a tile at a time (docs/log.md)
BLOCK = 1 << 16  # logits of a block, where rows are copied or go to the scalar kernels
LEFT_BLOCK = 1 << 14  # logits of a block of the rows that vector kernels leave
TURNED = 24  # classes up to which rows with spread targets are turned into planes
TURNED_BLOCK = 1 << 15  # logits of a block of them
STREAMED = 1 << 26  # bytes of an output from which it may be written past the caches


def past_caches(out: Any, least: int = STREAMED) -> bool:
    """Return whether rows are written past the caches: many bytes, whose pages are there.

    A page that is new is in the caches when the system has cleared it; to write past them then takes longer
    (docs/log.md). Three rows are looked at.
    """
    if out.nbytes < max(least, 1):
        return False
    n_rows = len(out)
    return all(_there(out[n_rows * part // 4].ctypes.data) for part in (1, 2, 3))


def _there(address: int) -> bool:
    """Return whether the page of an address is in memory; True where the system does not say."""
    found = ctypes.c_ubyte(1)
    asked = _mincore()
    if asked is not None:
        asked(address // mmap.PAGESIZE * mmap.PAGESIZE, 1, ctypes.byref(found))
    return bool(found.value & 1)


@cache
def _mincore() -> Any:
    try:
        function = ctypes.CDLL(None).mincore
    except (AttributeError, OSError, TypeError):  # of Windows
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return function


def scratch_bytes(problem: Problem, n_rows: int, n_columns: int, itemsize: int) -> int:
    """Return the most bytes that a loss and its gradient take on so many rows of logits, in all threads together.

    ``problem`` has targets and options; its logits need not be there. The bound grows with the number of rows.
    """
    q = problem.q.probabilities if isinstance(problem.q, SparseRows) else problem.q
    item = 8 if itemsize == 8 else 4
    rows = 2 if q is None and problem.objective.label_smoothing == 0 else 4  # exponentials; measures and class weights
    each = 8 * rows * (n_columns + 64)
    if n_columns <= FEW:  # `scratch_bytes` of tile.py
        each = max(each, 20_000, 5_850 + 192 * (n_columns + 8))
    q_item = 0 if q is None else q.dtype.itemsize
    each += _block(LEFT_BLOCK, n_rows, n_columns) * (2 * item + q_item)
    if q_item == 2:  # widened for the scalar kernels
        each += 4 * _block(BLOCK, n_rows, n_columns)
    if n_columns <= TURNED and (rows == 4 or problem.objective.temperature != 1):
        each += _block(TURNED_BLOCK, n_rows, n_columns) * (2 * item + (0 if q is None else item))
    if problem.objective.softcap is not None:
        row = 16 if q is None or q.dtype == np.float64 else 24  # capped logits and slopes; targets of another width
        each += row * _block(CAPPED_BLOCK, n_rows, n_columns)
    elif q is not None and (q_item == 8) != (item == 8):  # targets of another width, and the rows of their gradient
        each += 2 * item * _block(BLOCK, n_rows, n_columns)
    return threads_of(n_rows, n_columns) * each + 24 * n_rows  # loss, m and r


def _block(entries: int, n_rows: int, n_columns: int) -> int:
    """Return how many entries a block has: whole rows, at least one."""
    return min(max(1, entries // max(1, n_columns)), n_rows) * n_columns
