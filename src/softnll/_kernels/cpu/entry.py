"""The function through which Python calls a kernel, as LLVM code.

Numba's own takes 0.1 to 0.2 µs an array, and needs Numba in the process. This one reads NumPy's arrays where they lie,
by the fields that NumPy's C interface fixes, and needs nothing but Python's C functions and ``malloc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

PYTHON = (  # the C functions that an entry may call
    "PyErr_BadArgument",
    "PyErr_NoMemory",
    "PyErr_Occurred",
    "PyEval_RestoreThread",
    "PyEval_SaveThread",
    "PyFloat_AsDouble",
    "PyFloat_FromDouble",
    "PyLong_AsSsize_t",
    "PyLong_FromSsize_t",
    "PyObject_IsTrue",
)
_HEAD = object.__basicsize__  # bytes of an object before its own fields
_DATA, _NDIM, _SHAPE, _STRIDES = _HEAD, _HEAD + 8, _HEAD + 16, _HEAD + 24  # of a PyArrayObject
_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
_POINTER = ir.PointerType(_BYTE)
_META = 40  # bytes of Numba's record of an allocation: count, destructor and its argument, data, size


class Entry:
    """One function under construction."""

    def __init__(self, context: Any, module: Any, name: str, kind: Any) -> None:
        self.context, self.module = context, module
        self.function = ir.Function(module, kind, name)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.null = ir.Constant(_POINTER, None)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a C function."""
        kind = ir.FunctionType(result, [each.type for each in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.module, kind, name), arguments)

    def field(self, base: Any, offset: int, kind: Any) -> Any:
        """Load a field of an object."""
        at = self.builder.gep(base, [ir.Constant(_WORD, offset)])
        return self.builder.load(self.builder.bitcast(at, ir.PointerType(kind)))

    def call_kernel(self, descriptor: Any, values: list[Any]) -> tuple[Any, Any]:
        """Call the compiled function; return its status and its result."""
        convention, kinds = self.context.call_conv, (descriptor.restype, descriptor.argtypes)
        kernel = ir.Function(self.module, convention.get_function_type(*kinds), descriptor.llvm_func_name)
        found: tuple[Any, Any] = convention.call_function(self.builder, kernel, *kinds, values)
        return found

    def refuse_if(self, wrong: Any) -> None:
        """Raise TypeError where a condition holds."""
        with self.builder.if_then(wrong, likely=False):
            self.call("PyErr_BadArgument", ir.IntType(32))
            self.builder.ret(self.null)

    def array(self, kind: Any, value: Any) -> Any:
        """Return Numba's form of an array, which borrows it: no count of references is changed."""
        builder = self.builder
        self.refuse_if(builder.icmp_signed("!=", self.field(value, _NDIM, ir.IntType(32)), ir.IntType(32)(kind.ndim)))
        shape, strides = (
            self.words(self.field(value, offset, ir.PointerType(_WORD)), kind.ndim) for offset in (_SHAPE, _STRIDES)
        )
        return self.array_at(kind, self.field(value, _DATA, _POINTER), shape, strides)

    def words(self, at: Any, count: int) -> list[Any]:
        """Load so many words."""
        return [self.builder.load(self.builder.gep(at, [_WORD(index)])) for index in range(count)]

    def size_of(self, kind: Any) -> int:
        """Return how many bytes an entry of an array has."""
        size: int = self.context.get_abi_sizeof(self.context.get_data_type(kind.dtype))
        return size

    def array_at(self, kind: Any, data: Any, shape: list[Any], strides: list[Any]) -> Any:
        """Return Numba's form of the array at an address."""
        builder = self.builder
        result = cgutils.create_struct_proxy(kind)(self.context, builder)
        count = _WORD(1)
        for each in shape:
            count = builder.mul(count, each)
        result.shape, result.strides = (cgutils.pack_array(builder, each) for each in (shape, strides))
        result.data = builder.bitcast(data, result.data.type)
        result.nitems, result.itemsize = count, self.context.get_constant(types.intp, self.size_of(kind))
        result.meminfo, result.parent = (ir.Constant(each.type, None) for each in (result.meminfo, result.parent))
        return result._getvalue()  # noqa: SLF001 - Numba's own use

    def argument(self, kind: Any, value: Any) -> Any:
        """Return an argument as Numba takes it."""
        if kind == types.none:
            return self.context.get_dummy_value()
        if isinstance(kind, types.Array):
            return self.array(kind, value)
        if kind == types.boolean:
            return self.builder.trunc(self.call("PyObject_IsTrue", ir.IntType(32), value), ir.IntType(1))
        if kind == types.float64:
            return self.call("PyFloat_AsDouble", ir.DoubleType(), value)
        return self.call("PyLong_AsSsize_t", _WORD, value)

    def arguments(self, kinds: tuple[Any, ...]) -> list[Any]:
        """Return the arguments of a fast call of Python as Numba takes them."""
        given = self.objects(len(kinds))
        return [self.argument(kind, value) for kind, value in zip(kinds, given, strict=True)]

    def objects(self, count: int) -> list[Any]:
        """Return the Python objects of a fast call, which must be so many."""
        _, given, there = self.function.args
        self.refuse_if(self.builder.icmp_signed("!=", there, _WORD(count)))
        return [self.builder.load(self.builder.gep(given, [_WORD(i)])) for i in range(count)]


class AddressEntry(Entry):
    """A function under construction that takes arrays in one piece by their addresses.

    The numbers of rows and of classes come first or, where an array has three axes, those of planes, of classes and of
    rows side by side. They are the shape of arrays with more axes than one; the length of one with one axis follows its
    address.
    """

    def arguments(self, kinds: tuple[Any, ...]) -> list[Any]:
        """Return the arguments of a fast call of Python as Numba takes them."""
        axes = [each.ndim if isinstance(each, types.Array) else 0 for each in kinds]
        sizes = max(2, *axes)
        given = iter(self.objects(sizes + len(kinds) + axes.count(1)))
        shape = [self.argument(types.intp, next(given)) for _ in range(sizes)]
        return [self._by_address(kind, given, shape, ndim) for kind, ndim in zip(kinds, axes, strict=True)]

    def _by_address(self, kind: Any, given: Iterator[Any], shape: list[Any], ndim: int) -> Any:
        """Return the next argument as Numba takes it."""
        if not ndim:
            return self.argument(kind, next(given))
        data = self.builder.inttoptr(self.argument(types.intp, next(given)), _POINTER)
        if ndim == 1:
            shape = [self.argument(types.intp, next(given))]
        strides = [_WORD(self.size_of(kind))]
        for each in reversed(shape[1:]):
            strides.insert(0, self.builder.mul(strides[0], each))
        return self.array_at(kind, data, shape, strides)


def add_entry(library: Any, context: Any, descriptor: Any, name: str, form: type[Entry] = Entry) -> None:
    """Add to a compiled function's library its entry of this name, and what it allocates memory with.

    The entry is a C function of Python's fast calls: (self, arguments, how many). It releases the interpreter's lock
    while the kernel runs. ``form`` says how it takes arrays.
    """
    module = context.create_module("entry")
    here = form(context, module, name, ir.FunctionType(_POINTER, [_POINTER, ir.PointerType(_POINTER), _WORD]))
    builder = here.builder
    values = here.arguments(descriptor.argtypes)
    wrong = here.call("PyErr_Occurred", _POINTER)
    with builder.if_then(builder.icmp_unsigned("!=", wrong, here.null), likely=False):
        builder.ret(here.null)
    state = here.call("PyEval_SaveThread", _POINTER)
    status, result = here.call_kernel(descriptor, values)
    here.call("PyEval_RestoreThread", ir.VoidType(), state)
    with builder.if_then(status.is_error, likely=False):  # kernels raise nothing but this
        builder.ret(here.call("PyErr_NoMemory", _POINTER))
    if descriptor.restype == types.float64:
        builder.ret(here.call("PyFloat_FromDouble", _POINTER, result))
    else:  # nothing is 0
        whole = isinstance(descriptor.restype, types.Integer)
        builder.ret(here.call("PyLong_FromSsize_t", _POINTER, result if whole else _WORD(0)))
    add_runtime(module)
    library.add_ir_module(module)


def add_runtime(module: Any) -> None:
    """Define what kernels call of Numba's: two functions for memory, and those of ``math.frexp`` and ``math.ldexp``."""
    _add_memory(module)
    _add_mathematics(module)


def _add_memory(module: Any) -> None:
    """Define the two functions of Numba's runtime that arrays inside kernels need."""
    kind = ir.FunctionType(_POINTER, [_WORD, ir.IntType(32)])
    function = ir.Function(module, kind, "NRT_MemInfo_alloc_aligned")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    size, align = function.args[0], builder.zext(function.args[1], _WORD)
    malloc = cgutils.get_or_insert_function(module, ir.FunctionType(_POINTER, [_WORD]), "malloc")
    record = builder.call(malloc, [builder.add(builder.add(size, align), _WORD(_META))])
    with builder.if_then(builder.icmp_unsigned("==", record, ir.Constant(_POINTER, None)), likely=False):
        builder.ret(record)
    past = builder.add(builder.add(builder.ptrtoint(record, _WORD), _WORD(_META - 1)), align)
    data = builder.and_(past, builder.neg(align))
    words = builder.bitcast(record, ir.PointerType(_WORD))
    for index, value in enumerate((_WORD(1), _WORD(0), _WORD(0), data, size)):
        builder.store(value, builder.gep(words, [_WORD(index)]))
    builder.ret(record)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_POINTER]), "NRT_MemInfo_call_dtor")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    free = cgutils.get_or_insert_function(module, ir.FunctionType(ir.VoidType(), [_POINTER]), "free")
    builder.call(free, [function.args[0]])
    builder.ret_void()


def _add_mathematics(module: Any) -> None:
    """Define what ``math.frexp`` and ``math.ldexp`` call, which is in no process without Numba, by libm's functions."""
    whole = ir.IntType(32)
    for real, suffix in ((ir.DoubleType(), ""), (ir.FloatType(), "f")):
        for name, second, insert in (
            ("frexp", ir.PointerType(whole), cgutils.get_or_insert_function),
            ("ldexp", whole, cgutils.insert_pure_function),
        ):
            kind = ir.FunctionType(real, [real, second])
            function = ir.Function(module, kind, f"numba_{name}{suffix}")
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            x, exponent = function.args
            rest = builder.fsub(x, x)  # 0, or NaN for what is not finite
            zero = builder.fcmp_ordered("==", x, real(0))
            with builder.if_then(builder.or_(builder.fcmp_unordered("!=", rest, real(0)), zero)):
                if name == "frexp":
                    builder.store(whole(0), exponent)
                builder.ret(x)
            builder.ret(builder.call(insert(module, kind, name + suffix), [x, exponent]))
