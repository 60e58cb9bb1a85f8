"""The Triton kernels behind the kernels' interface, in Triton's interpreter: their logic, where there is no GPU."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import torch
import triton

import interpreter  # noqa: F401 - mends Triton's
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cuda import interface as cuda
from softnll.torch._base.views import as_array, as_tensor

LARGEST = 1 << 16  # entries of a tile


def coarse(n_rows, classes, *_):
    """Return a tile for the interpreter, which takes 50 ms a program of any size; no device has such registers."""
    block = max(16, triton.next_power_of_2(classes))
    if block > LARGEST:
        return cuda.Tile(1, LARGEST, 8, 2)
    return cuda.Tile(min(LARGEST // block, triton.next_power_of_2(n_rows)), block, 4, 1)


class TritonKernels:
    """Problems as tensors on the CPU, for the interpreter. CUDA has no masks: tests of them have the mark `needs`."""

    total = staticmethod(cpu.total)
    kernels = cuda
    interpreted = True

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
            raise NotImplementedError("torch's nll_loss has no soft targets")
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
        raise NotImplementedError("CUDA's kernels have no masks, as torch's functions have not")

    def convert(value):
        return as_tensor(np.array(value, order="C")) if isinstance(value, np.ndarray) else value

    objective = problem.objective
    if objective is not None and objective.ignore_index >= problem.x.shape[1]:  # rows of weight 0 are ignored already,
        objective = replace(objective, ignore_index=-100)  # and what is out of range may have become this number
    given = {each.name: convert(getattr(problem, each.name)) for each in fields(problem)}
    return replace(problem, **given | {"objective": objective})
