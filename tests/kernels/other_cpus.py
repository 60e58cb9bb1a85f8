"""Run tests as if on another CPU, by Numba's target options."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding
import pytest

OLD = "+sse2,+cx16"
AVX2 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"
CPUS = {
    "x86-64": OLD,
    "haswell": AVX2,
    "skylake-avx512": AVX2 + ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl",
}
TESTS = Path(__file__).parent
# Each kernel takes seconds to compile: float32 in rows and tiles, float16's conversions, bounds against mpmath.
CHOSEN = {
    "test_kernel_simd.py": "not float64",
    "test_kernel_elementary.py": "exp or log1p",
    "test_kernel_rows.py": "float32 and (every_length or nan_or_infinity or subnormal)",
    "../core/test_bounds.py": (
        "HardRows and (compiled-float32 or compiled-float16) and (softmax or gradients or losses)"
    ),
}
x86_only = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 CPUs")


def run(name, folder, *arguments):
    """Run Python as if on another CPU, with the kernels' cache in a folder."""
    env = os.environ | {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": CPUS[name],
        "NUMBA_CACHE_DIR": str(folder),
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=TESTS, env=env, capture_output=True, text=True, timeout=600, check=False
    )


def run_chosen(name, folder):
    """Run the chosen tests as if on another CPU: in one process, so that a kernel is compiled once."""
    chosen = " or ".join(f"({Path(file).stem} and ({tests}))" for file, tests in CHOSEN.items())
    done = run(name, folder, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *CHOSEN, "-k", chosen)
    assert done.returncode == 0, done.stdout + done.stderr


def has(*features):
    """Whether this computer's CPU has features: what it lacks can be compiled but not run."""
    here = llvmlite.binding.get_host_cpu_features()
    return all(here.get(each) for each in features)
