"""The modules of losses as torch.jit.script compiles them: it accepts no keyword-only arguments with defaults.

torch.jit.script leaves them in the place of the original modules, so that they are of torch's classes as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softnll.torch._linear.api import linear_cross_entropy
from softnll.torch.functional import cross_entropy, nll_loss

__all__ = ["ScriptedCrossEntropy", "ScriptedLinear", "ScriptedNLL"]


class _Scripted(nn.Module):
    """The attributes of a module, with the numbers that TorchScript distinguishes as floats."""

    if TYPE_CHECKING:  # not at run time: TorchScript reads annotations

        def __getattr__(self, name: str) -> Any: ...

    _numbers = ("z_loss", "softcap", "temperature", "label_smoothing")

    def __init__(self, module: Any) -> None:
        nn.Module.__init__(self)
        for name, value in vars(module).items():
            if name in self._numbers and isinstance(value, torch.Tensor):
                raise NotImplementedError(f"{name} is a tensor; allowed in TorchScript: a number")
            if not name.startswith("_"):
                setattr(self, name, float(value) if name in self._numbers and value is not None else value)
        self.register_buffer("weight", module.weight)
        self.train(module.training)


class ScriptedCrossEntropy(_Scripted, nn.CrossEntropyLoss):
    """A ``CrossEntropyLoss`` for TorchScript; its temperature is a number."""

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:  # noqa: A002
        """Return the loss of logits and targets."""
        return cross_entropy(
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


class ScriptedNLL(_Scripted, nn.NLLLoss):
    """An ``NLLLoss`` for TorchScript."""

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:  # noqa: A002
        """Return the loss of log-probabilities and targets."""
        return nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            sample_weight=sample_weight,
        )


class ScriptedLinear(_Scripted):
    """A ``LinearCrossEntropyLoss`` for TorchScript, without torch's ``options``."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.linear = module.linear
        self.shape = (
            [module.num_classes, *module.out_features, -1] if module.out_features else [-1, module.linear.in_features]
        )

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:  # noqa: A002
        """Return the loss of the layer's logits and targets."""
        bias = self.linear.bias
        return linear_cross_entropy(
            input,
            self.linear.weight.reshape(self.shape),
            target,
            linear_bias=None if bias is None else bias.reshape(self.shape[:-1]),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            sample_weight=sample_weight,
            z_loss=self.z_loss,
            softcap=self.softcap,
            temperature=self.temperature,
            max_bytes=self.max_bytes,
            compact=self.compact,
            check=self.check,
        )
