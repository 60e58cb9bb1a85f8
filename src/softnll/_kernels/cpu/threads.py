"""Rows to threads: kernels release the GIL, so ordinary threads run them; results do not depend on how many.

Numba's own parallel loops are not used: one of its layers aborts the process under concurrent Python threads, another
hangs forked children, and the third is not there after ``pip install`` (docs/decisions/0009).
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

__all__ = ["for_rows", "thread_count"]

_ENTRIES = 1 << 18  # of logits below which one thread does it all: waking another takes 50 µs, as long as these
_CHUNK = 1 << 16  # rows at a time at most, so that what a chunk notes for itself stays small
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_size = 0


def thread_count() -> int:
    """Return how many threads to use: NUMBA_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may use."""
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers(n: int) -> ThreadPoolExecutor:
    """Return the pool, with room for so many."""
    global _pool, _size
    with _lock:
        if _pool is None or _size < n:  # one that was smaller ends when its last caller has
            _pool, _size = ThreadPoolExecutor(n, thread_name_prefix="softnll"), n
        return _pool


def _after_fork() -> None:
    """Forget the pool in a forked child: its threads are the parent's."""
    global _lock, _pool, _size
    _lock, _pool, _size = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _in_one_go(n_rows: int, n_columns: int) -> bool:
    """Whether so few rows are done at once, in the caller's thread."""
    return n_rows <= _CHUNK and n_rows * n_columns < _ENTRIES


def for_rows(n_rows: int, n_columns: int, work: Callable[[int, int], None], threads: int | None = None) -> None:
    """Call ``work(first, last)`` for ranges that together are all rows, in several threads where that pays.

    Ranges begin at multiples of 16. An error in one range is raised here, after all ranges have ended.
    """
    if _in_one_go(n_rows, n_columns):
        if n_rows:
            work(0, n_rows)
        return
    threads = min(thread_count() if threads is None else threads, -(-n_rows // 16))
    step = min(_CHUNK, -(-n_rows // (4 * threads if threads > 1 else 1)))
    step = -(-step // 16) * 16
    starts = itertools.count(0, step)  # next() of it is one step under the GIL: each range is taken once

    held = [work]  # emptied at the end: the pool lets go of a call, and of its arrays, when a thread next looks for one

    def run() -> None:
        while (first := next(starts)) < n_rows:
            held[0](first, min(first + step, n_rows))

    if threads == 1:
        run()
        return
    helpers = [_workers(threads - 1).submit(run) for _ in range(threads - 1)]
    try:
        run()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]  # other callers may keep the pool busy
        wait(begun)
        held.clear()
    for helper in begun:
        helper.result()
