"""Run a function on ranges of rows in several threads. Kernels release the GIL; results do not depend on the threads.

Numba's own parallel loops are not used: one of its layers aborts the process under concurrent Python threads, another
hangs forked children, and the third is not there after ``pip install`` (docs/decisions/0009).
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_LEAST = 3 << 18  # logits from which on another thread pays: it takes 50 to 300 µs to wake it and to pass Python's lock
_ROW = 32  # logits that take as long as what is done once a row
_RANGES, _LENT_RANGES = 4, 2  # for each thread, of ours and of another library: one that begins late computes fewer
_CHUNK = 1 << 16  # rows of a range at most, so that its array of rows left to the scalar kernels stays small
_MOST = 64  # threads that may be asked for on a machine with fewer CPUs
_starts: list[Callable[[int, Callable[[], None]], bool]] = []  # see ``lend``
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_size = 0


def thread_count() -> int:
    """Return how many threads to use: NUMBA_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may use.

    A variable that is no whole number of at least 1 counts as not set. More than 64 threads, and more than the machine
    has CPUs, are not used.
    """
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").strip()
        if value.isdecimal() and len(value) < 10 and int(value) > 0:
            return min(int(value), max(os.cpu_count() or 1, _MOST))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers(n: int) -> ThreadPoolExecutor:
    """Return the pool, with room for so many."""
    # At interpreter exit this import, the first of the module, raises a RuntimeError.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

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


def _submit(threads: int, run: Callable[[], None]) -> list[Future[None]]:
    """Let so many threads call ``run``: fewer, or none, once the interpreter ends or the system has no more threads.

    A pool that cannot start a thread keeps the call in its queue. Its future then belongs to the caller all the same.
    """
    futures: list[Future[None]] = []
    for _ in range(threads):
        futures.append(Future())
        try:
            _workers(threads).submit(_complete, futures[-1], run)
        except RuntimeError:
            break
    return futures


def _complete(future: Future[None], run: Callable[[], None]) -> None:
    """Call ``run`` unless the future has been cancelled; its error becomes the future's."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        run()
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        future.set_exception(error)
    else:
        future.set_result(None)


def in_one_go(n_rows: int, n_columns: int) -> bool:
    """Whether there are so few rows that the caller's thread computes them in one call."""
    return n_rows <= _CHUNK and n_rows * (n_columns + _ROW) < _LEAST


def threads_of(n_rows: int, n_columns: int, threads: int | None = None) -> int:
    """Return how many threads compute so many rows; ``threads`` None for as many as ``thread_count`` says at most."""
    if in_one_go(n_rows, n_columns):
        return 1
    return min(thread_count() if threads is None else threads, -(-n_rows // 16))


def for_rows(n_rows: int, n_columns: int, work: Callable[[int, int], None], threads: int | None = None) -> None:
    """Call ``work(first, last)`` for ranges that together are all rows, in several threads where that pays.

    Ranges begin at multiples of 16. An error in one range is raised here, after all ranges have ended.
    """
    if in_one_go(n_rows, n_columns):
        if n_rows:
            work(0, n_rows)
        return
    threads = threads_of(n_rows, n_columns, threads)
    each = 1 if threads == 1 else _LENT_RANGES if _starts else _RANGES
    step = min(_CHUNK, -(-n_rows // (each * threads)))
    step = -(-step // 16) * 16
    starts = itertools.count(0, step)  # next() of it is one step under the GIL: each range is taken once

    held = [work]  # emptied at the end: the pool keeps a call, and so its arrays, until a thread takes the next one

    def run() -> None:
        while (first := next(starts)) < n_rows:
            held[0](first, min(first + step, n_rows))

    try:
        if threads == 1:
            run()
        elif not any(start(threads, run) for start in _starts):
            _in_pool(threads, run)
    finally:
        held.clear()


def _in_pool(threads: int, run: Callable[[], None]) -> None:
    """Call ``run`` in so many threads: the caller's, and some of the pool."""
    helpers = _submit(threads - 1, run)
    try:
        run()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]  # other callers may keep the pool busy
        wait(begun)
    for helper in begun:
        helper.result()


def lend(start: Callable[[int, Callable[[], None]], bool]) -> None:
    """Let ``for_rows`` use another library's threads, which two pools would take from each other.

    ``start(threads, run)`` calls ``run`` in at most so many threads, of which the caller's is one, and returns True; or
    it returns False and calls nothing.
    """
    _starts.append(start)
