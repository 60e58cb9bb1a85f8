"""Ranges of rows in the threads of an OpenMP runtime that the process has, as LLVM code.

PyTorch's threads wait for its next call where they can begin at once: it takes 2 µs, and waking one of ours 50. Those
threads run compiled code only, without Python's lock.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD, _INT = ir.IntType(64), ir.IntType(32)
_POINTER = ir.PointerType(ir.IntType(8))
_START = ir.FunctionType(ir.VoidType(), [_POINTER])  # what a thread runs
_PARALLEL = ir.FunctionType(ir.VoidType(), [ir.PointerType(_START), _POINTER, _INT, _INT])  # GOMP_parallel
_FAILED = 1 << 40  # more than any number of rows


@intrinsic
def in_team(
    typing: Any, function: Any, arguments: Any, n: Any, step: Any, claims: Any, parallel: Any, number: Any, threads: Any
) -> Any:
    """Call ``function(*arguments, first, last)`` for ranges of ``step`` rows that are all n; return the results' sum.

    ``claims`` is the address of one word a range, each 0. ``parallel`` and ``number`` are the addresses of
    ``GOMP_parallel(function, data, threads, flags)`` and ``omp_get_thread_num()``, or 0: then the caller computes all.
    A thread begins with the ranges of its number, which are in its caches if it has computed them before, and goes on
    with those that no other has claimed. A call that fails for lack of memory counts as many rows.
    """
    kinds = (*arguments.types, types.intp, types.intp)
    called = typing.resolve_function_type(function, kinds, {})

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        _, given, n, step, claims, parallel, number, threads = values
        fields = [*cgutils.unpack_tuple(b, given, len(kinds) - 2), n, step, claims, number, threads, _WORD(0)]
        frame = cgutils.alloca_once(b, ir.LiteralStructType([each.type for each in fields]))
        for index, each in enumerate(fields):
            b.store(each, cgutils.gep_inbounds(b, frame, 0, index))
        run = _run(context, b.module, frame.type, context.get_function(function, called))
        data = b.bitcast(frame, _POINTER)
        with b.if_else(b.icmp_unsigned("==", parallel, _WORD(0))) as (alone, together):
            with alone:
                b.call(run, [data])
            with together:
                start = b.inttoptr(parallel, ir.PointerType(_PARALLEL))
                b.call(start, [run, data, b.trunc(threads, _INT), _INT(0)])
        return b.load(cgutils.gep_inbounds(b, frame, 0, len(fields) - 1))

    return types.intp(function, arguments, n, step, claims, parallel, number, threads), generate


def _run(context: Any, module: Any, frame: Any, function: Any) -> Any:
    """Return what each thread runs: it takes one range after another from a frame until there is none."""
    ranges = _ranges(context, module, frame, function)
    run = ir.Function(module, _START, module.get_unique_name("run_ranges"))
    run.linkage = "internal"
    b = ir.IRBuilder(run.append_basic_block("entry"))
    result, error = (cgutils.alloca_once(b, each.type.pointee) for each in ranges.args[:2])
    code = b.call(ranges, [result, error, *run.args])
    with b.if_then(b.icmp_unsigned("!=", code, code.type(0)), likely=False):
        at = b.bitcast(run.args[0], frame)
        b.atomic_rmw(
            "add", cgutils.gep_inbounds(b, at, 0, len(frame.pointee.elements) - 1), _WORD(_FAILED), "monotonic"
        )
    b.ret_void()
    return run


def _ranges(context: Any, module: Any, frame: Any, function: Any) -> Any:
    """Return ``run`` as a function of Numba's kind, which may fail."""
    kind = context.call_conv.get_function_type(types.intp, (types.voidptr,))
    ranges = ir.Function(module, kind, module.get_unique_name("ranges"))
    ranges.linkage = "internal"
    b = ir.IRBuilder(ranges.append_basic_block("entry"))
    at = b.bitcast(ranges.args[2], frame)
    *places, found = (cgutils.gep_inbounds(b, at, 0, index) for index in range(len(frame.pointee.elements)))
    *given, n, step, claims, number, threads = (b.load(each) for each in places)
    count = b.sdiv(b.sub(b.add(n, step), _WORD(1)), step)
    begin = cgutils.alloca_once_value(b, _WORD(0))
    with b.if_then(b.icmp_unsigned("!=", number, _WORD(0))):
        mine = b.zext(b.call(b.inttoptr(number, ir.PointerType(ir.FunctionType(_INT, []))), []), _WORD)
        b.store(b.udiv(b.mul(mine, count), threads), begin)
    own, words = b.load(begin), b.inttoptr(claims, ir.PointerType(_WORD))
    with cgutils.for_range(b, count) as loop:
        index = b.srem(b.add(own, loop.index), count)
        before = b.atomic_rmw("xchg", b.gep(words, [index]), _WORD(1), "monotonic")
        with b.if_then(b.icmp_unsigned("==", before, _WORD(0))):
            first = b.mul(index, step)
            last = b.add(first, step)
            last = b.select(b.icmp_signed("<", last, n), last, n)
            b.atomic_rmw("add", found, function(b, [*given, first, last]), "monotonic")
    b.ret(kind.return_type(0))
    return ranges
