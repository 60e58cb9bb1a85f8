"""The limits that memory sets, measured on the same arrays: read, copy, copy past the caches, update in place.

A few lines of C (``limits.c``), compiled for this processor and independent of the package; where there is no
compiler, PyTorch's sum, copy and multiplication, which have no copy past the caches.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from ways import Unavailable, Way

LIMITS = ("read", "copy", "non-temporal copy", "in-place scale")
TRAFFIC = {"read": 1, "copy": 2, "non-temporal copy": 2, "in-place scale": 2}  # bytes moved per byte of the array
SMALLEST = 1 << 20  # below this, calls and threads cost more than the bytes
LONG_ENOUGH = 1 << 28  # bytes a call: starting the threads then costs less than 1 %

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-march=native", "-funroll-loops", "-fno-tree-loop-distribute-patterns", "-shared", "-fPIC")


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled limits, or None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "limits.so"
        done = subprocess.run([compiler, *FLAGS, SOURCE, "-o", target], capture_output=True, text=True, check=False)
        return ctypes.CDLL(str(target)) if done.returncode == 0 else None


def aligned(size: int) -> np.ndarray:
    """Return touched bytes that start at a multiple of 64."""
    block = np.empty(size + 64, np.uint8)
    block.fill(0)
    start = -block.ctypes.data % 64
    return block[start : start + size]


class Limits:
    """The limits of one array on some threads, as ways to be timed beside the library's own."""

    name = "limit"

    def __init__(self, x: np.ndarray, threads: int):
        if x.nbytes < SMALLEST:
            raise Unavailable(f"less than {SMALLEST >> 20} MiB: calls cost more than bytes")
        self.x = x
        self.size = x.nbytes // 64 * 64
        self.passes = max(1, LONG_ENOUGH // x.nbytes)
        self.pool = ThreadPoolExecutor(threads)
        step = -(-self.size // (64 * threads)) * 64
        self.parts = [(start, min(step, self.size - start)) for start in range(0, self.size, step)]
        self.torch = None if library() else import_module("torch")

    def way(self, limit: str) -> Way:
        """Return the way to reach one of LIMITS."""
        make = {
            "read": self._read,
            "copy": self._copy,
            "non-temporal copy": self._stream,
            "in-place scale": self._scale,
        }
        if self.torch is not None:
            make |= {"read": self._torch_read, "copy": self._torch_copy, "in-place scale": self._torch_scale}
        return make[limit]()

    def _split(self, function, *arrays: np.ndarray, key: int | None = None) -> Way:
        """Return the way that runs a C function over the parts of the arrays, one thread each."""
        starts = [array.ctypes.data for array in arrays]
        calls = [
            [ctypes.c_void_p(start + offset) for start in starts]
            + [ctypes.c_size_t(size), ctypes.c_size_t(self.passes)]
            + ([] if key is None else [ctypes.c_uint64(key)])
            for offset, size in self.parts
        ]

        def run():
            for job in [self.pool.submit(function, *call) for call in calls]:
                job.result()
            return arrays  # which keeps them alive

        return Way(run, passes=self.passes)

    def _read(self) -> Way:
        library().read_bytes.restype = ctypes.c_uint64
        return self._split(library().read_bytes, self.x.reshape(-1).view(np.uint8))

    def _copy(self) -> Way:
        return self._split(library().copy_bytes, self.x, aligned(self.size))

    def _stream(self) -> Way:
        if self.torch is not None:
            raise Unavailable("no C compiler")
        return self._split(library().stream_copy, self.x, aligned(self.size))

    def _scale(self) -> Way:
        own = aligned(self.size)
        own[:] = self.x.reshape(-1).view(np.uint8)[: self.size]
        return self._split(library().update_in_place, own, key=0)

    def _words(self):
        return self.torch.from_numpy(self.x.reshape(-1).view(np.uint8)[: self.size].view(np.int32))

    def _torch_read(self) -> Way:
        words = self._words()
        return Way(words.max)

    def _torch_copy(self) -> Way:
        words, to = self._words(), self._words().clone()
        return Way(lambda: to.copy_(words))

    def _torch_scale(self) -> Way:
        own = self._words().clone()
        return Way(lambda: own.mul_(1))
