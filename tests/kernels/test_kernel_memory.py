"""Scratch memory of the kernels is theirs until they end, also where freed memory is gone at once."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest

from softnll._kernels.cpu.memory import STREAMED, past_caches

# Every allocation of 1 KiB and more is a mapping of its own, which ends when it is freed: reading it then is a fault.
CODE = """
import ctypes
import numpy as np
import softnll as sn
from softnll._kernels.cpu import interface as cpu
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem

assert ctypes.CDLL(None).mallopt(-3, 1024) == 1
for real in (np.float32, np.float64):
    for n in (10, 100, 300, 4000):
        x = np.random.default_rng(0).normal(size=(70, n)).astype(real)
        y, q = np.arange(70) % n, np.full((70, n), 1 / n, real)
        assert np.isfinite(sn.softmax(x)).all()
        assert np.isfinite(sn.log_softmax(x)).all()
        assert np.isfinite(sn.logsumexp(x)).all()
        for problem in (Problem(x, y=y), Problem(x, CrossEntropy(label_smoothing=0.1), y=y), Problem(x, q=q)):
            grad = np.empty_like(x)
            loss, m, r = cpu.forward(problem)
            assert np.isfinite(loss).all()
            cpu.forward_backward(problem, grad)
            cpu.backward(problem, m, r, grad)
            assert np.isfinite(grad).all()
print("done")
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_scratch_is_held_to_the_end():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux is known to say which pages are there")
def test_new_pages_are_not_written_past_the_caches():
    out = np.empty((64, STREAMED // 64), np.uint8)
    assert not past_caches(out)
    out[...] = 0
    assert past_caches(out)
    assert not past_caches(out[1:])
    assert not past_caches(out[:0], 0)
