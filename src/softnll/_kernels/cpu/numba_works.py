"""Whether Numba can be used, without importing it where an earlier process has: the import takes 0.4 s."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from softnll._kernels.cpu.cache import is_noted, note

_FILE = ".numba_config.yaml"  # of Numba's settings, in the current folder


def _circumstances() -> tuple[object, ...]:
    """Return what the import depends on: its own files, NumPy's version, settings."""
    found = find_spec("numba")
    origin = "" if found is None or found.origin is None else found.origin
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("NUMBA_"))
    return origin, origin and Path(origin).stat().st_mtime_ns, np.__version__, sys.version, settings


def hindrance() -> str | None:
    """Return why Numba cannot be used; None if it can."""
    here = None if "numba" in sys.modules or Path(_FILE).exists() else _circumstances()
    if here is not None and is_noted(here):
        return None
    try:
        disabled = import_module("numba").config.DISABLE_JIT
    except ImportError as error:
        return str(error)
    except ValueError as error:  # Numba raises it for a number of threads below 1
        return f"its import fails: {error} See NUMBA_NUM_THREADS"
    if disabled:
        return "NUMBA_DISABLE_JIT is set"
    if here is not None:
        note(here)
    return None
