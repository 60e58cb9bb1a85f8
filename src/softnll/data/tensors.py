"""Tensors from files: .safetensors, memory-mapped; .pt that holds nothing but tensors and plain containers."""

from __future__ import annotations

import json
import math
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.data.arrays import MAP_FROM
from softnll.data.dataset import DataError
from softnll.data.labels import choose
from softnll.data.text import place, printable

__all__ = ["read_safetensors", "read_torch"]

MAX_HEADER = 1 << 24  # bytes of JSON, which take about 30 times as many in memory
MAX_VIEW = 1 << 26  # bytes of a tensor that repeats the numbers in its file
MOST_NESTED = 8  # dicts within dicts
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip


def read_safetensors(path: Path, wanted: tuple[str, ...], others: tuple[str, ...] = ()) -> NDArray[Any]:
    """Return one tensor of a .safetensors file, mapped: the format is a length, JSON, and the numbers."""
    where = place(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MAX_HEADER, size - 8):
            raise DataError(f"{where}: a header of {length} bytes in a file of {size}")
        try:
            header = json.loads(file.read(length))
            tensors = {name: each for name, each in header.items() if name != "__metadata__"}
        except (ValueError, AttributeError, RecursionError):
            raise DataError(f"{where}: its header is not that of safetensors") from None
    name = choose(list(tensors), wanted, where, others)
    try:
        kind, shape = tensors[name]["dtype"], tuple(tensors[name]["shape"])
        start, end = tensors[name]["data_offsets"]
        whole = all(type(each) is int and 0 <= each < 1 << 62 for each in (*shape, start, end)) and len(shape) <= 8
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole or not isinstance(kind, str):
        raise DataError(f"{where}: {printable(name)} is not described as a tensor")
    dtype = _bfloat16(where) if kind == "BF16" else np.dtype(_TYPES[kind]) if kind in _TYPES else None
    if dtype is None:
        raise DataError(f"{where}: {printable(name)} has type {printable(kind)}; allowed: {', '.join(_TYPES)}, BF16")
    count = math.prod(shape)
    if end - start != count * dtype.itemsize or 8 + length + end > size:
        raise DataError(f"{where}: {printable(name)} of shape {shape} does not fit its {end - start} bytes")
    if count == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=8 + length + start, shape=shape)


def _bfloat16(where: str) -> np.dtype[Any]:
    """Return NumPy's bfloat16, which is in a package of its own."""
    try:
        import ml_dtypes  # noqa: PLC0415 - only bfloat16 needs it
    except ImportError:
        raise DataError(f"{where}: bfloat16 needs ml_dtypes: pip install 'softnll[torch]'") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def read_torch(path: Path, wanted: tuple[str, ...], others: tuple[str, ...] = ()) -> NDArray[Any]:
    """Return one tensor of a .pt file, whose pickle may hold nothing but tensors and plain containers."""
    where = place(path)
    try:
        import torch  # noqa: PLC0415 - only .pt files need it
    except ImportError:
        raise DataError(f"{where}: .pt files need PyTorch: pip install 'softnll[torch]'") from None
    _require_stored(path, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=path.stat().st_size >= MAP_FROM)
    except Exception as error:  # noqa: BLE001 - torch raises many types for broken or malicious files
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__, 160)
        raise DataError(f"{where}: not a file of tensors: {reason}") from None
    if isinstance(held, dict):
        tensors = dict(_tensors(held, torch.Tensor))
        held = tensors[choose(list(tensors), wanted, where, others)]
    if not isinstance(held, torch.Tensor) or not _is_dense(held, torch.strided):
        raise DataError(f"{where}: holds {_described(held)}; expected a dense tensor, or a dict of them")
    nbytes = held.numel() * held.element_size()
    if nbytes > max(MAX_VIEW, held.untyped_storage().nbytes()):
        raise DataError(f"{where}: a tensor of shape {printable(str(tuple(held.shape)))} repeats its numbers")
    try:
        held = held.detach().resolve_neg()
        if held.dtype == torch.bfloat16:
            return held.contiguous().view(torch.int16).numpy().view(_bfloat16(where))
        array: NDArray[Any] = held.numpy()
    except (TypeError, RuntimeError, NotImplementedError):
        raise DataError(f"{where}: holds {_described(held)}, which NumPy does not have") from None
    return array


def _is_dense(held: Any, strided: object) -> bool:
    """Whether a tensor has a real number in memory for each entry."""
    plain = held.layout == strided and not held.is_quantized and not held.is_complex() and not held.is_nested
    return plain and held.device.type == "cpu"


def _described(held: Any) -> str:
    """Return what a file holds, as messages show it."""
    if not hasattr(held, "layout"):
        return f"a {printable(type(held).__name__, 40)}"
    kind = ", quantised" * held.is_quantized + ", nested" * held.is_nested + ", complex" * held.is_complex()
    device = "" if held.device.type == "cpu" else f" on the device {held.device.type}"
    return f"a tensor of {held.dtype}, {held.layout}{kind}{device}"


def _require_stored(path: Path, where: str) -> None:
    """Raise DataError for a zip whose members are compressed: PyTorch stores them as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(info.file_size > info.compress_size for info in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError, struct.error):
        return  # older files are no zip; PyTorch says what is wrong with others
    if packed:
        raise DataError(f"{where}: not a file of tensors: its members are compressed")


def _tensors(held: dict[Any, Any], kind: type, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of nested dicts under names such as ``outputs.logits``."""
    for name, each in held.items():
        if isinstance(each, kind):
            yield f"{prefix}{name}", each
        elif isinstance(each, dict) and depth < MOST_NESTED:
            yield from _tensors(each, kind, f"{prefix}{name}.", depth + 1)
