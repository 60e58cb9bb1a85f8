"""Compile the kernels that a release brings along, for CPUs of two levels, into a folder of the package.

    python tools/ship_kernels.py FOLDER [--only NAME] [--level x86-64-v3]

A wheel has them if it is built with SOFTNLL_KERNELS=1 (``hatch_build.py``); without them the first call of each
function on a machine compiles its kernel, which takes seconds. They are all that the functions ask for with no option
or with one of ``problems``, whatever the rows hold. Other kernels are compiled when they are needed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

TYPES = ("float32", "float64", "bfloat16", "float16")
OTHER_TARGETS = {  # types of soft targets beside the logits' own: those of a linear loss of half types, of autocast
    "float32": ("bfloat16", "float16"),
    "bfloat16": ("float32",),
    "float16": ("float32",),
}
COLUMNS = (3, 40, 200)  # rows that are turned, taken by tiles, and taken one by one
INNER = 8  # rows side by side in planes


def logits(dtype: Any) -> Iterator[Any]:
    """Yield two rows of logits in each form that has kernels of its own."""
    import numpy as np  # noqa: PLC0415 - for the process that compiles

    from softnll._core.planes import Planes  # noqa: PLC0415

    for n_columns in COLUMNS:
        yield np.zeros((2, n_columns), dtype)
    yield Planes(np.zeros((1, 3, INNER), dtype))


def problems(x: Any) -> Iterator[Any]:
    """Yield losses of logits: with hard, smoothed and soft targets, with class weights, a temperature, a soft cap."""
    import numpy as np  # noqa: PLC0415

    from softnll._core.options import CrossEntropy  # noqa: PLC0415
    from softnll._core.planes import Planes  # noqa: PLC0415
    from softnll._core.problem import Problem  # noqa: PLC0415

    q, y, w = x, np.zeros(len(x), np.int64), np.ones(x.shape[1])
    for targets in ({"y": y}, {"y": y, "objective": CrossEntropy(label_smoothing=0.1)}, {"q": q}):
        plain = Problem(x, **targets)
        yield plain
        yield replace(plain, w=w)
        yield replace(plain, objective=replace(plain.objective, temperature=2.0))
        yield replace(plain, objective=replace(plain.objective, softcap=30.0))
    for dtype in map(np.dtype, OTHER_TARGETS.get(x.dtype.name, ())):
        yield Problem(x, q=q.astype(dtype))
    if not isinstance(x, Planes):
        yield Problem(x, y=y, where=np.ones(x.shape, np.bool_))


def call_all(dtype: Any) -> None:
    """Call the functions of the kernels' interface with every kind of logits and targets of one type."""
    import numpy as np  # noqa: PLC0415

    from softnll._core.planes import Planes, empty_like, memory_of  # noqa: PLC0415
    from softnll._core.problem import Problem  # noqa: PLC0415
    from softnll._kernels.cpu import interface  # noqa: PLC0415

    for x in logits(dtype):
        out, where = empty_like(x), np.ones(x.shape, np.bool_)
        m, r = np.zeros((2, len(x)))
        for each in (Problem(x),) if isinstance(x, Planes) else (Problem(x), Problem(x, where=where)):
            interface.softmax(each, out)
            interface.log_softmax(each, out)
            interface.logsumexp(each)
        if not isinstance(x, Planes):
            tempered = Problem(x, tau=np.ones(len(x)))
            interface.softmax(tempered, out)
            interface.log_softmax(tempered, out)
        interface.are_distributions(x, 1.0)
        for log in (False, True):
            interface.product(x, x, out, log=log, logits=memory_of(x).itemsize == 2)
        for each in problems(x):
            interface.losses(each)
            interface.forward(each)
            interface.forward(each, out)
            interface.forward_backward(each, out)
            interface.backward(each, m, r, out)
            if each.objective.plain:
                interface.pick(each)
    interface.total(np.zeros(2))


def ask_for_calls(name: str) -> None:
    """Ask for the functions of one call for logits of a type."""
    from softnll._core.options import CrossEntropy  # noqa: PLC0415
    from softnll._kernels.cpu import calls  # noqa: PLC0415

    for planes, n_columns in ((True, 3), *product((False,), COLUMNS[1:])):
        for log in (False, True):
            calls.normalise_call(name, 2, n_columns, log=log, planes=planes)
            calls.product_call(name, 2, n_columns, log=log, logits=name in ("bfloat16", "float16"), planes=planes)
        plain, smoothed = CrossEntropy(), CrossEntropy(label_smoothing=0.1)
        hard = plain, smoothed, CrossEntropy(temperature=2), CrossEntropy(softcap=30)
        for written in (False, True):
            for soft, objective in (*product((False,), hard), (True, plain), (True, smoothed)):
                options = {"soft": soft, "weighted": False, "written": written, "planes": planes}
                calls.loss_call(name, 2, n_columns, objective, **options)


def in_programs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kernels that JAX's programs call, of float32, by name and types."""
    from softnll._kernels.cpu.signature import NONE, Type, array, output  # noqa: PLC0415

    name = "float32"
    x, rows, result = array(name, 2), array(name, 1), output(name, 2)
    for by in ("by_tile", "by_row"):
        for function in ("softmax", "log_softmax", "logsumexp"):
            yield f"{function}_{by}", {"x": x, "out": result}
        for s, (D, grad) in product((NONE, rows), ((NONE, NONE), (Type(name), result))):
            types = {"x": x, "y": array("int32", 1), "w": NONE, "s": s, "D": D, "loss": output(name, 1), "grad": grad}
            yield f"losses_{by}", types


def asked() -> list[tuple[str, Any, dict[str, Any]]]:
    """Return the kernels that ``call_all`` asks for, by name and types; none is compiled or called."""
    import ml_dtypes  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from softnll._kernels.cpu import load, scalar_interface  # noqa: PLC0415

    found: dict[str, tuple[str, Any, dict[str, Any]]] = {}

    def kernel_of(name: str, result: Any, types_of: Any) -> load.Kernel:
        found[repr((name, result, sorted(types_of.items())))] = name, result, types_of

        def leaves_a_row(*arguments: Any) -> int:
            if arguments and "left" in types_of:
                *_, first, _, left = arguments
                left[0] = first
            return 1

        return load.Kernel(leaves_a_row, ())

    load.kernel_of = scalar_interface.kernel_of = kernel_of  # type: ignore[assignment,attr-defined]
    for name in TYPES:
        call_all(np.dtype(getattr(ml_dtypes, name, name)))
        ask_for_calls(name)
    return list(found.values())


def compile_all(only: str) -> None:
    """Compile for the CPU that Numba's settings name, and call nothing: this one may be another."""
    from softnll._kernels.cpu import load  # noqa: PLC0415
    from softnll._kernels.cpu.signature import INTP  # noqa: PLC0415

    for name, result, types_of in asked():
        if only in name:
            load.compile_to_cache(name, result, types_of)
    for name, types_of in in_programs():
        if only in name:
            load.compile_to_cache(f"in_program.{name}", INTP, types_of)


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
