"""Wheels with compiled kernels: which they have, which file a process takes, and what it compiles."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from softnll._kernels.cpu import processor

ROOT = Path(__file__).resolve().parents[2]
LOGSUMEXP = """
import sys
import ml_dtypes
import numpy as np
import softnll
assert softnll.__file__.startswith({folder!r}), softnll.__file__
for dtype in {dtypes!r}:
    for shape in ((2, 3), (2, 40), (2, 200), (2, 3, 8)):
        x = np.zeros(shape, dtype)
        softnll.logsumexp(x, axis=1)
        x.flat[0] = np.inf
        softnll.logsumexp(x, axis=1)
    softnll.logsumexp(x, axis=1, where=np.ones(x.shape, bool))
print(float(softnll.logsumexp(np.zeros((1, 8)))[0]), "softnll._kernels.cpu.jit" in sys.modules)
"""
USUAL_CALLS = """
import itertools
import warnings

import ship_kernels
import torch
from softnll._kernels.cpu import load, scalar_interface

shipped = {repr((name, result, sorted(types_of.items()))) for name, result, types_of in ship_kernels.asked()}
inner = load.kernel_of

def kernel_of(name, result, types_of):
    if repr((name, result, sorted(types_of.items()))) not in shipped:
        print(*cell, name)
    return inner(name, result, types_of)

load.kernel_of = scalar_interface.kernel_of = kernel_of
from grid_problems import FUNCTIONS, LAST, OPTIONS, Shape, make
from grid_ways import softnll_numpy, softnll_torch
from ways import Unavailable

warnings.simplefilter("ignore")  # results are never written: they hold anything
SHAPES = (Shape((2, 3)), Shape((2, 40)), Shape((2, 200)), Shape((2, 3, 4, 4)), Shape((2, 3, 4, 4), LAST))
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
count = 0
for cell in itertools.product(SHAPES, FUNCTIONS, OPTIONS, TYPES, (softnll_numpy, softnll_torch), (False, True)):
    shape, function, option, dtype, way, backward = cell
    if shape.has(function, option):
        try:
            way(function, make(function, option, shape, dtype), backward)()
            count += 1
        except Unavailable:
            pass
print(count)
"""


@pytest.mark.slow
def test_the_calls_of_the_grid_ask_for_kernels_that_a_wheel_has():
    """Both doors, each function, option, type and form of the logits that ``benchmarks/grid.py`` has."""
    paths = [str(ROOT / name) for name in ("src", "tools", "benchmarks")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", USUAL_CALLS], env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    *missing, count = done.stdout.splitlines()
    assert missing == []
    assert int(count) > 1000


@pytest.mark.slow
@pytest.mark.skipif(not processor.levels(), reason="kernels are shipped for x86-64-v3 and above")
def test_a_wheel_brings_kernels_along(tmp_path):
    """Built, unpacked and called by a user without a cache: nothing is compiled; for a CPU that it lacks, something."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], env=os.environ | {"SOFTNLL_KERNELS": "logsumexp"}, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-any" not in wheel.name
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(installed)
    names = [each.name for each in installed.rglob("*.kernel")]
    assert len(names) == 20 * len(processor.LEVELS)
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    env |= {"PYTHONPATH": str(installed), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    other = {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": "+sse2"}
    four = ["float32", "float64", "bfloat16", "float16"]
    for settings, dtypes, compiled in (({}, four, "False"), (other, [], "True")):
        done = subprocess.run(
            [sys.executable, "-c", LOGSUMEXP.format(folder=str(installed), dtypes=dtypes)],
            env=env | settings,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=True,
        )
        assert done.stdout.split() == [str(2.0794415416798357), compiled]


@pytest.mark.slow
def test_an_ordinary_wheel_is_for_every_platform(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "SOFTNLL_KERNELS"}
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], env=env, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
