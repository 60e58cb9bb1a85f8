"""softmax, log_softmax and logsumexp as functions that autograd, forward mode and vmap know, to any order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll.torch import compute
from softnll.torch.function import Rule

__all__ = ["LogSoftmax", "LogSumExp", "Softmax", "log_softmax_product", "softmax_product", "wide"]


def wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 or wider."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def softmax_product(p: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return (diag p − p pᵀ)·v = p⊙(v − ⟨p, v⟩), with v taken relative to the largest entry's.

    Then no term has the size of that entry's v, in which a confident row's product would be lost.
    """
    apart = v - v.gather(dim, p.argmax(dim, keepdim=True))
    return p * (apart - (p * apart).sum(dim, keepdim=True))


def log_softmax_product(log_p: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return v − p·Σv as v⊙(1 − p) − p⊙(Σv − v): 1 − p is not 0 where p rounds to 1."""
    return -v * torch.expm1(log_p) - torch.exp(log_p) * (v.sum(dim, keepdim=True) - v)


class _AlongOneDim(Rule):
    """What softmax and log_softmax have in common.

    Their derivatives are expressions of the result, which is saved; a result in a half type has too few digits for
    that, so there the logits are saved and the result is made again in float32.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the result, or the logits."""
        x, ctx.dim = inputs
        ctx.narrow = wide(x) is not x
        ctx.save_for_backward(x if ctx.narrow else output)
        ctx.save_for_forward(x if ctx.narrow else output)


class Softmax(_AlongOneDim):
    """p, of logits and a dimension counted from the front."""

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        """Return p."""
        return compute.softmax(x, dim)

    @staticmethod
    def _product(ctx: Any, v: Tensor) -> Tensor:
        (saved,) = ctx.saved_tensors
        p = Softmax.apply(wide(saved), ctx.dim) if ctx.narrow else saved
        return softmax_product(p, wide(v), ctx.dim).to(saved.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the product of the Jacobian, which is symmetric, and the upstream gradient."""
        return Softmax._product(ctx, grad), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return the product of the Jacobian and a tangent."""
        return Softmax._product(ctx, tangent)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int, None], x: Tensor, dim: int) -> tuple[Tensor, int]:
        """Return p of a batch."""
        return Softmax.apply(x.movedim(in_dims[0], 0), dim + 1), 0


class LogSoftmax(_AlongOneDim):
    """log p, of logits and a dimension counted from the front."""

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        """Return log p."""
        return compute.log_softmax(x, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the product of the upstream gradient and the Jacobian 1[i = j] − p_j."""
        (saved,) = ctx.saved_tensors
        log_p = LogSoftmax.apply(wide(saved), ctx.dim) if ctx.narrow else saved
        return log_softmax_product(log_p, wide(grad), ctx.dim).to(saved.dtype), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return the product of the Jacobian and a tangent: v − ⟨p, v⟩."""
        (saved,) = ctx.saved_tensors
        log_p = LogSoftmax.apply(wide(saved), ctx.dim) if ctx.narrow else saved
        v = wide(tangent)
        apart = v - v.gather(ctx.dim, log_p.argmax(ctx.dim, keepdim=True))
        return (apart - (torch.exp(log_p) * apart).sum(ctx.dim, keepdim=True)).to(saved.dtype)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int, None], x: Tensor, dim: int) -> tuple[Tensor, int]:
        """Return log p of a batch."""
        return LogSoftmax.apply(x.movedim(in_dims[0], 0), dim + 1), 0


class LogSumExp(Rule):
    """lse, of logits and a dimension counted from the front, which the result does not have."""

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        """Return lse."""
        return compute.logsumexp(x, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - p needs the logits
        """Keep the logits."""
        x, ctx.dim = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return p times the upstream gradient."""
        (x,) = ctx.saved_tensors
        return logsumexp_product(x, grad, ctx.dim), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return ⟨p, v⟩."""
        (x,) = ctx.saved_tensors
        return (_probabilities(x, ctx.dim) * wide(tangent)).sum(ctx.dim).to(x.dtype)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int, None], x: Tensor, dim: int) -> tuple[Tensor, int]:
        """Return lse of a batch."""
        return LogSumExp.apply(x.movedim(in_dims[0], 0), dim + 1), 0


def _probabilities(x: Tensor, dim: int) -> Tensor:
    """Return p, of no classes as well."""
    x = wide(x)
    return Softmax.apply(x, dim) if x.shape[dim] else x


def logsumexp_product(x: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return p times v, one v a row."""
    return (_probabilities(x, dim) * wide(v).unsqueeze(dim)).to(x.dtype)
