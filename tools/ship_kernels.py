"""Compile the kernels that a release brings along, for CPUs of two levels, into a folder of the package.

    python tools/ship_kernels.py FOLDER [--only NAME] [--level x86-64-v3]

A wheel has them if it is built with SOFTNLL_KERNELS=1 (``hatch_build.py``); without them the first call of each
function on a machine compiles its kernel, which takes seconds. They are those of the common calls: no masks, no
temperatures but those of softmax, no class weights of soft targets. Other kernels are compiled when they are needed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

PLAIN, TEMPERED = (False, False), (False, True)
PASSES = (  # of a loss: whether it returns m and r, writes the gradient, reads m and r
    (False, False, False),
    (True, False, False),
    (True, True, False),
    (False, True, False),
    (True, True, True),
)


def of_type(dtype: Any, wide: bool) -> Iterator[Callable[[], Any]]:
    """Yield calls that ask for one kernel each, for one type of logits; half types are not ``wide``."""
    from softnll._kernels.cpu import interface, products, strided  # noqa: PLC0415 - for the process that compiles

    for log in (False, True):
        yield partial(strided._normalise, dtype, log)
        for options in (None, PLAIN, TEMPERED) if wide else (None, PLAIN):
            yield partial(interface._normalise, dtype, log, options)
        for steps, logits in product((False, True), (True, False) if wide else (True,)):
            yield partial(products._kernel, dtype, steps, log, logits)
    yield partial(strided._logsumexp, dtype)
    for tiles in (True, False):
        yield partial(interface._logsumexp, dtype, tiles, False)
    for written in (False, True):
        yield partial(strided._hard, dtype, False, written)
        for q in (None, dtype) if wide else (None,):
            yield partial(strided._spread, dtype, q, False, written)
    for passes in PASSES:
        yield partial(interface._hard, dtype, None, *passes)
        m_and_r, written, reads = passes
        if not m_and_r:
            continue
        yield partial(interface._hard, dtype, PLAIN, *passes)
        for q in (None, dtype) if wide else ():
            yield partial(interface._soft, dtype, q, False, False, written, reads)


def in_programs(name: str) -> Iterator[Callable[[], Any]]:
    """Yield calls that ask for one kernel each of those that JAX's programs call, for one type of logits."""
    from softnll._kernels.cpu import load  # noqa: PLC0415
    from softnll._kernels.cpu.signature import NONE, Type, array, output  # noqa: PLC0415

    x, rows, result = array(name, 2), array(name, 1), output(name, 2)
    for by in ("by_tile", "by_row"):
        for function in ("softmax", "log_softmax", "logsumexp"):
            yield partial(load.program_kernel, f"{function}_{by}", {"x": x, "out": result})
        for s, (D, grad) in product((NONE, rows), ((NONE, NONE), (Type(name), result))):
            types = {"x": x, "y": array("int32", 1), "w": NONE, "s": s, "D": D, "loss": output(name, 1), "grad": grad}
            yield partial(load.program_kernel, f"losses_{by}", types)


def kernels() -> Iterator[Callable[[], Any]]:
    """Yield calls that ask for one kernel each."""
    import ml_dtypes  # noqa: PLC0415 - for the process that compiles
    import numpy as np  # noqa: PLC0415

    from softnll._kernels.cpu import interface, scalar_interface  # noqa: PLC0415

    for name in ("float32", "float64", "float16"):
        yield from of_type(np.dtype(name), wide=name != "float16")
    yield from of_type(np.dtype(ml_dtypes.bfloat16), wide=False)
    for function, x, q in product(
        ("normalise", "logsumexp", "losses", "gradients", "pick"), ("f4", "f8"), ("f4", "f8")
    ):
        yield partial(scalar_interface._kernel, function, x, q)
    yield interface._total
    yield from in_programs("float32")


def compile_all(only: str) -> None:
    """Compile for the CPU that Numba's settings name, and call nothing: this one may be another."""
    from softnll._kernels.cpu import load, scalar_interface, signature  # noqa: PLC0415

    def kernel_of(name: str, result: Any, types_of: Any) -> load.Kernel:
        if only in name:
            load.compile_to_cache(name, result, types_of)
        return load.Kernel(len, ())

    def program_kernel(name: str, types_of: Any) -> int:
        kernel_of(f"in_program.{name}", signature.INTP, types_of)
        return 0

    load.program_kernel = program_kernel
    load.kernel_of = scalar_interface.kernel_of = kernel_of  # type: ignore[assignment,attr-defined]
    for each in kernels():
        each()


def main() -> None:
    """Compile each level in a process of its own, and move the files to the folder."""
    from softnll._kernels.cpu.processor import LEVELS  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="compile those whose name has this in it")
    parser.add_argument("--level", action="append", choices=list(LEVELS), help="all, if none is given")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        compile_all(options.only)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        running = []
        for level in options.level or LEVELS:
            settings = {
                "NUMBA_CPU_NAME": level,
                "NUMBA_CPU_FEATURES": LEVELS[level],
                "NUMBA_CACHE_DIR": str(Path(temporary) / level),
            }
            command = [sys.executable, __file__, str(options.folder), "--here", "--only", options.only]
            running.append(subprocess.Popen(command, env=os.environ | settings))
        failed = [each.wait() for each in running]
        if any(failed):
            sys.exit("a process failed")
        found = sorted(Path(temporary).rglob("*.kernel"))
        for each in found:
            shutil.copy2(each, options.folder / each.name)
    size = sum(each.stat().st_size for each in options.folder.glob("*.kernel"))
    print(f"{len(found)} kernels, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
