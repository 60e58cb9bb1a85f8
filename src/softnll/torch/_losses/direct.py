"""The loss of plain CPU tensors, in few steps: of a small batch, checks and general functions take most of the time.

Plain are float32 or float64 logits ``(N, C)`` with int64 targets ``(N,)``, both contiguous, outside transforms, traces
and modes. Any option but weights and temperatures of the rows is served.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from softnll._core.layout import Layout, layout_of
from softnll._core.problem import Problem, prepare_targets
from softnll._kernels.select import kernels
from softnll._numpy.output import reduce
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.autograd_base import immediate
from softnll.torch._base.backend import backend_of
from softnll.torch._base.cpu_backend import CpuBackend
from softnll.torch._losses.autograd import loss_gradients
from softnll.torch._losses.compute import Kept

__all__ = ["cross_entropy", "serves"]

_TYPES = (torch.float32, torch.float64)


def serves(x: Any, target: Any, weight: Any, temperature: Any = 1.0, *others: Any) -> bool:
    """Return whether the arguments are plain, the others None, and only autograd records the call."""
    return (
        not isinstance(temperature, Tensor)
        and all(each is None for each in others)
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None  # noqa: SLF001
        and _plain(x)
        and _plain(target)
        and x.dtype in _TYPES
        and target.dtype is torch.int64
        and _fit(x.shape, target.shape)
        and x.is_contiguous()
        and (weight is None or _plain_weight(weight, x))
        and isinstance(backend_of(x), CpuBackend)
        and torch._C._len_torch_dispatch_stack() == 0  # noqa: SLF001
        and not torch._C._are_functorch_transforms_active()  # noqa: SLF001
        and immediate()
    )


def _plain(x: Any) -> bool:
    """Return whether this is a dense tensor in the CPU's memory, of torch's own class."""
    return type(x) is Tensor and x.is_cpu and x.layout is torch.strided and not (x.is_nested or x.is_neg())


def _fit(shape: Any, targets: Any) -> bool:
    """Return whether these are the shapes of logits ``(N, C)``, with classes, and of N targets."""
    return len(shape) == 2 and len(targets) == 1 and shape[0] == targets[0] and bool(shape[1])


def _plain_weight(weight: Any, x: Tensor) -> bool:
    """Return whether class weights are constants of the logits' type."""
    return _plain(weight) and not weight.requires_grad and weight.dtype is x.dtype and weight.shape == x.shape[1:]


def cross_entropy(inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the loss, which autograd can differentiate."""
    x, target, weight, _, _ = inputs
    if x.requires_grad and torch.is_grad_enabled():
        value: Tensor = DirectCrossEntropy.apply(x, target, weight, settings)
        return value
    problem, layout = _problem(x, target, weight, settings)
    return _value(problem, layout, kernels().losses(problem))


def _problem(x: Tensor, target: Tensor, weight: Tensor | None, settings: LossSettings) -> tuple[Problem, Layout]:
    """Return the Problem and the layout of a loss, after checking the values of its targets."""
    array = x.detach().numpy()
    layout, w = layout_of(array.shape, 1), None if weight is None else weight.numpy()
    check, signed = settings.check is not False, settings.check is not True
    problem = prepare_targets(Problem(array, settings.objective), layout, target.numpy(), w, check=check, signed=signed)
    return problem, layout


def _value(problem: Problem, layout: Layout, losses: Any) -> Tensor:
    """Return the reduced loss."""
    return torch.from_numpy(np.asarray(reduce(problem, layout, losses)))


class DirectCrossEntropy(Function):
    """``EagerCrossEntropy`` of plain tensors ``(x, target, weight)`` and settings: the gradient is always kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, weight: Tensor | None, settings: LossSettings) -> Tensor:
        """Return the loss."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, target, weight, None, None)
        ctx.settings = settings
        problem, layout = _problem(x, target, weight, settings)
        gradient = np.empty(problem.x.shape, problem.x.dtype)
        losses, m, r = kernels().forward(problem, gradient)
        ctx.kept, ctx.gradient = Kept(problem, layout, m, r), torch.from_numpy(gradient)
        return _value(problem, layout, losses)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradient with respect to the logits."""
        to_input, _ = loss_gradients(ctx, upstream, for_input=True, for_target=False)
        return to_input, None, None, None
