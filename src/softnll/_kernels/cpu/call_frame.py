"""How XLA's compiled programs call a function: the C interface's structures, read by ctypes.

Source: ``xla/ffi/api/c_api.h`` in the folder ``jax.ffi.include_dir()``.
"""

from __future__ import annotations

import ctypes as ct

_Pointer, _Size, _Long = ct.c_void_p, ct.c_size_t, ct.c_int64


class Extension(ct.Structure):
    """What may follow a structure."""

    _fields_ = (("size", _Size), ("type", ct.c_int), ("next", _Pointer))


class _Version(ct.Structure):
    _fields_ = (("size", _Size), ("extension", _Pointer), ("major", ct.c_int), ("minor", ct.c_int))


class _Metadata(ct.Structure):
    _fields_ = (("size", _Size), ("version", _Version), ("traits", ct.c_uint32), ("state_type", _Long))


class MetadataExtension(ct.Structure):
    """What XLA asks when a function is registered."""

    _fields_ = (("base", Extension), ("metadata", ct.POINTER(_Metadata)))


class ErrorArguments(ct.Structure):
    """What an error is made of."""

    _fields_ = (("size", _Size), ("extension", _Pointer), ("message", ct.c_char_p), ("code", ct.c_int))


CreateError = ct.CFUNCTYPE(_Pointer, ct.POINTER(ErrorArguments))


class Api(ct.Structure):
    """XLA's version and functions."""

    _fields_ = (
        ("size", _Size),
        ("extension", _Pointer),
        ("version", _Version),
        ("internal", _Pointer),
        ("create_error", CreateError),
    )


class Buffer(ct.Structure):
    """An array, in one piece."""

    _fields_ = (
        ("size", _Size),
        ("extension", _Pointer),
        ("dtype", ct.c_int),
        ("data", _Pointer),
        ("rank", _Long),
        ("dims", ct.POINTER(_Long)),
    )


class Buffers(ct.Structure):
    """The arrays that are read, or those that are written."""

    _fields_ = (
        ("size", _Size),
        ("extension", _Pointer),
        ("length", _Long),
        ("types", _Pointer),
        ("items", ct.POINTER(_Pointer)),
    )


class _Attributes(ct.Structure):
    _fields_ = (
        ("size", _Size),
        ("extension", _Pointer),
        ("length", _Long),
        ("types", _Pointer),
        ("names", _Pointer),
        ("items", ct.POINTER(_Pointer)),
    )


class Text(ct.Structure):
    """An attribute that is a text."""

    _fields_ = (("start", _Pointer), ("length", _Size))


class Call(ct.Structure):
    """A call: arrays and attributes."""

    _fields_ = (
        ("size", _Size),
        ("extension", _Pointer),
        ("api", ct.POINTER(Api)),
        ("context", _Pointer),
        ("stage", ct.c_int),
        ("inputs", Buffers),
        ("outputs", Buffers),
        ("attributes", _Attributes),
    )
