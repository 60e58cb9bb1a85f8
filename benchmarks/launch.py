"""Processes with a fixed number of threads, on as many cores."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def cores() -> list[int]:
    """Return the cores this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def environment(threads: int) -> dict[str, str]:
    """Return an environment in which every library uses that many threads and has its best memory."""
    more = dict.fromkeys(COUNTS, str(threads))
    more["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        more["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    more["THP_MEM_ALLOC_ENABLE"] = "1"  # PyTorch: large pages for its arrays, as NumPy asks for by itself
    # Compiled loops have the number of threads written into them.
    more["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"softnll-inductor-{os.getuid()}-{threads}")
    return os.environ | more


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Let processes started meanwhile run on the first `threads` cores only (where the system can)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores()[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(arguments: list[str], threads: int, **options) -> subprocess.Popen:
    """Start Python with these arguments on that many threads and cores; its output is text, to be read."""
    with pinned(threads):
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(threads),
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            **options,
        )


def output(arguments: list[str], threads: int) -> str:
    """Return what Python prints with these arguments."""
    process = start(arguments, threads)
    text = process.communicate()[0]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments[:1])
    return text
