"""Kernels in unusual processes: settings of Numba, late calls, forks, and files of the cache that are no good."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba import types
from numba.core import caching

from softnll._kernels.cpu import jit
from softnll._kernels.cpu.threads import thread_count

SOFTMAX = "import softnll; print(softnll.softmax([5.0, 4.0, 2.0]).round(4).tolist())"
ROWS = "[0.7054, 0.2595, 0.0351]"


def run(code, timeout=120, **settings):
    """Return what a new process printed, and its warnings and errors."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | settings, text=True, capture_output=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set"),
        ({"NUMBA_NUM_THREADS": "0"}, "See NUMBA_NUM_THREADS"),
        ({"NUMBA_NUM_THREADS": "-1"}, "See NUMBA_NUM_THREADS"),
    ],
)
def test_where_numba_does_not_work_numpy_computes_after_one_warning(settings, said):
    out, err = run(SOFTMAX + "; softnll.softmax([1.0, 2.0])", **settings)
    assert out == ROWS
    assert err.count("RuntimeWarning: Numba cannot be used") == 1
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", ["abc", "", "4.5", "100000", " 2 ", "9" * 30])
def test_odd_numbers_of_threads(monkeypatch, number):
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, number)
    assert 1 <= thread_count() <= max(os.cpu_count(), 64)


LATE = """
import atexit, threading, time
import numpy as np
x = np.zeros((4000, 1000), np.float32)

def late():
    time.sleep(0.3)
    import softnll
    print(softnll.softmax(x).sum(), flush=True)

{start}
"""


@pytest.mark.parametrize("start", ["threading.Thread(target=late).start()", "atexit.register(late)"])
@pytest.mark.parametrize("before", ["", "import softnll; softnll.softmax(x)\n"])
def test_calls_at_the_end_of_the_interpreter(start, before):
    out, err = run(LATE.format(start=before + start), NUMBA_NUM_THREADS="3")
    assert float(out) == pytest.approx(4000)
    assert not err


NO_MORE_THREADS = """
import threading
import numpy as np
from softnll._kernels.cpu.threads import for_rows
started = threading.Thread.start
count = 0

def start(thread):
    global count
    count += 1
    if count > {allowed}:
        raise RuntimeError("can't start new thread")
    started(thread)

threading.Thread.start = start
for _ in range(50):
    seen = np.zeros(5000)

    def work(first, last):
        seen[first:last] += 1

    for_rows(5000, 10**6, work, threads=5)
    assert (seen == 1).all()
print("done")
"""


@pytest.mark.parametrize("allowed", [0, 2])
def test_a_system_without_more_threads(allowed):
    assert run(NO_MORE_THREADS.format(allowed=allowed))[0] == "done"


FORK = """
import os, threading, time, warnings
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from softnll._kernels.cpu import jit
from softnll._kernels.cpu.forks import guard, loading
guard()
warnings.simplefilter("ignore")
held = threading.Event()

def hold():
    with {lock}:
        held.set()
        time.sleep(0.5)

def double(value):
    return value + value

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    with loading:
        os._exit(jit.compiled(double, types.int64, value=types.int64)(21))
end = time.time() + 20
done = 0, 0
while time.time() < end and not done[0]:
    done = os.waitpid(child, os.WNOHANG)
    time.sleep(0.05)
if not done[0]:
    os.kill(child, 9)
    os.waitpid(child, 0)
thread.join()
print(os.waitstatus_to_exitcode(done[1]), jit.compiled(double, types.int64, value=types.int64)(4))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("lock", ["global_compiler_lock", "loading"])
def test_a_fork_while_another_thread_compiles(lock, tmp_path):
    assert run(FORK.format(lock=lock), NUMBA_CACHE_DIR=str(tmp_path))[0] == "42 8"


FORK_COLD = """
import os, threading, time, warnings
import numpy as np, softnll
warnings.simplefilter("ignore")
thread = threading.Thread(target=lambda: softnll.cross_entropy_and_grad(np.zeros((3, 4)), [0, 1, 2]))
thread.start()
time.sleep({wait})
child = os.fork()
if child == 0:
    softnll.softmax(np.zeros((3, 4), "f2"))
    os._exit(0)
end = time.time() + 200
done = 0
while time.time() < end and not done:
    done = os.waitpid(child, os.WNOHANG)[0]
    time.sleep(0.05)
if not done:
    os.kill(child, 9)
    os.waitpid(child, 0)
thread.join()
print(bool(done))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("wait", [0.1, 0.5, 2.0])
def test_a_fork_while_another_thread_compiles_for_the_first_time(wait, tmp_path):
    assert run(FORK_COLD.format(wait=wait), timeout=400, NUMBA_CACHE_DIR=str(tmp_path))[0] == "True"


def double(value):
    return value + value


@pytest.fixture
def compute(tmp_path, monkeypatch):
    """Return a function that compiles a kernel or loads it from the cache: its result, and whether it was loaded."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def compiled():
        dispatcher = jit.built(double, types.int64, value=types.int64)
        return dispatcher(21), bool(sum(dispatcher.stats.cache_hits.values()))

    return compiled


DAMAGE = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "a flipped bit": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "text": lambda _: b"not a pickle\n",
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damaged_files_of_the_cache(tmp_path, compute, kind, suffix):
    assert compute() == (42, False)
    assert compute() == (42, True)
    (file,) = tmp_path.rglob(f"*.{suffix}")
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    assert compute() == (42, False)
    assert compute() == (42, True)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_disk_without_space(tmp_path, compute, monkeypatch, damaged):
    if damaged:
        compute()
        for file in tmp_path.rglob("*.nb?"):
            file.write_bytes(b"")
    before = set(tmp_path.rglob("*.nb*"))

    def no_space(name, mode="r"):
        if "w" in mode:
            raise OSError(28, "No space left on device")
        return Path(name).open(mode)

    with monkeypatch.context() as full:
        full.setattr(caching, "open", no_space, raising=False)
        with pytest.warns(RuntimeWarning, match="compiled kernels cannot be written to .* NUMBA_CACHE_DIR"):
            assert compute() == (42, False)
        assert compute() == (42, False)  # the same warning is not given again
    assert set(tmp_path.rglob("*.nb*")) == before
    assert compute() == (42, False)
    assert compute() == (42, True)


def test_a_cache_folder_that_becomes_read_only(compute, monkeypatch):
    """Numba looks whether it can write before it compiles; the folder may change until it does."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(jit._KernelCache, "_save_overload", refuse)
    with pytest.warns(RuntimeWarning, match="Permission denied"):
        assert compute() == (42, False)
