"""What a result was measured on: processor, threads, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "asimd": "NEON", "sve": "SVE"}


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    features = [name for flag, name in VECTORS.items() if flag in flags]
    return (names[0] if names else platform.machine()) + (f" with {', '.join(features)}" if features else "")


def git(*arguments: str) -> str:
    """Return what git says, nothing outside a repository."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=root, check=False)
    return done.stdout.strip()


def commit() -> str:
    """Return the commit that is checked out, and whether the package was changed since."""
    name = git("rev-parse", "--short", "HEAD") or "unknown"
    return name + (" with changes" if git("status", "--porcelain", "src") else "")


def describe(*packages: str) -> str:
    """Return one line about machine, commit and versions."""
    versions = []
    for name in packages or ("numpy", "scipy", "numba", "torch", "scikit-learn"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} not installed")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores, Python {platform.python_version()}, {', '.join(versions)}; commit {commit()}"


def reset_peak() -> None:
    """Forget the most memory held so far: making the data took more than it holds."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory(kind: str) -> int:
    """Return what this process holds (VmRSS), or the most since the reset (VmHWM), in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind)) * 1024


def measured_fit(model: Any, options: dict[str, Any], X: Any, y: Any, some: Any) -> tuple[Any, float, int]:
    """Return a fitted model, the seconds of the fit, and its peak memory in bytes beyond what was held before.

    A fit of two iterations to ``some`` of the rows comes first: it compiles and imports.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(**options | {"max_iter": 2}).fit(X[some], y[some])
        before = memory("VmRSS")
        reset_peak()
        begin = time.perf_counter()
        fitted = model(**options).fit(X, y)
        seconds = time.perf_counter() - begin
    return fitted, seconds, memory("VmHWM") - before
