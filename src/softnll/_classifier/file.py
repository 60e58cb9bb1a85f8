"""A fitted classifier as a file: an .npz of plain arrays, whose sizes are checked before they are read."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from softnll._classifier.recipe import FeatureRecipe
from softnll.data.arrays import NPY_MAGIC, read_header
from softnll.data.atomic import write_whole

MAX_BYTES = 4 << 30
VERSION = 1
_NEEDED = {"about", "coef", "intercept", "classes"}
_ALLOWED = {"about": "u", "coef": "f", "intercept": "f", "classes": "biufU", "feature_names": "U"}
_MAX_DIRECTORY = 1 << 16  # bytes of names, dates and headers of a zip with five members
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip: the same model gives the same bytes


def write_model(path: str | PathLike[str], model: Any, more: dict[str, Any]) -> None:
    """Write a fitted SoftmaxClassifier, whole or not at all."""
    classes = np.asarray(model.classes_)
    about = {
        "format": "softnll.SoftmaxClassifier",
        "version": VERSION,
        "parameters": {name: _plain(value, name) for name, value in model.get_params(deep=False).items()},
        "n_iter": int(model.n_iter_),
        "object_classes": classes.dtype.hasobject,
        **more,
    }
    text = json.dumps(about, sort_keys=True, allow_nan=True).encode()
    members = {
        "about": np.frombuffer(text, np.uint8),
        "coef": np.asarray(model.coef_),
        "intercept": np.asarray(model.intercept_),
        "classes": _as_text(classes, "classes_") if classes.dtype.hasobject else classes,
    }
    if hasattr(model, "feature_names_in_"):
        members["feature_names"] = _as_text(model.feature_names_in_, "feature_names_in_")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            if array.dtype.kind not in _ALLOWED[name]:
                raise TypeError(f"{name} has dtype {array.dtype}, which a model file does not hold")
            content = io.BytesIO()
            little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            npy.write_array(content, little, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), content.getvalue())
    write_whole(Path(path), stream.getvalue())


def read_model(path: str | PathLike[str], *, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters and the fitted attributes of the classifier in a file, each by name.

    Raise ValueError in one line for a file larger than ``max_bytes``, or one that `write_model` cannot have written.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise ValueError(f"{path}: {size} bytes; allowed: {max_bytes} (max_bytes)")
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = _arrays(archive, size)
            return _interpret(arrays)
        except (
            *(ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError, EOFError),
            *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError),
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: not a model that can be read: {reason or type(error).__name__}") from None


def _arrays(archive: zipfile.ZipFile, size: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file of ``size`` bytes by name, after checking the names and sizes of its members."""
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(infos) != len(archive.infolist()) or not _NEEDED <= infos.keys() <= _ALLOWED.keys():
        raise ValueError(f"its members are {sorted(info.filename for info in archive.infolist())[:8]}")
    # Stored, not compressed, so that a member cannot be larger than the file; together, so that none is counted twice.
    for name, info in infos.items():
        if not 0 <= info.header_offset < size:
            raise ValueError(f"{name} begins outside the file")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise ValueError(f"{name} is compressed or encrypted")
    total = sum(info.file_size for info in infos.values())
    if not size - _MAX_DIRECTORY <= total <= size:
        raise ValueError(f"its members promise {total} bytes, the file has {size}")
    return {name: _member(archive, info, name) for name, info in infos.items()}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    """Return one array; its bytes are read only if its header fits its size."""
    with archive.open(info) as stream:
        if stream.read(8) != NPY_MAGIC + b"\x01\x00":
            raise ValueError(f"{name} is not an array of .npy version 1.0")
        stream.seek(0)
        shape, fortran, dtype = read_header(stream, name, kinds=_ALLOWED[name], max_item=info.file_size)  # type: ignore[arg-type]
        header = stream.tell()
        if fortran or len(shape) != (2 if name == "coef" else 1):
            raise ValueError(f"{name} has shape {shape}")
        if header + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(
                f"{name} has {info.file_size - header} bytes, shape {shape} of {dtype} takes another number"
            )
        content = stream.read()  # to the end, where the checksum is compared
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))  # an array of its own


def _interpret(arrays: dict[str, NDArray[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and attributes, if the arrays fit each other."""
    about = json.loads(arrays["about"].tobytes())
    _check_about(about)
    _check_arrays(arrays)
    classes, names = arrays["classes"], arrays.get("feature_names")
    if about["object_classes"] and classes.dtype.kind != "U":
        raise ValueError("its classes should be text")
    attributes = {
        "coef_": arrays["coef"],
        "intercept_": arrays["intercept"],
        "classes_": classes.astype(object) if about["object_classes"] else classes,
        "n_features_in_": arrays["coef"].shape[1],
        "n_iter_": about["n_iter"],
        "_weight_seen": float(about["weight_seen"]),
    }
    if about.get("recipe") is not None:
        attributes["recipe_"] = FeatureRecipe.from_plain(about["recipe"], *arrays["coef"].shape)
    if names is not None:
        attributes["feature_names_in_"] = names.astype(object)
    parameters = about["parameters"].items()  # a dict is a list of pairs there
    return {name: dict(value) if isinstance(value, list) else value for name, value in parameters}, attributes


def _check_about(about: Any) -> None:
    """Raise unless the description is of this format and version."""
    if not isinstance(about, dict) or about.get("format") != "softnll.SoftmaxClassifier":
        raise ValueError("it does not say that it holds a softnll.SoftmaxClassifier")
    if about.get("version") != VERSION:
        raise ValueError(f"its version is {about.get('version')!r}; allowed: {VERSION}")
    kinds = {"parameters": dict, "object_classes": bool, "n_iter": int, "weight_seen": float}
    for name, kind in kinds.items():
        if type(about.get(name)) is not kind:
            raise ValueError(f"{name} is not there, or not a {kind.__name__}")
    if not 0 <= about["weight_seen"] < math.inf or about["n_iter"] < 0:
        raise ValueError("weight_seen or n_iter is out of range")


def _check_arrays(arrays: dict[str, NDArray[Any]]) -> None:
    """Raise unless shapes, types and values are those of a classifier."""
    coef, intercept, classes = arrays["coef"], arrays["intercept"], arrays["classes"]
    K, H = coef.shape
    if K < 2 or H < 1 or intercept.shape != (K,) or classes.shape != (K,):
        raise ValueError(
            f"coef {coef.shape}, intercept {intercept.shape} and classes {classes.shape} do not fit each other"
        )
    for name in ("coef", "intercept"):
        if arrays[name].dtype not in (np.float32, np.float64) or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is {arrays[name].dtype} or not finite; allowed: finite float32 or float64")
    if not (classes[:-1] < classes[1:]).all():
        raise ValueError("its classes are not sorted, or one is there twice")
    if "feature_names" in arrays and arrays["feature_names"].shape != (H,):
        raise ValueError(f"{len(arrays['feature_names'])} feature names for {H} features")


def _as_text(values: Any, name: str) -> NDArray[np.str_]:
    """Return objects as an array of text; raise TypeError where one is no text, or NumPy would change it."""
    items = list(values)
    if not all(isinstance(item, str) for item in items):
        raise TypeError(f"{name} holds objects that are not text; a model file holds numbers or text")
    text = np.array(items, np.str_)
    if text.tolist() != items or text.itemsize == 0:
        raise TypeError(f"{name} holds text that is empty or ends in a zero character, which NumPy would lose")
    return text


def _plain(value: Any, name: str) -> Any:
    """Return a parameter in the types of JSON: a number, text, True, None, or a dict as a list of pairs."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return [[_plain(key, name), _plain(each, name)] for key, each in value.items()]
    if value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(f"{name} is a {type(value).__name__}; a model file holds numbers, text and dicts of them")
    return value
