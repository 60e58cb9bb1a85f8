"""The losses as modules, with the constructors of torch.nn."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Unpack

from torch import Tensor, nn
from torch.nn.modules.loss import _WeightedLoss

from softnll._core.options import FurtherOptions
from softnll.torch import functional
from softnll.torch._base.errors import InputValueError
from softnll.torch._base.inputs import refuse_deprecated
from softnll.torch._base.signatures import options_of
from softnll.torch._base.sparse import SparseTargets
from softnll.torch._linear.api import linear_cross_entropy
from softnll.torch.scripted import ScriptedCrossEntropy, ScriptedLinear, ScriptedNLL

__all__ = ["CrossEntropyLoss", "LinearCrossEntropyLoss", "NLLLoss"]

_FURTHER = ("z_loss", "softcap", "temperature", "check")


if TYPE_CHECKING:
    _Linear = _WeightedLoss
else:  # torch 2.13's module; in older versions, the base of torch's losses with class weights
    _Linear = getattr(nn, "LinearCrossEntropyLoss", _WeightedLoss)


class _Further(nn.Module):
    """The options that torch's modules do not have, as attributes."""

    further: tuple[str, ...] = ()  # their names
    if TYPE_CHECKING:  # torch declares that a call of a module returns Any

        def __call__(self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor: ...  # noqa: A002

    def _set_further(self, options: Any) -> None:
        """Set the further options as attributes, with the signature's defaults where they are not given."""
        unknown = [name for name in options if name not in self.further]
        if unknown:
            raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument {unknown[0]!r}")
        for name in self.further:
            setattr(self, name, options.get(name, _default(name)))

    def _further(self) -> dict[str, Any]:
        """Return the further options by name."""
        return {name: getattr(self, name) for name in self.further}

    def extra_repr(self) -> str:
        """Return what torch's module shows, then the further options that differ from their defaults."""
        shown = [super().extra_repr()]
        shown += [f"{name}={value}" for name, value in self._further().items() if not _is(value, _default(name))]
        return ", ".join(filter(None, shown))


def _default(name: str) -> Any:
    """Return an option's default, which is that of ``linear_cross_entropy`` for all losses."""
    return inspect.signature(linear_cross_entropy).parameters[name].default


def _is(value: Any, default: Any) -> bool:
    """Return whether an option has its default; an option that is a tensor has not."""
    return not isinstance(value, Tensor) and bool(value == default)


class CrossEntropyLoss(_Further, nn.CrossEntropyLoss):
    """The cross-entropy of targets and the softmax of logits, as a module: :func:`softnll.torch.cross_entropy`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing, z_loss, softcap, temperature, check
        As in :func:`softnll.torch.cross_entropy`, in the order of :class:`torch.nn.CrossEntropyLoss`.

    Raises
    ------
    TypeError
        For ``size_average`` and ``reduce``; everything else is checked when the module is called.

    Examples
    --------
    >>> import torch
    >>> loss = CrossEntropyLoss(label_smoothing=0.1)
    >>> loss(torch.tensor([[5.0, 4.0, 2.0]]), torch.tensor([0]))
    tensor(0.4823)
    """

    further: tuple[str, ...] = _FURTHER

    @options_of(functional.cross_entropy, *_FURTHER)
    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **options: Unpack[FurtherOptions],
    ) -> None:
        refuse_deprecated(size_average, reduce)
        super().__init__(weight, None, ignore_index, None, reduction, label_smoothing)
        self._set_further(options)

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
            **self._further(),
        )

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what torch.jit.script compiles in place of this module."""
        return ScriptedCrossEntropy(self)


class NLLLoss(_Further, nn.NLLLoss):
    """The negative log-likelihood of targets under log-probabilities, as a module: :func:`softnll.torch.nll_loss`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction
        As in :func:`softnll.torch.nll_loss`, in the order of :class:`torch.nn.NLLLoss`.

    Raises
    ------
    TypeError
        For ``size_average`` and ``reduce``; everything else is checked when the module is called.

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
        refuse_deprecated(size_average, reduce)
        super().__init__(weight, None, ignore_index, None, reduction)

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

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what torch.jit.script compiles in place of this module."""
        return ScriptedNLL(self)


class _LinearOptions(FurtherOptions, total=False):
    """The further options of a linear loss."""

    max_bytes: int | None
    compact: bool | None


class LinearCrossEntropyLoss(_Further, _Linear):
    """A linear layer and the cross-entropy of its logits, computed in chunks: :func:`linear_cross_entropy`.

    Parameters
    ----------
    in_features
        H, the number of features.
    num_classes
        C, the number of classes.
    out_features
        ``(d1, …, dK)``: the shape of positions, each of which has a layer of its own; the loss is that of all of them.
    bias, device, dtype
        Those of the layer ``linear``, a :class:`torch.nn.Linear`; as in torch's module, without a bias by default.
    reduction, weight, ignore_index, label_smoothing, options, z_loss, softcap, temperature, max_bytes, compact, check
        As in :func:`softnll.torch.linear_cross_entropy`.

    Raises
    ------
    TypeError
        For an unknown option.
    ValueError, which is a RuntimeError too
        For a weight of another shape than ``(C,)`` and a label smoothing outside [0, 1]; everything else is checked
        when the module is called.

    Examples
    --------
    >>> import torch
    >>> loss = LinearCrossEntropyLoss(2, 3)
    >>> _ = torch.nn.init.zeros_(loss.linear.weight)
    >>> round(loss(torch.tensor([[1.0, 2.0]]), torch.tensor([0])).item(), 4)
    1.0986
    """

    weight: Tensor | None
    reduction: str
    num_classes: int
    out_features: tuple[int, ...]
    linear: nn.Linear
    if TYPE_CHECKING:

        def __call__(  # noqa: D102
            self,
            input: Tensor,  # noqa: A002
            target: Tensor | SparseTargets,
            *,
            sample_weight: Tensor | None = None,
        ) -> Tensor: ...

    further: tuple[str, ...] = (*_FURTHER, "max_bytes", "compact")

    @options_of(linear_cross_entropy, *further)
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
        **further: Unpack[_LinearOptions],
    ) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise InputValueError(f"weight has shape {tuple(weight.shape)}; allowed: {(num_classes,)}")
        if not 0 <= label_smoothing <= 1:
            raise InputValueError(f"label_smoothing is {label_smoothing}; allowed: 0 <= label_smoothing <= 1")
        _WeightedLoss.__init__(self, weight, None, None, reduction)  # not torch's, which would make a layer too
        self.ignore_index = ignore_index
        self.num_classes, self.out_features = num_classes, tuple(out_features)
        rows = math.prod(self.out_features, start=num_classes)
        self.linear = nn.Linear(in_features, rows, bias=bias, device=device, dtype=dtype)
        self.label_smoothing = label_smoothing
        self.options = options
        self._set_further(further)

    def forward(
        self,
        input: Tensor,  # noqa: A002
        target: Tensor | SparseTargets,
        *,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the layer's logits and targets."""
        weight: Tensor = self.linear.weight
        bias: Tensor | None = self.linear.bias
        if self.out_features:
            shape = (self.num_classes, *self.out_features)
            weight = weight.reshape(*shape, -1)
            bias = None if bias is None else bias.reshape(shape)
        return linear_cross_entropy(
            input,
            weight,
            target,
            linear_bias=bias,
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
            sample_weight=sample_weight,
            **self._further(),
        )

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what torch.jit.script compiles in place of this module."""
        return ScriptedLinear(self)
