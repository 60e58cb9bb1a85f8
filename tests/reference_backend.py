"""The reference backend on torch tensors of the CPU, behind the interface that the tests of the core call."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields, replace

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from softnll._core import arithmetic
from softnll._kernels import reference
from softnll.torch._base.views import as_array, as_tensor


class ReferenceKernels:
    """Problems of arrays as Problems of tensors; what is written and returned as arrays again."""

    def softmax(self, problem, out):
        out[...] = written(problem, reference.softmax)[0]

    def log_softmax(self, problem, out):
        out[...] = written(problem, reference.log_softmax)[0]

    def logsumexp(self, problem):
        return as_array(reference.logsumexp(of_tensors(problem)))

    def losses(self, problem):
        return as_array(reference.losses(of_tensors(problem)))

    def forward(self, problem, out=None):
        if out is None:
            return tuple(as_array(each) for each in reference.forward(of_tensors(problem)))
        out[...], found = written(problem, reference.forward)
        return tuple(as_array(each) for each in found)

    def forward_backward(self, problem, out):
        out[...], losses = written(problem, reference.forward_backward)
        return as_array(losses)

    def backward(self, problem, m, r, out):
        given = as_tensor(m), as_tensor(r)
        out[...] = written(problem, lambda part, grad: reference.backward(part, *given, grad))[0]

    def pick(self, problem):
        return as_array(reference.pick(of_tensors(problem)))

    def total(self, values):
        return reference.total(as_tensor(values)).item()


def written(problem, fill):
    """Return what a function wrote to memory of the logits' shape and type, and what it returned."""
    given = of_tensors(problem)
    out = torch.full(problem.x.shape, -7.0).to(given.x.dtype)
    result = fill(given, out)
    return as_array(out), result


def of_tensors(problem):
    """Return the Problem with tensors for arrays."""

    def convert(value):
        return as_tensor(np.array(value, order="C")) if isinstance(value, np.ndarray) else value

    # A row weight of 0 says already what is ignored; beyond the classes a target may be any number, this one as well.
    objective = problem.objective
    if objective is not None and objective.ignore_index >= problem.x.shape[1]:
        objective = replace(objective, ignore_index=-(2**40))
    given = {each.name: convert(getattr(problem, each.name)) for each in fields(problem)}
    return replace(problem, **given | {"objective": objective})


class _NoFloat64(TorchDispatchMode):
    """Raise where an operation returns float64, as a device without that type does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                raise TypeError(f"{func}: this device has no float64")
        return result


@contextmanager
def without_float64():
    """Let the CPU be a device of torch that has no float64."""
    before, arithmetic.WITHOUT_FLOAT64 = arithmetic.WITHOUT_FLOAT64, frozenset({"cpu"})
    try:
        with _NoFloat64():
            yield
    finally:
        arithmetic.WITHOUT_FLOAT64 = before
