"""One call of a linear layer whose product is put off: what it was given, and the product once somebody wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["HeadCall"]


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What a tensor was like; as long as it is the same, so are its numbers and its place in autograd's graph.

    Attributes
    ----------
    version
        How often it was written to; None for inference tensors, which do not count.
    address, dtype, shape
        Of its memory, which ``tensor.data = other`` replaces without counting.
    tracked
        Whether it requires a gradient.
    """

    version: int | None
    address: int
    dtype: torch.dtype
    shape: torch.Size
    tracked: bool

    @classmethod
    def of(cls, tensor: Tensor) -> _Seen:
        """Look at a tensor."""
        version = None if tensor.is_inference() else tensor._version  # noqa: SLF001 - has no public name
        return cls(version, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.requires_grad)

    def change(self, tensor: Tensor) -> str:
        """Return what has changed since, in words; nothing if nothing has."""
        now = _Seen.of(tensor)
        if (now.address, now.dtype, now.shape) != (self.address, self.dtype, self.shape):
            return "was given other memory"
        if now.version != self.version:
            return "was written to"
        if now.tracked != self.tracked:
            return f"had requires_grad set to {now.tracked}"
        return ""


class HeadCall:
    """The inputs of a linear layer and the modes of its call.

    Attributes
    ----------
    features, weight, bias
        The inputs, ``(..., H)``, ``(C, H)``, and ``(C,)`` or None.
    dtype
        Of the logits.
    records
        Whether autograd recorded the call.
    spent
        Whether a loss was made without the logits, whose gradient will then never be there.
    """

    __slots__ = ("_cast", "_inference", "_seen", "bias", "dtype", "features", "records", "spent", "weight")

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.features, self.weight, self.bias = features, weight, bias
        self._cast = _autocast(weight)
        self._inference = torch.is_inference_mode_enabled()
        self.dtype = weight.dtype if self._cast is None else self._cast
        inputs = (features, weight) if bias is None else (features, weight, bias)
        self.records = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
        self.spent = False
        self._seen = [_Seen.of(each) for each in inputs]

    @property
    def shape(self) -> torch.Size:
        """Of the logits."""
        return torch.Size((*self.features.shape[:-1], self.weight.shape[0]))

    def check(self) -> None:
        """Raise if an input is no longer what it was, so that the logits would be others."""
        inputs = ("features", self.features), ("weight", self.weight), ("bias", self.bias)
        for (name, tensor), seen in zip(inputs, self._seen, strict=False):
            if tensor is not None and (change := seen.change(tensor)):
                raise RuntimeError(
                    f"the {name} of a fused head {change} after the head was called, and its logits were not made "
                    "before; read logits before the optimiser's step, or call softnll.torch.unfuse(model)"
                )

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the product of inputs like those of the call, rounded as autocast had it rounded then."""
        given: list[Any] = [
            each if each is None or self._cast is None else each.to(self._cast) for each in (weight, bias)
        ]
        with torch.autocast(weight.device.type, enabled=False):
            return torch.nn.functional.linear(features.to(self.dtype), *given)

    def made(self) -> Tensor:
        """Return the logits as the call would have returned them, in its place in autograd's graph."""
        self.check()
        with torch.inference_mode(self._inference), torch.set_grad_enabled(self.records):
            return self.logits(self.features, self.weight, self.bias)


def _autocast(weight: Tensor) -> torch.dtype | None:
    """Return the type that autocast has products computed in; None where it is off or leaves them alone."""
    device = weight.device.type
    on = torch.is_autocast_enabled(device) and weight.dtype != torch.float64
    return torch.get_autocast_dtype(device) if on else None
