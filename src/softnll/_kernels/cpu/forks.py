"""A fork waits until no other thread loads or compiles a kernel: the child would wait for its locks for ever."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from importlib import import_module
from typing import Any

loading = threading.RLock()  # held while Numba is imported, and while a kernel is compiled or loaded from the cache
_held: list[Any] = []


def _before() -> None:
    """Take the locks, in the order in which no other thread takes two of them."""
    loading.acquire()
    compiler = getattr(sys.modules.get("numba.core.compiler_lock"), "global_compiler_lock", None)
    if compiler is not None:  # Numba holds it while it compiles a function or loads one from its cache
        compiler.acquire()  # other packages' functions may be compiling
        _held.append(compiler)


def _after() -> None:
    """Release the locks, in the parent and in the child: there the thread that forked holds them as well."""
    while _held:
        _held.pop().release()
    loading.release()


@cache
def guard() -> None:
    """Register the locks; call this before the first kernel is loaded.

    What was registered last is called first. ``logging`` registers its lock as well, and a thread that compiles logs:
    its lock must be taken after the compiler's.
    """
    import_module("logging")
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
