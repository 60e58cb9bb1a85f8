"""A checked linear layer with its targets, and the loop over its rows: what stands behind linear.py's front doors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll.gemm import multiply
from softnll.kernels.choose import kernels
from softnll.layout import Layout, as_real, loss_dtype
from softnll.options import LinearOptions, split_options
from softnll.output import reduce
from softnll.plan import Plan, Sizes, default_max_bytes, make_plan
from softnll.problem import Problem, as_temperatures, prepare_targets

__all__ = ["Head", "LinearGradients"]


class LinearGradients(NamedTuple):
    """Gradients of the loss with respect to features, weight and bias (None without one)."""

    features: NDArray[Any]
    weight: NDArray[Any]
    bias: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Head:
    """A checked linear layer with its targets."""

    features: NDArray[Any]
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    problem: Problem  # of all rows, without logits
    layout: Layout
    dtype: np.dtype[Any]  # what is multiplied and accumulated in
    active: NDArray[np.intp] | None  # the rows that take part, or None for all

    @classmethod
    def check(cls, features: Any, weight: Any, targets: Any, bias: Any, options: LinearOptions) -> Head:
        """Check all inputs, once."""
        features, weight = as_real(features, "features"), as_real(weight, "weight")
        if weight.ndim != 2 or features.ndim < 1 or features.shape[-1] != weight.shape[-1]:
            raise ValueError(
                f"features has shape {features.shape}, weight {weight.shape}; allowed: (..., H) and (C, H) of one H"
            )
        C = weight.shape[0]
        if C == 0:
            raise ValueError(f"weight has shape {weight.shape}: no classes; allowed: at least one")
        arrays = [features, weight]
        if bias is not None:
            bias = as_real(bias, "bias")
            if bias.shape != (C,):
                raise ValueError(f"bias has shape {bias.shape}; allowed: {(C,)}")
            arrays.append(bias)
        wide = any(each.dtype.kind in "iu" or each.dtype == np.float64 for each in arrays)
        layout = Layout((*features.shape[:-1], C), (features.ndim - 1,))
        objective, per_row, weights = split_options(**options)
        tau = None if per_row is None else as_temperatures(per_row, layout.row_shape)
        problem = prepare_targets(Problem(None, objective, tau=tau), layout, targets, **weights)
        # A row of weight 0 contributes exactly 0, whatever its features hold: it must not reach a matrix product.
        silent = _silent(problem, objective.label_smoothing)
        active = np.flatnonzero(~silent) if silent is not None and silent.any() else None
        return cls(features, weight, bias, problem, layout, np.dtype(np.float64 if wide else np.float32), active)

    @property
    def problem_rows(self) -> int:
        """N, with the rows that take no part."""
        return self.layout.n_rows

    @property
    def gathers(self) -> bool:
        """Whether feature rows have to be copied before they can be multiplied."""
        return self.active is not None or self.features.dtype != self.dtype or not self.features.flags.c_contiguous

    @property
    def converts(self) -> bool:
        """Whether weight rows have to be copied before they can be multiplied."""
        return self.weight.dtype != self.dtype or not self.weight.flags.c_contiguous

    def plan(self, max_bytes: int | None, *, gradients: bool) -> Plan:
        """Return how the work is cut."""
        C, H = self.weight.shape
        N = self.problem_rows if self.active is None else len(self.active)
        widens = _gradient_dtype(self.weight) != self.dtype
        soft = self.problem.q is not None
        sizes = Sizes(N, C, H, self.dtype.itemsize, self.gathers, self.converts, widens, soft, gradients)
        if max_bytes is None:
            q = self.problem.q
            held = (self.features.nbytes + self.weight.nbytes) * (2 if gradients else 1) + (
                0 if q is None else q.nbytes
            )
            max_bytes = default_max_bytes(held, self.problem_rows, C, self.dtype.itemsize)
        return make_plan(sizes, max_bytes)

    def chunks(self, plan: Plan) -> Iterator[tuple[Any, Problem, NDArray[Any]]]:
        """Yield, chunk by chunk: which rows, their Problem (its logits in a buffer used again), their features."""
        N = self.problem_rows if self.active is None else len(self.active)
        buffer = np.empty((min(plan.rows, N), self.weight.shape[0]), self.dtype)
        for start in range(0, N, plan.rows):
            rows: Any = slice(start, min(start + plan.rows, N))
            if self.active is not None:
                rows = self.active[rows]
            x = self._feature_rows(rows)
            logits = buffer[: len(x)]
            if not self.converts:
                multiply(x, self.weight.T, logits)
            else:
                for classes, w in self._weight_blocks(plan):
                    np.matmul(x, w.T, out=logits[:, classes])
            if self.bias is not None:
                logits += self.bias.astype(self.dtype, copy=False)
            yield rows, self.problem.take(rows, logits), x

    def _feature_rows(self, rows: Any) -> NDArray[Any]:
        """Return some rows of the features, ready to be multiplied."""
        if not self.gathers:
            chosen: NDArray[Any] = self.features.reshape(self.problem_rows, self.features.shape[-1])[rows]
            return chosen
        indices = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        lead = self.features.shape[:-1]
        gathered: NDArray[Any] = self.features[np.unravel_index(indices, lead) if lead else ...]
        return gathered.reshape(len(indices), self.features.shape[-1]).astype(self.dtype, copy=False)

    def _weight_blocks(self, plan: Plan) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield blocks of weight rows, ready to be multiplied: all at once where nothing is to be converted."""
        C = self.weight.shape[0]
        for start in range(0, C, plan.classes):
            classes = slice(start, min(start + plan.classes, C))
            block = self.weight[classes]
            yield classes, np.ascontiguousarray(block, self.dtype) if self.converts else block

    @np.errstate(all="ignore")  # what overflows is inf, in the features' products and in half types
    def gradients(self, plan: Plan) -> tuple[Any, LinearGradients]:
        """Return the reduced loss and the gradients."""
        losses = np.zeros(self.problem_rows)
        width = self.weight.shape[1]
        d_features = np.zeros(self.features.shape, _gradient_dtype(self.features))
        d_rows = d_features.reshape(self.problem_rows, width)
        d_weight = np.zeros(self.weight.shape, _gradient_dtype(self.weight))
        # Of half types, the sum over several chunks is held wider.
        total = np.zeros(self.weight.shape, self.dtype) if plan.accumulator_bytes else d_weight
        d_bias = np.zeros(self.weight.shape[0])
        for rows, part, x in self.chunks(plan):
            dz = part.x
            losses[rows] = kernels().forward_backward(part, dz)
            if self.bias is not None:
                d_bias += dz.sum(axis=0, dtype=np.float64)
            if self.converts:
                d_rows[rows] = self._multiply_blocks(plan, dz, x, total)
                continue
            multiply(dz.T, x, d_weight, add=True)
            dx = np.empty(x.shape, self.dtype) if self.gathers else d_rows[rows]
            multiply(dz, self.weight, dx)
            if self.gathers:
                d_rows[rows] = dx
        if total is not d_weight:
            d_weight[...] = total
        d_bias_out = None if self.bias is None else d_bias.astype(_gradient_dtype(self.bias))
        return self.reduce(losses), LinearGradients(d_features, d_weight, d_bias_out)

    @np.errstate(all="ignore")
    def weight_gradients(self, plan: Plan) -> tuple[float, NDArray[Any], NDArray[np.float64]]:
        """Return the loss in float64 and the gradients of weight and bias; the features' is not made.

        For training over fixed features: two matrix products instead of three, and no N × H array. The weight is of the
        type that is multiplied in, so that none is converted.
        """
        losses = np.zeros(self.problem_rows)
        d_weight = np.zeros(self.weight.shape, self.dtype)
        d_bias = np.zeros(self.weight.shape[0])
        for rows, part, x in self.chunks(plan):
            losses[rows] = kernels().forward_backward(part, part.x)
            d_bias += part.x.sum(axis=0, dtype=np.float64)
            multiply(part.x.T, x, d_weight, add=True)
        return float(self.reduce(losses, np.dtype(np.float64))), d_weight, d_bias

    def _multiply_blocks(self, plan: Plan, dz: NDArray[Any], x: NDArray[Any], total: NDArray[Any]) -> NDArray[Any]:
        """Return dz @ weight and add dzᵀ @ x to the total, a block of converted weight rows at a time."""
        dx = np.zeros(x.shape, self.dtype)
        for classes, w in self._weight_blocks(plan):
            dx += dz[:, classes] @ w
            product = dz[:, classes].T @ x
            total[classes] = product if plan.chunks == 1 else total[classes] + product
        return dx

    def reduce(self, losses: NDArray[np.float64], dtype: np.dtype[Any] | None = None) -> Any:
        """Return the reduced loss, by default in the type of the logits' losses."""
        return reduce(self.problem, self.layout, losses, loss_dtype(self.dtype) if dtype is None else dtype)


def _silent(problem: Problem, smoothing: float) -> NDArray[np.bool_] | None:
    """Return which rows have weight 0, or a hard target whose mass is 0; None if there can be none."""
    silent: NDArray[np.bool_] | None = None if problem.s is None else problem.s == 0
    if problem.y is None or problem.w is None or smoothing > 0:
        return silent
    inside = (problem.y >= 0) & (problem.y < len(problem.w))
    massless: NDArray[np.bool_] = inside & (problem.w[np.where(inside, problem.y, 0)] == 0)
    if silent is not None:
        massless |= silent
    return massless


def _gradient_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    """Return the type of an input's gradient: its own, or float64 for integers."""
    return np.dtype(np.float64) if array.dtype.kind in "iu" else array.dtype
