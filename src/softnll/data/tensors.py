"""Tensors from files: .safetensors, mapped; .pt with nothing but tensors in it."""

from __future__ import annotations

import json
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll.data.dataset import DataError
from softnll.data.text import place, printable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["chosen", "read_safetensors", "read_torch"]

MAX_HEADER = 1 << 26  # bytes of JSON; safetensors itself refuses more than 100 MB
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip


def chosen(names: list[str], wanted: tuple[str, ...], where: str) -> str:
    """Return which of several arrays is meant: the one that is called so, or the only one."""
    lower = {name.lower(): name for name in names}
    for each in wanted:
        if each in lower:
            return lower[each]
    if len(names) == 1:
        return names[0]
    held = ", ".join(printable(name, 30) for name in names[:10]) or "nothing"
    raise DataError(f"{where}: holds {held}; expected one array, or one called {', '.join(wanted)}")


def read_safetensors(path: Path, wanted: tuple[str, ...]) -> NDArray[Any]:
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
    name = chosen(list(tensors), wanted, where)
    try:
        kind, shape = tensors[name]["dtype"], tuple(tensors[name]["shape"])
        start, end = tensors[name]["data_offsets"]
        whole = all(type(each) is int and 0 <= each < 1 << 62 for each in (*shape, start, end)) and len(shape) <= 8
    except (TypeError, KeyError, ValueError):
        whole = False
    if not whole or not isinstance(kind, str):
        raise DataError(f"{where}: {printable(name)} is not described as a tensor")
    dtype = _bfloat16() if kind == "BF16" else np.dtype(_TYPES[kind]) if kind in _TYPES else None
    if dtype is None:
        raise DataError(f"{where}: {printable(name)} has type {printable(kind)}; allowed: {', '.join(_TYPES)}, BF16")
    count = math.prod(shape)
    if end - start != count * dtype.itemsize or 8 + length + end > size:
        raise DataError(f"{where}: {printable(name)} of shape {shape} does not fit its {end - start} bytes")
    if count == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=8 + length + start, shape=shape)


def _bfloat16() -> np.dtype[Any]:
    """Return NumPy's bfloat16, which is a package of its own."""
    try:
        import ml_dtypes  # noqa: PLC0415 - only bfloat16 needs it
    except ImportError:
        raise DataError("bfloat16 needs ml_dtypes: pip install 'softnll[torch]'") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def read_torch(path: Path, wanted: tuple[str, ...]) -> NDArray[Any]:
    """Return one tensor of a .pt file, whose pickle may hold nothing but tensors and plain containers."""
    where = place(path)
    try:
        import torch  # noqa: PLC0415 - only .pt files need it
    except ImportError:
        raise DataError(f"{where}: .pt files need PyTorch: pip install 'softnll[torch]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=path.stat().st_size >= 1 << 26)
    except Exception as error:  # noqa: BLE001 - whatever a broken or hostile file makes torch raise
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__, 160)
        raise DataError(f"{where}: not a file of tensors: {reason}") from None
    if isinstance(held, dict):
        tensors = {str(name): each for name, each in held.items() if isinstance(each, torch.Tensor)}
        held = tensors[chosen(list(tensors), wanted, where)]
    if not isinstance(held, torch.Tensor) or held.layout != torch.strided or held.is_quantized or held.is_complex():
        raise DataError(f"{where}: holds a {type(held).__name__}; expected a dense tensor, or a dict of them")
    held = held.detach()
    if held.dtype == torch.bfloat16:
        return held.contiguous().view(torch.int16).numpy().view(_bfloat16())
    array: NDArray[Any] = held.numpy()
    return array
