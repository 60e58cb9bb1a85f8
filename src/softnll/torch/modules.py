"""The losses as modules, with the constructors of torch.nn."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from softnll.torch import functional
from softnll.torch.linear import linear_cross_entropy
from softnll.torch.sparse import SparseTargets

__all__ = ["CrossEntropyLoss", "LinearCrossEntropyLoss", "NLLLoss"]


class _Loss(nn.Module):
    """What the losses have in common: class weights that move with the module, as torch's do."""

    weight: Tensor | None
    ignore_index: Any
    reduction: str

    def __init__(
        self, weight: Tensor | None, size_average: Any, ignore_index: int | None, reduce: Any, reduction: str
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


class LinearCrossEntropyLoss(_Loss):
    """A linear layer and the cross-entropy of its scores, without the scores: :func:`linear_cross_entropy`.

    Parameters
    ----------
    in_features
        H: what the layer takes.
    num_classes
        C.
    out_features
        Must be (): a loss of several dimensions is not implemented.
    bias, device, dtype
        Of the layer, which is ``linear``, a :class:`torch.nn.Linear`; as torch's module, without a bias by default.
    reduction, weight, ignore_index, label_smoothing, options, z_loss, softcap, temperature, max_bytes, compact, check
        As in :func:`softnll.torch.linear_cross_entropy`.

    Raises
    ------
    NotImplementedError
        For ``out_features``; all else is looked at when the module is called.

    Examples
    --------
    >>> import torch
    >>> loss = LinearCrossEntropyLoss(2, 3)
    >>> _ = torch.nn.init.zeros_(loss.linear.weight)
    >>> loss(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    tensor(1.0986, grad_fn=<EagerLinearBackward>)
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
        z_loss: float = 0.0,
        softcap: float | None = None,
        temperature: float | Tensor = 1.0,
        max_bytes: int | None = None,
        compact: bool | None = None,
        check: bool | None = None,
    ) -> None:
        super().__init__(weight, None, ignore_index, None, reduction)
        if out_features != ():
            raise NotImplementedError(f"out_features is {out_features}; allowed: (), a loss of one dimension")
        self.linear = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        self.label_smoothing = label_smoothing
        self.options = options
        self.z_loss = z_loss
        self.softcap = softcap
        self.temperature = temperature
        self.max_bytes = max_bytes
        self.compact = compact
        self.check = check

    def forward(
        self,
        input: Tensor,  # noqa: A002
        target: Tensor | SparseTargets,
        *,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the layer's scores and targets."""
        return linear_cross_entropy(
            input,
            self.linear.weight,
            target,
            linear_bias=self.linear.bias,
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
            sample_weight=sample_weight,
            z_loss=self.z_loss,
            softcap=self.softcap,
            temperature=self.temperature,
            max_bytes=self.max_bytes,
            compact=self.compact,
            check=self.check,
        )
