"""Wheels with compiled kernels: which file a process takes, and what it compiles."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from softnll._kernels.cpu import processor

ROOT = Path(__file__).resolve().parents[2]
TOTAL = """
import sys
import numpy as np
import softnll
from softnll._kernels.cpu.interface import total
assert softnll.__file__.startswith({folder!r}), softnll.__file__
print(total(np.arange(100.0)), "softnll._kernels.cpu.jit" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.skipif(not processor.levels(), reason="kernels are shipped for x86-64-v3 and above")
def test_a_wheel_brings_kernels_along(tmp_path):
    """Built, unpacked and called by a user without a cache: nothing is compiled; for a CPU that it lacks, something."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], env=os.environ | {"SOFTNLL_KERNELS": "total"}, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-any" not in wheel.name
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(installed)
    names = [each.name for each in installed.rglob("*.kernel")]
    assert len(names) == len(processor.LEVELS)
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    env |= {"PYTHONPATH": str(installed), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for settings, compiled in (({}, "False"), ({"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": "+sse2"}, "True")):
        done = subprocess.run(
            [sys.executable, "-c", TOTAL.format(folder=str(installed))],
            env=env | settings,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=True,
        )
        assert done.stdout.split() == ["4950.0", compiled]


@pytest.mark.slow
def test_an_ordinary_wheel_is_for_every_platform(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "SOFTNLL_KERNELS"}
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], env=env, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
