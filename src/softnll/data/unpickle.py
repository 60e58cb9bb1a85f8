"""Read the pickles of CIFAR-10's python archive as data: dictionaries, lists, numbers, byte strings, byte arrays.

``pickle.load`` runs any function that the file names. Here a small stack machine reads the few opcodes that Python 2's
``cPickle`` wrote at protocol 2. It accepts three globals by their exact names, and represents them by
placeholders: no callable object ever reaches the stack, so a file can call nothing.
"""

from __future__ import annotations

import enum
import io
import math
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError
from softnll.data.text import printable

__all__ = ["Value", "read_pickle"]

Value: TypeAlias = "int | bytes | list[object] | tuple[object, ...] | NDArray[np.uint8] | None"

MAX_BYTES = 40 << 20  # an official batch has 31.0 MB
MAX_OPCODES = 200_000  # an official batch has about 30 000


class _RefusedError(Exception):
    """A pickle that is refused; file and position are added where the error is caught."""


class _Global(enum.Enum):
    RECONSTRUCT = enum.auto()
    NDARRAY = enum.auto()
    DTYPE = enum.auto()


#: The only globals that a pickle may name: NumPy's of 2009, and the first one's module since NumPy 2.
_GLOBALS = {
    "numpy.core.multiarray _reconstruct": _Global.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Global.RECONSTRUCT,
    "numpy ndarray": _Global.NDARRAY,
    "numpy dtype": _Global.DTYPE,
}


@dataclass(eq=False)
class _DtypeStandIn:
    """Placeholder for dtype("u1"), the only one allowed; ``checked`` once its state was read."""

    checked: bool = False


@dataclass(eq=False)
class _ArrayStandIn:
    """Placeholder for an ndarray until its state is read."""

    value: NDArray[np.uint8] | None = None


class _Machine:
    """The stack, its marks and the memo."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marked: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def step(self, name: str, arg: Any) -> None:
        """Execute one of the listed opcodes."""
        if name in ("BINGET", "LONG_BINGET") and arg not in self.memo:
            raise _RefusedError(f"has the opcode {name} with {arg}, which is not allowed here")
        _OPCODES[name](self, arg)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def top(self) -> object:
        if not self.stack:
            raise _RefusedError("reads from an empty stack")
        return self.stack[-1]

    def pop(self) -> object:
        value = self.top()
        del self.stack[-1]
        return value

    def put(self, number: int) -> None:
        self.memo[number] = self.top()

    def push_global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise _RefusedError(f"names {printable(name)!r}, which is none of the allowed: {', '.join(_GLOBALS)}")
        self.push(_GLOBALS[name])

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[object]:
        if not self.marked:
            raise _RefusedError("reads from a mark that was not set")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def last(self, count: int) -> list[object]:
        return [self.pop() for _ in range(count)][::-1]

    def extend(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise _RefusedError("appends to something that is not a list")
        target.extend(items)

    def update(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise _RefusedError("sets items of something that is not a dictionary, or a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only byte strings are hashed: the hash of tuples that share their parts takes exponential time.
            if type(key) is not bytes or key in target:
                raise _RefusedError("has a dictionary key that is not a byte string, or one key twice")
            if isinstance(value, _ArrayStandIn) and value.value is None:
                raise _RefusedError("has an array without its contents")
            target[key] = value.value if isinstance(value, _ArrayStandIn) else value

    def reduce(self) -> None:
        """Put the placeholder for the result of one of the two calls in an array's pickle on the stack."""
        function, arguments = self.last(2)
        if function is _Global.RECONSTRUCT and arguments == (_Global.NDARRAY, (0,), b"b"):
            self.push(_ArrayStandIn())
        elif function is _Global.DTYPE and arguments in ((b"u1", 0, 1), (b"|u1", 0, 1)):
            self.push(_DtypeStandIn())
        else:
            raise _RefusedError("calls something else than an array of bytes (dtype u1, the only one allowed)")

    def build(self) -> None:
        """Set the state of a dtype or an array; sizes are compared before memory is allocated."""
        state = self.pop()
        match self.top(), state:
            case _DtypeStandIn() as dtype, (3, b"|", None, None, None, -1, -1, 0):
                dtype.checked = True
            case _ArrayStandIn(value=None) as array, (
                1,
                tuple() as shape,
                _DtypeStandIn(checked=True),
                bool() as fortran,
                bytes() as raw,
            ):
                sizes = [size for size in shape if type(size) is int and 0 <= size <= MAX_BYTES]
                if not len(sizes) == len(shape) <= 4 or math.prod(sizes) != len(raw):
                    raise _RefusedError(f"has an array whose shape does not fit its {len(raw)} bytes")
                array.value = np.frombuffer(raw, dtype=np.uint8).reshape(sizes, order="F" if fortran else "C")
            case _:
                raise _RefusedError("sets the state of something else than one array of bytes")

    def stop(self) -> None:
        if self.marked or len(self.stack) != 1:
            raise _RefusedError("ends with an unbalanced stack")


_BY_CODE = {info.code: info for info in pickletools.opcodes}

#: The opcodes that are read, as functions of the machine and the opcode's argument.
_OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
    # pickletools returns bytes as latin-1 text.
    **dict.fromkeys(("SHORT_BINSTRING", "BINSTRING"), lambda machine, arg: machine.push(arg.encode("latin-1"))),
    **dict.fromkeys(("BININT", "BININT1", "BININT2"), _Machine.push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, arg: machine.push(machine.memo[arg])),
    "GLOBAL": _Machine.push_global,
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.last(3))),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "STOP": lambda machine, _: machine.stop(),
}


def read_pickle(data: bytes, where: str) -> dict[bytes, Value]:
    """Return the dictionary that a protocol-2 pickle of CIFAR-10's python archive, at most 40 MiB, holds.

    Its keys are byte strings (as of ``pickle.load(..., encoding="bytes")``), its values plain types or read-only uint8
    arrays. ``where`` is the file's name in messages. Raise DataError for other opcodes, globals or dtypes, wrong sizes,
    and bytes that are missing or left over.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: {len(data)} bytes; a batch has at most {MAX_BYTES}")
    if not data.startswith(b"\x80\x02"):
        raise DataError(f"{where}: not a pickle of protocol 2")
    stream, machine = io.BytesIO(data), _Machine()
    stream.seek(2)
    position = 2
    try:
        for name, arg in _opcodes(stream):
            machine.step(name, arg)
            position = stream.tell()
    except _RefusedError as error:
        raise DataError(f"{where}: the pickle {error} (at byte {position})") from None
    except ValueError as error:  # an argument that is truncated, or longer than the file
        raise DataError(f"{where}: not a whole pickle after byte {position}: {printable(str(error))}") from None
    if position != len(data):
        raise DataError(f"{where}: {len(data) - position} bytes after the end of the pickle")
    result = machine.pop()
    if type(result) is not dict:
        raise DataError(f"{where}: the pickle holds no dictionary")
    return result


def _two_lines(stream: io.BytesIO) -> str:
    """Return module and name of a global, separated by a blank."""
    lines = stream.readline(), stream.readline()
    if not all(line.endswith(b"\n") for line in lines):
        raise _RefusedError("is truncated")
    return " ".join(line[:-1].decode("latin-1") for line in lines)


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, object]]:
    """Yield name and argument of each opcode up to STOP; raise for an unlisted one before its argument is read."""
    for _ in range(MAX_OPCODES):
        code = stream.read(1)
        opcode = _BY_CODE.get(code.decode("latin-1"))
        if opcode is None:
            raise _RefusedError(f"has no opcode {code.hex()}" if code else "is truncated")
        if opcode.name not in _OPCODES:
            raise _RefusedError(f"has the opcode {opcode.name}, which is not allowed here")
        # pickletools decodes escapes in a global's name, and pickle does not.
        reader = _two_lines if opcode.name == "GLOBAL" else None if opcode.arg is None else opcode.arg.reader
        yield opcode.name, None if reader is None else reader(stream)
        if opcode.name == "STOP":
            return
    raise _RefusedError(f"has more than {MAX_OPCODES} opcodes")
