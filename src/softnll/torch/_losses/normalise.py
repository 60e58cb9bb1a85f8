"""softmax, log_softmax and logsumexp with derivatives of any order, in reverse and forward mode, and vmap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from softnll.torch._base.autograd_base import Rule, apply, in_batch, records
from softnll.torch._losses import compute

_WIDE = (torch.float32, torch.float64)


def wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 or wider."""
    return x if x.dtype in _WIDE else x.to(torch.float32)


def softmax_product(p: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return (diag p − p pᵀ)·v = p⊙(v − ⟨p, v⟩), from v minus its entry at the largest p.

    Without that subtraction, terms of the size of that entry would round away the small product of a confident row.
    """
    apart = v - v.gather(dim, p.argmax(dim, keepdim=True))
    return p * (apart - (p * apart).sum(dim, keepdim=True))


def log_softmax_product(log_p: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return v − p·Σv as v⊙(1 − p) − p⊙(Σv − v): 1 − p is not 0 where p rounds to 1."""
    return -v * torch.expm1(log_p) - torch.exp(log_p) * (v.sum(dim, keepdim=True) - v)


def _log_softmax_push(log_p: Tensor, v: Tensor, dim: int) -> Tensor:
    """Return v − ⟨p, v⟩, the derivative of log_softmax along v."""
    apart = v - v.gather(dim, log_p.argmax(dim, keepdim=True))
    return apart - (torch.exp(log_p) * apart).sum(dim, keepdim=True)


class _AlongDim(Rule):
    """The base of functions of logits and a class dimension, which is counted from the front."""

    by_result = False  # whether the derivatives are expressions of the result

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save the logits or the result, which has too few digits in a half type."""
        x, ctx.dim = inputs
        ctx.narrow = x.dtype not in _WIDE
        saved = output if cls.by_result and not ctx.narrow else x
        ctx.save_for_backward(saved)
        ctx.save_for_forward(saved)

    @classmethod
    def vmap(cls, _: Any, in_dims: tuple[int, None], x: Tensor, dim: int) -> tuple[Tensor, int]:
        """Return the results of each example of torch.vmap, stacked, and the batch dimension."""
        mapped, _dim = in_dims
        return cls.apply(x.movedim(mapped, 0), dim + 1), 0


class _Normalised(_AlongDim):
    """The base of softmax and log_softmax; of half types, the result is computed again in float32."""

    by_result = True
    log = False

    @classmethod
    def _product(cls, function: Callable[[Tensor, Tensor, int], Tensor], ctx: Any, v: Tensor) -> Tensor:
        """Return a function of the result, v and the dimension, in the type of the logits."""
        (saved,) = ctx.saved_tensors
        result = cls.apply(wide(saved), ctx.dim) if ctx.narrow else saved
        return function(result, wide(v), ctx.dim).to(saved.dtype)

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the product of the upstream gradient and the Jacobian: by a kernel, unless it is recorded."""
        if not records() and not in_batch(grad):
            (saved,) = ctx.saved_tensors
            found = compute.product(saved, grad, ctx.dim, log=cls.log, logits=ctx.narrow)
            if found is not None:
                return found, None
        return cls._product(log_softmax_product if cls.log else softmax_product, ctx, grad), None

    @classmethod
    def jvp(cls, ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return the product of the Jacobian and a tangent."""
        return cls._product(_log_softmax_push if cls.log else softmax_product, ctx, tangent)


class Softmax(_Normalised):
    """Probabilities, of logits and a class dimension."""

    forward = staticmethod(compute.softmax)


class LogSoftmax(_Normalised):
    """Log-probabilities, of logits and a class dimension."""

    log = True
    forward = staticmethod(compute.log_softmax)


class LogSumExp(_AlongDim):
    """logsumexp, of logits and a class dimension, which the result does not have."""

    forward = staticmethod(compute.logsumexp)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return p times the upstream gradient."""
        (x,) = ctx.saved_tensors
        return (_probabilities(x, ctx.dim) * wide(grad).unsqueeze(ctx.dim)).to(x.dtype), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return ⟨p, v⟩."""
        (x,) = ctx.saved_tensors
        return (_probabilities(x, ctx.dim) * wide(tangent)).sum(ctx.dim).to(x.dtype)


softmax = partial(apply, Softmax)
log_softmax = partial(apply, LogSoftmax)
logsumexp = partial(apply, LogSumExp)


def _probabilities(x: Tensor, dim: int) -> Tensor:
    """Return p in float32 or wider; without classes, an empty tensor."""
    x = wide(x)
    return Softmax.apply(x, dim) if x.shape[dim] else x
