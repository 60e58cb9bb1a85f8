"""The backend of tensors on devices, with Triton's kernels or the reference's."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softnll._core.layout import Layout, layout_of
from softnll._core.problem import Problem
from softnll._core.targets import SparseRows, rows_without_part
from softnll.torch._base import matmul
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossInputs, LossSettings
from softnll.torch._base.checks import capturing, has_values, loss_problem, wide_type
from softnll.torch._base.float16_scale import scale_of
from softnll.torch._base.views import strided_like

_KERNELS = ("softmax", "log_softmax", "logsumexp", "losses", "forward", "forward_backward", "backward", "pick")


class DeviceBackend:
    """``_core.backend.Backend`` on tensors, with the kernels of a module. Half types are multiplied as they are.

    Sums are float32 or wider. The mean's denominator, upstream gradients and row weights stay on the device, so that
    all of it can be captured in a CUDA graph. Only ``nonzero`` synchronises; ``reads_sizes`` decides whether it is
    called.
    """

    xp = torch
    multiple = 128
    mixed_products = True
    multiply = staticmethod(matmul.multiply)
    array = staticmethod(Tensor.detach)
    cast = staticmethod(Tensor.to)
    wide = staticmethod(wide_type)

    def __init__(self, kernels: Any) -> None:
        self.kernels = kernels
        for name in _KERNELS:
            setattr(self, name, getattr(kernels, name))

    def features(self, tensor: Tensor) -> Tensor:
        """Return features as ``(N, H)``: a view where their strides allow, else one copy for all chunks."""
        return tensor.detach().reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])

    def tensor(self, array: Tensor) -> Tensor:
        """Return the tensor itself."""
        return array

    # -- losses of logits

    def normalise(self, x: Tensor, dim: int, fill: Any) -> Tensor:
        """Return softmax or log_softmax of logits, which ``fill(problem, out)`` computes."""
        layout = layout_of(tuple(x.shape), dim)
        rows = self.rows_of(x, layout)
        out = torch.empty(rows.shape, dtype=x.dtype, device=x.device)
        fill(Problem(rows), out)
        return self.restore(out, layout, x)

    def product(self, *_: Any, **__: Any) -> None:
        """Return None: there is no kernel for the products of Jacobians."""

    def lse(self, x: Tensor, dim: int) -> Tensor:
        """Return logsumexp over a dimension, in the shape without it."""
        layout = layout_of(tuple(x.shape), dim)
        values: Tensor = self.kernels.logsumexp(Problem(self.rows_of(x, layout)))
        return values.to(x.dtype).reshape(layout.row_shape)

    def loss_problem(self, inputs: LossInputs, settings: LossSettings) -> tuple[Problem, Layout]:
        """Return the Problem and the layout of a loss, after checking its inputs."""
        layout = layout_of(tuple(inputs.input.shape), settings.dim)
        return loss_problem(self.rows_of(inputs.input, layout), layout, inputs, settings), layout

    def linear_problem(self, inputs: LinearInputs, settings: LinearSettings, layout: Layout) -> Problem:
        """Return the Problem of a linear loss, without logits, after checking targets and weights."""
        return loss_problem(None, layout, inputs, settings.loss)

    def restore(self, rows: Tensor, layout: Layout, like: Tensor) -> Tensor:
        """Return ``(N, C)`` rows as a tensor with the shape and the strides of ``torch.empty_like(like)``."""
        return strided_like(like, layout.restore(rows))

    def rows_of(self, x: Tensor, layout: Layout) -> Tensor:
        """Return a tensor as ``(N, C)`` rows."""
        return layout.rows(x.detach())

    def with_rows(self, problem: Problem, layout: Layout, x: Tensor, target: Tensor | None) -> Problem:
        """Return a Problem with logits and, unless ``target`` is None, soft targets."""
        return problem.with_rows(self.rows_of(x, layout), None if target is None else self.rows_of(target, layout))

    def reduce(self, problem: Problem, layout: Layout, losses: Tensor, dtype: Any = None) -> Tensor:
        """Return the reduced loss, or the losses with ``reduction="none"``, in float32 or wider."""
        dtype = problem.x.dtype if dtype is None else dtype
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        if problem.objective.reduction == "none":
            return losses.to(dtype).reshape(layout.row_shape)
        value: Tensor = self.kernels.total(losses)
        if problem.objective.reduction == "mean":
            divisor = problem.divisor
            if isinstance(divisor, Tensor):
                value = torch.where(divisor > 0, value / divisor, torch.nan)
            else:
                value = value / divisor if divisor > 0 else torch.full_like(value, torch.nan)
        return value.to(dtype)

    def upstream(self, upstream: Tensor, problem: Problem) -> Tensor:
        """Return an upstream gradient in the widest type: one number, or one a row."""
        wide = upstream.detach().to(wide_type(upstream))
        return wide.reshape(() if problem.objective.reduction != "none" else -1).contiguous()

    def with_upstream(self, problem: Problem, upstream: Tensor | None) -> tuple[Problem, Tensor | None]:
        """Return the problem and, unchanged, the upstream gradient, which the kernels read on the device."""
        return problem, upstream

    def kept_gradient(self, rows: Tensor, layout: Layout, like: Tensor) -> Tensor:  # noqa: ARG002
        """Return a gradient in the form that is kept until the backward: rows."""
        return rows

    def keeps_gradient(self, inputs: LossInputs, settings: LossSettings) -> bool:  # noqa: ARG002
        """Return whether the forward computes the gradient and keeps it: that of a reduced loss."""
        return settings.objective.reduction != "none"

    def rescaled(self, kept: Tensor, upstream: Tensor, layout: Layout, again: Any) -> Tensor | None:
        """Return the gradient for an upstream gradient, in the memory of the kept one, which is that for 1.

        The device reads the number, and computes nothing if it is 1. Else the gradient is computed again from the
        logits: it keeps all its digits, and a product would read and write as many bytes. ``again()`` returns the
        logits, the problem, m and r, or None if they are lost: so does this method.
        """
        found = again()
        if found is None:
            return None
        like, problem, m, r = found
        self.kernels.backward(problem, m, r, kept, self.upstream(upstream, problem), filled=True)
        return self.restore(kept, layout, like)

    def scale_kept(self, kept: dict[str, Tensor], upstream: Tensor) -> bool:
        """Multiply kept gradients by the upstream gradient in place and return True."""
        for each in kept.values():
            self.kernels.lift(each, upstream)
        return True

    def finite(self, _: Tensor) -> bool:
        """Return True: whether the number is finite is not read from the device."""
        return True

    # -- linear losses

    def scratch_bytes(self, _: Problem, __: int, n_columns: int, ___: int) -> int:
        """Return the bytes of a row in the widest type: kernels hold no more of it."""
        return 8 * n_columns

    def rows_without_part(self, problem: Problem) -> Tensor | None:
        """Return one bool a row, True for rows that contribute exactly 0; None if there can be none."""
        ignored = None if problem.y is None else problem.y == problem.objective.ignore_index
        smoothing = problem.objective.label_smoothing
        return rows_without_part(torch, problem.y, problem.w, problem.s, ignored, smoothing)

    def reads_sizes(self, inputs: LinearInputs, settings: LinearSettings) -> bool:
        """Return whether rows that take no part are left out of the products; counting them synchronises."""
        if settings.compact is None and capturing():
            return False
        return settings.compact is not False and has_values(inputs.input)

    def product_types(self, *tensors: Tensor | None) -> tuple[torch.dtype, torch.dtype]:
        """Return the type in which features and weight are multiplied, and that of sums: float32 or wider."""
        features, weight, *_ = (each for each in tensors if each is not None)
        dtype = torch.promote_types(features.dtype, weight.dtype)
        return dtype, torch.float64 if dtype == torch.float64 else torch.float32

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Write ``x @ weight.T + bias``."""
        if bias is None:
            torch.mm(x, weight.t(), out=out)
        else:
            torch.addmm(bias, x, weight.t(), out=out)

    def column_sums(self, matrix: Tensor) -> Tensor:
        """Return the sums over the rows in float32 or wider: torch sums half types so without a copy."""
        return matrix.sum(0, dtype=torch.float64 if matrix.dtype == torch.float64 else torch.float32)

    def empty(self, shape: Any, dtype: torch.dtype, like: Tensor) -> Tensor:
        """Return an uninitialised tensor on the device of ``like``."""
        return torch.empty(shape, dtype=dtype, device=like.device)

    def zeros(self, shape: Any, dtype: torch.dtype, like: Tensor) -> Tensor:
        """Return zeros on the device of ``like``."""
        return torch.zeros(shape, dtype=dtype, device=like.device)

    def feature_rows(self, features: Tensor, rows: Any, dtype: torch.dtype) -> Tensor:
        """Return some rows of ``(N, H)`` features."""
        return features[rows].to(dtype)

    def nonzero(self, mask: Tensor) -> Tensor:
        """Return the indices where a mask is True; this synchronises, as their number is read from the device."""
        return mask.nonzero()[:, 0]

    def scales(self, dtype: torch.dtype) -> bool:
        """Return whether the gradient of such logits is scaled: that of a mean underflows in float16."""
        return dtype == torch.float16

    def gradient_scale(
        self, problem: Problem, upstream: Tensor | None, dtype: torch.dtype, weight: Tensor
    ) -> Tensor | None:
        """Return the power of two that the gradient of float16 logits is multiplied by; None for 1."""
        if not self.scales(dtype):
            return None
        q = problem.q.probabilities if isinstance(problem.q, SparseRows) else problem.q
        masses = None
        if q is not None:
            smoothing = problem.objective.label_smoothing
            masses = torch.linalg.vector_norm(q, 1, dim=1, dtype=torch.promote_types(q.dtype, torch.float32))
            masses = masses * (1 - smoothing) + smoothing
        return scale_of(problem, upstream, masses, weight)
