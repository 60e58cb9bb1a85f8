"""The CPU that kernels are compiled for: this one, or the one that Numba's settings name."""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm

__all__ = ["Processor", "converts_half", "fuses", "processor"]


class Processor(NamedTuple):
    """A CPU, in LLVM's words."""

    triple: str
    name: str
    features: str  # "+avx2,+fma,-avx512f,...": those that it has and those that it has not


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
    return Processor(llvm.get_process_triple(), name or llvm.get_host_cpu_name(), features)


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
