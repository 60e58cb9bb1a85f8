"""The CPU that kernels are compiled for: this one, or the one that Numba's settings name."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm

_V3 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
LEVELS = {  # what many CPUs have in common, best first: a release may have kernels for these (tools/ship_kernels.py)
    "x86-64-v4": _V3 + ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl",
    "x86-64-v3": _V3,
}


class Processor(NamedTuple):
    """A CPU, and what compiles for it."""

    system: str  # LLVM's triple
    name: str  # LLVM's name of the CPU
    features: str  # "+avx2,+fma,-avx512f,...": those that it has and those that it has not
    compiler: str  # llvmlite's version


def _here() -> str:
    """Return the features of this computer's CPU."""
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell
        return ""
    if os.environ.get("NUMBA_ENABLE_AVX", "1").strip() == "0":
        for name in features:
            features[name] = features[name] and not name.startswith("avx")
    return str(features.flatten())


@cache
def processor() -> Processor:
    """Return the CPU to compile for; NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another, as for Numba."""
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if (name or "").lower() == "generic" else _here()
    if name in LEVELS and features == LEVELS[name]:
        return _level(name)
    return Processor(llvm.get_process_triple(), name or llvm.get_host_cpu_name(), features, llvmlite.__version__)


def _level(name: str) -> Processor:
    """Return a level as a CPU: its kernels serve whatever llvmlite there is."""
    return Processor(f"{sys.platform} {platform.machine()}", name, LEVELS[name], "")


@cache
def levels() -> tuple[Processor, ...]:
    """Return the levels whose features this computer's CPU has, best first; none if Numba's settings name a CPU."""
    if any(name in os.environ for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")):
        return ()
    here = set(processor().features.split(","))
    return tuple(_level(name) for name, features in LEVELS.items() if here.issuperset(features.split(",")))


@cache
def _has(feature: str) -> bool:
    """Whether the CPU has a feature; every 64-bit ARM has those that this module names."""
    return f"+{feature}" in processor().features.split(",") or platform.machine().lower() in ("arm64", "aarch64")


def fuses() -> bool:
    """Whether the CPU that is compiled for multiplies and adds in one instruction, rounding once."""
    return _has("fma")


def converts_half() -> bool:
    """Whether it converts between float16 and float32: for other CPUs, LLVM calls functions that may not exist."""
    return _has("f16c")
