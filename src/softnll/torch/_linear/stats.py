"""linear_cross_entropy_and_stats: the loss, and from the same logits what a training log shows."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll._core.problem import Problem
from softnll._core.targets import rows_without_part
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossInputs, LossSettings
from softnll.torch._base.checks import wide_type
from softnll.torch._base.errors import LINEAR_NAMES, InputValueError, raise_as_torch
from softnll.torch._base.inputs import tracked
from softnll.torch._base.sharded import is_sharded
from softnll.torch._base.signatures import signature_of
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._linear import autograd, compute
from softnll.torch._linear.api import linear_cross_entropy
from softnll.torch._linear.inputs import prepare
from softnll.torch._losses import formulas


class LossStats(NamedTuple):
    """A loss, which is differentiable, and statistics of the same logits, which are constants.

    Attributes
    ----------
    loss
        What ``linear_cross_entropy`` returns, z-loss included.
    z_part
        The z-loss in it, ``ζ·T·lse²`` after the same reduction; 0 without one. ``loss − z_part`` is the cross-entropy.
    accuracy
        The share of rows whose largest logit is that of the target, of the rows that take part: float32, NaN if there
        are none. The class of a soft target is that of its largest probability.
    argmax
        The class of the largest logit of each row, the first of several, int64; −1 in rows that take no part.
    lse
        The logsumexp of each row's effective logits; 0 in rows that take no part.
    """

    loss: Tensor
    z_part: Tensor
    accuracy: Tensor
    argmax: Tensor
    lse: Tensor


@signature_of(linear_cross_entropy)
@uncompiled
def linear_cross_entropy_and_stats(*arguments: Any, **keywords: Any) -> LossStats:
    """Return :func:`linear_cross_entropy` and, from the same logits, its z-loss, the accuracy, argmax and logsumexp.

    ``loss`` is ``Σ_n s_n·T_n·(NLL_n + ζ·lse_n²) / D`` with all derivatives, ``z_part`` the part with ζ. No product is
    computed for the statistics: the logits of each chunk are read once more.

    Parameters
    ----------
    input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
        As in :func:`linear_cross_entropy`; ``linear_weight`` is ``(C, H)``.
    sample_weight, z_loss, softcap, temperature, max_bytes, compact, check
        As in :func:`linear_cross_entropy`.

    Returns
    -------
    LossStats
        ``loss``, ``z_part``, ``accuracy``, and ``argmax`` and ``lse`` of shape ``(...)``.

    Raises
    ------
    TypeError, RuntimeError, ValueError, IndexError, NotImplementedError
        As in :func:`linear_cross_entropy`; NotImplementedError under ``torch.vmap``.

    Examples
    --------
    >>> import torch
    >>> features, head = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> stats = linear_cross_entropy_and_stats(features, head, torch.tensor([2]), z_loss=0.01)
    >>> stats.loss, stats.z_part, stats.accuracy
    (tensor(0.5237), tensor(0.1161), tensor(1.))
    """
    bound = inspect.signature(linear_cross_entropy).bind(*arguments, **keywords)
    if any(is_sharded(each) for each in bound.args):
        raise NotImplementedError(
            "linear_cross_entropy_and_stats takes no DTensors; linear_cross_entropy and token_stats do"
        )
    inputs, values = prepare(*bound.args, **bound.kwargs)
    if inputs.linear_weight.dim() > 2:
        raise InputValueError(f"linear_weight has shape {tuple(inputs.linear_weight.shape)}; allowed: (C, H)")
    functorch = torch._C._functorch  # noqa: SLF001
    if any(each.key() == functorch.TransformType.Vmap for each in functorch.get_interpreter_stack() or []):
        raise NotImplementedError("linear_cross_entropy_and_stats has no batching rule; use token_stats under vmap")
    try:
        given = LinearSettings.of(*values)
        statistics = _Statistics(inputs)
        settings = compute.ObservedSettings(
            given.loss, given.max_bytes, given.at_most, given.compact, observer=statistics.observe
        )
        run = autograd.linear_cross_entropy if tracked(*inputs) else compute.losses
        return statistics.of(run(inputs, settings), given)
    except (TypeError, ValueError) as error:
        raise_as_torch(error, LINEAR_NAMES)


class _Statistics:
    """The argmax and the logsumexp of each row, chunk by chunk, and what follows from them."""

    def __init__(self, inputs: LinearInputs) -> None:
        self.inputs = LinearInputs(*(None if each is None else each.detach() for each in inputs))  # type: ignore[arg-type]
        shape, device = inputs.input.shape[:-1].numel(), inputs.input.device
        self.argmax = torch.full((shape,), -1, dtype=torch.int64, device=device)
        self.lse = torch.zeros(shape, dtype=wide_type(inputs.input), device=device)

    def observe(self, backend: Any, rows: Any, part: Problem, r: Any) -> None:
        """Read a chunk's logits."""
        as_tensor = backend.tensor
        rows = rows if isinstance(rows, slice | Tensor) else torch.from_numpy(rows)
        x, at = as_tensor(part.x), as_tensor(part.x.argmax(1))
        tau = None if part.tau is None else as_tensor(part.tau)
        self.argmax[rows] = at
        m = x.gather(1, at[:, None])[:, 0].to(self.lse.dtype)
        self.lse[rows] = formulas.effective(m, part.objective, tau) + torch.log1p(as_tensor(r))

    def of(self, loss: Tensor, settings: LinearSettings) -> LossStats:
        """Return the statistics of all rows beside a loss."""
        inputs, objective, shape = self.inputs, settings.loss.objective, self.inputs.input.shape[:-1]
        given = LossInputs(inputs.input, inputs.target, inputs.weight, inputs.sample_weight)
        s, D = formulas.row_weights(given, LossSettings(objective, inputs.target.dim() - 1))
        argmax, lse = self.argmax.reshape(shape), self.lse.reshape(shape)
        hard = None if inputs.target.is_floating_point() else inputs.target
        takes_part = ~rows_without_part(torch, hard, inputs.weight, s, None, objective.label_smoothing)
        argmax, lse = torch.where(takes_part, argmax, -1), torch.where(takes_part, lse, 0.0)
        correct = (argmax == self._classes()) & takes_part
        z = s * self._masses(objective.label_smoothing) * objective.z_loss * lse.square()
        z = torch.where(takes_part, z, 0.0) if objective.z_loss else torch.zeros_like(z)
        if objective.reduction != "none":
            z = z.sum()
            z = formulas.mean(z, D) if objective.reduction == "mean" else z
        accuracy = (correct.sum() / takes_part.sum()).to(torch.float32)
        return LossStats(loss, z.to(loss.dtype), accuracy, argmax, lse.to(inputs.loss_type))

    def _classes(self) -> Tensor:
        """Return the class of each row's target."""
        target, indices = self.inputs.target, self.inputs.indices
        if not target.is_floating_point():
            return target
        largest = target.argmax(-1)
        return largest if indices is None else indices.gather(-1, largest.unsqueeze(-1)).squeeze(-1)

    def _masses(self, epsilon: float) -> Tensor:
        """Return the mass of each row's target measure, ``T = Σ w·((1 − ε)·q + ε/C)``."""
        target, w, indices = self.inputs.target, self.inputs.weight, self.inputs.indices
        wide, C = self.lse.dtype, len(self.inputs.linear_weight)
        w = torch.ones(C, dtype=wide, device=target.device) if w is None else w.to(wide)
        if not target.is_floating_point():
            mass = w[torch.where((target >= 0) & (target < C), target, 0)]
        elif indices is not None:
            mass = (target.to(wide) * w[indices]).sum(-1)
        else:
            mass = target @ w.to(target.dtype) if target.dtype == wide else _weighted(target, w)
        return (1 - epsilon) * mass + epsilon * w.mean()


def _weighted(q: Tensor, w: Tensor) -> Tensor:
    """Return ``q @ w`` in the type of w, a row at a time: q is not copied as a whole."""
    rows = [each.to(w.dtype) @ w for each in q.reshape(-1, len(w)).split(1 << 6)]
    return (torch.cat(rows) if rows else w.new_zeros(0)).reshape(q.shape[:-1])
