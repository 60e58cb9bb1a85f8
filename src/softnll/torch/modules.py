"""The losses as modules, with the constructors of torch.nn."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from softnll.torch import functional

__all__ = ["CrossEntropyLoss", "NLLLoss"]


class _Loss(nn.Module):
    """What the losses have in common: class weights that move with the module, as torch's do."""

    weight: Tensor | None
    ignore_index: int
    reduction: str

    def __init__(
        self, weight: Tensor | None, size_average: Any, ignore_index: int, reduce: Any, reduction: str
    ) -> None:
        super().__init__()
        if size_average is not None or reduce is not None:
            raise TypeError("size_average and reduce are not accepted; say reduction='mean', 'sum' or 'none'")
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """The cross-entropy of targets and the softmax of logits, as a module: :func:`softnll.torch.cross_entropy`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing, z_loss, softcap, temperature, check
        As in :func:`softnll.torch.cross_entropy`, in the order of :class:`torch.nn.CrossEntropyLoss`.

    Raises
    ------
    TypeError
        For ``size_average`` and ``reduce``; all else is looked at when the module is called.

    Examples
    --------
    >>> import torch
    >>> loss = CrossEntropyLoss(label_smoothing=0.1)
    >>> loss(torch.tensor([[5.0, 4.0, 2.0]]), torch.tensor([0]))
    tensor(0.4823)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
        softcap: float | None = None,
        temperature: float | Tensor = 1.0,
        check: bool | None = None,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.softcap = softcap
        self.temperature = temperature
        self.check = check

    def forward(self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:  # noqa: A002
        """Return the loss of logits and targets."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            sample_weight=sample_weight,
            z_loss=self.z_loss,
            softcap=self.softcap,
            temperature=self.temperature,
            check=self.check,
        )


class NLLLoss(_Loss):
    """The negative log-likelihood of targets under log-probabilities, as a module: :func:`softnll.torch.nll_loss`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction
        As in :func:`softnll.torch.nll_loss`, in the order of :class:`torch.nn.NLLLoss`.

    Raises
    ------
    TypeError
        For ``size_average`` and ``reduce``; all else is looked at when the module is called.

    Examples
    --------
    >>> import torch
    >>> NLLLoss()(torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([0]))
    tensor(0.3567)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:  # noqa: A002
        """Return the loss of log-probabilities and targets."""
        return functional.nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            sample_weight=sample_weight,
        )
