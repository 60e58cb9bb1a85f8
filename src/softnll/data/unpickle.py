"""Read the pickles of CIFAR-10's python archive as data: dictionaries, lists, numbers, byte strings, byte arrays.

``pickle.load`` runs any function that the file names. Here a small stack machine reads the few opcodes that Python 2's
``cPickle`` wrote at protocol 2. It accepts three globals by their exact names, and represents them by
placeholders: no callable object ever reaches the stack, so a file can call nothing.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from softnll.data.dataset import DataError
from softnll.data.standins import GLOBALS, MAX_BYTES, ArrayStandIn, RefusedError, build, finished, reduce
from softnll.data.text import printable

__all__ = ["Value", "read_pickle"]

Value: TypeAlias = "int | bytes | list[object] | tuple[object, ...] | NDArray[np.uint8] | None"

MAX_OPCODES = 200_000  # an official batch has about 30 000


class _Machine:
    """The stack, its marks and the memo."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marked: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def step(self, name: str, arg: object) -> None:
        """Execute one opcode; raise for every opcode that is not listed."""
        match name, arg:
            case (("SHORT_BINSTRING" | "BINSTRING"), str()):
                self.stack.append(arg.encode("latin-1"))  # pickletools returns bytes as latin-1 text
            case (("BININT" | "BININT1" | "BININT2"), int()):
                self.stack.append(arg)
            case (("BINPUT" | "LONG_BINPUT"), int()):
                self.memo[arg] = self.top()
            case (("BINGET" | "LONG_BINGET"), int()) if arg in self.memo:
                self.stack.append(self.memo[arg])
            case "GLOBAL", str():
                if arg not in GLOBALS:
                    raise RefusedError(f"names {printable(arg)!r}, which is none of the allowed: {', '.join(GLOBALS)}")
                self.stack.append(GLOBALS[arg])
            case _, None if name in _PLAIN:
                _PLAIN[name](self)
            case _:
                raise RefusedError(f"has the opcode {name} with {printable(str(arg), 40)}, which is not allowed here")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def top(self) -> object:
        if not self.stack:
            raise RefusedError("reads from an empty stack")
        return self.stack[-1]

    def pop(self) -> object:
        value = self.top()
        del self.stack[-1]
        return value

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[object]:
        if not self.marked:
            raise RefusedError("reads from a mark that was not set")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def last(self, count: int) -> list[object]:
        return [self.pop() for _ in range(count)][::-1]

    def extend(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise RefusedError("appends to something that is not a list")
        target.extend(items)

    def update(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise RefusedError("sets items of something that is not a dictionary, or a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only byte strings are hashed: the hash of tuples that share their parts takes exponential time.
            if type(key) is not bytes or key in target:
                raise RefusedError("has a dictionary key that is not a byte string, or one key twice")
            target[key] = finished(value) if isinstance(value, ArrayStandIn) else value

    def reduce(self) -> None:
        function, arguments = self.last(2)
        self.push(reduce(function, arguments))

    def build(self) -> None:
        state = self.pop()
        build(self.top(), state)

    def stop(self) -> None:
        if self.marked or len(self.stack) != 1:
            raise RefusedError("ends with an unbalanced stack")


_BY_CODE = {info.code: info for info in pickletools.opcodes}

_STRINGS = ("SHORT_BINSTRING", "BINSTRING")
_NUMBERS = ("BININT", "BININT1", "BININT2")
_MEMO = ("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET")
_WITH_ARGUMENT = frozenset((*_STRINGS, *_NUMBERS, *_MEMO, "GLOBAL"))

#: The opcodes without an argument.
_PLAIN: dict[str, Callable[[_Machine], None]] = {
    "EMPTY_DICT": lambda machine: machine.push({}),
    "EMPTY_LIST": lambda machine: machine.push([]),
    "NONE": lambda machine: machine.push(None),
    "NEWTRUE": lambda machine: machine.push(True),
    "NEWFALSE": lambda machine: machine.push(False),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine: machine.push(tuple(machine.last(3))),
    "APPEND": lambda machine: machine.extend(machine.last(1)),
    "APPENDS": lambda machine: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine: machine.update(machine.last(2)),
    "SETITEMS": lambda machine: machine.update(machine.since_mark()),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "STOP": _Machine.stop,
}


def read_pickle(data: bytes, where: str) -> dict[bytes, Value]:
    """Return the dictionary that a protocol-2 pickle of CIFAR-10's python archive, at most 40 MiB, holds.

    Its keys are byte strings (as of ``pickle.load(..., encoding="bytes")``), its values plain types or read-only uint8
    arrays. ``where`` is the file's name in messages.

    Raises
    ------
    DataError
        For other opcodes, globals or dtypes, wrong sizes, and bytes that are missing or left over.
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
    except RefusedError as error:
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
        raise RefusedError("is truncated")
    return " ".join(line[:-1].decode("latin-1") for line in lines)


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, object]]:
    """Yield name and argument of each opcode up to STOP; raise for an unlisted one before its argument is read."""
    for _ in range(MAX_OPCODES):
        code = stream.read(1)
        opcode = _BY_CODE.get(code.decode("latin-1"))
        if opcode is None:
            raise RefusedError(f"has no opcode {code.hex()}" if code else "is truncated")
        if opcode.name not in _PLAIN and opcode.name not in _WITH_ARGUMENT:
            raise RefusedError(f"has the opcode {opcode.name}, which is not allowed here")
        # pickletools decodes escapes in a global's name, and pickle does not.
        reader = _two_lines if opcode.name == "GLOBAL" else None if opcode.arg is None else opcode.arg.reader
        yield opcode.name, None if reader is None else reader(stream)
        if opcode.name == "STOP":
            return
    raise RefusedError(f"has more than {MAX_OPCODES} opcodes")
