"""softmax, log_softmax and logsumexp of sliced logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softnll._core import equation
from softnll._core.arithmetic import arithmetic_of
from softnll._core.equation import Normalised
from softnll.torch._parallel.sliced import Sliced


class _SlicedNormalised(torch.autograd.Function):
    """softmax, log_softmax or logsumexp of a slice, whose rows are merged already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sliced: Sliced, name: str) -> Tensor:
        """Return the slice's probabilities or log-probabilities, or logsumexp of all slices."""
        ctx.sliced, ctx.name = sliced, name
        ctx.save_for_backward(x)
        backend = sliced.backend
        if name == "logsumexp":
            lse: Tensor = backend.tensor(sliced.whole.lse).to(x.dtype).reshape(sliced.layout.row_shape)
            return lse
        if x.numel() == 0:
            return x.clone()
        compute = equation.probabilities if name == "softmax" else equation.log_probabilities
        return _each(sliced, x, lambda rows, _: compute(rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        """Return the gradient; softmax and log_softmax sum one number a row over the ranks, in rank order."""
        (x,), sliced, name = ctx.saved_tensors, ctx.sliced, ctx.name
        backend, layout = sliced.backend, sliced.layout
        if name == "logsumexp":
            up = backend.array(upstream.detach().double().reshape(-1, 1))
            found = (
                torch.zeros_like(x)
                if x.numel() == 0
                else _each(sliced, x, lambda rows, at: equation.probabilities(rows) * up[at])
            )
            return found, None, None
        g = backend.rows_of(upstream.detach().double(), layout)
        total = arithmetic_of(sliced.whole.m).xp.zeros_like(sliced.whole.m)
        if x.numel():
            for at, rows in _rows(sliced, x):
                p = equation.probabilities(rows)
                total[at] = (g[at] if name == "log_softmax" else p * g[at]).sum(1)
        parts = sliced.exchange.gather(backend.tensor(total)[:, None], None)
        shift = torch.zeros_like(parts[0])
        for part in parts:
            shift = shift + part
        if x.numel() == 0:
            return torch.zeros_like(x), None, None
        shift = backend.array(shift)

        def compute(rows: Normalised, at: Any) -> Any:
            p = equation.probabilities(rows)
            return g[at] - p * shift[at] if name == "log_softmax" else p * (g[at] - shift[at])

        return _each(sliced, x, compute), None, None


def _rows(sliced: Sliced, x: Tensor) -> Any:
    """Yield blocks of rows, as slices, with their exponentials relative to the whole rows."""
    problem = sliced.problem
    part = problem.with_rows(sliced.backend.rows_of(x, sliced.layout), None)
    for at, piece in sliced.pieces(part):
        yield at, equation.normalise(piece, sliced.whole.m[at], sliced.whole.r[at])


def _each(sliced: Sliced, x: Tensor, compute: Any) -> Tensor:
    """Return what is computed of each block of rows, in the shape and type of the slice's logits."""
    backend = sliced.backend
    out = torch.empty((sliced.layout.n_rows, sliced.layout.n_classes), dtype=x.dtype, device=x.device)
    to = backend.array(out)
    for at, rows in _rows(sliced, x):
        to[at] = sliced.narrow(compute(rows, at), to)
    restored: Tensor = backend.restore(to, sliced.layout, x)
    return restored


def normalised(x: Tensor, sliced: Sliced, name: str) -> Tensor:
    """Return softmax, log_softmax or logsumexp, whichever ``name`` is, of a slice's logits."""
    problem = sliced.problem.with_rows(sliced.backend.rows_of(x, sliced.layout), None)
    sliced.merge(sliced.blank() if x.numel() == 0 else sliced.summarise(problem))
    value: Tensor = _SlicedNormalised.apply(x, sliced, name)
    return value
