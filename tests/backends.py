"""The backends that every test of the core runs on, behind the one interface of the kernels."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace

import array_api_strict
import numpy as np

from softnll._core.options import CrossEntropy
from softnll._kernels import reference as fallback
from softnll._numpy.backend import NUMPY

NAMES = ("compiled", "equation", "strict", "reference", "torch", "triton", "jax", "jax-jit")
LACKS = {  # what the mark `needs` names, and the backends that do not have it, as torch's signatures do not
    "masks": {"torch", "triton"},
    "temperatures of softmax": {"torch"},
    "soft targets of nll_loss": {"torch", "triton"},
    "the whole range of float64": {"torch", "triton", "jax", "jax-jit"},
    "subnormal numbers": {"jax", "jax-jit"},  # XLA flushes them to 0
    # The equation takes each row as a whole; JAX's programs call the kernels of "compiled".
    "blocks of classes": {"equation", "strict", "reference", "jax", "jax-jit"},
    # All run the pairs. These are the equation on other arrays, and Triton's kernels: test_cuda_kernels.py has threes.
    "every combination": {"strict", "reference", "triton", "jax", "jax-jit"},
}
# JAX compiles each case anew, for up to a second: each type runs either operation by operation or as one program.
TYPES = {"jax": {"float64", "bfloat16"}, "jax-jit": {"float32", "float16"}}
USERS = (
    "_numpy.functional",
    "_numpy.normaliser",
    "_numpy.output",
    "_inspection.calibration",
)  # the modules that select kernels


class StrictKernels:
    """The equation on arrays of array_api_strict, which has nothing that the array API does not."""

    def __getattr__(self, name):
        function = getattr(fallback, name)
        return function if name == "total" else lambda problem, *args: function(strict(problem), *args)


def strict(problem):
    """Return the problem with its arrays in array_api_strict; half types widened, which is exact."""

    def convert(value):
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype.name in ("float16", "bfloat16"):
            value = value.astype(np.float32)
        return array_api_strict.asarray(value.copy())

    return replace(problem, **{each.name: convert(getattr(problem, each.name)) for each in fields(problem)})


def get(name):
    """Return a kernels module or what stands for one."""
    if name == "compiled":
        return importlib.import_module("softnll._kernels.cpu.interface")
    if name == "reference":
        return importlib.import_module("reference_backend").ReferenceKernels()
    if name == "torch":
        return importlib.import_module("torch_backend").TorchKernels()
    if name == "triton":
        return importlib.import_module("triton_backend").TritonKernels()
    if name in ("jax", "jax-jit"):
        return importlib.import_module("jax_backend").JaxKernels(jitted=name == "jax-jit")
    return fallback if name == "equation" else StrictKernels()


def patch(monkeypatch, name):
    """Let every front door use this backend."""
    backend = get(name)
    if name == "triton":
        monkeypatch.setattr(backend.kernels, "tile_of", importlib.import_module("triton_backend").coarse)
    for user in USERS:
        monkeypatch.setattr(importlib.import_module(f"softnll.{user}"), "kernels", lambda: backend)
    monkeypatch.setattr(NUMPY, "kernels", lambda: backend)  # not CPU tensors' backend, which "torch" goes to
    return backend


__all__ = ["LACKS", "NAMES", "TYPES", "CrossEntropy", "get", "patch", "strict"]
