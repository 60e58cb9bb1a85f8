"""The loss of a linear layer and its gradients, a few rows of logits at a time, for every backend.

The logits of a chunk of rows are computed into a buffer, which all chunks share; their gradient replaces them there and
enters two more matrix products. Rows that take no part are left out of the products, so that their features, which
may be NaN or inf, have no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from softnll._core.backend import Backend
from softnll._core.kept import KeptLogits
from softnll._core.layout import Layout
from softnll._core.plan import NO_GRADIENTS, Plan, Sizes, Wanted, default_max_bytes, least_bytes, make_plan
from softnll._core.problem import Problem
from softnll._core.targets import SparseRows


class Outputs(NamedTuple):
    """Arrays that receive the gradients, each in its input's shape; None for a gradient that is not computed."""

    features: Any
    weight: Any
    bias: Any


class Chunk(NamedTuple):
    """A chunk's rows (a slice or indices), Problem and features. The next chunk overwrites the Problem's logits."""

    rows: Any
    problem: Problem
    features: Any


Differentiate = Callable[[Any, Problem], None]  # of a chunk's rows and Problem; see ``LinearLoss.pull``

Observe = Callable[[Any, Problem, Any], None]  # of a chunk's rows, its Problem with the logits, and the rest r


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
class LinearLoss:
    """The loss of a linear layer's logits. All inputs have been checked.

    Attributes
    ----------
    features, weight, bias
        ``(..., H)``, ``(C, H)`` and ``(C,)`` or None.
    problem
        The targets, weights and options of all rows, without logits.
    layout
        The shape of the logits.
    backend
        The backend of these arrays.
    dtype, sum_dtype
        The types in which matrices are multiplied and products are summed.
    active
        The indices of the rows that are multiplied, or None for all.
    blank
        ``(N,)`` bool: rows that are multiplied as zeros; None for none.
    upstream
        The upstream gradient that the kernels take: one number, or one a row; None for 1.
    """

    features: Any
    weight: Any
    bias: Any
    problem: Problem
    layout: Layout
    backend: Backend
    dtype: Any
    sum_dtype: Any
    active: Any = None
    blank: Any = None
    upstream: Any = None

    @classmethod
    def of(
        cls,
        features: Any,
        weight: Any,
        bias: Any,
        problem: Problem,
        layout: Layout,
        backend: Backend,
        upstream: Any = None,
        *,
        compact: bool = True,
    ) -> LinearLoss:
        """Return the ``LinearLoss`` of checked inputs.

        The features of rows that take no part must not enter a matrix product: with ``compact`` these rows are left
        out, else multiplied as zeros.
        """
        problem, upstream = backend.with_upstream(problem, upstream)
        without_part = backend.rows_without_part(problem)  # also where the upstream gradient is 0
        dtype, sum_dtype = backend.product_types(features, weight, bias)
        active = backend.nonzero(~without_part) if without_part is not None and compact else None
        blank = None if compact else without_part
        return cls(features, weight, bias, problem, layout, backend, dtype, sum_dtype, active, blank, upstream)

    @property
    def n_rows(self) -> int:
        """The number of rows that are multiplied."""
        return self.layout.n_rows if self.active is None else len(self.active)

    @property
    def converts(self) -> bool:
        """Whether weight rows are copied before they are multiplied."""
        return not self._ready(self.weight)

    def _ready(self, matrix: Any) -> bool:
        """Return whether a matrix is multiplied without a copy."""
        return bool(matrix.dtype == self.dtype) and (self.backend.mixed_products or _contiguous(matrix))

    def plan(
        self,
        max_bytes: int | None,
        wanted: Wanted = NO_GRADIENTS,
        *,
        at_most: int | None = None,
        weight_itemsize: int | None = None,
        further: int = 0,
    ) -> Plan:
        """Return how the rows are divided into chunks when these gradients are computed.

        Parameters
        ----------
        max_bytes
            The limit of the working memory; None for the default.
        wanted
            The gradients that are computed.
        at_most
            The limit of the rows in a chunk; None for as many as the memory allows.
        weight_itemsize
            The bytes of an element of the weight's gradient; None for those of the weight.
        further
            Further bytes, of arrays for blocks of a chunk's rows.
        """
        C, H = self.weight.shape
        q, item = self.problem.q, self.dtype.itemsize
        scales = self.backend.scales(self.dtype)
        scattered = self.active is not None or self.blank is not None
        gathers = scattered or not self._ready(self.features)
        given = self.weight.dtype.itemsize if weight_itemsize is None else weight_itemsize
        target_row = 0
        if isinstance(q, SparseRows):
            target_row = q.row_bytes
        elif q is not None and self.active is not None:  # rows are copied, and the previous chunk's are still there
            target_row = 2 * C * q.dtype.itemsize
        sizes = Sizes(
            rows=self.n_rows,
            classes=C,
            width=H,
            itemsize=item,
            sum_itemsize=self.sum_dtype.itemsize,
            gather=gathers or (scales and wanted.features),
            convert=self.converts,
            widens=given < self.sum_dtype.itemsize,
            always_widens=scales,
            soft=q is not None,
            further=further,
            wanted=wanted,
            target_row=target_row,
            scratch=lambda rows: self.backend.scratch_bytes(self.problem, rows, C, item),
            multiple=self.backend.multiple,
        )
        if max_bytes is None:
            max_bytes = max(self.default_bytes(wanted), least_bytes(sizes))
        return make_plan(sizes, max_bytes, at_most)

    def default_bytes(self, wanted: Wanted) -> int:
        """Return the limit of the working memory by default, where these gradients are held."""
        q = self.problem.q
        held = self.features.nbytes * (1 + wanted.features) + self.weight.nbytes * (1 + wanted.weight)
        held += 0 if q is None else q.nbytes
        return default_max_bytes(held, self.layout.n_rows, self.weight.shape[0], self.dtype.itemsize)

    def room_for_logits(self, *plans: Plan) -> KeptLogits | None:
        """Return memory for the logits of all rows if each of these plans computes them as one chunk, else None."""
        if any(plan.chunks != 1 for plan in plans):
            return None
        shape = (self.n_rows, self.weight.shape[0])
        return KeptLogits(self.backend.empty(shape, self.dtype, self.weight), self.active)

    def chunks(self, plan: Plan, kept: KeptLogits | None = None, *, known: bool = False) -> Iterator[Chunk]:
        """Yield the rows that are multiplied, chunk by chunk, with their logits.

        A plan of one chunk writes the logits to the memory of ``kept``, or finds them there if they are ``known``.
        A plan of several frees that memory: if some rows have no upstream gradient, features are copied.
        """
        backend = self.backend
        if kept is not None and plan.chunks != 1:
            kept.free()
            kept = None
        if kept is None:
            buffer = backend.empty((min(plan.rows, self.n_rows), self.weight.shape[0]), self.dtype, self.weight)
            known = False
        else:
            buffer = kept.of_rows(self.active, backend.xp)
        bias = None if self.bias is None else backend.cast(self.bias, self.dtype)
        for start in range(0, self.n_rows, plan.rows):
            rows: Any = slice(start, min(start + plan.rows, self.n_rows))
            if self.active is not None:
                rows = self.active[rows]
            x = backend.feature_rows(self.features, rows, self.dtype)
            if self.blank is not None:
                x = backend.xp.where(self.blank[rows][:, None], 0.0, x)
            logits = buffer[: len(x)]
            for classes, weight in () if known else self._weight_blocks(plan):
                backend.affine(x, weight, None if bias is None else bias[classes], logits[:, classes])
            yield Chunk(rows, self.problem.take(rows, logits), x)

    def _weight_blocks(self, plan: Plan) -> Iterator[tuple[slice, Any]]:
        """Yield blocks of weight rows for a matrix product; the whole weight if it is not converted."""
        C = self.weight.shape[0]
        for start in range(0, C, plan.classes):
            classes = slice(start, min(start + plan.classes, C))
            block = self.weight[classes]
            yield classes, self.backend.cast(block, self.dtype) if self.converts else block

    @np.errstate(all="ignore")  # logits that overflow are inf
    def losses(
        self, plan: Plan, dtype: Any = None, observe: Observe | None = None, kept: KeptLogits | None = None
    ) -> Any:
        """Return the reduced loss; ``dtype`` None means the type of losses of the logits, which ``kept`` receives."""
        losses = self._zeros(self.layout.n_rows)
        for rows, part, _ in self.chunks(plan, kept):
            if observe is None:
                losses[rows] = self.backend.losses(part)
            else:
                losses[rows], _, r = self.backend.forward(part)
                observe(rows, part, r)
        return self._reduced(losses, dtype)

    def gradients(
        self,
        plan: Plan,
        out: Outputs,
        dtype: Any = None,
        observe: Observe | None = None,
        kept: KeptLogits | None = None,
    ) -> Any:
        """Return the reduced loss and write the gradients of features, weight and bias to the arrays of ``out``.

        ``out.features`` must be contiguous. If the plan has memory for an accumulator, the weight's gradient is summed
        there, in ``sum_dtype``. The gradients of features and weight take one matrix product each.
        """
        backend = self.backend
        losses = self._zeros(self.layout.n_rows)
        scale = backend.gradient_scale(self.problem, self.upstream, self.dtype, self.weight)
        upstream = _product(self.upstream, scale)

        def differentiate(rows: Any, part: Problem) -> None:
            each = upstream if upstream is None or not upstream.ndim else upstream[rows]
            if observe is None:
                losses[rows] = backend.forward_backward(part, part.x, upstream=each)
            else:
                losses[rows], m, r = backend.forward(part)
                observe(rows, part, r)
                backend.backward(part, m, r, part.x, upstream=each)

        self.pull(plan, out, differentiate, scale, kept)
        return self._reduced(losses, dtype)

    @np.errstate(all="ignore")  # products that overflow are inf
    def pull(
        self,
        plan: Plan,
        out: Outputs,
        differentiate: Differentiate,
        scale: Any = None,
        kept: KeptLogits | None = None,
    ) -> None:
        """Write the gradients of the layer to the arrays of ``out``, from those of the logits.

        ``differentiate`` gets the rows and the Problem of each chunk, and replaces its logits with their gradient times
        ``scale``, of which None means 1. The products are summed chunk by chunk. Known logits, ``kept``, are not
        computed again.
        """
        backend = self.backend
        to_features = None
        if out.features is not None:
            to_features = out.features.reshape(self.layout.n_rows, self.features.shape[-1])
            if self.active is not None:
                to_features[...] = 0
        total = out.weight
        if out.weight is not None and plan.accumulator_bytes:
            total = backend.empty(out.weight.shape, self.sum_dtype, self.weight)
        d_bias = None if out.bias is None else self._zeros(self.weight.shape[0])
        added = False
        for rows, part, x in self.chunks(plan, kept, known=True):
            differentiate(rows, part)
            dz = part.x
            if d_bias is not None:
                d_bias += backend.column_sums(dz)
            if total is not None:
                self._add_weight_product(plan, dz, x, total, add=added)
                added = True
            if to_features is not None:
                self._write_feature_product(plan, dz, rows, to_features, scale)
        if total is not None and not added:
            total[...] = 0
        _write(out.weight, total, scale)
        _write(out.bias, d_bias, scale)

    def weight_gradients(self, plan: Plan) -> tuple[float, Any, Any]:
        """Return the loss in float64 and the gradients of weight and bias, but not that of the features.

        Training on fixed features needs only these: two matrix products instead of three, and no N × H gradient. The
        weight's gradient has the type ``self.dtype``. The weight should have it as well: then it is not converted.
        """
        d_weight = self.backend.empty(self.weight.shape, self.dtype, self.weight)
        d_bias = self._zeros(self.weight.shape[0])
        loss = self.gradients(plan, Outputs(None, d_weight, d_bias), d_bias.dtype)
        return float(loss), d_weight, d_bias

    def _add_weight_product(self, plan: Plan, dz: Any, x: Any, total: Any, *, add: bool) -> None:
        """Write ``dz.T @ x`` to ``total``; with ``add``, add it there.

        A ``total`` of a narrower type than the product is used only with a single chunk: nothing is added to it.
        """
        backend = self.backend
        if backend.mixed_products or total.dtype == self.dtype:
            backend.multiply(dz.T, x, total, add=add)
            return
        for start in range(0, len(total), plan.classes):
            classes = slice(start, min(start + plan.classes, len(total)))
            product = backend.empty(total[classes].shape, self.dtype, self.weight)
            backend.multiply(dz[:, classes].T, x, product)
            total[classes] = product

    def _write_feature_product(self, plan: Plan, dz: Any, rows: Any, to: Any, scale: Any) -> None:
        """Write ``dz @ weight / scale`` to these rows of ``to``, the features' gradient; a scale of None means 1."""
        backend = self.backend
        whole = scale is None and plan.classes >= len(self.weight)  # one product, which is rounded once
        dtype = to.dtype if backend.mixed_products and whole else self.sum_dtype
        direct = isinstance(rows, slice) and to.dtype == dtype
        dx = to[rows] if direct else backend.empty((len(dz), to.shape[1]), dtype, self.weight)
        for classes, weight in self._weight_blocks(plan):
            backend.multiply(dz[:, classes], weight, dx, add=classes.start > 0)
        if scale is not None:
            dx /= scale
        if not direct:
            to[rows] = backend.cast(dx, to.dtype)

    def _zeros(self, n: int) -> Any:
        """Return n zeros of the widest type."""
        return self.backend.zeros(n, self.backend.wide(self.weight), self.weight)

    def _reduced(self, losses: Any, dtype: Any) -> Any:
        """Return the ``(N,)`` losses after the reduction; ``dtype`` None means the type of losses of the logits."""
        return self.backend.reduce(self.problem, self.layout, losses, self.dtype if dtype is None else dtype)


def _product(one: Any, other: Any) -> Any:
    """Return the product of two factors, where None means 1."""
    return one if other is None else other if one is None else one * other


def _write(to: Any, total: Any, scale: Any) -> None:
    """Divide a sum by the scale of its summands and, if ``to`` is another array than ``total``, write it there."""
    if to is None:
        return
    if scale is not None:
        total /= scale
    if total is not to:
        to[...] = total


def _contiguous(array: Any) -> bool:
    """Return whether an array of any library is C-contiguous."""
    flags = getattr(array, "flags", None)
    return bool(array.is_contiguous()) if flags is None else bool(flags.c_contiguous)
