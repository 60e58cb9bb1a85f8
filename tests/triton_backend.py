"""The Triton kernels behind the kernels' interface, in Triton's interpreter: their logic, on a machine without a GPU."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import ml_dtypes
import triton.language as tl
from triton.runtime import interpreter

from softnll.kernels import cpu, cuda
from softnll.torch.views import as_array, as_tensor

_cast = interpreter.InterpreterBuilder.cast_impl


def _rounding(self, source, target):
    """Round float32 to bfloat16 as devices do; the interpreter cuts digits off."""
    if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
        return interpreter.TensorHandle(source.data.astype(ml_dtypes.bfloat16).view(np.uint16), target.scalar)
    return _cast(self, source, target)


interpreter.InterpreterBuilder.cast_impl = _rounding


class TritonKernels:
    """Problems as tensors on the CPU, for the interpreter. What CUDA has not (masks) is skipped."""

    total = staticmethod(cpu.total)

    kernels = cuda

    def softmax(self, problem, out):
        out[...] = self.written(problem, self.kernels.softmax)[0]

    def log_softmax(self, problem, out):
        out[...] = self.written(problem, self.kernels.log_softmax)[0]

    def logsumexp(self, problem):
        return as_array(self.kernels.logsumexp(on_device(problem)))

    def losses(self, problem):
        return as_array(self.kernels.losses(on_device(problem)))

    def forward(self, problem, out=None):
        if out is None:
            return tuple(as_array(each) for each in self.kernels.forward(on_device(problem)))
        out[...], found = self.written(problem, self.kernels.forward)
        return tuple(as_array(each) for each in found)

    def forward_backward(self, problem, out):
        out[...], losses = self.written(problem, self.kernels.forward_backward)
        return as_array(losses)

    def backward(self, problem, m, r, out):
        out[...] = self.written(
            problem, lambda part, grad: self.kernels.backward(part, as_tensor(m), as_tensor(r), grad)
        )[0]

    def pick(self, problem):
        if problem.q is not None:
            pytest.skip("torch's nll_loss has no soft targets")
        return as_array(self.kernels.pick(on_device(problem)))

    @staticmethod
    def written(problem, fill):
        """Return what was written to memory of the logits' shape and type, and what was returned."""
        given = on_device(problem)
        out = torch.full(problem.x.shape, -7.0).to(given.x.dtype)
        result = fill(given, out)
        return as_array(out), result


def on_device(problem):
    """Return the Problem with tensors for arrays."""
    if problem.where is not None:
        pytest.skip("CUDA's kernels have no masks, as torch's functions have not")

    def convert(value):
        return as_tensor(np.array(value, order="C")) if isinstance(value, np.ndarray) else value

    return replace(problem, **{each.name: convert(getattr(problem, each.name)) for each in fields(problem)})
