"""How a Python function becomes a kernel: Numba's settings, said once, and a cache that knows the vector layer."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.registry import cpu_target

__all__ = ["array", "built", "compiled", "converts_half", "fuses", "output"]


def _fingerprint() -> str:
    """Return a hash of this folder: Numba looks at the file of a kernel only, not at those it is made of."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache on disk, with all of this folder in its key."""

    _sources = _fingerprint()

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        super().__init__(function)
        # Files of its own for each signature: processes that compile at once would write over each other's.
        name = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-{name}",
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return (*super()._index_key(signature, codegen), self._sources)


def array(scalar: Any, ndim: int) -> types.Array:
    """Return the type of an array that is read: any strides, read-only or not."""
    return types.Array(scalar, ndim, "A", readonly=True)


def output(scalar: Any, ndim: int) -> types.Array:
    """Return the type of an array that is written."""
    return types.Array(scalar, ndim, "A")


def compiled(function: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """Return a function compiled for these types, from the cache on disk where it is there.

    It is what Numba calls once it has found out which types it was given: they are known here, and that takes 0.4 µs.
    Nothing looks at the arguments any more: an array of another type or number of axes is read as if it were of this.
    """
    return built(function, result, *arguments).overloads[arguments].entry_point


def built(function: Callable[..., Any], result: Any, *arguments: Any) -> Any:
    """Return Numba's own object of a function compiled for these types."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _KernelCache(function, arguments)  # noqa: SLF001 - what enable_caching() does, with our class
    except RuntimeError as error:  # neither the package's nor the user's cache folder can be written to
        if "cannot cache" not in str(error):
            raise
    dispatcher.compile(result(*arguments))
    return dispatcher


@cache
def _has(feature: str) -> bool:
    """Whether the CPU that is compiled for has a feature; all of those asked for here are in every 64-bit ARM."""
    features = cpu_target.target_context.codegen()._tm_features  # noqa: SLF001 - Numba has no public name for it
    return f"+{feature}" in features.split(",") or platform.machine().lower() in ("arm64", "aarch64")


def fuses() -> bool:
    """Whether the CPU that is compiled for multiplies and adds in one instruction, rounding once."""
    return _has("fma")


def converts_half() -> bool:
    """Whether it has instructions between float16 and float32: LLVM calls functions that are not there for others."""
    return _has("f16c")
