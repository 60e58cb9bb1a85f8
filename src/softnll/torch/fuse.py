"""``fuse`` changes the class of a model's head, so that the model's own loss uses linear_cross_entropy."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from softnll._core.warn import warn
from softnll._core.words import counted
from softnll.torch._base.inputs import FLOATS, autocasts, tracing, transformed
from softnll.torch._base.sharded import is_sharded
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._lazy.compiled import ends_graph
from softnll.torch._lazy.head_call import HeadCall
from softnll.torch._lazy.tensor import LazyLogits

__all__ = ["FusedLinear", "fuse", "unfuse"]

Model = TypeVar("Model", bound=nn.Module)
SHOWN = 5  # the number of linear layers that an error names
_warned: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()  # by head: warnings that were given already


class FusedLinear(nn.Linear):
    """A linear layer that returns lazy logits; :func:`fuse` gives this class to heads."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return ``input @ weight.T + bias``: as lazy logits where that is possible, else computed."""
        if is_scripting():
            return nn.functional.linear(input, self.weight, self.bias)
        else:  # noqa: RET505 - TorchScript compiles what comes after a return as well
            return _lazy_logits(self, input)


def _lazy_logits(layer: FusedLinear, input: Tensor) -> Tensor:  # noqa: A002
    """Return lazy logits where that is possible, else ordinary ones."""
    ordinary = tracing() or transformed()
    if ordinary or (torch.compiler.is_compiling() and not ends_graph(layer.out_features)):
        return nn.Linear.forward(layer, input)
    return _eager_logits(layer, input)


@uncompiled
def _eager_logits(layer: FusedLinear, input: Tensor) -> Tensor:  # noqa: A002
    """Return lazy logits, or ordinary ones with a warning, outside the graph of torch.compile."""
    warned = _warned.setdefault(layer, set())
    if reason := _unsupported_layer(layer) or _unsupported_input(layer, input):
        if reason not in warned:
            warned.add(reason)
            warn(f"softnll.torch.fuse: {reason}, so the head computes ordinary logits")
        return nn.Linear.forward(layer, input)
    if input.numel() == 0 or not _accepts(layer, input):
        return nn.Linear.forward(layer, input)
    return LazyLogits.of(HeadCall(input, layer.weight, layer.bias), warned)


def fuse(model: Model, head: str | nn.Module = "lm_head") -> Model:
    """Have a model's own forward and loss use :func:`linear_cross_entropy`; return the model.

    From then on the head returns lazy logits: a tensor that keeps features and weight, and computes nothing.
    ``F.cross_entropy``, ``nn.CrossEntropyLoss`` and softnll's own losses use those, without computing all N × C logits.
    The results of slices of rows, ``view``, ``reshape``, ``flatten``, ``transpose``, ``permute``, ``contiguous``,
    ``detach``, ``split``, ``chunk``, ``unbind``, iteration, casts between float types of at most 32 bits,
    multiplication and division by a positive number, ``tanh`` (a soft cap) and the addition of a constant per class are
    lazy as well. Anything else computes the ordinary logits, bit for bit those of the model before; during training, a
    warning names, once, the function that did.

    Parameters
    ----------
    model
        Any module. Parameters, their names, ``state_dict`` and saved files stay as they are.
    head
        The name of its last ``nn.Linear``, as :meth:`torch.nn.Module.get_submodule` takes it, or that layer; the empty
        name means the model itself. A ``nn.Linear`` that later replaces it under its name, as transformers'
        ``resize_token_embeddings`` does, is fused as well.

    Returns
    -------
    nn.Module
        The same model. Its loss is float32 or wider, also with logits of a half type.

    Raises
    ------
    TypeError
        If the model is not a module, or the head neither a name nor a module.
    ValueError
        If the model has no such head; the message names its widest linear layers.
    RuntimeError
        Later, when logits are first read after the head's weight has changed.

    Warns
    -----
    UserWarning
        Once, if the head is not supported and keeps computing ordinary logits: subclasses of ``nn.Linear`` (quantised
        layers, adapters), sharded weights (DTensor, FSDP, ZeRO), hooks that read its output.

    Examples
    --------
    >>> import torch
    >>> model = fuse(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)), head="2")
    >>> logits = model(torch.ones(2, 4))
    >>> logits
    LazyLogits((2, 3), dtype=torch.float32, not computed yet)
    >>> torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    >>> unfuse(model)[2]
    Linear(in_features=8, out_features=3, bias=True)

    Notes
    -----
    Under ``torch.compile`` the graph ends at the head while gradients are recorded; with ``fullgraph=True`` the head is
    an ordinary linear layer, with one warning. Traced, or compiled without gradients, it is one without a warning.
    """
    layer = _head(model, head)
    _follow_replacements()
    if isinstance(layer, FusedLinear):
        return model
    gathered = type(layer) is nn.Linear and is_sharded(layer.weight)  # FSDP has the whole weight during the forward
    if not gathered and (reason := _unsupported_layer(layer)):
        name = f"its {type(layer).__name__}" if isinstance(head, nn.Module) else repr(head)
        warn(f"softnll.torch.fuse: {reason}, so {name} keeps computing ordinary logits{_linear_inside(layer)}")
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
        If the model is not a module.

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
            _warned.pop(layer, None)
    return model


def _check_module(model: object) -> None:
    """Raise unless this is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; allowed: a torch.nn.Module")


@cache
def _follow_replacements() -> None:
    """Let each plain linear layer that replaces a fused head be fused too, from now on."""
    nn.modules.module.register_module_module_registration_hook(_fuse_replacement)


def _fuse_replacement(module: nn.Module, name: str, layer: nn.Module | None) -> None:
    """Fuse a layer that takes the place of a fused head."""
    if type(layer) is nn.Linear and type(module._modules.get(name)) is FusedLinear:  # noqa: SLF001 - no public name
        layer.__class__ = FusedLinear


def _head(model: nn.Module, head: str | nn.Module) -> nn.Module:
    """Return the layer, or that of this name; raise, with the names of linear layers, if the model has none."""
    _check_module(model)
    kind = type(model).__name__
    if isinstance(head, nn.Module):
        if not any(head is each for each in model.modules()):
            raise ValueError(
                f"head is a {type(head).__name__} which the model does not have; allowed: its own layer, or that "
                f"layer's name; the widest linear layers of this {kind}: {_widest(model)}"
            )
        return head
    _check_name(head, model)
    try:
        return model.get_submodule(head)
    except AttributeError as error:
        if isinstance(model, nn.Linear):
            message = f"head is {head!r}, but model is itself a linear layer; pass the whole model, or head=''"
            raise ValueError(message) from error  # noqa: TRY004 - a head that is missing, as below
        raise ValueError(
            f"head is {head!r}, which this {kind} does not have; its widest linear layers: {_widest(model)}"
        ) from error


def _check_name(head: object, model: nn.Module) -> None:
    """Raise unless this can be the name of a layer."""
    if not isinstance(head, str):
        shown = "a class" if isinstance(head, type) else f"a {type(head).__name__}"
        raise TypeError(f"head is {shown}; allowed: a layer of the model, or its name, such as one of {_widest(model)}")


def _widest(model: nn.Module) -> str:
    """Return the names of a model's widest linear layers as text."""
    found = [(layer.out_features, name) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    widest = sorted(found, reverse=True)[:SHOWN]
    return ", ".join(f"{name!r} ({counted(outputs, 'output')})" for outputs, name in widest) or "none"


def _linear_inside(layer: nn.Module) -> str:
    """Return, for a head that only contains linear layers, their names as text."""
    inside = "" if isinstance(layer, nn.Linear) else _widest(layer)
    return f"; linear layers inside it: {inside}" if inside not in ("", "none") else ""


def _unsupported_layer(layer: nn.Module) -> str:
    """Return why a layer cannot return lazy logits, in words; an empty string if it can."""
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
        if each.dtype not in FLOATS:
            return f"the head's {name} is {each.dtype}"
    if _hooked(layer):
        return "hooks read the head's output"
    return ""


def _hooked(layer: nn.Module) -> bool:
    """Return whether hooks read the output of a layer or its gradient."""
    all_modules = nn.modules.module
    return bool(
        "forward" in vars(layer)
        or layer._forward_hooks  # noqa: SLF001
        or layer._backward_hooks  # noqa: SLF001
        or layer._backward_pre_hooks  # noqa: SLF001
        or all_modules._global_forward_hooks  # noqa: SLF001
        or all_modules._global_backward_hooks  # noqa: SLF001
        or all_modules._global_backward_pre_hooks  # noqa: SLF001
    )


def _unsupported_input(layer: FusedLinear, input: Tensor) -> str:  # noqa: A002
    """Return why features cannot give lazy logits, in words; an empty string if they can."""
    if type(input) not in (Tensor, nn.Parameter):
        return f"the head's input is a {type(input).__name__}"
    return "" if input.device == layer.weight.device else f"the head's input is on {input.device}"


def _accepts(layer: FusedLinear, input: Tensor) -> bool:  # noqa: A002
    """Return whether a linear layer accepts these features; if not, its own forward raises torch's error."""
    types = {each.dtype for each in (input, layer.weight, layer.bias) if each is not None}
    cast = autocasts(input.device.type) and torch.float64 not in types  # autocast does not change float64
    alike = types <= set(FLOATS) and (cast or len(types) == 1)
    return alike and input.dim() > 0 and input.shape[-1] == layer.weight.shape[1]
