"""The function through which XLA's compiled programs call a kernel, as LLVM code.

It reads XLA's arrays where they lie, needs neither Python nor its lock, and returns what the kernel returns.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from softnll._kernels.cpu.call_frame import Buffer, Buffers, Call
from softnll._kernels.cpu.entry import Entry, add_runtime

_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
_POINTER = ir.PointerType(_BYTE)


class _FrameEntry(Entry):
    """One function under construction. Written arrays are the call's outputs, in order; others are its inputs."""

    def __init__(self, context: Any, module: Any, name: str) -> None:
        super().__init__(context, module, name, ir.FunctionType(_WORD, [_POINTER]))
        (call,) = self.function.args
        self.items = {
            written: self.field(call, of.offset + Buffers.items.offset, ir.PointerType(_POINTER))
            for written, of in ((False, Call.inputs), (True, Call.outputs))
        }
        self.taken = {False: 0, True: 0}

    def buffer(self, *, written: bool) -> Any:
        """Return the next output, or the next input."""
        at, self.taken[written] = self.taken[written], self.taken[written] + 1
        return self.builder.load(self.builder.gep(self.items[written], [_WORD(at)]))

    def array(self, kind: Any, value: Any) -> Any:
        """Return Numba's form of an array in one piece."""
        shape = self.words(self.field(value, Buffer.dims.offset, ir.PointerType(_WORD)), kind.ndim)
        strides: list[Any] = []
        step = _WORD(self.size_of(kind))
        for each in reversed(shape):
            strides.insert(0, step)
            step = self.builder.mul(step, each)
        return self.array_at(kind, self.field(value, Buffer.data.offset, _POINTER), shape, strides)

    def next_argument(self, kind: Any) -> Any:
        """Return the next argument as Numba takes it; numbers are inputs without axes."""
        if kind == types.none:
            return self.context.get_dummy_value()
        if isinstance(kind, types.Array):
            return self.array(kind, self.buffer(written=kind.mutable))
        data = self.field(self.buffer(written=False), Buffer.data.offset, _POINTER)
        return self.field(data, 0, self.context.get_data_type(kind))


def add_frame_entry(library: Any, context: Any, descriptor: Any, name: str) -> None:
    """Add to a compiled function's library its entry of this name, and what it allocates memory with.

    The entry is a C function of the address of XLA's call. It returns the kernel's result, or −1 without memory.
    """
    module = context.create_module("entry")
    here = _FrameEntry(context, module, name)
    status, result = here.call_kernel(descriptor, [here.next_argument(each) for each in descriptor.argtypes])
    with here.builder.if_then(status.is_error, likely=False):
        here.builder.ret(_WORD(-1))
    here.builder.ret(result)
    add_runtime(module)
    library.add_ir_module(module)
