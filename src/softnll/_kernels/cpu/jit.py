"""Compile Python functions to object code: a target of Numba's that compiles functions inside kernels for these alone.

Numba's own target makes each function callable by itself: with machine code of its own and of all that it calls, and
with entries from C and Python. Here a kernel's functions stay LLVM code until they are linked, and are optimised once,
together.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

from numba import types
from numba.core import codegen, cpu, dispatcher
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUTarget
from numba.core.target_extension import CPU, dispatcher_registry, jit_registry, target_override, target_registry

from softnll._kernels.cpu.entry import AddressEntry, add_entry
from softnll._kernels.cpu.frame_entry import add_frame_entry
from softnll._kernels.cpu.processor import processor
from softnll._kernels.cpu.signature import Type

SYMBOL = "softnll_kernel_{}"  # the name of an entry in object code, after a number of its own
_NAME = "softnll"  # of the target
_ENTRIES: dict[
    str, Callable[..., None]
] = {  # by the module of a function: how it is called, if not by Python with arrays
    "softnll._kernels.cpu.in_program": add_frame_entry,
    "softnll._kernels.cpu.one_call": partial(add_entry, form=AddressEntry),
}


class Code(NamedTuple):
    """A compiled function."""

    parameters: tuple[str, ...]
    symbols: tuple[str, ...]  # what it calls outside
    object_code: bytes


class _Library(codegen.JITCodeLibrary):  # type: ignore[misc]
    """The LLVM code of one function and of those that it calls: linked, neither optimised nor made machine code."""

    def finalize(self) -> None:
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)  # noqa: SLF001 - a sibling
        self._finalized = True

    def add_llvm_module(self, module: Any) -> None:
        self._final_module.link_in(module)

    def code(self, symbol: str) -> tuple[bytes, tuple[str, ...]]:
        """Return object code in which one function can be called, and the names of what it calls outside."""
        self._ensure_finalized()
        module = self._final_module
        for each in module.functions:
            if not each.is_declaration and each.name != symbol:
                each.linkage = "internal"
        for each in module.global_variables:
            if not each.is_declaration:
                each.linkage = "internal"
        self._optimize_final_module()
        module.verify()
        outside = [each.name for each in module.functions if each.is_declaration and not each.name.startswith("llvm.")]
        return self.codegen._tm.emit_object(module), tuple(outside)  # noqa: SLF001 - Numba has no public name for it


class _Codegen(codegen.JITCPUCodegen):  # type: ignore[misc]
    """The code generator for the processor that the cache's files are for."""

    _library_class = _Library

    def _get_host_cpu_name(self) -> str:
        return processor().name

    def _customize_tm_features(self) -> str:
        return processor().features


class _Context(cpu.CPUContext):  # type: ignore[misc]
    """Numba's lowering for CPUs, without entries for each function."""

    @global_compiler_lock
    def init(self) -> None:
        super().init()
        self._internal_codegen = _Codegen(_NAME)

    def create_cpython_wrapper(self, *_: Any, **__: Any) -> None:
        """Make no entry from Python."""

    def create_cfunc_wrapper(self, *_: Any, **__: Any) -> None:
        """Make no entry from C."""

    def get_executable(self, *_: Any) -> Any:
        """Return a built-in function of its own, which Numba takes as a key; it is never called."""
        return [].append


class _Kernels(CPU):  # type: ignore[misc]
    """The target's name among Numba's: what is written for CPUs serves it."""


class _Target(CPUTarget):  # type: ignore[misc]
    """The target's contexts: its own, so that what is compiled for it serves no other package, and the reverse."""

    @property
    def target_context(self) -> Any:
        return _context()


_target = _Target(_NAME)


@cache
def _context() -> Any:
    """Return the target's context."""
    return _Context(_target.typing_context, _NAME)


class _Dispatcher(dispatcher.Dispatcher):
    """A function of the target."""

    targetdescr = _target


def _jit(function: Any = None, **options: Any) -> Any:
    """Return a function of the target, or with no function the decorator: what Numba calls for functions in kernels."""
    if function is None:
        return lambda each: _jit(each, **options)
    return _Dispatcher(function, targetoptions={"boundscheck": None, **options, "nopython": True})


target_registry[_NAME] = _Kernels
dispatcher_registry[_Kernels] = _Dispatcher
jit_registry[_Kernels] = _jit


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return function.__code__.co_varnames[: function.__code__.co_argcount]


def _numba_type(kind: Type) -> Any:
    """Return Numba's type: arrays of any strides, read-only or not."""
    scalar = getattr(types, kind.scalar)
    return types.Array(scalar, kind.ndim, "A", readonly=not kind.written) if kind.ndim else scalar


@contextmanager
def _without_collection() -> Iterator[None]:
    """Turn off the search for objects that refer to each other in circles: a tenth of the time, and few are found."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@global_compiler_lock
@_without_collection()
def compile_function(function: Callable[..., Any], result: Type, types_of: Mapping[str, Type], symbol: str) -> Code:
    """Return the object code of a function for types of its parameters, given by name; ``symbol`` names its entry.

    Python calls it with arrays, or in the way that ``_ENTRIES`` has for its module.
    """
    names = parameters_of(function)
    if not set(names) <= set(types_of):
        raise TypeError(f"{function.__name__} has the parameters {names}; types were given for {tuple(types_of)}")
    arguments = tuple(_numba_type(types_of[name]) for name in names)
    with target_override(_NAME):
        compiled = _jit(function, error_model="numpy")
        compiled.compile(_numba_type(result)(*arguments))
        (overload,) = compiled.overloads.values()
        add: Callable[..., None] = _ENTRIES.get(function.__module__, add_entry)
        add(overload.library, _context(), overload.fndesc, symbol)
        object_code, outside = overload.library.code(symbol)
    if numbas := [each for each in outside if each.startswith(("numba_", "NRT_"))]:  # in no process without Numba
        raise NotImplementedError(f"the kernel {function.__name__} calls {', '.join(numbas)}")
    return Code(names, outside, object_code)
