"""Rows in several threads: the same bits, whoever calls, also after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import softnll as sn
from softnll._kernels.cpu.threads import for_rows, thread_count


@pytest.mark.parametrize("shape", [(40_000, 10), (3001, 300)])
def test_the_same_bits_for_any_number(monkeypatch, shape):
    x = (np.random.default_rng(0).normal(size=shape) * 5).astype(np.float32)
    x[17, 3] = np.nan
    y = np.arange(shape[0]) % shape[1]
    results = []
    for number in ("1", "2", "3", "7"):
        monkeypatch.setenv("NUMBA_NUM_THREADS", number)
        loss, grad = sn.cross_entropy_and_grad(x, y, reduction="none")
        results.append(
            (loss, grad, sn.softmax(x), sn.log_softmax(x), sn.logsumexp(x), sn.cross_entropy(x[18:], y[18:]))
        )
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert np.array_equal(got, want, equal_nan=True)


def test_eight_callers_at_once():
    x = np.random.default_rng(1).normal(size=(30_000, 12)).astype(np.float32)
    want = sn.softmax(x)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: sn.softmax(x), range(24)):
            assert np.array_equal(got, want)


def test_every_row_once():
    for n in (1, 15, 16, 17, 1000, 70_001):
        seen, lock = np.zeros(n, int), threading.Lock()

        def work(first, last, seen=seen, lock=lock):
            with lock:
                seen[first:last] += 1

        for_rows(n, 10**6, work, threads=3)
        assert (seen == 1).all()


def test_an_error_reaches_the_caller():
    def work(first, _last):
        if first:
            raise ValueError("from a thread")

    with pytest.raises(ValueError, match="from a thread"):
        for_rows(1000, 10**6, work, threads=2)


def test_the_error_comes_after_all_have_ended():
    ended = []

    def work(first, last):
        if first == 0:
            raise ValueError("at once")
        time.sleep(0.01)
        ended.append((first, last))

    for threads in (2, 7):
        with pytest.raises(ValueError, match="at once"):
            for_rows(4000, 10**6, work, threads=threads)
        so_far = len(ended)
        time.sleep(0.05)
        assert len(ended) == so_far


def test_calls_inside_of_workers_end(monkeypatch):
    """Each of three threads calls for three more, of a pool that has no more."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    x = np.random.default_rng(2).normal(size=(30_000, 10)).astype(np.float32)
    want, got = sn.softmax(x), []
    thread = threading.Thread(
        target=for_rows, args=(600, 10**6, lambda _first, _last: got.append(sn.softmax(x)), 3), daemon=True
    )
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert len(got) > 3
    assert all(np.array_equal(each, want) for each in got)


def test_thread_count(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert thread_count() == 3
    monkeypatch.setenv("NUMBA_NUM_THREADS", "5")
    assert thread_count() == 5
    monkeypatch.setenv("NUMBA_NUM_THREADS", "none")
    assert thread_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count() >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("before", [False, True])
def test_a_forked_child_computes(before):
    code = f"""
import os, sys, warnings
import numpy as np, softnll as sn
warnings.simplefilter("ignore")
os.environ["NUMBA_NUM_THREADS"] = "2"
x = np.random.default_rng(0).normal(size=(40_000, 10)).astype(np.float32)
if {before}:
    sn.softmax(x)
child = os.fork()
if child == 0:
    ok = abs(sn.softmax(x).sum() - 40_000) < 1
    os._exit(0 if ok else 1)
status = os.waitpid(child, 0)[1]
assert abs(sn.softmax(x).sum() - 40_000) < 1
sys.exit(os.waitstatus_to_exitcode(status))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_a_busy_pool_keeps_no_arrays():
    """A call that no thread had time for waits in the pool's queue; what it would have worked on must not."""
    free, begun = threading.Event(), threading.Event()

    def wait(_first, _last):
        begun.set()
        free.wait(30)

    blocker = threading.Thread(target=lambda: for_rows(1 << 16, 4, wait, threads=2))
    blocker.start()
    begun.wait(30)

    class Arrays:
        pass

    arrays = Arrays()
    left = weakref.ref(arrays)
    for_rows(1 << 16, 4, lambda *_, kept=arrays: None, threads=2)  # noqa: ARG005
    del arrays
    try:
        assert left() is None
    finally:
        free.set()
        blocker.join(30)
