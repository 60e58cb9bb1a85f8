"""Triton's interpreter, mended where devices do otherwise."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_cast, _call = interpreter.InterpreterBuilder.cast_impl, interpreter.GridExecutor.__call__
_patch, _patched = interpreter._patch_lang, set()


def rounded(self, source, target):
    """Round float32 to bfloat16; the interpreter cuts digits off."""
    if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
        return interpreter.TensorHandle(source.data.astype(ml_dtypes.bfloat16).view(np.uint16), target.scalar)
    return _cast(self, source, target)


def once(function):
    """Put the interpreter's functions in place of the language's once a launch, not at each call of a function."""
    if id(function.__globals__) in _patched:
        return None
    _patched.add(id(function.__globals__))
    return _patch(function)


def unwarned(self, *args, **kwargs):
    """Run without the warnings that NumPy has and devices have not."""
    _patched.clear()
    with np.errstate(all="ignore"):
        return _call(self, *args, **kwargs)


interpreter.InterpreterBuilder.cast_impl = rounded
interpreter.GridExecutor.__call__ = unwarned
interpreter._patch_lang = once
