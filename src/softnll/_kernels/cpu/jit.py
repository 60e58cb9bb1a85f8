"""Compile Python functions to kernels: Numba's settings, types of arguments, and the cache on disk."""

from __future__ import annotations

import hashlib
import pickle
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.registry import cpu_target

from softnll._core.warn import warn
from softnll._kernels.cpu.forks import loading
from softnll._kernels.cpu.listeners import current

__all__ = ["array", "built", "compiled", "converts_half", "fuses", "output", "parameters_of"]


def _fingerprint() -> str:
    """Return a hash of this folder's files: Numba itself checks the file of a kernel, not those that it imports."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _CacheFile(IndexDataCacheFile):  # type: ignore[misc]
    """The files of one kernel: an index, and the compiled code after its hash, as damaged code may end the process."""

    def _save_data(self, name: str, data: Any) -> None:
        code = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(hashlib.sha256(code).digest() + code)

    def _load_data(self, name: str) -> Any:
        stored = Path(self._data_path(name)).read_bytes()
        if hashlib.sha256(stored[32:]).digest() != stored[:32]:
            raise ValueError(f"{name} is damaged")
        return pickle.loads(stored[32:])  # noqa: S301 - as Numba itself reads its cache


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache on disk, with the hash of this folder in its key.

    Files that cannot be read are written again. Files that cannot be written are left out, with a warning.
    """

    _sources = _fingerprint()

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        super().__init__(function)
        # Each signature has files of its own, so that processes that compile at once do not overwrite each other's.
        name = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        self._cache_file = _CacheFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-{name}",
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return (*super()._index_key(signature, codegen), self._sources)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(signature, target_context)
        except Exception:  # noqa: BLE001 - damaged files may raise anything
            with suppress(OSError):
                self.flush()
            found = None
        listener = current()
        if found is None and listener is not None:
            listener.begins()
        return found

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except Exception as error:  # noqa: BLE001 - a full disk, a folder without permission, a damaged index
            _warn_of_cache(f"{type(error).__name__}: {error}", str(self._cache_path))


@cache
def _warn_of_cache(error: str, folder: str) -> None:
    """Warn, once, that kernels are not cached."""
    warn(
        f"compiled kernels cannot be written to {folder} ({error}); each process compiles them again, which takes "
        "seconds a kernel. NUMBA_CACHE_DIR names another folder",
        RuntimeWarning,
    )


def array(scalar: Any, ndim: int) -> types.Array:
    """Return the type of an array that is read: any strides, read-only or not."""
    return types.Array(scalar, ndim, "A", readonly=True)


def output(scalar: Any, ndim: int) -> types.Array:
    """Return the type of an array that is written."""
    return types.Array(scalar, ndim, "A")


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return function.__code__.co_varnames[: function.__code__.co_argcount]


def compiled(function: Callable[..., Any], result: Any, **types_of: Any) -> Any:
    """Return a function compiled for types of its parameters, given by name, or the cache on disk's copy of it.

    It is what Numba calls once it has found the types of the arguments: they are known here, and that takes 0.4 µs.
    It takes arguments by position and does not check them: an array of another type or number of axes is read as if it
    were of this.
    """
    dispatcher = built(function, result, **types_of)
    return dispatcher.overloads[dispatcher.signatures[0]].entry_point


def built(function: Callable[..., Any], result: Any, **types_of: Any) -> Any:
    """Return Numba's own object of a function compiled for these types.

    Numba has more locks than the compiler's, such as that of the CPU's target: a fork waits for all of this.
    """
    names = parameters_of(function)
    if set(names) != set(types_of):
        raise TypeError(f"{function.__name__} has the parameters {names}; types were given for {tuple(types_of)}")
    with loading:
        return _built(function, result, tuple(types_of[name] for name in names))


def _built(function: Callable[..., Any], result: Any, arguments: tuple[Any, ...]) -> Any:
    """Return Numba's own object of a function compiled for these types, in the order of its parameters."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _KernelCache(function, arguments)  # noqa: SLF001 - what enable_caching() does, with our class
    except RuntimeError as error:  # neither the package's nor the user's cache folder can be written to
        if "cannot cache" not in str(error):
            raise
    begin = time.perf_counter()
    dispatcher.compile(result(*arguments))
    listener = current()
    if listener is not None and not dispatcher.stats.cache_hits:
        listener.compiled(time.perf_counter() - begin)
    return dispatcher


@cache
def _has(feature: str) -> bool:
    """Whether the CPU that is compiled for has a feature; every 64-bit ARM has those that this module names."""
    features = cpu_target.target_context.codegen()._tm_features  # noqa: SLF001 - Numba has no public name for it
    return f"+{feature}" in features.split(",") or platform.machine().lower() in ("arm64", "aarch64")


def fuses() -> bool:
    """Whether the CPU that is compiled for multiplies and adds in one instruction, rounding once."""
    return _has("fma")


def converts_half() -> bool:
    """Whether it converts between float16 and float32: for other CPUs, LLVM calls functions that may not exist."""
    return _has("f16c")
