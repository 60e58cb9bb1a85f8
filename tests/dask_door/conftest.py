"""Each test of Dask has a time limit: nothing hangs."""

from __future__ import annotations

import signal

import dask
import pytest

SECONDS = 240


@pytest.fixture(autouse=True)
def time_limit():
    """Raise TimeoutError in a test that takes longer than `SECONDS`."""

    def stop(*_):
        raise TimeoutError(f"the test took longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    with dask.config.set({"distributed.comm.timeouts.connect": "60s", "distributed.admin.log-format": "%(message)s"}):
        yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
