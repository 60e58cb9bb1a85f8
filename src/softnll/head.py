"""A checked linear layer with its targets, and the loop over its rows: what stands behind linear.py's front doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll.gemm import multiply
from softnll.kernels.choose import kernels
from softnll.layout import Layout, as_real, loss_dtype
from softnll.options import LinearOptions, split_options
from softnll.output import reduce
from softnll.plan import NO_GRADIENTS, Plan, Sizes, Wanted, default_max_bytes, make_plan
from softnll.problem import Problem, as_temperatures, prepare_targets

__all__ = ["Head", "LinearGradients", "Outputs", "check_shapes"]


class LinearGradients(NamedTuple):
    """Gradients of the loss with respect to features, weight and bias (None without one)."""

    features: NDArray[Any]
    weight: NDArray[Any]
    bias: NDArray[Any] | None


class Outputs(NamedTuple):
    """Arrays that gradients are written to, each in its input's shape; None for one that nobody wants."""

    features: NDArray[Any] | None
    weight: NDArray[Any] | None
    bias: NDArray[Any] | None


def check_shapes(features: Any, weight: Any, bias: Any) -> None:
    """Raise unless these are the shapes of a linear layer's input, weight and bias."""
    if weight.ndim != 2 or features.ndim < 1 or features.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"features has shape {tuple(features.shape)}, weight {tuple(weight.shape)}; "
            "allowed: (..., H) and (C, H) of one H"
        )
    C = weight.shape[0]
    if C == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: no classes; allowed: at least one")
    if bias is not None and bias.shape != (C,):
        raise ValueError(f"bias has shape {tuple(bias.shape)}; allowed: {(C,)}")


@dataclass(frozen=True, slots=True)
class Head:
    """A checked linear layer with its targets."""

    features: NDArray[Any]
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    problem: Problem  # of all rows, without logits
    layout: Layout
    dtype: np.dtype[Any]  # what is multiplied and accumulated in
    active: NDArray[np.intp] | None = None  # the rows that take part, or None for all
    blank: NDArray[np.bool_] | None = None  # rows that are multiplied as zeros, or None for none
    multiply: Callable[..., None] = multiply  # the backend's matrix product

    @classmethod
    def check(cls, features: Any, weight: Any, targets: Any, bias: Any, options: LinearOptions) -> Head:
        """Check all inputs, once."""
        features, weight = as_real(features, "features"), as_real(weight, "weight")
        bias = None if bias is None else as_real(bias, "bias")
        check_shapes(features, weight, bias)
        layout = Layout((*features.shape[:-1], weight.shape[0]), (features.ndim - 1,))
        objective, per_row, weights = split_options(**options)
        tau = None if per_row is None else as_temperatures(per_row, layout.row_shape)
        problem = prepare_targets(Problem(None, objective, tau=tau), layout, targets, **weights)
        return cls.of(features, weight, bias, problem, layout)

    @classmethod
    def of(
        cls,
        features: NDArray[Any],
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        problem: Problem,
        layout: Layout,
        multiply: Callable[..., None] = multiply,
        *,
        compact: bool = True,
    ) -> Head:
        """Return the layer of checked inputs.

        A row of weight 0 contributes exactly 0, whatever its features hold: it must not reach a matrix product. With
        ``compact`` it is left out, else its features are taken for zeros.
        """
        arrays = (features, weight) if bias is None else (features, weight, bias)
        wide = any(each.dtype.kind in "iu" or each.dtype == np.float64 for each in arrays)
        silent = _silent_rows(problem)
        silent = silent if silent is not None and silent.any() else None
        active = np.flatnonzero(~silent) if silent is not None and compact else None
        blank = None if compact else silent
        dtype = np.dtype(np.float64 if wide else np.float32)
        return cls(features, weight, bias, problem, layout, dtype, active, blank, multiply)

    @property
    def problem_rows(self) -> int:
        """N, with the rows that take no part."""
        return self.layout.n_rows

    @property
    def gathers(self) -> bool:
        """Whether feature rows have to be copied before they can be multiplied."""
        scattered = self.active is not None or self.blank is not None
        return scattered or self.features.dtype != self.dtype or not self.features.flags.c_contiguous

    @property
    def converts(self) -> bool:
        """Whether weight rows have to be copied before they can be multiplied."""
        return self.weight.dtype != self.dtype or not self.weight.flags.c_contiguous

    def plan(
        self,
        max_bytes: int | None,
        wanted: Wanted = NO_GRADIENTS,
        *,
        at_most: int | None = None,
        widens: bool | None = None,
        blockwise: bool = False,
    ) -> Plan:
        """Return how the work is cut, for these gradients, with at most so many rows at a time.

        ``blockwise`` says that each chunk is gone through in blocks besides, as soft targets are.

        ``widens`` says whether the weight's gradient is summed in a wider type than it is given in; by default, that is
        the weight's own.
        """
        C, H = self.weight.shape
        N = self.problem_rows if self.active is None else len(self.active)
        if widens is None:
            widens = _gradient_dtype(self.weight) != self.dtype
        q = self.problem.q
        sizes = Sizes(
            N,
            C,
            H,
            self.dtype.itemsize,
            self.gathers,
            self.converts,
            widens,
            blockwise or q is not None,
            wanted,
            _gathered_row(q),
        )
        if max_bytes is None:
            held = self.features.nbytes * (1 + wanted.features) + self.weight.nbytes * (1 + wanted.weight)
            held += 0 if q is None else q.nbytes
            max_bytes = default_max_bytes(held, self.problem_rows, C, self.dtype.itemsize)
        return make_plan(sizes, max_bytes, at_most)

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
            for classes, w in self._weight_blocks(plan):
                self.multiply(x, w.T, logits[:, classes])
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
        gathered = gathered.reshape(len(indices), self.features.shape[-1]).astype(self.dtype, copy=False)
        if self.blank is not None:
            if gathered.base is not None:  # of a single row without leading axes, that is the caller's
                gathered = gathered.copy()
            gathered[self.blank[rows]] = 0
        return gathered

    def _weight_blocks(self, plan: Plan) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield blocks of weight rows, ready to be multiplied: all at once where nothing is to be converted."""
        C = self.weight.shape[0]
        for start in range(0, C, plan.classes):
            classes = slice(start, min(start + plan.classes, C))
            block = self.weight[classes]
            yield classes, np.ascontiguousarray(block, self.dtype) if self.converts else block

    @np.errstate(all="ignore")  # logits that overflow are inf
    def losses(self, plan: Plan) -> Any:
        """Return the reduced loss."""
        losses = np.zeros(self.problem_rows)
        for rows, part, _ in self.chunks(plan):
            losses[rows] = kernels().losses(part)
        return self.reduce(losses)

    def empty_gradients(self) -> Outputs:
        """Return arrays for all gradients there are."""
        return Outputs(
            np.empty(self.features.shape, _gradient_dtype(self.features)),
            np.empty(self.weight.shape, _gradient_dtype(self.weight)),
            None if self.bias is None else np.empty(self.bias.shape, _gradient_dtype(self.bias)),
        )

    @np.errstate(all="ignore")  # what overflows is inf, in the features' products and in half types
    def gradients(self, plan: Plan, out: Outputs, dtype: np.dtype[Any] | None = None) -> Any:
        """Return the reduced loss and write the gradients that are wanted: one matrix product for each but the bias.

        ``out.features`` is of the features' shape and C-contiguous. Where ``plan`` has an accumulator, the weight's
        gradient is summed in that.
        """
        losses = np.zeros(self.problem_rows)
        d_rows = None
        if out.features is not None:
            d_rows = out.features.reshape(self.problem_rows, self.features.shape[-1])
            if self.active is not None:
                d_rows[...] = 0
        total, added = self._total(plan, out.weight), False
        d_bias = None if out.bias is None else np.zeros(self.weight.shape[0])
        for rows, part, x in self.chunks(plan):
            dz = part.x
            losses[rows] = kernels().forward_backward(part, dz)
            if d_bias is not None:
                d_bias += dz.sum(axis=0, dtype=np.float64)
            if total is not None:
                self._weight_product(plan, dz, x, total, add=added)
                added = True
            if d_rows is not None:
                self._feature_product(plan, dz, rows, d_rows)
        if total is not None and not added:
            total[...] = 0
        if out.weight is not None and total is not out.weight:
            out.weight[...] = total
        if d_bias is not None and out.bias is not None:
            out.bias[...] = d_bias
        return self.reduce(losses, dtype)

    def weight_gradients(self, plan: Plan) -> tuple[float, NDArray[Any], NDArray[np.float64]]:
        """Return the loss in float64 and the gradients of weight and bias; the features' is not made.

        For training over fixed features: two matrix products instead of three, and no N × H array. The weight is of the
        type that is multiplied in, so that none is converted.
        """
        d_weight, d_bias = np.empty(self.weight.shape, self.dtype), np.empty(self.weight.shape[0])
        loss = self.gradients(plan, Outputs(None, d_weight, d_bias), np.dtype(np.float64))
        return float(loss), d_weight, d_bias

    def _total(self, plan: Plan, out: NDArray[Any] | None) -> NDArray[Any] | None:
        """Return what the weight's gradient is summed in: where it is wanted, or the accumulator."""
        if out is None:
            return None
        return np.empty(out.shape, self.dtype) if plan.accumulator_bytes else out

    def _weight_product(self, plan: Plan, dz: NDArray[Any], x: NDArray[Any], total: NDArray[Any], *, add: bool) -> None:
        """Write or add dzᵀ @ x; where the sum is of a narrower type there is but one chunk, and nothing to add to."""
        if total.dtype == self.dtype:
            self.multiply(dz.T, x, total, add=add)
            return
        for start in range(0, len(total), plan.classes):
            classes = slice(start, min(start + plan.classes, len(total)))
            product = np.empty(total[classes].shape, self.dtype)
            self.multiply(dz[:, classes].T, x, product)
            total[classes] = product

    def _feature_product(self, plan: Plan, dz: NDArray[Any], rows: Any, d_rows: NDArray[Any]) -> None:
        """Write dz @ weight to some rows."""
        direct = isinstance(rows, slice) and d_rows.dtype == self.dtype
        dx = d_rows[rows] if direct else np.empty((len(dz), d_rows.shape[1]), self.dtype)
        for classes, w in self._weight_blocks(plan):
            self.multiply(dz[:, classes], w, dx, add=classes.start > 0)
        if not direct:
            d_rows[rows] = dx

    def reduce(self, losses: NDArray[np.float64], dtype: np.dtype[Any] | None = None) -> Any:
        """Return the reduced loss, by default in the type of the logits' losses."""
        return reduce(self.problem, self.layout, losses, loss_dtype(self.dtype) if dtype is None else dtype)


def _silent_rows(problem: Problem) -> NDArray[np.bool_] | None:
    """Return which rows have weight 0, or a hard target whose mass is 0; None if there can be none."""
    silent: NDArray[np.bool_] | None = None if problem.s is None else problem.s == 0
    if problem.y is None or problem.w is None or problem.objective.label_smoothing > 0:
        return silent
    inside = (problem.y >= 0) & (problem.y < len(problem.w))
    massless: NDArray[np.bool_] = inside & (problem.w[np.where(inside, problem.y, 0)] == 0)
    if silent is not None:
        massless |= silent
    return massless


def _gathered_row(q: Any) -> int:
    """Return the bytes that a row of soft targets takes in each chunk; 0 where the targets are there whole."""
    row: int = getattr(q, "row_bytes", 0)
    return row


def _gradient_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    """Return the type of an input's gradient: its own, or float64 for integers."""
    return np.dtype(np.float64) if array.dtype.kind in "iu" else array.dtype
