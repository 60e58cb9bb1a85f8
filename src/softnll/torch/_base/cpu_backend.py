"""The backend of CPU tensors: the kernels of NumPy arrays, on arrays that share the tensors' memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softnll._core.layout import Layout, layout_of
from softnll._core.planes import memory_of, planes_of, restored, rows_as
from softnll._core.problem import Problem, logit_rows, prepare, prepare_targets
from softnll._core.targets import SparseRows, TargetIndexError, as_weights, check_soft, first_bad
from softnll._kernels.select import are_distributions, fitting
from softnll._numpy.backend import NumpyBackend
from softnll._numpy.output import narrowed, reduce, write
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossInputs, LossSettings
from softnll.torch._base.sparse import densify, flat_sparse
from softnll.torch._base.views import as_array, as_tensor, empty_like, laid_out_like


def _or_none(tensor: Tensor | None) -> NDArray[Any] | None:
    """Return a tensor as an array, and None as None."""
    return None if tensor is None else as_array(tensor)


def _in_pieces(array: NDArray[Any], layout: Layout) -> Any:
    """Return an array as Planes or as rows that lie in one piece each, without a copy; None if it is neither."""
    planes = planes_of(array, layout)
    if planes is not None:
        return planes
    rows = layout.rows(array)
    fitting = rows.strides[1] == rows.itemsize and rows.flags.aligned and np.may_share_memory(rows, array)
    return rows if fitting else None


class CpuBackend(NumpyBackend):
    """The NumPy backend on CPU tensors; ``array`` and ``tensor`` return views of the same memory."""

    array = staticmethod(as_array)
    features = staticmethod(as_array)
    tensor = staticmethod(as_tensor)

    def normalise(self, x: Tensor, dim: int, fill: Any) -> Tensor:
        """Return softmax or log_softmax of logits, which ``fill(problem, out)`` computes."""
        problem, layout = prepare(as_array(x), dim, name="input", planes=True)
        return laid_out_like(x, write(fitting(problem, self.kernels), layout, None, fill)[0])

    def product(self, saved: Tensor, v: Tensor, dim: int, *, log: bool, logits: bool) -> Tensor | None:
        """Return the product of softmax's or log_softmax's Jacobian and v, as ``products.product`` computes it.

        None if there is no kernel for it. ``saved`` has the results or, with ``logits``, the logits.
        """
        compute = getattr(self.kernels(), "product", None)
        if compute is None or v.dtype != saved.dtype or saved.numel() == 0:
            return None
        out = empty_like(saved)
        if out.stride() != saved.stride():
            return None
        if v.stride() != saved.stride():
            v = torch.empty_like(saved).copy_(v)
        layout = layout_of(tuple(saved.shape), dim)
        rows = [_in_pieces(as_array(each), layout) for each in (saved, v, out)]
        if any(each is None for each in rows):
            rows = [np.ascontiguousarray(layout.rows(as_array(each))) for each in (saved, v)]
            rows.append(np.empty_like(rows[0]))
            compute(*rows, log=log, logits=logits)
            return laid_out_like(saved, layout.restore(rows[2]))
        compute(*rows, log=log, logits=logits)
        return out

    def lse(self, x: Tensor, dim: int) -> Tensor:
        """Return logsumexp over a dimension, in the shape without it."""
        problem, layout = prepare(as_array(x), dim, empty=True, name="input", planes=True)
        values = narrowed(self.logsumexp(fitting(problem, self.kernels)), problem.x.dtype)
        return as_tensor(values.reshape(layout.row_shape))

    def loss_problem(self, inputs: LossInputs, settings: LossSettings) -> tuple[Problem, Layout]:
        """Return the Problem and the layout of a loss, after checking its inputs."""
        planes = inputs.temperatures is None
        problem, layout = prepare(
            as_array(inputs.input), settings.dim, settings.objective, name="input", planes=planes, of_loss=True
        )
        problem = prepare_targets(
            problem,
            layout,
            as_array(inputs.target),
            _or_none(inputs.weight),
            _or_none(inputs.sample_weight),
            checks_targets(inputs.target, settings),
            _or_none(inputs.temperatures),
            signed=settings.check is not True,
            certain=are_distributions,
        )
        return fitting(problem, self.kernels), layout

    def linear_problem(self, inputs: LinearInputs, settings: LinearSettings, layout: Layout) -> Problem:
        """Return the Problem of a linear loss, without logits, after checking targets and weights."""
        problem, tau = Problem(None, settings.loss.objective), _or_none(inputs.temperatures)
        check, signed = checks_targets(inputs.target, settings.loss), settings.loss.check is not True
        w, s = _or_none(inputs.weight), _or_none(inputs.sample_weight)
        if inputs.indices is None:
            return prepare_targets(
                problem, layout, as_array(inputs.target), w, s, check, tau, signed=signed, certain=are_distributions
            )
        return _sparse_problem(problem, layout, inputs, check)

    def restore(self, rows: Any, layout: Layout, like: Tensor) -> Tensor:
        """Return ``(N, C)`` rows as a tensor with the shape and the strides of ``torch.empty_like(like)``."""
        return laid_out_like(like, restored(rows, layout))

    def rows_of(self, x: Tensor, layout: Layout) -> NDArray[Any]:
        """Return a tensor as a matrix of ``(N, C)`` rows."""
        return layout.rows(as_array(x))

    def with_rows(self, problem: Problem, layout: Layout, x: Tensor, target: Tensor | None) -> Problem:
        """Return a Problem with logits and, unless ``target`` is None, soft targets."""
        rows = logit_rows(as_array(x), layout, problem.tau, planes=not layout.is_rows)
        q = None if target is None else rows_as(rows, as_array(target), layout)
        return fitting(problem.with_rows(rows, q), self.kernels)

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
        """Return whether the forward computes the gradient and keeps it."""
        return keeps_gradient(inputs.input.dtype, settings)

    def rescaled(self, kept: Tensor, upstream: Tensor, layout: Layout, again: Any) -> Tensor | None:
        """Return a kept gradient times an upstream gradient, in place; None where the product would lose digits.

        Digits are lost where a subnormal number grows, and in half types, where a product is rounded a second time.
        """
        if upstream.dim():
            return _rows_rescaled(kept, upstream, layout.axes[0], again)
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


def _normal(found: tuple[Tensor, Problem, NDArray[np.float64], NDArray[np.float64]]) -> bool:
    """Return whether it is certain that no entry of a gradient of hard targets is subnormal, or 0 by underflow.

    p of every class is at least exp(min x − max lse), and the entry at the target is at least as large as another one.
    """
    _, problem, m, r = found
    o, s = problem.objective, problem.s
    plain = problem.y is not None and problem.w is None and problem.tau is None and problem.where is None
    if not plain or o.label_smoothing or o.z_loss or o.softcap is not None or o.temperature != 1:
        return False
    if len(m) == 0 or (s is not None and not ((s == 0) | (s == 1)).all()):
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        top = float((m + np.log1p(r)).max())
    logits = as_tensor(memory_of(problem.x))
    least = math.log(torch.finfo(logits.dtype).tiny) + 2  # the rounding of all this is less than 2
    return float(logits.amin()) - top > least


def _rows_rescaled(kept: Tensor, upstream: Tensor, dim: int, again: Any) -> Tensor | None:
    """Return a kept gradient times one factor a row, in place; None where a factor is above 1 and digits may be lost.

    ``again`` is that of ``DeviceBackend.rescaled``.
    """
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
        found = again() if math.isfinite(least) and math.isfinite(largest) else None
        if found is None or not _normal(found):
            return None
    by_row = upstream.unsqueeze(dim)
    kept.mul_(by_row)
    return kept.masked_fill_(by_row == 0, 0.0) if (factors == 0).any() else kept  # a row's gradient may be NaN


def keeps_gradient(dtype: torch.dtype, settings: LossSettings) -> bool:
    """Return whether the forward keeps the gradient of logits of a type; rows of a half type would be rounded twice."""
    return settings.objective.reduction != "none" or dtype in (torch.float32, torch.float64)


def checks_targets(target: Tensor, settings: LossSettings) -> bool:
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
        check_soft(as_array(q), layout, rows.s, None, are_distributions)
    w = None
    if inputs.weight is not None:
        w = as_weights(as_array(inputs.weight), "class_weight", (layout.n_classes,), signed=signed)
    sparse = SparseRows(as_array(classes), as_array(q), layout.n_classes, _dense_arrays)
    return replace(rows, y=None, q=sparse, w=w)
