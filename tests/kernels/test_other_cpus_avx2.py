"""The kernels' values without AVX-512. Beside test_other_cpus.py, so that another worker takes it."""

from __future__ import annotations

import pytest
from other_cpus import has, run_chosen, x86_only

pytestmark = [
    x86_only,
    pytest.mark.slow,
    pytest.mark.skipif(not has("avx2", "fma", "f16c"), reason="this computer's CPU is older"),
    pytest.mark.skipif(not has("avx512f"), reason="the other tests run on such a CPU already"),
]


def test_without_avx512(tmp_path):
    run_chosen("haswell", tmp_path)
