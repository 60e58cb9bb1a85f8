"""The cache of compiled kernels on disk, as processes that start together use it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import hashlib
import numpy as np
import softnll as sn

digest = hashlib.sha256()
x, y = np.random.default_rng(0).normal(size=(20, 170)) * 5, np.arange(20)
narrow = x.astype(np.float32)
for value in (sn.cross_entropy(narrow, y), *sn.cross_entropy_and_grad(narrow, y), sn.cross_entropy(x, y)):
    digest.update(np.ascontiguousarray(value).tobytes())
print(digest.hexdigest())
"""


def start(folder):
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    return subprocess.Popen([sys.executable, "-c", CODE], env=env, text=True, stdout=-1, stderr=-1)


def test_processes_that_compile_at_once(tmp_path):
    """One kernel of several types: each process gets what one alone gets, and so does who reads the cache after."""
    together = [start(tmp_path / "shared") for _ in range(3)]
    results = [each.communicate(timeout=600) for each in together]
    alone = start(tmp_path / "own").communicate(timeout=600)
    after = start(tmp_path / "shared").communicate(timeout=600)
    assert [each.returncode for each in together] == [0, 0, 0], results
    assert len(alone[0].strip()) == 64, alone
    assert {out for out, _ in (*results, after)} == {alone[0]}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to CPUs")
def test_threads_are_no_more_than_the_cpus_of_this_process():
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from softnll.kernels.threads import thread_count
print(thread_count())
"""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["1"]
