"""softnll.dask on a cluster of processes: the same bits for any number of workers, also if one of them is killed."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from dask_tables import H, table
from softnll.dask import SoftmaxClassifier

SIZES = (900, 400, 700, 800, 10, 650, 700, 500, 880, 300)

pytestmark = pytest.mark.filterwarnings("default")  # of Dask's threads


@contextmanager
def cluster(n_workers=2, **options):
    """Yield a Client of workers that are processes of this machine."""
    given = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=n_workers, **given | options) as workers, Client(workers) as client:
        yield client


@pytest.fixture(scope="module")
def two():
    with cluster() as client:
        yield client


@pytest.fixture(scope="module")
def here():
    """Return the model that is fitted in this process."""
    with dask.config.set(scheduler="synchronous"):
        return SoftmaxClassifier(tol=1e-6).fit(*table(SIZES))


def same_bits(one, other):
    return np.array_equal(one.coef_, other.coef_) and np.array_equal(one.intercept_, other.intercept_)


def kill_one(client):
    """Kill a worker as a machine that is lost would."""
    pids = client.run(os.getpid)
    os.kill(min(pids.values()), signal.SIGKILL)


@pytest.mark.usefixtures("two")
def test_two_processes_give_the_bits_of_one(here):
    X, y = table(SIZES)
    model = SoftmaxClassifier(tol=1e-6).fit(X, y)
    assert same_bits(model, here)
    assert model.score(X, y) == here.to_local().score(X.compute(), y.compute())
    np.testing.assert_array_equal(model.predict(X).compute(), here.predict(X).compute(scheduler="synchronous"))


def test_data_stay_on_the_workers(two):
    X, y = table(SIZES)
    sizes = []

    def look(*_):
        sizes.append(sum(two.nbytes(summary=False).values()))

    SoftmaxClassifier(max_iter=3, tol=0.5).fit(X, y)
    with pytest.warns(UserWarning, match="max_iter=3"):
        SoftmaxClassifier(max_iter=3, tol=1e-12).fit(X, y, callback=look)
    assert sizes[0] >= sum(SIZES) * H * 8


@pytest.mark.usefixtures("two")
def test_errors_of_workers_are_raised_here_as_one_line():
    X, y = table(SIZES)
    with pytest.raises(ValueError, match=r"partition 3 \(0 first\): .*NaN"):
        SoftmaxClassifier().fit(_holed(X), y)


def _holed(X):
    """Return the features with one that is missing in the fourth partition."""

    def hole(block, block_info=None):
        block = block.copy()
        if block_info[0]["chunk-location"][0] == 3:
            block[5, 1] = np.nan
        return block

    return X.map_blocks(hole, dtype=X.dtype, meta=np.zeros((0, 0)))


@pytest.mark.parametrize("kept", [True, False])
def test_a_worker_killed_in_the_middle_of_a_fit_changes_nothing(here, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr("softnll.dask._scheduler._SHARE", 0.0)
    killed = []

    with cluster() as client:

        def kill(iteration, *_):
            if iteration in (2, 5):
                kill_one(client)
                killed.append(iteration)

        model = SoftmaxClassifier(tol=1e-6).fit(*table(SIZES), callback=kill)
    assert killed == [2, 5]
    assert same_bits(model, here)


def _uniform(block_info=None):
    rng = np.random.default_rng(block_info[None]["chunk-location"][0])
    return rng.random((12_500, 101))


def _peak():
    """Return the most memory that this process has had, in bytes; its ``ru_maxrss`` would begin with its parent's."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - as the workers run it
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peaks of memory from Linux's /proc")
def test_a_table_larger_than_the_memory_of_the_workers():
    limit = 600 << 20
    whole = da.map_blocks(_uniform, chunks=((12_500,) * 64, (101,)), dtype=np.float64, meta=np.zeros((0, 0)))
    X, y = whole[:, :100], (whole[:, 100] + whole[:, 0] + 2 * whole[:, 1] > 2).astype(int)
    with cluster(1, memory_limit=limit) as client:
        assert X.nbytes > limit
        before = client.run(os.getpid)
        model = SoftmaxClassifier(tol=0.05).fit(X, y)
        assert client.run(os.getpid) == before  # none was stopped for its memory
        assert max(client.run(_peak).values()) < limit
        assert model.score(X, y) > 0.7


def _die(block):
    os.kill(os.getpid(), signal.SIGKILL)
    return block


def test_a_partition_that_ends_each_worker_is_one_error():
    X, y = table(SIZES[:2])
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), cluster():
        deadly = X.map_blocks(_die, dtype=X.dtype, meta=np.zeros((0, 0)))
        with pytest.raises(ConnectionError, match="a worker's memory is too small for it"):
            SoftmaxClassifier().fit(deadly, y)


def test_a_cluster_without_workers_is_an_error(monkeypatch):
    monkeypatch.setattr("softnll.dask._scheduler._PATIENCE", 1.0)
    with cluster(0), pytest.raises(ConnectionError, match="has had no worker for 1 seconds"):
        SoftmaxClassifier().fit(*table(SIZES[:2]))


def test_a_client_that_is_closed_is_an_error():
    with cluster(1) as client, pytest.raises(ConnectionError, match="Client was closed"):
        SoftmaxClassifier().fit(*table(SIZES[:2]), callback=lambda *_: client.close())


def test_a_scheduler_that_is_set_is_taken(two, here, monkeypatch):
    monkeypatch.setattr(two, "compute", None)
    with dask.config.set(scheduler="threads"):
        assert same_bits(SoftmaxClassifier(tol=1e-6).fit(*table(SIZES)), here)
