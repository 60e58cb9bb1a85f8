"""A function that XLA calls on the CPU, and that calls the compiled kernels: XLA's C interface read by ctypes.

No C compiler is needed, and no array copied.
"""

from __future__ import annotations

import atexit
import ctypes as ct
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from softnll._kernels.cpu.call_frame import (
    Api,
    Buffer,
    Buffers,
    Call,
    ErrorArguments,
    Extension,
    MetadataExtension,
    Text,
)

Function = Callable[[str, list[Any], list[Any]], None]  # of a key, inputs, and outputs, which it fills

_Pointer, _Long = ct.c_void_p, ct.c_int64
_TYPES = {
    1: np.dtype(np.bool_),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    10: np.dtype(np.float16),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
    16: np.dtype(ml_dtypes.bfloat16),
}
_METADATA, _INTERNAL = 1, 13  # XLA_FFI_Extension_Metadata, XLA_FFI_Error_Code_INTERNAL


def _arrays(buffers: Buffers) -> list[Any]:
    """Return XLA's buffers as NumPy arrays on the same memory."""
    found = []
    for at in range(buffers.length):
        buffer = Buffer.from_address(buffers.items[at])
        shape, dtype = tuple(buffer.dims[: buffer.rank]), _TYPES[buffer.dtype]
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = (ct.c_char * size).from_address(buffer.data)
        found.append(np.frombuffer(memory, dtype).reshape(shape))
    return found


def _handler(function: Function, asked: list[bool]) -> Callable[[int, int], None]:
    """Return what is called with the addresses of a call and of two words: 0 or an error's address; an interruption.

    It notes in ``asked`` that XLA knows this interface.
    """

    def handle(address: int, result: int) -> None:
        call, found = Call.from_address(address), (_Long * 2).from_address(result)
        if call.extension and Extension.from_address(call.extension).type == _METADATA:
            metadata, version = MetadataExtension.from_address(call.extension).metadata[0], call.api[0].version
            metadata.version.major, metadata.version.minor = version.major, version.minor
            # XLA appends fields; the last one known here, of the attributes, must be there.
            asked.append(version.major == 0 and call.size >= ct.sizeof(Call))
            found[0] = 0
            return
        try:
            text = Text.from_address(call.attributes.items[0])
            function(ct.string_at(text.start, text.length).decode(), _arrays(call.inputs), _arrays(call.outputs))
            found[0] = 0
        except BaseException as error:  # noqa: BLE001 - the caller of the compiled program gets it
            message = f"softnll: {type(error).__name__}: {error}".encode(errors="replace")
            found[0] = call.api[0].create_error(ct.byref(_error(message)))
            # XLA's error is of another type, after which programs may go on: the main thread is interrupted too.
            found[1] = isinstance(error, KeyboardInterrupt)

    return handle


def _error(message: bytes) -> ErrorArguments:
    return ErrorArguments(ct.sizeof(ErrorArguments), None, message, _INTERNAL)


_UNFINISHED = _error(b"softnll: Python raised an exception, printed before, where a kernel's call began")
_kept: list[Any] = []  # XLA keeps only the address of a function


_registered: dict[str, list[bool]] = {}  # for each name, whether XLA knows this interface, as often as it has asked
_lock = threading.Lock()  # XLA takes a name once


def register(name: str, function: Function, kernel: Callable[[], int] | None = None) -> bool:
    """Let compiled programs call a function under this name; return whether this version of XLA can.

    ``kernel`` returns the address of what is called first, without Python (``_entry``).
    """
    with _lock:
        if name not in _registered:
            _registered[name] = _asked(name, function, kernel)
    return bool(_registered[name]) and all(_registered[name])


def _asked(name: str, function: Function, kernel: Callable[[], int] | None) -> list[bool]:
    """Register a function; return the list of XLA's questions."""
    asked: list[bool] = []
    callback = ct.CFUNCTYPE(None, _Pointer, _Pointer)(_handler(function, asked))
    _kept.append(callback)
    try:
        entry = import_module("softnll.jax._entry").entry  # of llvmlite, which comes with Numba
        python, interrupt = (ct.cast(each, _Pointer).value for each in (callback, ct.pythonapi.PyErr_SetInterrupt))
        first = None if kernel is None else kernel()
        address = entry(python, ct.addressof(_UNFINISHED), Call.api.offset, Api.create_error.offset, interrupt, first)
        capsule: Any = jax.ffi.pycapsule
        jax.ffi.register_ffi_target(name, capsule(_Pointer(address)), platform="cpu")
    except Exception:  # noqa: BLE001 - of any kind: XLA's own operations compute the same
        return [False]
    atexit.unregister(_finish)  # once is enough
    atexit.register(_finish)
    return asked


def _finish() -> None:
    """Wait for programs in flight: at exit JAX would wait for them with Python's lock, which their calls need."""
    client = jax.local_devices(backend="cpu")[0].client
    # Nor may JAX wait for those not found here, which another thread has started and dropped: the client stays.
    ct.pythonapi.Py_IncRef(ct.py_object(client))
    arrays: Any = jax.live_arrays
    for array in arrays("cpu"):
        with suppress(Exception):  # the program's error, or the array is deleted
            array.block_until_ready()
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        x = jnp.ones((256, 256))
        (x @ x).block_until_ready()  # XLA runs a thread's programs one after the other: those whose results are dropped
