"""The torch front door behind the kernels' interface, so that every case of the core runs through it."""

from __future__ import annotations

import numpy as np
import torch

import softnll.torch as snt
from softnll._kernels.cpu import interface as cpu
from softnll.torch._base.views import as_array, as_tensor

NOBODY = -(2**40)  # a Problem's row weights are 0 for what is ignored; what its targets hold there is no matter


class TorchKernels:
    """Problems as tensors, through the public functions; forward and backward through the operators of torch.compile.

    What torch's signatures do not have (masks, temperatures of softmax, soft targets of nll_loss) is an error: tests of
    it have the mark `needs`.
    """

    total = staticmethod(cpu.total)

    def softmax(self, problem, out):
        out[...] = as_array(snt.softmax(normalised(problem), 1))

    def log_softmax(self, problem, out):
        out[...] = as_array(snt.log_softmax(normalised(problem), 1))

    def logsumexp(self, problem):
        return as_array(snt.logsumexp(normalised(problem), 1)).astype(np.float64)

    def losses(self, problem):
        x, y, options = arguments(problem)
        return as_array(snt.cross_entropy(x, y, reduction="none", **options)).astype(np.float64)

    def forward_backward(self, problem, out):
        losses = self.losses(problem)
        x, y, options = arguments(problem)
        x.requires_grad_()
        scale = 1 / problem.divisor if problem.divisor > 0 else 0.0
        weight = torch.ones(len(x), dtype=torch.float64) if problem.s is None else options["sample_weight"]
        options["sample_weight"] = weight * scale
        snt.cross_entropy(x, y, reduction="sum", **options).backward()
        out[...] = as_array(x.grad)
        return losses

    def forward(self, problem):
        loss, m, r = torch.ops.softnll.cross_entropy(*operands(problem))
        return tuple(as_array(each).astype(np.float64) for each in (loss, m, r))

    def backward(self, problem, m, r, out):
        scale = 1 / problem.divisor if problem.divisor > 0 else 0.0
        upstream = torch.full((len(problem.x),), scale, dtype=torch.float64)
        grad = torch.ops.softnll.cross_entropy_backward(upstream, tensor(m), tensor(r), *operands(problem))
        out[...] = as_array(grad)

    def pick(self, problem):
        if problem.q is not None:
            raise NotImplementedError("torch's nll_loss has no soft targets")
        x, y, options = arguments(problem)
        known = {name: options[name] for name in ("weight", "sample_weight")}
        known["ignore_index"] = problem.objective.ignore_index
        return as_array(snt.nll_loss(x, y, reduction="none", **known)).astype(np.float64)


def tensor(array):
    """Return an array of any strides as a tensor, or None."""
    return None if array is None else as_tensor(np.array(array, order="C"))


def normalised(problem):
    """Return the logits of a softmax."""
    if problem.where is not None or problem.tau is not None or problem.objective.temperature != 1:
        raise NotImplementedError("torch's softmax has neither masks nor temperatures")
    return tensor(problem.x)


def arguments(problem):
    """Return input, target and options of a loss."""
    if problem.where is not None:
        raise NotImplementedError("torch's cross_entropy has no masks")
    objective = problem.objective
    return (
        tensor(problem.x),
        tensor(problem.y if problem.q is None else problem.q),
        {
            "weight": tensor(problem.w),
            "sample_weight": tensor(problem.s),
            "temperature": objective.temperature if problem.tau is None else tensor(problem.tau),
            "label_smoothing": objective.label_smoothing,
            "z_loss": objective.z_loss,
            "softcap": objective.softcap,
            "ignore_index": NOBODY,
            "check": False,
        },
    )


def operands(problem):
    """Return what the operator takes, in its order."""
    x, y, given = arguments(problem)
    tau = given["temperature"]
    number, tau = (tau, None) if isinstance(tau, float) else (1.0, tau)
    weights = given["weight"], given["sample_weight"], tau
    options = given["label_smoothing"], given["z_loss"], given["softcap"], number, given["ignore_index"]
    return x, y, *weights, *options, "none", 1, False
