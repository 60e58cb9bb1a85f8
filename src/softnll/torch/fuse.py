"""One line that has a model's own forward and loss code use linear_cross_entropy."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from softnll.torch.head_call import HeadCall
from softnll.torch.inputs import FLOATS
from softnll.torch.lazy import LazyLogits

__all__ = ["FusedLinear", "fuse", "unfuse"]

Model = TypeVar("Model", bound=nn.Module)
SHOWN = 5  # linear layers that an error names
_notes: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


class FusedLinear(nn.Linear):
    """A linear layer whose scores are not made before somebody reads them; :func:`fuse` turns heads into it."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return ``input @ weight.T + bias``, put off where that can be."""
        if torch.compiler.is_compiling() or _transformed():
            return super().forward(input)
        noted = _notes.setdefault(self, set())
        if reason := _unserved(self) or _unmet(self, input):
            if reason not in noted:
                noted.add(reason)
                warnings.warn(f"softnll.torch.fuse: {reason}, so the head makes ordinary logits", stacklevel=2)
            return super().forward(input)
        if input.numel() == 0 or not _fits(self, input):
            return super().forward(input)
        return LazyLogits.of(HeadCall(input, self.weight, self.bias), noted)


def fuse(model: Model, head: str = "lm_head") -> Model:
    """Have a model's own forward and loss use :func:`linear_cross_entropy`; return the model.

    From then on the head returns logits that know their features and weight and are not made:
    ``F.cross_entropy``, ``nn.CrossEntropyLoss`` and softnll's own take them without making all N × C. Slices of rows,
    ``view``, ``reshape``, ``flatten``, ``transpose``, ``permute``, ``contiguous``, ``detach``, casts between float
    types of at most 32 bits, multiplying and dividing by a positive number, and ``tanh`` (a soft cap) keep them so.
    Anything else makes the ordinary logits, bit for bit those of the model as it was; during training, a warning says
    once what did.

    Parameters
    ----------
    model
        Any module. Parameters, their names, ``state_dict`` and saved files stay as they are.
    head
        The name of its last ``nn.Linear``, as :meth:`torch.nn.Module.get_submodule` takes it; the empty name is the
        model itself.

    Returns
    -------
    nn.Module
        The same model. Its loss is float32 or wider, also where the logits are of a half type.

    Raises
    ------
    TypeError
        If the model is no module.
    ValueError
        If there is no such head; the message names the linear layers there are.
    RuntimeError
        Later, from logits that are read after the head's weight was changed and that were not made before.

    Warns
    -----
    UserWarning
        Once, where the head cannot be served and keeps making ordinary logits: subclasses of ``nn.Linear`` (quantised
        layers, adapters), sharded weights (DTensor, FSDP, ZeRO), hooks that read its output, devices that are neither
        CPUs nor CUDA's.

    Examples
    --------
    >>> import torch
    >>> model = fuse(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)), head="2")
    >>> logits = model(torch.ones(2, 4))
    >>> logits
    LazyLogits((2, 3), dtype=torch.float32, not made yet)
    >>> torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    >>> unfuse(model)[2]
    Linear(in_features=8, out_features=3, bias=True)

    Notes
    -----
    Under ``torch.compile`` and tracing the head is an ordinary linear layer.
    """
    layer = _head(model, head)
    if isinstance(layer, FusedLinear):
        return model
    if reason := _unserved(layer):
        warnings.warn(f"softnll.torch.fuse: {reason}, so {head!r} keeps making ordinary logits", stacklevel=2)
    else:
        layer.__class__ = FusedLinear
    return model


def unfuse(model: Model) -> Model:
    """Undo :func:`fuse`: all fused heads of the model are ordinary linear layers again; return the model.

    Parameters
    ----------
    model
        Any module.

    Returns
    -------
    nn.Module
        The same model.

    Raises
    ------
    TypeError
        If the model is no module.

    Examples
    --------
    >>> import torch
    >>> unfuse(fuse(torch.nn.Linear(8, 3), head=""))
    Linear(in_features=8, out_features=3, bias=True)
    """
    _check_module(model)
    for layer in model.modules():
        if type(layer) is FusedLinear:
            layer.__class__ = nn.Linear  # type: ignore[assignment]
            _notes.pop(layer, None)
    return model


def _check_module(model: object) -> None:
    """Raise unless this is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; allowed: a torch.nn.Module")


def _head(model: nn.Module, head: str) -> nn.Module:
    """Return the layer of this name."""
    _check_module(model)
    try:
        return model.get_submodule(head)
    except AttributeError as error:
        found = [(layer.out_features, name) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        widest = [f"{name!r} ({outputs} outputs)" for outputs, name in sorted(found, reverse=True)[:SHOWN]]
        raise ValueError(
            f"head is {head!r}, which this {type(model).__name__} does not have; its widest linear layers: "
            f"{', '.join(widest) or 'none'}"
        ) from error


def _unserved(layer: nn.Module) -> str:
    """Return why a layer's logits cannot be put off, in words; nothing if they can."""
    if type(layer) not in (nn.Linear, FusedLinear):
        return f"the head is a {type(layer).__name__}, not a plain torch.nn.Linear"
    inputs: tuple[tuple[str, Any], ...] = ("weight", layer.weight), ("bias", layer.bias)
    for name, each in inputs:
        if each is None:
            continue
        if type(each) is not nn.Parameter:
            return f"the head's {name} is a {type(each).__name__}, not a plain torch.nn.Parameter"
        if hasattr(each, "ds_id") or hasattr(each, "_fsdp_flattened"):
            return f"the head's {name} is sharded"
        if not (each.is_cpu or each.is_cuda) or each.dtype not in FLOATS:
            return f"the head's {name} is {each.dtype} on {each.device}"
    if _hooked(layer):
        return "hooks read the head's output"
    return ""


def _hooked(layer: nn.Module) -> bool:
    """Whether somebody looks at what comes out of a layer, or at the gradient that comes back."""
    everywhere = nn.modules.module
    return bool(
        "forward" in vars(layer)
        or layer._forward_hooks  # noqa: SLF001
        or layer._backward_hooks  # noqa: SLF001
        or layer._backward_pre_hooks  # noqa: SLF001
        or everywhere._global_forward_hooks  # noqa: SLF001
        or everywhere._global_backward_hooks  # noqa: SLF001
        or everywhere._global_backward_pre_hooks  # noqa: SLF001
    )


def _unmet(layer: FusedLinear, input: Tensor) -> str:  # noqa: A002
    """Return what is odd about features, in words."""
    if type(input) not in (Tensor, nn.Parameter):
        return f"the head's input is a {type(input).__name__}"
    return "" if input.device == layer.weight.device else f"the head's input is on {input.device}"


def _fits(layer: FusedLinear, input: Tensor) -> bool:  # noqa: A002
    """Whether a linear layer takes these features; if not, it says itself why."""
    types = {each.dtype for each in (input, layer.weight, layer.bias) if each is not None}
    cast = torch.is_autocast_enabled(input.device.type) and torch.float64 not in types  # which autocast leaves alone
    alike = types <= set(FLOATS) and (cast or len(types) == 1)
    return alike and input.dim() > 0 and input.shape[-1] == layer.weight.shape[1]


def _transformed() -> bool:
    """Whether somebody traces the model, or torch.func or forward mode is at work."""
    tracing = torch._C._get_tracing_state() is not None  # noqa: SLF001
    return tracing or forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()  # noqa: SLF001
