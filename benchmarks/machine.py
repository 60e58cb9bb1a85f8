"""What a result was measured on: processor, threads, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
