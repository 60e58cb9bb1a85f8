"""Kernels as functions of Python: loaded from the cache or, the first time on a machine, compiled by Numba.

Numba is imported only to compile: that takes 0.4 s, and a kernel from the cache takes milliseconds.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from ctypes.util import find_library
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from softnll._kernels.cpu.cache import name_of, read, write
from softnll._kernels.cpu.forks import loading
from softnll._kernels.cpu.listeners import current
from softnll._kernels.cpu.processor import levels, processor
from softnll._kernels.cpu.signature import INTP, Type

_FAST_CALL = 0x0080  # METH_FASTCALL
_MODULES = (  # whose functions are kernels
    "softnll._kernels.cpu.by_plane",
    "softnll._kernels.cpu.by_row",
    "softnll._kernels.cpu.by_tile",
    "softnll._kernels.cpu.distributions",
    "softnll._kernels.cpu.in_program",
    "softnll._kernels.cpu.losses_by_plane",
    "softnll._kernels.cpu.one_call",
    "softnll._kernels.cpu.product_by_plane",
    "softnll._kernels.cpu.product_by_row",
    "softnll._kernels.cpu.scalar",
    "softnll._kernels.cpu.soft_targets",
    "softnll._kernels.cpu.softcap",
    "softnll._kernels.cpu.spread_by_plane",
    "softnll._kernels.cpu.total",
)


class Kernel(NamedTuple):
    """A compiled function and the names of its parameters."""

    call: Callable[..., Any]
    parameters: tuple[str, ...]


class _Method(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


@cache
def _engine() -> Any:
    """Return LLVM's loader of object code."""
    for initialize in (llvm.initialize_native_target, llvm.initialize_native_asmprinter):
        initialize()
    here, target = processor(), llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=here.name, features=here.features)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


@cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """Return where object code finds what it calls: Python, C and C's mathematics."""
    names = ("ucrtbase",) if sys.platform == "win32" else (None, find_library("m"))
    return (ctypes.pythonapi, *(ctypes.CDLL(name) for name in names))


def _found(symbol: str) -> bool:
    """Whether a symbol is there for object code: LLVM ends the process for one that is not."""
    if llvm.address_of_symbol(symbol):
        return True
    for library in _libraries():
        function = getattr(library, symbol, None)
        if function is not None:
            llvm.add_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)
            return True
    return False


_methods: list[_Method] = []  # Python keeps their addresses


def _address(symbol: str, code: bytes) -> int:
    """Return the address of an entry in object code."""
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address: int = engine.get_function_address(symbol)
    return address


def _function(symbol: str, name: str, code: bytes) -> Callable[..., Any]:
    """Return the Python function of an entry in object code."""
    method = _Method(name.encode(), _address(symbol, code), _FAST_CALL, None)
    _methods.append(method)
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    function: Callable[..., Any] = new(ctypes.addressof(method), None, None)
    return function


def _code(
    name: str, result: Type, types_of: dict[str, Type], function: Callable[..., Any] | None
) -> tuple[dict[str, Any], bytes]:
    """Return what is said of a kernel, and its object code: from the cache, else compiled."""
    signature = (result, sorted(types_of.items()))
    for cpu in (processor(), *levels()):
        stored = read(name_of(name, signature, cpu))
        if stored is not None and all(_found(each) for each in stored[0]["symbols"]):
            return stored
    head, object_code = compile_to_cache(name, result, types_of, function)
    missing = [each for each in head["symbols"] if not _found(each)]
    if missing:
        raise RuntimeError(f"the kernel {name} calls {', '.join(missing)}, which this process does not have")
    return head, object_code


def kernel_of(name: str, result: Type, types_of: dict[str, Type], function: Callable[..., Any] | None = None) -> Kernel:
    """Return a kernel for types of its parameters, given by name.

    It takes arguments by position, as Python objects of just these types: it looks at how many there are and at the
    number of axes of arrays, not at the types of their entries.

    Parameters
    ----------
    name
        The kernel's module in this folder and its function there, as in ``by_row.losses``.
    result, types_of
        The types of the result and of the parameters.
    function
        The function itself, if it is in no module of this folder.
    """
    with loading:
        head, object_code = _code(name, result, types_of, function)
        return Kernel(_function(head["entry"], name, object_code), tuple(head["parameters"]))


def program_kernel(name: str, types_of: dict[str, Type]) -> int:
    """Return the address of a function of ``in_program``: of the address of XLA's call; 0 if it has computed all."""
    with loading:
        head, object_code = _code(f"in_program.{name}", INTP, types_of, None)
        return _address(head["entry"], object_code)


def compile_to_cache(
    name: str, result: Type, types_of: dict[str, Type], function: Callable[..., Any] | None = None
) -> tuple[dict[str, Any], bytes]:
    """Compile a kernel and keep it; return what is said of it, and its object code."""
    listener, begin = current(), time.perf_counter()
    if listener is not None:
        listener.begins()
    jit = import_module("softnll._kernels.cpu.jit")
    if function is None:
        module, _, attribute = name.partition(".")
        (path,) = (each for each in _MODULES if each.endswith(f".{module}"))
        function = getattr(import_module(path), attribute)
    key = name_of(name, (result, sorted(types_of.items())), processor())
    entry = jit.SYMBOL.format(key.rpartition("-")[2])
    code = jit.compile_function(function, result, types_of, entry)
    head = {"entry": entry, "parameters": code.parameters, "symbols": code.symbols}
    write(key, head, code.object_code)
    if listener is not None:
        listener.compiled(time.perf_counter() - begin)
    return head, code.object_code


def compiled(name: str, result: Type, **types_of: Type) -> Callable[..., Any]:
    """Return the function of ``kernel_of``."""
    return kernel_of(name, result, types_of).call
