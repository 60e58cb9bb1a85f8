"""The linear layer with its loss on plain tensors, by the loop that serves NumPy arrays; not differentiable.

Tensors on CUDA devices go to the loop of ``cuda_linear``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from softnll.head import Head, Outputs, check_shapes
from softnll.layout import Layout
from softnll.objective import checked
from softnll.plan import NO_GRADIENTS, Plan, Wanted
from softnll.problem import Problem, as_temperatures, prepare_targets
from softnll.torch import devices
from softnll.torch.compute import Loss, scale
from softnll.torch.gemm import multiply
from softnll.torch.sparse import sparse_problem
from softnll.torch.uncompiled import uncompiled
from softnll.torch.views import as_array

__all__ = ["Gradients", "LinearLoss", "gradients", "head_of", "losses", "plan_of", "planned", "with_gradients"]


@dataclass(slots=True)  # no tuple, which torch.func would take apart
class LinearLoss:
    """What the loss of a linear layer is apart from its tensors.

    Attributes
    ----------
    loss
        Its options.
    max_bytes
        The working memory allowed, None for the default.
    at_most
        The most rows at a time, None for what the memory allows.
    compact
        Whether rows that take no part are left out of the products, or take part as zeros. None: they are left out,
        but of a CUDA graph that is being captured or compiled, where nobody may wait to hear how many there are.
    """

    loss: Loss
    max_bytes: int | None = None
    at_most: int | None = None
    compact: bool | None = None

    @classmethod
    def of(
        cls,
        label_smoothing: float,
        z_loss: float,
        softcap: float | None,
        temperature: float,
        ignore_index: int,
        reduction: Any,
        check: bool | None,
        max_bytes: int | None,
        at_most: int | None,
        compact: bool | None,
    ) -> LinearLoss:
        """Return options as a value, checked."""
        objective, _ = checked(label_smoothing, z_loss, softcap, temperature, ignore_index, reduction)
        return cls(Loss(objective, 1, check), max_bytes, at_most, compact)


class Gradients(NamedTuple):
    """Gradients with respect to features, weight and bias; None for what is not wanted."""

    features: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def head_of(*given: Any, upstream: Tensor | None = None) -> Head:
    """Check ``(f, W, b, target, weight, sample_weight, temperature, indices, LinearLoss)`` and return them as a Head.

    With an upstream gradient, it is the Head of the loss times that.
    """
    f, W, b, target, weight, sample_weight, temperature, indices, what = given
    check_shapes(f, W, b)
    layout = Layout((*f.shape[:-1], W.shape[0]), (f.dim() - 1,))
    tau = None if temperature is None else as_temperatures(as_array(temperature), layout.row_shape)
    check = what.loss.check
    check = bool(check) if target.is_floating_point() else check is None or check
    w, s = (None if each is None else as_array(each) for each in (weight, sample_weight))
    problem = Problem(None, what.loss.objective, tau=tau)
    if indices is None:
        problem = prepare_targets(problem, layout, as_array(target), w, s, check)
    else:
        problem = sparse_problem(problem, layout, indices, target, w, s, check)
    if upstream is not None:
        scale(problem, upstream, layout.n_rows)
    bias = None if b is None else as_array(b)
    return Head.of(as_array(f), as_array(W), bias, problem, layout, multiply, compact=what.compact is not False)


@uncompiled
def losses(*given: Any) -> Tensor:
    """Return the loss of ``(f, W, b, target, weight, sample_weight, temperature, indices, LinearLoss)``."""
    if devices.on_cuda(given[0]):
        return devices.cuda("linear").losses(*given)
    head, what = head_of(*given), given[-1]
    return torch.from_numpy(np.asarray(head.losses(head.plan(what.max_bytes, at_most=what.at_most))))


def _held_type(dtype: torch.dtype, held: bool) -> torch.dtype:
    """Return the type of a gradient: where it waits for its upstream gradient, float16 would lose what that lifts."""
    return torch.float32 if held and dtype is torch.float16 else dtype


def plan_of(head: Head, W: Tensor, what: LinearLoss, wanted: Wanted = NO_GRADIENTS, *, held: bool = False) -> Plan:
    """Return how the work will be cut."""
    widens = _held_type(W.dtype, held).itemsize < head.dtype.itemsize
    return head.plan(what.max_bytes, wanted, at_most=what.at_most, widens=widens)


def _run(head: Head, inputs: tuple[Any, ...], what: LinearLoss, wanted: Wanted, held: bool) -> tuple[Tensor, Gradients]:
    """Return the loss and the gradients."""
    made = Gradients(
        *(
            torch.empty(each.shape, dtype=_held_type(each.dtype, held), device="cpu") if asked else None
            for each, asked in zip(inputs, wanted, strict=True)
        )
    )
    outputs = Outputs(*(None if each is None else as_array(each) for each in made))
    loss = head.gradients(plan_of(head, inputs[1], what, wanted, held=held), outputs)
    return torch.from_numpy(np.asarray(loss)), made


@uncompiled
def with_gradients(wanted: Wanted, *given: Any) -> tuple[Tensor, Gradients]:
    """Return the reduced loss, and its gradients to wait for an upstream gradient: those of float16 in float32."""
    if devices.on_cuda(given[0]):
        loss, made = devices.cuda("linear").with_gradients(wanted, *given)
        return loss, Gradients(*made)
    return _run(head_of(*given), given[:3], given[-1], wanted, held=True)


@uncompiled
def gradients(wanted: Wanted, upstream: Tensor, *given: Any) -> Gradients:
    """Return the gradients of the loss times the upstream gradient."""
    if devices.on_cuda(given[0]):
        return Gradients(*devices.cuda("linear").gradients(wanted, upstream, *given))
    *tensors, what = given
    what = replace(what, loss=replace(what.loss, check=False))  # that was done in the forward
    return _run(head_of(*tensors, what, upstream=upstream), given[:3], what, wanted, held=False)[1]


def planned(given: Sequence[Any], what: LinearLoss, recording: bool) -> Plan:
    """Return the plan of the loss and of its backward, for those inputs that require a gradient."""
    inputs = given[:4]
    needed = [recording and each is not None and each.requires_grad for each in inputs]
    wanted = Wanted(*needed[:3])
    head = (devices.cuda("linear").head_of if devices.on_cuda(given[0]) else head_of)(*given, what)
    again = what.loss.objective.reduction == "none" and any(wanted)
    cut = devices.cuda("linear").plan_of if devices.on_cuda(given[0]) else plan_of
    plan = cut(head, inputs[1], what, wanted, held=not again)
    made = sum(
        each.numel() * (_held_type(each.dtype, not again) if i < 3 else each.dtype).itemsize
        for i, (each, asked) in enumerate(zip(inputs, needed, strict=True))
        if asked
    )
    return replace(plan, gemms=plan.gemms + again + needed[3], gradient_bytes=made)
