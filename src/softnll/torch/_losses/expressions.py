"""The losses and softmax as expressions of torch's own operations.

A graph of torch.jit.trace, of torch.export after its decompositions, and of ONNX holds these instead of softnll's
operators, so that it needs neither softnll nor Python. Values and first derivatives keep small losses: the largest
entry's own exponential, 1, is not in the sum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._losses.formulas import Normalisers, loss
from softnll.torch._losses.normalise import wide


class _Entries(NamedTuple):
    """The largest entry m and the rest r of each row, with the class dimension, and the differences x − m."""

    m: Tensor
    differences: Tensor
    rest: Tensor


def _parts(x: Tensor, dim: int) -> _Entries:
    """Return m, x − m and r; the differences are NaN in a row without a finite largest entry."""
    shape = [1] * x.dim()
    shape[dim] = x.shape[dim]
    at = x.argmax(dim, keepdim=True)
    first = torch.arange(x.shape[dim], device=x.device).reshape(shape) == at
    m = x.gather(dim, at)
    differences = torch.where(first, m - m, x - m)
    return _Entries(m, differences, torch.where(first, 0.0, differences.exp()).sum(dim, keepdim=True))


def _log1p(r: Tensor) -> Tensor:
    """Return log1p(r) for r ≥ 0, without the operation log1p, which ONNX would round as log(1 + r).

    Below 1 it is ``2·atanh(r/(2 + r))``. The older ONNX exporter has no atanh: there it is ``log(u)·r/(u − 1)`` with
    the rounded sum u = 1 + r (Kahan), whose derivatives are not accurate and are not used.
    """
    u = 1 + r
    if torch.onnx.is_in_onnx_export():
        below = torch.where(u == 1, r, u.log() * r / torch.where(u == 1, 1.0, u - 1))
    else:
        below = 2 * torch.atanh(r / (2 + r))
    return torch.where(r < 1, below, u.log())


def softmax(x: Tensor, dim: int) -> Tensor:
    """Return the probabilities, by torch's softmax."""
    return torch.softmax(x, dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Return the log-probabilities: (x − m) − log1p(r)."""
    _, differences, rest = _parts(wide(x), dim)
    return (differences - _log1p(rest)).to(x.dtype)


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """Return logsumexp: m + log1p(r); −∞ for a row without finite entries."""
    m, _, rest = _parts(wide(x), dim)
    return torch.where(m.isinf(), m, m + _log1p(rest)).squeeze(dim).to(x.dtype)


def largest_and_rest(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return m and r of each row in float64."""
    m, _, rest = _parts(x.double(), dim)
    return m.squeeze(dim), rest.squeeze(dim)


def _product(t: Tensor, log_p: Tensor, dim: int) -> Tensor:
    """Return ⟨t, log p⟩ over the classes with t ≠ 0: a class of target 0 may have log p = −∞."""
    return (t * torch.where(t == 0, 0.0, log_p)).sum(dim)


_NORMALISERS = Normalisers(log_softmax, logsumexp, _product)
_GIVEN = Normalisers(lambda log_p, _: log_p, logsumexp, _product)


def cross_entropy(inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the loss of logits; a hard target out of range makes its row NaN."""
    return loss(inputs, settings, _NORMALISERS).to(inputs.loss_type)


def nll_loss(inputs: LossInputs, settings: LossSettings) -> Tensor:
    """Return the loss of log-probabilities; a hard target out of range makes its row NaN."""
    return loss(inputs, settings, _GIVEN).to(inputs.loss_type)
