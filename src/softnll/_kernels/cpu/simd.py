"""The vector layer: values of 64 bytes, sixteen float32 or eight float64, as Numba types with arithmetic.

Numba compiles scalar loops and leaves it to LLVM to find vectors in them, which it does not do for what a softmax needs
(``max``, ``exp``, several sums at once). Here the vectors are explicit: each ``@operation`` below is a function for
kernels, in a few lines that say which LLVM instructions it stands for. The instructions are LLVM's portable ones, none
belongs to one processor: on a CPU with AVX-512 a vector is one register, with AVX2 two, with SSE2 four, and LLVM cuts
it.

Memory is addressed by plain integers (bytes), as in ``load(address, element)``. ``element`` is a dtype that says what
lies there; half types, for which Numba has no arithmetic, are given as the integer type of their bits:

========== ================= ==============
element    what it is        vector in hand
========== ================= ==============
float32    float32           16 × float32
float64    float64           8 × float64
uint16     bfloat16's bits   16 × float32
int16      float16's bits    16 × float32
========== ================= ==============

Kernels never check an address: ``softnll._core.problem.prepare`` has checked the arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import wraps
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from softnll._kernels.cpu.processor import converts_half

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))


class Vec(types.Type):
    """A vector of so many lanes of a scalar type; of ``types.boolean`` it is a mask."""

    def __init__(self, scalar: Any, lanes: int) -> None:
        self.scalar = scalar
        self.lanes = lanes
        super().__init__(f"Vec({scalar}, {lanes})")


_LLVM = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: _I32,
    types.int64: _I64,
    types.boolean: _I1,
}


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    """A Vec is an LLVM vector."""

    def __init__(self, manager: Any, vec: Vec) -> None:
        super().__init__(manager, vec, ir.VectorType(_LLVM[vec.scalar], vec.lanes))


FLOATS = Vec(types.float32, 16)
DOUBLES = Vec(types.float64, 8)
INTS = Vec(types.int32, 16)
LONGS = Vec(types.int64, 8)
_OF_SCALAR = {types.float32: FLOATS, types.float64: DOUBLES}
_OF_ELEMENT = {types.float32: FLOATS, types.float64: DOUBLES, types.uint16: FLOATS, types.int16: FLOATS}
_BITS_OF = {FLOATS: INTS, DOUBLES: LONGS}
_MANTISSA = {FLOATS: 23, DOUBLES: 52}
_HALF = ir.HalfType()


# --- Pieces of LLVM that several operations use.


def _llvm(vec: Vec) -> ir.VectorType:
    """Return a Vec's LLVM type."""
    return ir.VectorType(_LLVM[vec.scalar], vec.lanes)


def _constant(vector: ir.VectorType, value: Any) -> ir.Constant:
    """Return a vector of one value."""
    return ir.Constant(vector, [value] * vector.count)


def _spread(b: Any, scalar: Any, lanes: int) -> Any:
    """Return a scalar in every lane."""
    vector = ir.VectorType(scalar.type, lanes)
    one = b.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return b.shuffle_vector(one, ir.Constant(vector, ir.Undefined), _constant(ir.VectorType(_I32, lanes), 0))


def _shuffle(b: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    """Return the lanes of two vectors, the second's counted on from the first's."""
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def _halves(b: Any, vector: Any) -> tuple[Any, Any]:
    """Return a vector's first and second half."""
    n = vector.type.count
    nothing = ir.Constant(vector.type, ir.Undefined)
    return _shuffle(b, vector, nothing, list(range(n // 2))), _shuffle(b, vector, nothing, list(range(n // 2, n)))


def _call(b: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Call an LLVM intrinsic function."""
    kind = ir.FunctionType(result, [each.type for each in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


def _suffix(vector: ir.VectorType) -> str:
    """Return how LLVM names a vector type inside a function's name."""
    names = {"float": "f32", "double": "f64", "half": "f16", "i16": "i16", "i8": "i8"}
    return f"v{vector.count}{names[str(vector.element)]}"


def _smaller(b: Any, x: Any, y: Any) -> Any:
    """Return x where x < y, else y (also where one is NaN)."""
    return b.select(b.fcmp_ordered("<", x, y), x, y)


def _larger(b: Any, x: Any, y: Any) -> Any:
    """Return x where x > y, else y (also where one is NaN)."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _memory(element: Any, lanes: int) -> tuple[ir.VectorType, int]:
    """Return what lies in memory, and the bytes of one of it."""
    return {
        types.float32: (ir.VectorType(ir.FloatType(), lanes), 4),
        types.float64: (ir.VectorType(ir.DoubleType(), lanes), 8),
        types.uint16: (ir.VectorType(_I16, lanes), 2),
        types.int16: (ir.VectorType(_HALF, lanes), 2),
    }[element]


def _half_to_float(b: Any, value: Any, floats: ir.VectorType) -> Any:
    """Return float16 as float32 by integers: its bits moved into place are the number times 2⁻¹¹²."""
    wide = ir.VectorType(_I32, floats.count)
    h = b.zext(b.bitcast(value, ir.VectorType(_I16, floats.count)), wide)
    sign = b.shl(b.and_(h, _constant(wide, 0x8000)), _constant(wide, 16))
    moved = b.shl(b.and_(h, _constant(wide, 0x7FFF)), _constant(wide, 13))
    finite = b.bitcast(b.fmul(b.bitcast(moved, floats), _constant(floats, 2.0**112)), wide)
    infinite = b.icmp_unsigned(">=", moved, _constant(wide, 0x7C00 << 13))
    return b.bitcast(b.or_(sign, b.select(infinite, b.or_(moved, _constant(wide, 0x7F800000)), finite)), floats)


def _float_to_half(b: Any, value: Any, halves: ir.VectorType) -> Any:
    """Return float32 as float16 by integers, rounded to nearest, ties to even."""
    wide = ir.VectorType(_I32, halves.count)
    u = b.bitcast(value, wide)
    sign = b.and_(b.lshr(u, _constant(wide, 16)), _constant(wide, 0x8000))
    size = b.and_(u, _constant(wide, 0x7FFFFFFF))
    odd = b.and_(b.lshr(size, _constant(wide, 13)), _constant(wide, 1))
    moved = b.sub(b.add(size, b.add(odd, _constant(wide, 0xFFF))), _constant(wide, 112 << 23))
    normal = b.lshr(moved, _constant(wide, 13))
    # Beside ½ the last place of a float32 is that of a subnormal float16.
    small = b.sub(
        b.bitcast(b.fadd(b.bitcast(size, value.type), _constant(value.type, 0.5)), wide), _constant(wide, 0x3F000000)
    )
    bits = b.select(b.icmp_unsigned("<", size, _constant(wide, 0x38800000)), small, normal)
    bits = b.select(b.icmp_unsigned(">=", size, _constant(wide, 0x47800000)), _constant(wide, 0x7C00), bits)
    bits = b.select(b.icmp_unsigned(">", size, _constant(wide, 0x7F800000)), _constant(wide, 0x7E00), bits)
    return b.bitcast(b.trunc(b.or_(sign, bits), ir.VectorType(_I16, halves.count)), halves)


def _decode(b: Any, value: Any, element: Any) -> Any:
    """Return what was loaded as float32 or float64."""
    if element == types.uint16:  # bfloat16 is the upper half of a float32
        wide = ir.VectorType(_I32, value.type.count)
        return b.bitcast(b.shl(b.zext(value, wide), _constant(wide, 16)), ir.VectorType(ir.FloatType(), wide.count))
    if element == types.int16:
        floats = ir.VectorType(ir.FloatType(), value.type.count)
        return b.fpext(value, floats) if converts_half() else _half_to_float(b, value, floats)
    return value


def _encode(b: Any, value: Any, element: Any) -> Any:
    """Return float32 or float64 as it is stored, rounded to nearest, ties to even. bfloat16: no NaN comes here."""
    if element == types.uint16:
        wide = ir.VectorType(_I32, value.type.count)
        u = b.bitcast(value, wide)
        odd = b.and_(b.lshr(u, _constant(wide, 16)), _constant(wide, 1))
        rounded = b.add(u, b.add(odd, _constant(wide, 0x7FFF)))
        return b.trunc(b.lshr(rounded, _constant(wide, 16)), ir.VectorType(_I16, wide.count))
    if element == types.int16:
        halves = ir.VectorType(_HALF, value.type.count)
        return b.fptrunc(value, halves) if converts_half() else _float_to_half(b, value, halves)
    return value


def _pointer(b: Any, address: Any, kind: Any) -> Any:
    """Return an address as a pointer."""
    return b.inttoptr(address, ir.PointerType(kind))


def _first_lanes(b: Any, count: Any, lanes: int) -> Any:
    """Return the mask of the first ``count`` lanes."""
    numbers = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
    return b.icmp_signed("<", numbers, _spread(b, b.trunc(count, _I32), lanes))


def _masked_load(b: Any, address: Any, mask: Any, kind: ir.VectorType, size: int) -> Any:
    """Load the lanes of a mask; the others are 0 and their memory is not touched."""
    halves = kind.element == _HALF  # there is no masked load of float16 on every CPU: its bits are loaded
    bits = ir.VectorType(_I16, kind.count) if halves else kind
    arguments = [_pointer(b, address, bits), ir.Constant(_I32, size), mask, _constant(bits, 0)]
    return b.bitcast(_call(b, f"llvm.masked.load.{_suffix(bits)}.p0", bits, arguments), kind)


def _load(b: Any, address: Any, element: Any, lanes: int) -> Any:
    """Load elements as float32 or float64."""
    memory, size = _memory(element, lanes)
    return _decode(b, b.load(_pointer(b, address, memory), align=size), element)


def _load_lanes(b: Any, address: Any, mask: Any, filler: Any, element: Any) -> Any:
    """Do the same for the lanes of a mask; the others are those of ``filler``."""
    loaded = _masked_load(b, address, mask, *_memory(element, mask.type.count))
    return b.select(mask, _decode(b, loaded, element), filler)


def _store(b: Any, address: Any, value: Any, element: Any) -> Any:
    """Store float32 or float64 as elements; return the instruction."""
    memory, size = _memory(element, value.type.count)
    return b.store(_encode(b, value, element), _pointer(b, address, memory), align=size)


def operation(define: Callable[..., Any]) -> Any:
    """Return a function for kernels. ``define`` returns its signature, from types, and ``emit``.

    ``emit(b, *values)`` writes the instructions with the builder ``b`` and returns the value of the result: a list for
    a tuple. What it returns does not count if the function has no result.
    """

    @wraps(define)
    def defined(typing, *kinds):
        signature, emit = define(typing, *kinds)

        def generate(context, b, signature, values):
            emitted = emit(b, *values)
            if signature.return_type == types.void:
                return context.get_dummy_value()
            return context.make_tuple(b, signature.return_type, emitted) if isinstance(emitted, list) else emitted

        return signature, generate

    return intrinsic(defined)


@operation
def align_stack(typing):
    """Let the function that calls this keep vectors on its stack at multiples of 64 bytes.

    What does not fit into registers lies there; unaligned, it straddles cache lines, and loops take up to four times as
    long, or not, depending on who calls them.
    """

    def emit(b):
        b.function.attributes.add("nounwind")  # llvmlite writes an alignment only beside another attribute
        b.function.attributes.alignstack = 64

    return types.void(), emit


# --- Memory.


@operation
def load(typing, address, element):
    """Return the vector at an address."""
    vec = _OF_ELEMENT[element.dtype]
    return vec(address, element), lambda b, address, _: _load(b, address, element.dtype, vec.lanes)


@operation
def load_part(typing, address, count, fill, element):
    """Return the first ``count`` lanes at an address; the others are ``fill`` and their memory is not touched."""
    vec = _OF_ELEMENT[element.dtype]

    def emit(b, address, count, fill, _):
        mask, filler = _first_lanes(b, count, vec.lanes), _spread(b, fill, vec.lanes)
        return _load_lanes(b, address, mask, filler, element.dtype)

    return vec(types.intp, types.intp, vec.scalar, element), emit


def _where_allowed(b: Any, v: Any, booleans: Any) -> Any:
    """Return v where booleans are True, else −∞."""
    allowed = b.icmp_unsigned("!=", booleans, _constant(booleans.type, 0))
    return b.select(allowed, v, _constant(v.type, float("-inf")))


@operation
def load_allowed(typing, v, address):
    """Return v where the booleans at an address are True, else −∞."""
    booleans = ir.VectorType(_I8, v.lanes)
    return v(v, types.intp), lambda b, v, address: _where_allowed(b, v, b.load(_pointer(b, address, booleans), align=1))


@operation
def load_allowed_part(typing, v, address, count):
    """Do the same with ``count`` booleans; the other lanes get −∞."""
    lanes = v.lanes

    def emit(b, v, address, count):
        mask = _first_lanes(b, count, lanes)
        return _where_allowed(b, v, _masked_load(b, address, mask, ir.VectorType(_I8, lanes), 1))

    return v(v, types.intp, types.intp), emit


@operation
def store(typing, address, v, element):
    """Write a vector, rounded to the element's type."""
    return types.void(types.intp, v, element), lambda b, address, v, _: _store(b, address, v, element.dtype)


@operation
def stream(typing, address, v, element):
    """Write a vector past the caches; the address is a multiple of the bytes written. ``fence`` afterwards."""

    def emit(b, address, v, _):
        written = _store(b, address, v, element.dtype)
        written.align *= v.type.count
        written.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(_I32, 1)]))

    return types.void(types.intp, v, element), emit


@operation
def store_part(typing, address, count, v, element):
    """Write the first ``count`` lanes."""
    kind, lanes = element.dtype, v.lanes

    def emit(b, address, count, v, _):
        memory, size = _memory(kind, lanes)
        encoded = _encode(b, v, kind)
        if kind == types.int16:
            memory = ir.VectorType(_I16, lanes)
            encoded = b.bitcast(encoded, memory)
        mask = _first_lanes(b, count, lanes)
        arguments = [encoded, _pointer(b, address, memory), ir.Constant(_I32, size), mask]
        _call(b, f"llvm.masked.store.{_suffix(memory)}.p0", ir.VoidType(), arguments)

    return types.void(types.intp, types.intp, v, element), emit


@operation
def load_scalar(typing, address, element):
    """Return one element as float32 or float64."""

    def emit(b, address, _):
        return b.extract_element(_load(b, address, element.dtype, 1), ir.Constant(_I32, 0))

    return _OF_ELEMENT[element.dtype].scalar(types.intp, element), emit


@operation
def store_scalar(typing, address, value, element):
    """Write one element, rounded to its type."""

    def emit(b, address, value, _):
        _store(b, address, _spread(b, value, 1), element.dtype)

    return types.void(types.intp, _OF_ELEMENT[element.dtype].scalar, element), emit


@operation
def copy(typing, target, source, size):
    """Copy ``size`` bytes from ``source`` to ``target``."""

    def emit(b, target, source, size):
        cgutils.raw_memcpy(b, _pointer(b, target, _I8), _pointer(b, source, _I8), size, ir.Constant(_I64, 1))

    return types.void(types.intp, types.intp, types.intp), emit


@operation
def hold(typing, array):
    """Keep ``array`` alive until here; its raw address does not."""
    return types.void(array), lambda *_: None


@operation
def prefetch(typing, address):
    """Prefetch the cache line at an address; an address outside the array is harmless."""

    def emit(b, address):
        flags = [ir.Constant(_I32, each) for each in (0, 3, 1)]  # to read, into every cache, data
        _call(b, "llvm.prefetch.p0", ir.VoidType(), [_pointer(b, address, _I8), *flags])

    return types.void(types.intp), emit


@operation
def fence(typing):
    """Make all streamed (non-temporal) writes before this visible to other threads."""
    return types.void(), lambda b: b.fence("seq_cst")


# --- Columns: as many rows as a vector has lanes, eight neighbouring entries of each, turned by 90 degrees.


def _transposed(b, rows):
    """Return the columns of eight vectors of eight lanes."""
    for distance in (4, 2, 1):
        turned = list(rows)
        low = [8 + i - distance if i & distance else i for i in range(8)]
        high = [8 + i if i & distance else i + distance for i in range(8)]
        for i in range(8):
            if not i & distance:
                turned[i] = _shuffle(b, rows[i], rows[i + distance], low)
                turned[i + distance] = _shuffle(b, rows[i], rows[i + distance], high)
        rows = turned
    return rows


@operation
def load_columns(typing, address, stride, rows, count, fill, element):
    """Return eight vectors: entry k of each row is in vector k. Rows are ``stride`` bytes apart.

    There are ``rows`` of them: lanes beyond hold the last row again. Entries from ``count`` on are ``fill``; 8 and more
    means all. No other memory is touched.
    """
    kind = element.dtype
    vec = _OF_ELEMENT[kind]

    def emit(b, address, stride, rows, count, fill, _):
        numbers = [ir.Constant(_I64, i) for i in range(vec.lanes)]
        all_rows = b.icmp_signed(">=", rows, ir.Constant(_I64, vec.lanes))
        whole = b.and_(all_rows, b.icmp_signed(">=", count, ir.Constant(_I64, 8)))
        held = ir.VectorType(_LLVM[vec.scalar], 8)
        slots = [cgutils.alloca_once(b, held) for _ in range(vec.lanes)]
        with b.if_else(whole) as (then, otherwise):
            with then:
                for slot, number in zip(slots, numbers, strict=True):
                    row = b.add(address, b.mul(stride, number))
                    b.store(_load(b, row, kind, 8), slot)
            with otherwise:
                filler, mask = _spread(b, fill, 8), _first_lanes(b, count, 8)
                last = b.sub(rows, ir.Constant(_I64, 1))
                for slot, number in zip(slots, numbers, strict=True):
                    present = b.select(b.icmp_signed("<", number, last), number, last)
                    row = b.add(address, b.mul(stride, present))
                    b.store(_load_lanes(b, row, mask, filler, kind), slot)
        entries = [b.load(slot) for slot in slots]
        parts = [_transposed(b, entries[i : i + 8]) for i in range(0, vec.lanes, 8)]
        if len(parts) == 1:
            return parts[0]
        return [_shuffle(b, x, y, list(range(16))) for x, y in zip(*parts, strict=True)]

    return types.UniTuple(vec, 8)(types.intp, types.intp, types.intp, types.intp, vec.scalar, element), emit


@operation
def store_columns(typing, address, stride, columns, element):
    """Write eight vectors back as eight neighbouring entries of each row, the rows in order."""
    lanes = columns.dtype.lanes

    def emit(b, address, stride, columns, _):
        vectors = cgutils.unpack_tuple(b, columns, 8)
        if lanes == 8:
            rows = _transposed(b, vectors)
        else:
            halves = [_halves(b, each) for each in vectors]
            rows = [row for part in (0, 1) for row in _transposed(b, [half[part] for half in halves])]
        for i, row in enumerate(rows):
            _store(b, b.add(address, b.mul(stride, ir.Constant(_I64, i))), row, element.dtype)

    return types.void(types.intp, types.intp, columns, element), emit


# --- Arithmetic. The operators + − * / take two vectors, or a vector and a scalar.


def _mixed(vec, kinds):
    """Return the types of arguments, the scalars of a vector's scalar type."""
    return tuple(each if isinstance(each, Vec) else vec.scalar for each in kinds)


def _wide(b, vec, values):
    """Return values as vectors: a scalar in every lane."""
    return [each if isinstance(each.type, ir.VectorType) else _spread(b, each, vec.lanes) for each in values]


def _define_operator(symbol, emit):
    """Let an operator work on vectors, lane by lane."""

    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, arguments, keywords):  # noqa: ARG002 - Numba's interface
            vec = next((each for each in arguments if isinstance(each, Vec)), None)
            return None if vec is None else vec(*_mixed(vec, arguments))

    def lower(context, b, signature, values):
        return emit(b, *_wide(b, signature.return_type, values))

    for left, right in ((Vec, Vec), (Vec, types.Float), (types.Float, Vec)):
        lower_builtin(symbol, left, right)(lower)


_define_operator(operator.add, lambda b, x, y: b.fadd(x, y))
_define_operator(operator.sub, lambda b, x, y: b.fsub(x, y))
_define_operator(operator.mul, lambda b, x, y: b.fmul(x, y))
_define_operator(operator.truediv, lambda b, x, y: b.fdiv(x, y))


@operation
def zero(typing, element):
    """Return 0 in an element's compute type, float32 or float64."""
    scalar = _OF_ELEMENT[element.dtype].scalar
    return scalar(element), lambda *_: ir.Constant(_LLVM[scalar], 0.0)


@operation
def size_of(typing, element):
    """Return the bytes of an element in memory."""
    return types.intp(element), lambda *_: ir.Constant(_I64, _memory(element.dtype, 1)[1])


@operation
def rounded(typing, value, element):
    """Return a float64 rounded to an element's compute type."""
    scalar = _OF_ELEMENT[element.dtype].scalar

    def emit(b, value, _):
        return value if scalar == types.float64 else b.fptrunc(value, _LLVM[scalar])

    return scalar(types.float64, element), emit


@operation
def splat(typing, scalar):
    """Return a scalar in every lane."""
    vec = _OF_SCALAR[scalar]
    return vec(scalar), lambda b, value: _spread(b, value, vec.lanes)


@operation
def mul_add(typing, x, y, z):
    """Return x·y + z: rounded once where the CPU does that in one instruction, else twice."""
    vec = next(each for each in (x, y, z) if isinstance(each, Vec))

    def emit(b, *values):
        return _call(b, f"llvm.fmuladd.{_suffix(_llvm(vec))}", _llvm(vec), _wide(b, vec, values))

    return vec(*_mixed(vec, (x, y, z))), emit


@operation
def fused_multiply_subtract(typing, x, y, z):
    """Return x·y − z rounded once: with z = x·y rounded, what that rounding lost. Slow where the CPU cannot."""
    vec = x

    def emit(b, *values):
        u, v, w = _wide(b, vec, values)
        return _call(b, f"llvm.fma.{_suffix(_llvm(vec))}", _llvm(vec), [u, v, b.fneg(w)])

    return vec(*_mixed(vec, (x, y, z))), emit


@operation
def minimum(typing, x, y):
    """Return the smaller of two; y where one is NaN."""
    return x(x, y), _smaller


@operation
def maximum(typing, x, y):
    """Return the larger of two; y where one is NaN."""
    return x(x, y), _larger


@operation
def less(typing, x, y):
    """Return the mask of x < y; False where one is NaN."""
    return Vec(types.boolean, x.lanes)(x, y), lambda b, x, y: b.fcmp_ordered("<", x, y)


@operation
def equal(typing, x, y):
    """Return the mask of x = y."""
    floating = x.scalar in _OF_SCALAR

    def emit(b, x, y):
        return b.fcmp_ordered("==", x, y) if floating else b.icmp_signed("==", x, y)

    return Vec(types.boolean, x.lanes)(x, y), emit


@operation
def select(typing, mask, x, y):
    """Return x where the mask is True, else y."""
    return x(mask, x, y), lambda b, mask, x, y: b.select(mask, x, y)


@operation
def both(typing, x, y):
    """Return the mask of the lanes that are True in two masks."""
    return x(x, y), lambda b, x, y: b.and_(x, y)


@operation
def every(typing, mask):
    """Whether all lanes of a mask are True."""
    integer = ir.IntType(mask.lanes)
    full = ir.Constant(integer, (1 << mask.lanes) - 1)
    return types.boolean(mask), lambda b, mask: b.icmp_unsigned("==", b.bitcast(mask, integer), full)


def _doubles(vec: Vec) -> ir.VectorType:
    """Return the LLVM type of a vector's lanes in float64."""
    return ir.VectorType(ir.DoubleType(), vec.lanes)


@operation
def store_doubles(typing, address, v):
    """Write a vector's lanes as float64."""
    doubles, wide = _doubles(v), v.scalar == types.float64

    def emit(b, address, v):
        b.store(v if wide else b.fpext(v, doubles), _pointer(b, address, doubles), align=8)

    return types.void(types.intp, v), emit


@operation
def load_doubles(typing, address, element):
    """Load one float64 a lane and return them as a vector of the element's compute type."""
    vec = _OF_ELEMENT[element.dtype]

    def emit(b, address, _):
        loaded = b.load(_pointer(b, address, _doubles(vec)), align=8)
        return loaded if vec.scalar == types.float64 else b.fptrunc(loaded, _llvm(vec))

    return vec(types.intp, element), emit


@operation
def add_doubles(typing, address, lost, v):
    """Add a vector's lanes to float64 in memory, and what the additions of float64 lose to others."""
    doubles, narrow = _doubles(v), v.scalar == types.float32

    def emit(b, address, lost, v):
        place = _pointer(b, address, doubles)
        old = b.load(place, align=8)
        if narrow:
            b.store(b.fadd(old, b.fpext(v, doubles)), place, align=8)
            return
        total = b.fadd(old, v)
        part = b.fsub(total, old)
        beyond = _pointer(b, lost, doubles)
        error = b.fadd(b.fsub(old, b.fsub(total, part)), b.fsub(v, part))
        b.store(b.fadd(b.load(beyond, align=8), error), beyond, align=8)
        b.store(total, place, align=8)

    return types.void(types.intp, types.intp, v), emit


# --- Bits of floating-point numbers.


@operation
def power_of_two(typing, t):
    """Return the number whose biased exponent is in the lowest bits of t's mantissa, where adding 1.5·2²³ puts it."""
    integers = _llvm(_BITS_OF[t])
    shift = _constant(integers, _MANTISSA[t])
    return t(t), lambda b, value: b.bitcast(b.shl(b.bitcast(value, integers), shift), value.type)


@operation
def logarithm_parts(typing, x):
    """Return (f, e) with x = (1 + f)·2ᵉ and 1 + f in [√½, √2), for normal x > 0. float64 only."""

    def emit(b, x):
        integers, doubles = _llvm(LONGS), x.type
        root = 0x3FE6A09E667F3BCD  # the bits of √½
        shifted = b.add(b.bitcast(x, integers), _constant(integers, 0x3FF0000000000000 - root))
        exponent = b.lshr(shifted, _constant(integers, 52))
        mantissa = b.add(b.and_(shifted, _constant(integers, (1 << 52) - 1)), _constant(integers, root))
        # A small integer becomes a float by its bits: 2⁵² + e, from which 2⁵² + 1023 is taken.
        floating = b.bitcast(b.or_(exponent, _constant(integers, 0x4330000000000000)), doubles)
        e = b.fsub(floating, _constant(doubles, 4503599627370496.0 + 1023.0))
        return [b.fsub(b.bitcast(mantissa, doubles), _constant(doubles, 1.0)), e]

    return types.UniTuple(x, 2)(x), emit


# --- Across lanes. The order is fixed, so that results are the same bits in every run.


def _folded(b, vector, combine):
    """Return one lane, of a vector whose halves are combined until one is left."""
    while vector.type.count > 1:
        vector = combine(b, *_halves(b, vector))
    return b.extract_element(vector, ir.Constant(_I32, 0))


@operation
def reduce_max(typing, v):
    """Return the largest lane; NaN lanes are passed over."""
    return v.scalar(v), lambda b, v: _folded(b, v, _larger)


@operation
def reduce_sum(typing, v):
    """Return the sum of the lanes, pairwise."""
    return v.scalar(v), lambda b, v: _folded(b, v, lambda b, x, y: b.fadd(x, y))


@operation
def tournament(typing, v):
    """Return the largest lane, and the sum of all the others in float64. A NaN reaches one of the two."""
    narrow = v.scalar == types.float32

    def emit(b, vector):
        rest = None
        while vector.type.count > 1:
            x, y = _halves(b, vector)
            losers, vector = _smaller(b, x, y), _larger(b, y, x)
            if narrow:
                losers = b.fpext(losers, ir.VectorType(ir.DoubleType(), x.type.count))
            rest = losers if rest is None else b.fadd(b.fadd(*_halves(b, rest)), losers)
        return [b.extract_element(each, ir.Constant(_I32, 0)) for each in (vector, rest)]

    return types.Tuple([v.scalar, types.float64])(v), emit


@operation
def widen_sum(typing, v):
    """Return eight float64: the sums of lane i and lane i + 8 of sixteen float32."""

    def emit(b, v):
        x, y = _halves(b, v)
        return b.fadd(b.fpext(x, _llvm(DOUBLES)), b.fpext(y, _llvm(DOUBLES)))

    return DOUBLES(v), emit
