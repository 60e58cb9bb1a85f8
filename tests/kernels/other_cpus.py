"""The kernels as other CPUs get them, by Numba's target options: without AVX-512, and without AVX and FMA."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding
import pytest

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 CPUs")

OLD = "+sse2,+cx16"
AVX2 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt"
CPUS = {
    "x86-64": OLD,
    "haswell": AVX2,
    "skylake-avx512": AVX2 + ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl",
}
TESTS = Path(__file__).parent
LOOK = """
import json
from softnll.kernels import compile, cpu
cpu.compiled = compile.built
kernel = cpu._kernel("logsumexp_rows", "float32", False, False, False, False)
text = next(iter(kernel.inspect_asm().values()))
words = {each: text.count(each) for each in ("%xmm", "%ymm", "%zmm", "vfmadd")}
print(json.dumps({"fuses": compile.fuses(), "converts": compile.converts_half(), **words}))
"""
# Each kernel takes seconds to compile: float32 in rows and tiles, float16's conversions, bounds against mpmath.
CHOSEN = {
    "test_kernel_simd.py": "not float64",
    "test_kernel_elementary.py": "exp or log1p",
    "test_kernel_rows.py": "float32 and (every_length or odd_rows or subnormal)",
    "test_bounds.py": "HardRows and (compiled-float32 or compiled-float16) and (softmax or gradients or losses)",
}


def run(name, folder, *arguments):
    """Run Python as if on another CPU."""
    env = os.environ | {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": CPUS[name],
        "NUMBA_CACHE_DIR": str(folder),
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=TESTS, env=env, capture_output=True, text=True, timeout=600, check=False
    )


def has(*features):
    """Whether this computer's CPU has features: what it lacks can be compiled but not run."""
    here = llvmlite.binding.get_host_cpu_features()
    return all(here.get(each) for each in features)


@pytest.mark.parametrize("name", list(CPUS))
def test_instructions(name, tmp_path):
    """Compiled and read, never called."""
    done = run(name, tmp_path, "-c", LOOK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    modern = name != "x86-64"
    assert found["fuses"] == found["converts"] == modern
    assert (found["vfmadd"] > 0) == modern
    assert found["%xmm"] > 0
    assert (found["%ymm"] > 0) == modern
    assert (found["%zmm"] > 0) == (name == "skylake-avx512")


@pytest.mark.parametrize("name", ["x86-64", "haswell"])
def test_the_table(name, tmp_path):
    if name == "haswell" and not has("avx2", "fma", "f16c"):
        pytest.skip("this computer's CPU is older")
    if name == "haswell" and not has("avx512f"):
        pytest.skip("the other tests run on such a CPU already")
    for file, expression in CHOSEN.items():
        done = run(name, tmp_path, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", file, "-k", expression)
        assert done.returncode == 0, done.stdout + done.stderr
