"""Each test of Dask has a time limit: nothing hangs."""

from __future__ import annotations

import signal

import dask
import pytest

SECONDS, SLOW = 240, 600


@pytest.fixture(autouse=True)
def time_limit(request):
    """Raise TimeoutError in a test that takes longer than `SECONDS`, or `SLOW` if it is marked so."""
    seconds = SLOW if request.node.get_closest_marker("slow") else SECONDS

    def stop(*_):
        raise TimeoutError(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    with dask.config.set({"distributed.comm.timeouts.connect": "60s", "distributed.admin.log-format": "%(message)s"}):
        yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
