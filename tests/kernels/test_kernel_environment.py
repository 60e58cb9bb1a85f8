"""Kernels in unusual processes: settings of Numba, late calls, forks, and files of the cache that are no good."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from softnll._kernels.cpu import cache, jit
from softnll._kernels.cpu.load import kernel_of
from softnll._kernels.cpu.signature import INTP
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
from numba.core.compiler_lock import global_compiler_lock
from softnll._kernels.cpu.load import kernel_of
from softnll._kernels.cpu.signature import INTP
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
        os._exit(kernel_of("test.double", INTP, {{"value": INTP}}, double).call(21))
end = time.time() + 20
done = 0, 0
while time.time() < end and not done[0]:
    done = os.waitpid(child, os.WNOHANG)
    time.sleep(0.05)
if not done[0]:
    os.kill(child, 9)
    os.waitpid(child, 0)
thread.join()
print(os.waitstatus_to_exitcode(done[1]), kernel_of("test.double", INTP, {{"value": INTP}}, double).call(4))
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
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    cache._warn.cache_clear()
    compiled = []
    compile_function = jit.compile_function

    def counted(*arguments):
        compiled.append(arguments)
        return compile_function(*arguments)

    monkeypatch.setattr(jit, "compile_function", counted)

    def once():
        before = len(compiled)
        result = kernel_of("test.double", INTP, {"value": INTP}, double).call(21)
        return result, len(compiled) == before

    return once


DAMAGE = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "a flipped bit": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "text": lambda _: b"not a kernel\n",
    "another start": lambda data: b"S" + data[1:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_of_the_cache(tmp_path, compute, kind):
    assert compute() == (42, False)
    assert compute() == (42, True)
    (file,) = tmp_path.rglob("*.kernel")
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    assert compute() == (42, False)
    assert compute() == (42, True)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_disk_without_space(tmp_path, compute, monkeypatch, damaged):
    if damaged:
        compute()
        for file in tmp_path.rglob("*.kernel"):
            file.write_bytes(b"")
    before = set(tmp_path.rglob("*.*"))

    class Full:
        """A file on a full disk."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(cache.os, "fdopen", Full)
        with pytest.warns(RuntimeWarning, match="compiled kernels cannot be written to .* NUMBA_CACHE_DIR"):
            assert compute() == (42, False)
        assert compute() == (42, False)  # the same warning is not given again
    assert set(tmp_path.rglob("*.*")) == before
    assert compute() == (42, False)
    assert compute() == (42, True)


def test_a_cache_folder_that_cannot_be_written_to(tmp_path, compute, monkeypatch):
    """Where NUMBA_CACHE_DIR names none, the user's own folder is the next."""

    def refuse(folder, *arguments):
        if "__pycache__" in str(folder) or os.environ.get("NUMBA_CACHE_DIR"):
            raise PermissionError(13, "Permission denied")
        replace(folder, *arguments)

    replace = cache._replace
    monkeypatch.setattr(cache, "_replace", refuse)
    with pytest.warns(RuntimeWarning, match="Permission denied"):
        assert compute() == (42, False)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "user"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert compute() == (42, False)
    assert compute() == (42, True)
    assert len(list((tmp_path / "user").rglob("test.double-*.kernel"))) == 1


def test_kernels_of_other_sources_are_removed(tmp_path, compute, monkeypatch):
    assert compute() == (42, False)
    (old,) = tmp_path.rglob("*.kernel")
    monkeypatch.setattr(cache, "sources", lambda: "0" * 16)
    assert compute() == (42, False)
    (new,) = tmp_path.rglob("*.kernel")
    assert new.name != old.name


def test_an_import_of_numba_that_depends_on_other_settings_is_tried_again(tmp_path):
    """The note that Numba works is of its files, NumPy's version and the settings."""
    for settings, said in (({}, False), ({}, False), ({"NUMBA_DISABLE_JIT": "1"}, True), ({}, False)):
        out, err = run(SOFTMAX, NUMBA_CACHE_DIR=str(tmp_path), **settings)
        assert out == ROWS
        assert ("Numba cannot be used" in err) == said
