"""The linear layer with its loss on CUDA devices: the plan of the CPU, matrix products by cuBLAS, the Triton kernels.

A few rows of logits at a time are made, turned into their gradient in place, and multiplied twice more; the same memory
serves for all of them. Half types are multiplied as they are, as torch's own layer does, with sums in float32; the
weight's gradient is summed over the chunks in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from softnll.head import check_shapes
from softnll.kernels import cuda
from softnll.plan import NO_GRADIENTS, Plan, Sizes, Wanted, default_max_bytes, make_plan
from softnll.problem import Problem
from softnll.targets import TargetIndexError
from softnll.torch.cuda_compute import reduced
from softnll.torch.cuda_lift import lift_of
from softnll.torch.cuda_problem import Rows, loss_problem
from softnll.torch.cuda_products import multiply, product
from softnll.torch.devices import capturing

__all__ = ["Head", "gradients", "head_of", "losses", "plan_of", "with_gradients"]

_WHOLE = 128  # rows of a chunk come in multiples of this, which matrix products like


@dataclass(slots=True)
class Head:
    """A linear layer with its targets, on a device.

    Attributes
    ----------
    features, weight, bias
        ``(N, H)``, ``(C, H)`` and ``(C,)`` or None.
    problem
        Of all rows, without logits.
    rows
        The shape of the logits that are never there.
    dtype
        What is multiplied.
    upstream
        The upstream gradient, float64: one, or one a row; None for 1.
    active
        The rows that take part, or None for all.
    blank
        Rows that are multiplied as zeros, or None for none.
    sparse
        ``(N, K)`` classes and probabilities of soft targets that are 0 elsewhere, or None.
    """

    features: Tensor
    weight: Tensor
    bias: Tensor | None
    problem: Problem
    rows: Rows
    dtype: torch.dtype
    upstream: Tensor | None = None
    active: Tensor | None = None
    blank: Tensor | None = None
    sparse: tuple[Tensor, Tensor] | None = None

    @property
    def n_rows(self) -> int:
        """How many rows are multiplied."""
        return self.rows.n_rows if self.active is None else self.active.shape[0]

    def plan(
        self,
        max_bytes: int | None,
        wanted: Wanted = NO_GRADIENTS,
        *,
        at_most: int | None = None,
        widens: bool = False,
        blockwise: bool = False,
    ) -> Plan:
        """Return how the work is cut."""
        C, H = self.weight.shape
        item = self.dtype.itemsize
        q = self.problem.q
        half = self.dtype == torch.float16  # whose products are made in float32 (cuda_lift)
        gathers = self.active is not None or self.blank is not None or self.features.dtype != self.dtype
        gathers |= half and wanted.features
        target_row = 0 if self.sparse is None else C * self.sparse[1].dtype.itemsize
        soft = blockwise or q is not None
        sizes = Sizes(self.n_rows, C, H, item, gathers, False, False, soft, wanted, target_row)
        if max_bytes is None:
            held = self.features.nbytes * (1 + wanted.features) + self.weight.nbytes * (1 + wanted.weight)
            held += 0 if q is None else q.nbytes
            max_bytes = default_max_bytes(held, self.rows.n_rows, C, item)
        plan = make_plan(sizes, max_bytes, at_most)
        if at_most is None and plan.chunks > 1 and plan.rows > _WHOLE:
            rows = plan.rows - plan.rows % _WHOLE
            plan = replace(plan, rows=rows, chunks=-(-self.n_rows // rows))
        if widens and wanted.weight and (half or plan.chunks > 1):
            plan = replace(plan, accumulator_bytes=C * H * self.sum_type.itemsize)
        return plan

    @property
    def sum_type(self) -> torch.dtype:
        """The type that the weight's gradient is summed in over the chunks."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def chunks(self, plan: Plan) -> Iterator[tuple[Any, Problem, Tensor]]:
        """Yield, chunk by chunk: which rows, their Problem (its logits in a buffer used again), their features."""
        W = self.weight.to(self.dtype)
        b = None if self.bias is None else self.bias.to(self.dtype)
        buffer = torch.empty(min(plan.rows, self.n_rows), W.shape[0], dtype=self.dtype, device=W.device)
        for start in range(0, self.n_rows, plan.rows):
            rows: Any = slice(start, min(start + plan.rows, self.n_rows))
            if self.active is not None:
                rows = self.active[rows]
            x = self.features[rows].to(self.dtype)
            if self.blank is not None:
                x = torch.where(self.blank[rows, None], 0.0, x)
            logits = buffer[: x.shape[0]]
            if b is None:
                torch.mm(x, W.t(), out=logits)
            else:
                torch.addmm(b, x, W.t(), out=logits)
            part = self.problem.take(rows, logits)
            if self.sparse is not None:
                classes, probabilities = (each[rows] for each in self.sparse)
                q = torch.zeros(logits.shape, dtype=probabilities.dtype, device=logits.device)
                part = replace(part, y=None, q=q.scatter_add_(1, classes, probabilities))
            yield rows, part, x

    def losses(self, plan: Plan) -> Tensor:
        """Return the reduced loss."""
        values = self._zeros(self.rows.n_rows)
        for rows, part, _ in self.chunks(plan):
            values[rows] = cuda.losses(part)
        return self.reduce(values)

    def gradients(  # noqa: C901, PLR0912 - each of the three may be wanted
        self, plan: Plan, out: tuple[Tensor | None, Tensor | None, Tensor | None]
    ) -> Tensor:
        """Return the reduced loss and write the gradients that are wanted."""
        to_features, to_weight, to_bias = out
        values = self._zeros(self.rows.n_rows)
        d_rows = None if to_features is None else to_features.view(self.features.shape)
        if d_rows is not None and self.active is not None:
            d_rows.zero_()
        W = self.weight.to(self.dtype)
        total = None
        if to_weight is not None:
            total = torch.empty_like(W, dtype=self.sum_type) if plan.accumulator_bytes else to_weight
        d_bias = None if to_bias is None else self._zeros(W.shape[0])
        upstream, lift = self.upstream, self._lift()
        if lift is not None:
            upstream = lift if upstream is None else upstream * lift
        added = False
        for rows, part, x in self.chunks(plan):
            dz = part.x
            by = upstream if upstream is None or not upstream.dim() else upstream[rows]
            values[rows] = cuda.forward_backward(part, dz, by)
            if d_bias is not None:
                d_bias += dz.sum(0, dtype=self.sum_type)
            if total is not None:
                multiply(dz.t(), x, total, add=added)
                added = True
            if d_rows is None:
                continue
            if lift is not None:
                d_rows[rows] = product(dz, W, self.sum_type).div_(lift).to(d_rows.dtype)
            elif isinstance(rows, slice):
                multiply(dz, W, d_rows[rows])
            else:
                d_rows[rows] = product(dz, W, d_rows.dtype)
        if total is not None and not added:
            total.zero_()
        for to, made in ((to_weight, total), (to_bias, d_bias)):
            if to is not None and made is not None:
                if lift is not None:
                    made.div_(lift)
                if made is not to:
                    to.copy_(made)
        return self.reduce(values)

    def _lift(self) -> Tensor | None:
        """Return what the logits' gradient is multiplied by, on the device; None for 1."""
        if self.dtype != torch.float16:
            return None
        q = self.problem.q if self.sparse is None else self.sparse[1]
        masses = None
        if q is not None:
            smoothing = self.problem.objective.label_smoothing
            masses = torch.linalg.vector_norm(q, 1, dim=1, dtype=torch.promote_types(q.dtype, torch.float32))
            masses = masses * (1 - smoothing) + smoothing
        return lift_of(self.problem, self.upstream, masses, self.weight)

    def reduce(self, values: Tensor) -> Tensor:
        """Return the reduced loss."""
        return reduced(self.problem, self.rows, values, self.dtype)

    def _zeros(self, n: int) -> Tensor:
        """Return float64 zeros on the device."""
        return torch.zeros(n, dtype=torch.float64, device=self.weight.device)


def head_of(*given: Any, upstream: Tensor | None = None) -> Head:
    """Check ``(f, W, b, target, weight, sample_weight, temperature, indices, LinearLoss)`` and return a Head."""
    f, W, b, target, weight, sample_weight, temperature, indices, what = given
    check_shapes(f, W, b)
    rows = Rows((*f.shape[:-1], W.shape[0]), f.dim() - 1)
    check = what.loss.check is True
    objective = what.loss.objective
    sparse = None
    if indices is not None:
        sparse = _sparse(indices, target, rows, check=check)
        target = torch.zeros(rows.row_shape, dtype=torch.int64, device=f.device)  # for the weights, which are of any
    options = (weight, sample_weight, temperature, objective)
    problem = loss_problem(None, rows, target, *options, check=check, sparse=sparse is not None)
    dtype = torch.promote_types(f.dtype, W.dtype)
    features = f.detach().reshape(-1, f.shape[-1])
    if upstream is not None:
        upstream = upstream.detach().double().reshape(() if objective.reduction != "none" else -1).contiguous()
    head = Head(features, W.detach(), None if b is None else b.detach(), problem, rows, dtype, upstream, sparse=sparse)
    silent = _silent(problem)
    if silent is None:
        return head
    if what.compact is not False and not (what.compact is None and capturing()):
        head.active = (~silent).nonzero()[:, 0]  # how many, the processor has to know
    else:
        head.blank = silent
    return head


def _sparse(indices: Tensor, probabilities: Tensor, rows: Rows, *, check: bool) -> tuple[Tensor, Tensor]:
    """Return classes and probabilities as ``(N, K)``; a class out of range, unchecked, makes its row NaN."""
    shape = tuple(indices.shape)
    if shape != tuple(probabilities.shape) or shape[:-1] != rows.row_shape or not shape or not shape[-1]:
        raise ValueError(
            f"target.indices has shape {shape}, target.probabilities {tuple(probabilities.shape)}; "
            f"allowed: one shape, {(*rows.row_shape, 'K')}, with K >= 1"
        )
    classes = indices.reshape(-1, shape[-1]).to(torch.int64)
    good = (classes >= 0) & (classes < rows.n_classes)
    if check and not bool(good.all()):
        raise TargetIndexError(f"target.indices has a class out of range; allowed: 0 <= class < {rows.n_classes}")
    q = probabilities.detach().reshape(-1, shape[-1])
    q = q if q.dtype in (torch.float32, torch.float64) else q.float()
    return torch.where(good, classes, 0), torch.where(good, q, torch.nan)


def _silent(problem: Problem) -> Tensor | None:
    """Return which rows take no part; None if there can be none."""
    y, s, w, objective = problem.y, problem.s, problem.w, problem.objective
    if y is None:
        return None if s is None else s == 0
    silent = y == objective.ignore_index
    if s is not None:
        silent |= s == 0
    if w is not None and objective.label_smoothing == 0:
        inside = (y >= 0) & (y < w.shape[0])
        silent |= inside & (w[torch.where(inside, y, 0)] == 0)
    return silent


def _held_type(dtype: torch.dtype, held: bool) -> torch.dtype:
    """Return the type of a gradient: where it waits for its upstream gradient, float16 would lose what that lifts."""
    return torch.float32 if held and dtype is torch.float16 else dtype


def plan_of(head: Head, W: Tensor, what: Any, wanted: Wanted = NO_GRADIENTS, *, held: bool = False) -> Plan:
    """Return how the work will be cut."""
    widens = _held_type(W.dtype, held).itemsize < head.sum_type.itemsize
    return head.plan(what.max_bytes, wanted, at_most=what.at_most, widens=widens)


def losses(*given: Any) -> Tensor:
    """Return the loss of ``(f, W, b, target, weight, sample_weight, temperature, indices, LinearLoss)``."""
    head, what = head_of(*given), given[-1]
    return head.losses(plan_of(head, given[1], what))


def _run(head: Head, inputs: tuple[Any, ...], what: Any, wanted: Wanted, held: bool) -> tuple[Tensor, Any]:
    """Return the loss and the gradients."""
    made = tuple(
        torch.empty(each.shape, dtype=_held_type(each.dtype, held), device=each.device) if asked else None
        for each, asked in zip(inputs, wanted, strict=True)
    )
    plan = plan_of(head, inputs[1], what, wanted, held=held)
    return head.gradients(plan, made), made  # type: ignore[arg-type]


def with_gradients(wanted: Wanted, *given: Any) -> tuple[Tensor, Any]:
    """Return the reduced loss, and its gradients to wait for an upstream gradient: those of float16 in float32."""
    return _run(head_of(*given), given[:3], given[-1], wanted, held=True)


def gradients(wanted: Wanted, upstream: Tensor, *given: Any) -> Any:
    """Return the gradients of the loss times the upstream gradient; nothing is checked a second time."""
    *tensors, what = given
    what = replace(what, loss=replace(what.loss, check=False))
    return _run(head_of(*tensors, what, upstream=upstream), given[:3], what, wanted, held=False)[1]
