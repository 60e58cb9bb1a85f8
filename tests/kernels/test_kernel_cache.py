"""The cache of compiled kernels on disk: when it is used, and by processes that start together."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softnll
from softnll._kernels.cpu import by_row, by_tile, cache, jit, load, soft_targets
from softnll._kernels.cpu.load import compile_to_cache, kernel_of
from softnll._kernels.cpu.signature import FLOAT64, INTP, array, output

CODE = """
import hashlib, sys
import numpy as np
import softnll as sn

digest = hashlib.sha256()
x, y = np.random.default_rng(0).normal(size=(20, 170)) * 5, np.arange(20)
narrow = x.astype(np.float32)
for value in (sn.cross_entropy(narrow, y), *sn.cross_entropy_and_grad(narrow, y), sn.cross_entropy(x, y)):
    digest.update(np.ascontiguousarray(value).tobytes())
print(digest.hexdigest(), "numba" in sys.modules, "llvmlite" in sys.modules)
"""


def start(**settings):
    env = os.environ | settings
    return subprocess.Popen([sys.executable, "-c", CODE], env=env, text=True, stdout=-1, stderr=-1)


def test_processes_that_compile_at_once(tmp_path):
    """One kernel of several types: each process gets what one alone gets, and so does who reads the cache after.

    A process that finds its kernels does not import Numba.
    """
    together = [start(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    results = [each.communicate(timeout=600) for each in together]
    after = start(NUMBA_CACHE_DIR=str(tmp_path)).communicate(timeout=600)
    alone = start().communicate(timeout=600)  # with the cache of all tests
    assert [each.returncode for each in together] == [0, 0], results
    digest = alone[0].split()[0]
    assert len(digest) == 64, alone
    assert [out.split() for out, _ in results] == [[digest, "True", "True"]] * 2
    assert after[0].split() == [digest, "False", "True"]


def test_the_cache_depends_on_the_kernels_of_the_cpu_alone(tmp_path):
    """An edit of a file that they import from invalidates it; an edit of a file elsewhere does not."""
    package = tmp_path / "softnll"
    shutil.copytree(Path(softnll.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    edited = ["", "_core/problem.py", "_kernels/reference.py", "_kernels/cuda/rows.py", "_kernels/cpu/sweep.py"]
    code = f"""
import pathlib
from softnll._kernels.cpu import cache
assert cache.__file__.startswith({str(tmp_path)!r})
for name in {edited}:
    if name:
        with open(pathlib.Path({str(package)!r}) / name, "a") as file:
            file.write("# an edit")
    cache.sources.cache_clear()
    print(cache.sources())
"""
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True)
    before, *after = done.stdout.split()
    assert [each == before for each in after] == [True, True, True, False]


def test_kernels_import_no_file_that_the_hash_leaves_out():
    """What a kernel's code depends on is in the hash of the sources."""
    code = """
import sys
import softnll
before = set(sys.modules)
import softnll._kernels.cpu.jit
from importlib import import_module
for each in {modules}:
    import_module(each)
print(*(name for name in sys.modules if name.startswith("softnll._kernels.cpu.") and name not in before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code.format(modules=load._MODULES)], text=True, capture_output=True, check=True
    )
    imported = {f"{name.rpartition('.')[2]}.py" for name in done.stdout.split()}
    assert "by_row.py" in imported
    assert "simd.py" in imported
    assert not imported & cache.CALLERS


def test_kernels_of_one_kind_have_the_same_parameters():
    """They are called by position, from one place."""
    for several in (
        {jit.parameters_of(each) for each in (by_row.losses, by_tile.losses, by_tile.gradients, soft_targets.losses)},
        {jit.parameters_of(each.normalise) for each in (by_row, by_tile)},
        {jit.parameters_of(each.logsumexp) for each in (by_row, by_tile)},
    ):
        assert len(several) == 1


def test_each_parameter_has_a_type():
    def double(value):
        return value + value

    assert kernel_of("test.double", FLOAT64, {"value": FLOAT64}, double).call(2.0) == 4
    for wrong in ({}, {"values": FLOAT64}):
        with pytest.raises(TypeError, match="double has the parameters"):
            kernel_of("test.double", FLOAT64, wrong, double)


def test_a_warm_process_does_not_import_numba(tmp_path):
    """The first process compiles, also kernels beside the usual ones; the second finds them without Numba."""
    code = """
import sys
import numpy as np
import softnll as sn
x, y = np.random.default_rng(0).normal(size=(20, 170)), np.arange(20)
print(sn.cross_entropy(x, np.full_like(x, 1 / 170)), sn.nll_loss(x, y), sn.softmax([np.inf, 0.0]).tolist(), end=" ")
print("numba" in sys.modules, "llvmlite" in sys.modules)
"""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert first[-2:] == ["True", "True"]
    assert second[-2:] == ["False", "True"]
    assert first[:-2] == second[:-2]


def test_the_parts_of_a_number_need_no_numba():
    """math.frexp and math.ldexp in kernels: Numba's own names for them are in no process without it."""

    def parts(values, power):
        mantissa, exponent = math.frexp(values[0])
        values[0], values[1], values[2] = mantissa, exponent, math.ldexp(values[0], power)
        return 0

    types_of = {"values": output("float64", 1), "power": INTP}
    head, _ = compile_to_cache("test.parts", INTP, types_of, parts)
    assert not [each for each in head["symbols"] if each.startswith("numba")]
    kernel = kernel_of("test.parts", INTP, types_of, parts).call
    for value in (0.0, -0.0, 1.0, -3.7, 5e-324, 1e308, np.inf, -np.inf, np.nan):
        for power in (0, 1, -1, 1000, -1100):
            values = np.full(3, value)
            kernel(values, power)
            with np.errstate(over="ignore"):
                expected = [*np.frexp(value), np.ldexp(value, power)]
            assert values.tobytes() == np.array(expected, np.float64).tobytes()


def test_kernels_refuse_arguments_that_they_would_misread():
    """The number of arguments, of axes, and what is no number; not the types of entries."""

    def last(values, index):
        return values[index]

    kernel = kernel_of("test.last", FLOAT64, {"values": array("float64", 1), "index": INTP}, last).call
    values = np.arange(8.0)
    assert kernel(values, 3) == 3
    assert kernel(values[::-2], 1) == 5
    for wrong in ((), (values,), (values, 1, 2), (values.reshape(2, 4), 1), (None, 1), (values, "1"), (values, 1.5)):
        with pytest.raises(TypeError):
            kernel(*wrong)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to CPUs")
def test_threads_are_no_more_than_the_cpus_of_this_process():
    code = """
import math
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from softnll._kernels.cpu.threads import thread_count
print(thread_count())
"""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["1"]
