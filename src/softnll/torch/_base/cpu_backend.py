"""The backend of CPU tensors: the kernels of NumPy arrays, on arrays that share the tensors' memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softnll._core.layout import Layout
from softnll._core.problem import Problem, prepare, prepare_targets
from softnll._core.targets import SparseRows, TargetIndexError, as_weights, check_soft, first_bad
from softnll._numpy.backend import NumpyBackend
from softnll._numpy.output import narrowed, reduce, write
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossInputs, LossSettings
from softnll.torch._base.sparse import densify, flat_sparse
from softnll.torch._base.views import as_array, as_tensor, laid_out_like

__all__ = ["CpuBackend"]


def _or_none(tensor: Tensor | None) -> NDArray[Any] | None:
    """Return a tensor as an array, and None as None."""
    return None if tensor is None else as_array(tensor)


class CpuBackend(NumpyBackend):
    """The NumPy backend on CPU tensors; ``array`` and ``tensor`` return views of the same memory."""

    array = staticmethod(as_array)
    features = staticmethod(as_array)
    tensor = staticmethod(as_tensor)

    def normalise(self, x: Tensor, dim: int, fill: Any) -> Tensor:
        """Return softmax or log_softmax of logits, which ``fill(problem, out)`` computes."""
        problem, layout = prepare(as_array(x), dim, name="input")
        return laid_out_like(x, write(problem, layout, None, fill)[0])

    def lse(self, x: Tensor, dim: int) -> Tensor:
        """Return logsumexp over a dimension, in the shape without it."""
        problem, layout = prepare(as_array(x), dim, empty=True, name="input")
        values = narrowed(self.logsumexp(problem), problem.x.dtype)
        return as_tensor(values.reshape(layout.row_shape))

    def loss_problem(self, inputs: LossInputs, settings: LossSettings) -> tuple[Problem, Layout]:
        """Return the Problem and the layout of a loss, after checking its inputs."""
        problem, layout = prepare(as_array(inputs.input), settings.dim, settings.objective, name="input")
        return prepare_targets(
            problem,
            layout,
            as_array(inputs.target),
            _or_none(inputs.weight),
            _or_none(inputs.sample_weight),
            _checks(inputs.target, settings),
            _or_none(inputs.temperatures),
            signed=settings.check is not True,
        ), layout

    def linear_problem(self, inputs: LinearInputs, settings: LinearSettings, layout: Layout) -> Problem:
        """Return the Problem of a linear loss, without logits, after checking targets and weights."""
        problem, tau = Problem(None, settings.loss.objective), _or_none(inputs.temperatures)
        check, signed = _checks(inputs.target, settings.loss), settings.loss.check is not True
        w, s = _or_none(inputs.weight), _or_none(inputs.sample_weight)
        if inputs.indices is None:
            return prepare_targets(problem, layout, as_array(inputs.target), w, s, check, tau, signed=signed)
        return _sparse_problem(problem, layout, inputs, check)

    def restore(self, rows: NDArray[Any], layout: Layout, like: Tensor) -> Tensor:
        """Return ``(N, C)`` rows as a tensor with the shape and the strides of ``torch.empty_like(like)``."""
        return laid_out_like(like, layout.restore(rows))

    def rows_of(self, x: Tensor, layout: Layout) -> NDArray[Any]:
        """Return a tensor as ``(N, C)`` rows."""
        return layout.rows(as_array(x))

    def reduce(self, problem: Problem, layout: Layout, losses: Any, dtype: Any = None) -> Tensor:
        """Return the reduced loss, or the losses with ``reduction="none"``."""
        return torch.from_numpy(np.asarray(reduce(problem, layout, losses, dtype)))

    def upstream(self, upstream: Tensor, problem: Problem) -> float | NDArray[np.float64]:
        """Return an upstream gradient as a number, or as an array with one number a row."""
        if problem.objective.reduction != "none":
            return float(upstream.item())
        return as_array(upstream).reshape(-1).astype(np.float64)

    def kept_gradient(self, rows: NDArray[Any], layout: Layout, like: Tensor) -> Tensor:
        """Return a gradient in the form that is kept until the backward: the tensor that the backward returns."""
        return self.restore(rows, layout, like)

    def keeps_gradient(self, inputs: LossInputs, settings: LossSettings) -> bool:
        """Return whether the forward computes the gradient and keeps it; rows of a half type would be rounded twice."""
        return settings.objective.reduction != "none" or inputs.input.dtype in (torch.float32, torch.float64)

    def rescaled(self, kept: Tensor, upstream: Tensor, layout: Layout, *_: Any) -> Tensor | None:
        """Return a kept gradient times an upstream gradient, in place; None where the product would lose digits.

        Digits are lost where a subnormal number grows, and in half types, where a product is rounded a second time.
        """
        if upstream.dim():
            return _rows_rescaled(kept, upstream, layout.axes[0])
        factor = upstream.item()
        if factor == 1:
            return kept
        if not 0 < abs(factor) < 1 or kept.dtype is torch.float16:
            return None
        if kept.dtype is torch.bfloat16 and abs(math.frexp(factor)[0]) != 0.5:
            return None
        return kept.mul_(factor)

    def scale_kept(self, kept: dict[str, Tensor], upstream: Tensor) -> bool:
        """Multiply kept gradients by the upstream gradient in place and return True; if it is not finite, return False.

        A row that takes no part has gradient 0 under any upstream gradient, but 0·∞ is NaN.
        """
        factor = upstream.item()
        if not math.isfinite(factor):
            return False
        if factor != 1:
            for each in kept.values():
                each.mul_(factor)
        return True

    def finite(self, upstream: Tensor) -> bool:
        """Return whether kept gradients, which belong to an upstream gradient of 1, may be multiplied by this one."""
        return math.isfinite(upstream.item())

    def reads_sizes(self, inputs: LinearInputs, settings: LinearSettings) -> bool:  # noqa: ARG002
        """Return whether rows that take no part are left out of the products."""
        return settings.compact is not False

    def multiply(self, a: NDArray[Any], b: NDArray[Any], out: NDArray[Any], *, add: bool = False) -> None:
        """Write ``a @ b`` into ``out`` or add it there, with torch's BLAS, whose threads are already running."""
        left, right, result = (torch.from_numpy(each) for each in (a, b, out))
        if add:
            result.addmm_(left, right)
        else:
            torch.mm(left, right, out=result)


def _rows_rescaled(kept: Tensor, upstream: Tensor, dim: int) -> Tensor | None:
    """Return a kept gradient times one factor a row, in place; None if one is above 1."""
    factors = as_array(upstream)
    if factors.size == 0:
        return kept
    if not any(factors.strides):  # one number for all rows, as the gradient of a sum is
        least = largest = factors.item(0)
    else:
        least, largest = factors.item(factors.argmin()), factors.item(factors.argmax())
    if least == largest == 1:
        return kept
    if not (least >= -1 and largest <= 1):
        return None
    by_row = upstream.unsqueeze(dim)
    kept.mul_(by_row)
    return kept.masked_fill_(by_row == 0, 0.0) if (factors == 0).any() else kept  # a row's gradient may be NaN


def _checks(target: Tensor, settings: LossSettings) -> bool:
    """Return whether the values of targets are checked; ``check=None`` checks hard ones only."""
    return bool(settings.check) if target.is_floating_point() else settings.check is None or settings.check


def _dense_arrays(indices: NDArray[Any], probabilities: NDArray[Any], n_classes: int) -> NDArray[Any]:
    """Return sparse targets as ``(n, C)`` rows."""
    return as_array(densify(torch.from_numpy(indices), torch.from_numpy(probabilities), n_classes))


def _sparse_problem(problem: Problem, layout: Layout, inputs: LinearInputs, check: bool) -> Problem:
    """Return the Problem of sparse targets, after checking them and the weights.

    The class indices are checked even if ``check`` is False, because the dense rows are written at these indices.
    """
    assert inputs.indices is not None  # noqa: S101 - the caller has checked that
    classes, q, inside = flat_sparse(inputs.indices, inputs.target, layout)
    bad = as_array(~inside).reshape(-1)
    if bad.any():
        at = int(np.argmax(bad))
        place = first_bad(bad, tuple(inputs.indices.shape))
        raise TargetIndexError(
            f"target.indices{place} is {classes.reshape(-1)[at].item()}; allowed: 0 <= class < {layout.n_classes}"
        )
    # Soft targets have the same row weights and denominator as hard ones without class weights: any hard targets do.
    zeros = np.zeros(layout.row_shape, np.int64)
    signed = not check
    s, tau = _or_none(inputs.sample_weight), _or_none(inputs.temperatures)
    rows = prepare_targets(problem, layout, zeros, None, s, check=False, temperatures=tau, signed=signed)
    if check:
        check_soft(as_array(q), layout, rows.s, None)
    w = None
    if inputs.weight is not None:
        w = as_weights(as_array(inputs.weight), "class_weight", (layout.n_classes,), signed=signed)
    sparse = SparseRows(as_array(classes), as_array(q), layout.n_classes, _dense_arrays)
    return replace(rows, y=None, q=sparse, w=w)
