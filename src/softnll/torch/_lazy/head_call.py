"""One call of a fused head: its inputs and modes, from which the logits can still be computed later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softnll.torch._base.backend import waits
from softnll.torch._base.checks import capturing, has_values
from softnll.torch._base.inputs import autocasts

SAMPLED = 1024  # values of a tensor that are compared
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class _Fingerprint:
    """A tensor's state at the call: while it is the same, so are its values and its place in autograd's graph.

    Writes through ``tensor.data`` and in inference mode have no version. The sample finds those of an optimiser.

    Attributes
    ----------
    version
        The number of in-place writes to the tensor; None for inference tensors, which do not count them.
    address, dtype, shape
        The memory of the tensor, which ``tensor.data = other`` replaces without a new version.
    tracked
        Whether the tensor requires a gradient.
    sample
        Some of its values.
    """

    version: int | None
    address: int
    dtype: torch.dtype
    shape: torch.Size
    tracked: bool
    sample: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> _Fingerprint:
        """Return the fingerprint of a tensor."""
        version = None if tensor.is_inference() else tensor._version  # noqa: SLF001 - has no public name
        return cls(version, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.requires_grad, _sample(tensor))

    def change(self, tensor: Tensor, *, compare: bool) -> str:
        """Return what has changed about the tensor since, in words; an empty string if nothing has.

        Values are compared only on request.
        """
        now = _Fingerprint.of(tensor)
        if (now.address, now.dtype, now.shape) != (self.address, self.dtype, self.shape):
            return "was given other memory"
        if now.version != self.version:
            return "was written to"
        bits, before = (each.sample.view(torch.uint8) for each in (now, self))  # NaN equals itself
        if compare and not torch.equal(bits, before):
            return "was written to, through .data or in inference mode,"
        if now.tracked != self.tracked:
            return f"had requires_grad set to {now.tracked}"
        return ""


def _sample(tensor: Tensor) -> Tensor:
    """Return a copy of some values, spread over the rows and columns of a tensor."""
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - has no public name
        values = tensor.detach()
        if values.dim() < 2:
            values = values.reshape(-1, 1)
        rows = values.reshape(-1, values.shape[-1])
        at = torch.linspace(0, len(rows) - 1, min(SAMPLED, rows.numel()), dtype=torch.float64, device=tensor.device)
        turns = torch.arange(len(at), dtype=torch.float64, device=tensor.device) * GOLDEN  # spread evenly over [0, 1)
        return rows[at.long(), ((turns - turns.floor()) * rows.shape[1]).long()]


class HeadCall:
    """The inputs of a linear layer, and the autograd, autocast and inference modes of its call.

    Attributes
    ----------
    features, weight, bias
        The inputs, ``(..., H)``, ``(C, H)``, and ``(C,)`` or None.
    dtype
        The type of the logits.
    records
        Whether autograd recorded the call.
    fused_loss
        Whether a loss has been computed without the logits, which then never get a gradient.
    written
        The lazy tensors of the call that were written to.
    """

    __slots__ = (
        "_cast",
        "_fingerprints",
        "_inference",
        "bias",
        "dtype",
        "features",
        "fused_loss",
        "records",
        "weight",
        "written",
    )

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.features, self.weight, self.bias = features, weight, bias
        self._cast = _autocast(weight)
        self._inference = torch.is_inference_mode_enabled()
        self.dtype = weight.dtype if self._cast is None else self._cast
        inputs = (features, weight) if bias is None else (features, weight, bias)
        self.records = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
        self.fused_loss = False
        self.written: list[Any] = []
        self._fingerprints = [_Fingerprint.of(each) for each in inputs]

    def check(self, *, reads: bool = True) -> None:
        """Raise if an input has changed since the call, so that the logits would have other values.

        Unless the caller ``reads`` the logits, nothing waits for a device.
        """
        compare = (reads or not waits(self.weight)) and not capturing() and has_values(self.weight)
        inputs = ("features", self.features), ("weight", self.weight), ("bias", self.bias)
        for (name, tensor), fingerprint in zip(inputs, self._fingerprints, strict=False):
            if tensor is not None and (change := fingerprint.change(tensor, compare=compare)):
                raise RuntimeError(
                    f"the {name} of a fused head {change} after the head was called, and its logits were not "
                    "computed before; read logits before the optimiser's step, or call softnll.torch.unfuse(model)"
                )

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the logits of inputs like those of the call, under the autocast of the call."""
        given: list[Any] = [
            each if each is None or self._cast is None else each.to(self._cast) for each in (weight, bias)
        ]
        with torch.autocast(weight.device.type, enabled=False):
            return torch.nn.functional.linear(features.to(self.dtype), *given)

    def compute(self) -> Tensor:
        """Return the logits that an ordinary head would have returned, in its place in autograd's graph."""
        self.check()
        with torch.inference_mode(self._inference), torch.set_grad_enabled(self.records):
            return self.logits(self.features, self.weight, self.bias)


def _autocast(weight: Tensor) -> torch.dtype | None:
    """Return the type in which autocast computes matrix products; None where it is off or does not apply."""
    device = weight.device.type
    on = autocasts(device) and weight.dtype != torch.float64
    return torch.get_autocast_dtype(device) if on else None
