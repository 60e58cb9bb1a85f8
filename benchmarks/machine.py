"""What a result was measured on: processor, threads, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    features = next((line for line in lines if line.startswith("flags")), "")
    return (names[0] if names else platform.machine()) + (" with AVX-512" if "avx512f" in features else "")


def commit() -> str:
    """Return the commit that is checked out."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return done.stdout.strip() or "unknown"


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
