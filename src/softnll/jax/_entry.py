"""The machine code that XLA calls, and that calls a kernel or Python: a call that Python has not finished is an error.

Python may raise before a function's first line: KeyboardInterrupt, or RecursionError. ctypes then prints it, and
returns whatever is in the register: success with results never written, or an address that is none.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from softnll._kernels.cpu.call_frame import Call
from softnll._kernels.cpu.forks import loading

_WORD = ir.IntType(64)
_UNFINISHED = 1  # what Python overwrites: 0, or the address of an error
_engines: list[Any] = []  # which own the machine code


def _at(builder: Any, address: Any, offset: int) -> Any:
    """Return a pointer to a word."""
    return builder.inttoptr(builder.add(address, _WORD(offset)), ir.PointerType(_WORD))


def _load(builder: Any, address: Any, offset: int) -> Any:
    """Load a word."""
    return builder.load(_at(builder, address, offset), typ=_WORD)


def _call(builder: Any, address: Any, *given: Any) -> Any:
    """Call the function at an address."""
    kind = ir.FunctionType(_WORD, [_WORD] * len(given))
    return builder.call(builder.inttoptr(address, ir.PointerType(kind)), given)


def _code(function: int, error: int, api: int, create_error: int, interrupt: int, kernel: int | None) -> str:
    """Return LLVM's code of the entry."""
    module = ir.Module()
    module.triple = llvm.get_process_triple()
    start = ir.Function(module, ir.FunctionType(_WORD, [_WORD]), "softnll_entry")
    builder = ir.IRBuilder(start.append_basic_block())
    (call,) = start.args
    if kernel is not None:
        usual = builder.icmp_unsigned("==", _load(builder, call, Call.extension.offset), _WORD(0))  # XLA asks nothing
        with builder.if_then(usual):
            left = _call(builder, _WORD(kernel), call)
            with builder.if_then(builder.icmp_unsigned("==", left, _WORD(0))):
                builder.ret(_WORD(0))
    words = builder.ptrtoint(builder.alloca(_WORD, 2), _WORD)
    for at, value in enumerate((_UNFINISHED, 0)):
        builder.store(_WORD(value), _at(builder, words, 8 * at))
    _call(builder, _WORD(function), call, words)
    found, interrupted = (_load(builder, words, 8 * at) for at in range(2))
    with builder.if_then(builder.icmp_unsigned("!=", interrupted, _WORD(0))):
        _call(builder, _WORD(interrupt))
    with builder.if_then(builder.icmp_unsigned("!=", found, _WORD(_UNFINISHED))):
        builder.ret(found)
    builder.ret(_call(builder, _load(builder, _load(builder, call, api), create_error), _WORD(error)))
    return str(module)


@cache
def _machine() -> Any:
    for initialize in (llvm.initialize_native_target, llvm.initialize_native_asmprinter):
        initialize()
    return llvm.Target.from_triple(llvm.get_process_triple())


def entry(function: int, error: int, api: int, create_error: int, interrupt: int, kernel: int | None = None) -> int:
    """Return the address of a function of a call's address, as XLA calls it.

    Parameters
    ----------
    function
        Address of a function of a call's address and that of two words. There it writes 0 or the address of an error,
        and whether it was interrupted.
    error
        Address of the arguments for the error of a call that ``function`` has not finished.
    api, create_error
        Offsets of the interface's address in a call, and of the function that makes errors in the interface.
    interrupt
        Address of the function that interrupts Python's main thread.
    kernel
        Address of a kernel of a call's address, which is called first: if it returns 0, ``function`` is not called.
    """
    with loading:
        code = llvm.parse_assembly(_code(function, error, api, create_error, interrupt, kernel))
        engine = llvm.create_mcjit_compiler(code, _machine().create_target_machine())
        engine.finalize_object()
        _engines.append(engine)
        address: int = engine.get_function_address("softnll_entry")
    return address
