"""One call on a rank: the slice's Problem, and what follows from the slices of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softnll._core import slices
from softnll._core.arithmetic import arithmetic_of
from softnll._core.layout import Layout
from softnll._core.problem import Problem
from softnll._core.slices import Whole
from softnll._core.targets import SparseRows, blocks
from softnll.torch._base.arguments import LinearInputs, LinearSettings
from softnll.torch._base.backend import backend_of
from softnll.torch._base.checks import wide_type
from softnll.torch._parallel.exchange import Exchange

_ENTRIES = {"cpu": 1 << 15}  # of a block of logits, by device type: an intermediate is 256 KiB
_LAUNCHED = 1 << 22


@dataclass(slots=True)
class Sliced:
    """A rank's slice of a call.

    Attributes
    ----------
    problem
        Targets, class weights, row weights and options of the slice, without logits. Hard targets count from the
        slice's first class; −1 stands for those elsewhere. Row weights are 0 in rows that take no part.
    layout
        The shape of the slice's logits.
    n_classes, start
        C over all slices, and the slice's first class.
    y
        Hard targets over all classes, or None.
    exchange
        The collectives.
    names
        The numbers of a row that are exchanged.
    whole
        The rows over all slices, once they are known.
    """

    problem: Problem
    layout: Layout
    n_classes: int
    start: int
    y: Any
    exchange: Exchange
    names: tuple[str, ...]
    like: Tensor
    whole: Any = None

    @classmethod
    def of(
        cls,
        inputs: LinearInputs,
        settings: LinearSettings,
        layout: Layout,
        n_classes: int,
        start: int,
        exchange: Exchange,
        names: tuple[str, ...],
    ) -> Sliced:
        """Return the slice of checked tensors, after checking targets and weights."""
        backend, x = backend_of(inputs.input), inputs.input
        axis = layout.axes[0]
        shape = list(layout.shape)
        shape[axis] = n_classes
        full = Layout(tuple(shape), layout.axes)
        target, soft_slice = inputs.target, None
        if inputs.indices is None and target.is_floating_point() and tuple(target.shape) == layout.shape != full.shape:
            soft_slice = backend.rows_of(target, layout)
            target = torch.zeros(layout.row_shape, dtype=torch.int64, device=x.device)
        given = inputs._replace(target=target, weight=None)
        problem = backend.linear_problem(given, settings, full)
        arithmetic = arithmetic_of(backend.array(x))
        xp = arithmetic.xp
        end = start + layout.shape[axis]
        y, q, s = problem.y, problem.q, problem.s
        if isinstance(q, SparseRows):
            mine = (q.indices >= start) & (q.indices < end)
            q = SparseRows(
                xp.where(mine, q.indices - start, 0), xp.where(mine, q.probabilities, 0), end - start, q.densify
            )
        elif q is not None:
            q = q[:, start:end]
        elif soft_slice is not None:
            y, q = None, soft_slice
        s = None if s is None else arithmetic.wide(s)
        local = None
        if y is not None:
            ignored = y == problem.objective.ignore_index
            s = xp.where(ignored, 0.0, xp.ones_like(y, dtype=arithmetic.dtype) if s is None else s)
            local = xp.where((y >= start) & (y < end), y - start, -1)
        w = (
            None
            if inputs.weight is None
            else arithmetic.wide(backend.array(_weights(inputs.weight, start, end, n_classes)))
        )
        tau = None if problem.tau is None else arithmetic.wide(problem.tau)
        problem = replace(problem, y=local, q=q, w=w, s=s, tau=tau)
        return cls(problem, layout, n_classes, start, y, exchange, names, x)

    @property
    def backend(self) -> Any:
        """The backend of the tensors."""
        return backend_of(self.like)

    def blank(self) -> Tensor:
        """Return what a slice without classes says of the rows, ``(N, k)``."""
        values = torch.tensor(slices.empty_columns(self.names), dtype=wide_type(self.like), device=self.like.device)
        return values.repeat(self.layout.n_rows, 1)

    def summarise(self, part: Problem) -> Tensor:
        """Return the numbers of some rows, ``(n, k)``."""
        if self._compiled(part):
            _, m, r = self.backend.forward(replace(part, y=np.zeros_like(part.y), w=None, s=None))
            found: Tensor = self.backend.tensor(slices.summarise_targets(part, m, r, self.names))
            return found
        parts = [
            self.backend.tensor(slices.summarise(piece, self.n_classes, self.start, self.names))
            for _, piece in self.pieces(part)
        ]
        return torch.cat(parts) if parts else self.blank()[:0]

    def merge(self, numbers: Tensor) -> None:
        """Exchange the numbers of the rows and keep the rows over all slices."""
        stacked = self.exchange.gather(numbers, None)
        array = self.backend.array
        xp = arithmetic_of(array(self.like)).xp
        self.whole = slices.rows_of(xp, array(stacked), self.names, self.problem, self.n_classes, self.y)
        if self.y is not None and self.problem.w is not None:
            self.divide_by(self.whole.weight)

    def divide_by(self, weights: Any) -> None:
        """Set the mean's denominator to Σ s·w_y; where it is negative, it and the row weights change their signs."""
        if self.problem.objective.reduction != "mean":
            return
        xp, s = arithmetic_of(weights).xp, self.problem.s
        counted = xp.where(s == 0, 0.0, s * weights)
        divisor = xp.sum(counted)
        sign = xp.where(divisor < 0, -1.0, 1.0)
        divisor = divisor * sign
        self.problem = replace(
            self.problem, s=s * sign, divisor=divisor if isinstance(divisor, Tensor) else float(divisor)
        )

    @np.errstate(all="ignore")  # infinities and NaN are regular results
    def loss(self) -> Tensor:
        """Return the reduced loss of all slices."""
        whole, problem = self.whole, self.problem
        xp = arithmetic_of(whole.m).xp
        loss, zeta = whole.nll, problem.objective.z_loss
        if zeta > 0:
            loss = loss + whole.mass * (zeta * whole.lse) * whole.lse
            loss = xp.where(whole.m == xp.inf, xp.nan, loss)
        s = problem.s
        loss = loss if s is None else s * loss
        absent = ~whole.touched if s is None else ~whole.touched | (s == 0)
        dtype = torch.float64 if self.like.dtype == torch.float64 else torch.float32
        value: Tensor = self.backend.reduce(problem, self.layout, xp.where(absent, 0.0, loss), self._array_type(dtype))
        return value

    def gradient(self, part: Problem, rows: Any, out: Any, upstream: Tensor) -> None:
        """Write the gradient with respect to some rows of the slice's logits, times the upstream gradient."""
        factors = self._factors(upstream)
        if self._compiled(part):
            self._kernel_gradient(self._weighted(part, factors(rows)), rows, out)
            return
        self.write(
            part,
            rows,
            out,
            lambda piece, whole, at: slices.gradient(self._weighted(piece, factors(at)), self.n_classes, whole),
        )

    def _compiled(self, part: Problem) -> bool:
        """Return whether the compiled kernels serve: on a CPU, for hard targets, without smoothing and statistics."""
        served = part.y is not None and part.objective.label_smoothing == 0 and "spread" not in self.names
        return served and isinstance(part.x, np.ndarray)

    def _kernel_gradient(self, part: Problem, rows: Any, out: Any) -> None:
        """Write the gradient by the kernels, which take each target for the slice's, and then that of the targets.

        The kernels' row weight is s·T, and every class but the target's has the gradient s·T·(1 + 2ζ·lse)·p.
        """
        whole = Whole(*(None if each is None else each[rows] for each in self.whole))
        at, column = slices.target_column(part, whole)
        mass = np.where(part.s == 0, 0.0, part.s * whole.mass)
        m, r = (np.ascontiguousarray(each) for each in (whole.m, whole.r))
        tau, temperature = part.tau, part.objective.temperature
        if temperature != 1 and tau is None:  # of few classes with one temperature for all, m and r are computed anew
            tau = np.full(len(at), temperature)
        self.backend.backward(replace(part, y=at, w=None, s=mass, tau=tau), m, r, out)
        out[np.arange(len(at)), at] = column
        out[np.isnan(column)] = np.nan  # a target out of range, or NaN among the logits

    def target_gradient(self, part: Problem, rows: Any, out: Any, upstream: Tensor) -> None:
        """Write the gradient with respect to some rows of the slice's soft targets, times the upstream gradient."""
        factors = self._factors(upstream)

        def compute(piece: Problem, whole: Whole, at: Any) -> Any:
            piece = self._weighted(piece, factors(at))
            return slices.target_gradient(piece, self.n_classes, whole, piece.s / piece.divisor)

        self.write(part, rows, out, compute)

    def write(self, part: Problem, rows: Any, out: Any, compute: Callable[[Problem, Whole, Any], Any]) -> None:
        """Write what is computed of blocks of rows; ``out`` may be the logits."""
        for cut, piece in self.pieces(part):
            at = _within(rows, cut)
            whole = Whole(*(None if each is None else each[at] for each in self.whole))
            out[cut] = self.narrow(compute(piece, whole, at), out)

    def _factors(self, upstream: Tensor) -> Callable[[Any], Any]:
        """Return the function that returns the upstream gradient of some rows."""
        up = self.backend.array(upstream.detach().to(wide_type(self.like)).reshape(-1))
        rows = self.problem.objective.reduction == "none"
        return lambda at: up[at] if rows else up

    def of_target(self, found: Tensor, target: Tensor) -> Tensor:
        """Return the gradient of the slice's soft targets in the shape of the target, which may have all classes."""
        if target.shape == found.shape:
            return found
        whole = torch.zeros_like(target)
        whole.narrow(self.layout.axes[0], self.start, self.layout.n_classes).copy_(found)
        return whole

    def narrow(self, value: Any, out: Any) -> Any:
        """Return values in the type of an array."""
        return value.to(out.dtype) if isinstance(value, Tensor) else value.astype(out.dtype)

    def _array_type(self, dtype: torch.dtype) -> Any:
        """Return a type as the backend names it."""
        return self.backend.array(torch.empty(0, dtype=dtype)).dtype

    def _weighted(self, piece: Problem, up: Any) -> Problem:
        """Return a Problem with the upstream gradient in its row weights; a weight of 0 stays 0."""
        xp = arithmetic_of(piece.x).xp
        s = xp.ones_like(self.whole.m[: len(piece.x)]) if piece.s is None else piece.s
        return replace(piece, s=xp.where(s == 0, 0.0, s * up))

    def pieces(self, part: Problem) -> Any:
        """Yield blocks of the rows of a Problem, as slices and Problems."""
        for cut in blocks(tuple(part.x.shape), _ENTRIES.get(self.like.device.type, _LAUNCHED)):
            yield cut, part.take(cut, part.x[cut])


def _within(rows: Any, cut: slice) -> Any:
    """Return the rows that a slice of ``rows``, a slice or indices, selects."""
    return slice(rows.start + cut.start, rows.start + cut.stop) if isinstance(rows, slice) else rows[cut]


def _weights(weight: Tensor, start: int, end: int, n_classes: int) -> Tensor:
    """Return the slice's class weights, of weights for the slice or for all classes."""
    if tuple(weight.shape) == (end - start,):
        return weight
    if tuple(weight.shape) == (n_classes,):
        return weight[start:end]
    raise ValueError(f"class_weight has shape {tuple(weight.shape)}; allowed: {(end - start,)} or {(n_classes,)}")
