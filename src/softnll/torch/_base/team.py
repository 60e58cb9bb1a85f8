"""Torch's own threads on the CPU: they wait where they can begin at once, and keep others from the processors."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from softnll._kernels.cpu.threads import lend

_LEAST = 1 << 14  # logits from which on several threads take less time than one
_LEAST_DEAR = 1 << 12  # those with a soft cap
_AT_A_TIME = 16  # rows: ranges begin at multiples of it
_RANGES = 2  # for each thread: one that begins late computes fewer


class Team(NamedTuple):
    """Ranges of rows for threads, as functions of one call take them."""

    step: int  # rows of a range
    parallel: int  # the address of what starts threads, or 0: the caller's computes all
    number: int  # the address of what returns a thread's number, or 0
    threads: int


_forks: list[int] = []  # processes that were forked: they have none of the threads for which the runtime would wait

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forks.append(os.getpid()))


@cache
def _openmp() -> tuple[int, int]:
    """Return the addresses of GNU's functions ``parallel`` and ``number`` in the runtime that torch uses, or zeros."""
    if not sys.platform.startswith("linux") or "OpenMP" not in torch.__config__.parallel_info():
        return 0, 0
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libtorch_cpu.so"), os.RTLD_NOLOAD | os.RTLD_LAZY)
        functions = library.GOMP_parallel, library.omp_get_thread_num  # of a library that it was linked with
    except (OSError, AttributeError):
        return 0, 0
    parallel, number = (ctypes.cast(each, ctypes.c_void_p).value or 0 for each in functions)
    return parallel, number


@lru_cache(maxsize=256)
def _alone(n_rows: int) -> Team:
    """Return the one range of the caller's thread."""
    return Team(max(1, n_rows), 0, 0, 1)


def team_of(n_rows: int, n_classes: int, *, dear: bool = False) -> Team:
    """Return the ranges and threads for so many logits; ``dear`` ones take several times as long."""
    if n_rows * n_classes < (_LEAST_DEAR if dear else _LEAST) or _forks:
        return _alone(n_rows)
    threads = torch.get_num_threads()
    if threads == 1 or not _openmp()[0]:
        return _alone(n_rows)
    step = -(-n_rows // (_RANGES * threads * _AT_A_TIME)) * _AT_A_TIME
    return Team(step, *_openmp(), threads)


_RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PARALLEL = ctypes.CFUNCTYPE(None, _RUN, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)  # GOMP_parallel


def in_torchs_threads(threads: int, run: Callable[[], None]) -> bool:
    """Call ``run`` in torch's threads, the caller's among them.

    Return False, calling nothing, if torch has one or more than ``threads``, as a team of another size would end some,
    and in another thread than the main one, as the runtime starts a team for each thread that asks.
    """
    count, main = torch.get_num_threads(), threading.main_thread().ident == threading.get_ident()
    if _forks or not (main and 1 < count <= threads) or not _openmp()[0] or sys.is_finalizing():
        return False
    errors: list[BaseException] = []

    def called(_: int | None) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            errors.append(error)

    _PARALLEL(_openmp()[0])(_RUN(called), None, count, 0)
    if errors:
        raise errors[0]
    return True


lend(in_torchs_threads)
