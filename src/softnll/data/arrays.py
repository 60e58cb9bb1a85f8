"""The .npy format: a header that is checked against the file's size, then the numbers, memory-mapped if many."""

from __future__ import annotations

import math
import os
import tokenize
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from softnll.data.dataset import DataError, is_images
from softnll.data.text import place, printable
from softnll.data.text_arrays import require_unicode

__all__ = ["MAP_FROM", "NPY_MAGIC", "as_images", "as_inputs", "read_header", "read_npy"]

NPY_MAGIC = b"\x93NUMPY"
MAP_FROM = 64 << 20  # bytes; smaller files are read: a map keeps the file open and loads it page by page
MAX_TEXT = 1024  # bytes that a label of text may have

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_KINDS = "biufUS"
_BLOCK = 1 << 22  # values whose finiteness is checked at a time


def read_header(
    stream: BinaryIO, where: str, *, kinds: str = _KINDS, max_item: int = MAX_TEXT
) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return shape, whether the order is Fortran's, and dtype, of the .npy file that starts at the stream.

    The dtype is one of these kinds, and its items have at most ``max_item`` bytes. Everything else is a DataError:
    other versions than 1 and 2, objects, records.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers that Python 2 wrote; they are valid
            version = npy.read_magic(stream)
            # Versions 1.0 and 2.0 only: what 3.0 adds are records with names of fields.
            shape, fortran, dtype = _READERS[version](stream)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, KeyError, EOFError) as error:
        raise DataError(f"{where}: not a readable .npy header: {printable(str(error))}") from None
    except (OverflowError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: not a readable .npy header: {type(error).__name__}") from None
    if dtype.hasobject or dtype.kind not in kinds or dtype.subdtype is not None or dtype.itemsize > max_item:
        raise DataError(f"{where}: holds {printable(str(dtype))}; allowed are real numbers and short text, no objects")
    if dtype.itemsize == 0 or len(shape) > 8 or not all(0 <= size < 1 << 62 for size in shape):
        raise DataError(f"{where}: shape {printable(str(shape))} with items of {dtype.itemsize} bytes is no array")
    return shape, fortran, dtype


def read_npy(path: Path) -> NDArray[np.generic]:
    """Return the array of a .npy file whose size fits its header; one of 64 MiB or more is mapped (read only)."""
    where = place(path)
    with path.open("rb") as file:
        shape, fortran, dtype = read_header(file, where)
        offset, size = file.tell(), os.fstat(file.fileno()).st_size
        expected = math.prod(shape) * dtype.itemsize
        if size - offset != expected:
            raise DataError(f"{where}: {size - offset} bytes after the header, which promises {expected}")
        order = "F" if fortran else "C"
        if expected >= MAP_FROM:
            values = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
        else:
            flat = np.fromfile(file, dtype=dtype, count=math.prod(shape))
            if flat.size != math.prod(shape):
                raise DataError(f"{where}: truncated while it was read")
            values = flat.reshape(shape, order=order)  # type: ignore[call-overload]
    require_unicode(values, where)
    return values  # type: ignore[no-any-return]


def as_images(array: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    """Return an array as images ``(N, H, W)`` or ``(N, H, W, 3)``; return None if it does not hold images.

    Images of shape ``(N, H, W, 1)`` lose the last axis.
    """
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    return array if is_images(array) else None  # type: ignore[return-value]


def as_inputs(array: NDArray[np.generic], where: str) -> NDArray[np.generic]:
    """Return an array as a `Dataset` holds inputs.

    uint8 of ``(N, H, W)``, ``(N, H, W, 1)`` or ``(N, H, W, 3)`` are images. Everything else becomes ``(N, F)``
    features: float32 and float64 stay as they are; float16, bool and integers of up to 16 bits become float32, wider
    ones float64. Raise DataError for fewer dimensions than two, and for what is not finite real numbers.
    """
    if array.ndim < 2 or array.dtype.kind not in "biuf":
        raise DataError(f"{where}: inputs of shape {array.shape}, {array.dtype.name}; expected real numbers, (N, F)")
    images = as_images(array)
    if images is not None:
        return images
    rows = array.reshape(len(array), math.prod(array.shape[1:]))
    if rows.dtype.kind == "f" and rows.dtype.itemsize > 8:
        raise DataError(f"{where}: inputs of type {rows.dtype.name}; float64 is the widest")
    narrow = np.float32 if rows.dtype.itemsize <= 2 or rows.dtype == np.float32 else np.float64
    wanted = rows.dtype.newbyteorder("=") if rows.dtype.kind == "f" and rows.dtype.itemsize >= 4 else np.dtype(narrow)
    rows = rows.astype(wanted, copy=False)
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        bad = np.argwhere(~np.isfinite(rows[start : start + step]))
        if len(bad):
            row, column = int(bad[0][0]) + start, int(bad[0][1])
            raise DataError(
                f"{where}: {rows[row, column]} in row {row}, column {column} (0 first); values must be finite"
            )
    return rows
