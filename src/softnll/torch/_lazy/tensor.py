"""Logits that are not there yet: a tensor that knows its features and weight, and is multiplied out when it must be.

Three layers, from the outside in. ``__torch_function__`` sees every call by its torch name: the losses take the recipe,
what `effective.py` knows changes the recipe, and for all else the logits are made once and take the tensor's place.
Autograd knows the tensor as the output of ``_Recipe``, for functions that are no torch functions
(``autograd.Function.apply``). ``__torch_dispatch__`` gives numbers to whatever comes from below that.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map

from softnll.torch.effective import KEPT, Effective
from softnll.torch.functional import cross_entropy
from softnll.torch.head_call import HeadCall
from softnll.torch.linear import linear_cross_entropy
from softnll.torch.uncompiled import uncompiled

__all__ = ["LazyLogits"]

Step = tuple[Any, tuple[Any, ...], dict[str, Any]]  # a function, and what it is given after the logits
DESCRIBED = {
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "grad_fn", "itemsize")
    ),
    *(
        getattr(Tensor, name).__get__
        for name in ("is_cpu", "is_cuda", "is_meta", "is_sparse", "is_quantized", "is_nested", "is_mps", "is_xpu")
    ),
    *(getattr(Tensor, name) for name in ("size", "dim", "ndimension", "numel", "nelement", "element_size", "__len__")),
    *(getattr(Tensor, name) for name in ("is_floating_point", "is_complex", "is_inference", "get_device", "__hash__")),
    torch.is_floating_point,
    torch.is_complex,
    torch.numel,
}  # what a tensor tells of itself without its numbers
WATCHING = (Tensor.retain_grad, Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, torch.autograd.grad)
CHANGING = {"__setitem__", "__set__", "__delete__"}  # besides add_ and __iadd__


class LazyLogits(Tensor):
    """The logits of a fused head, until somebody reads them."""

    _call: HeadCall
    _effective: Effective
    _parent: LazyLogits | None
    _step: Step
    _children: list[weakref.ref[LazyLogits]]
    _ordinary: Tensor | None
    _below: Tensor | None
    _records: bool
    _node: Any
    _noted: set[str]

    @staticmethod
    def of(call: HeadCall, noted: set[str]) -> LazyLogits:
        """Return the logits of a call; ``noted``: which functions have been reported to have them made."""
        effective = Effective(call.features, call.weight.shape[0], call.features.dim() - 1, call.dtype)
        lazy = _as_tensor(call, effective, ())
        lazy._become(call, effective, None, (None, (), {}), noted, call.records)
        return lazy

    def _become(
        self,
        call: HeadCall,
        effective: Effective,
        parent: LazyLogits | None,
        step: Step,
        noted: set[str],
        records: bool,
    ) -> None:
        self._call, self._effective, self._parent, self._step = call, effective, parent, step
        self._children, self._noted, self._records = [], noted, records
        self._ordinary = self._below = None
        with torch._C.DisableTorchFunctionSubclass():
            self._node = self.grad_fn

    @classmethod
    @uncompiled
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what torch calls ``func``, without the logits where that is possible."""
        kwargs = kwargs or {}
        if func in DESCRIBED:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        first = args[0] if args and isinstance(args[0], LazyLogits) else None
        if first is not None and first._put_off():
            result = first._without(func, args[1:], kwargs)
            if result is not NotImplemented:
                return result
        elif func is torch.nn.functional.cross_entropy and first is not None:
            return _loss(first.ordinary(), args[1:], kwargs)
        given = [each for each in _tensors((args, kwargs)) if isinstance(each, LazyLogits)]
        for each in given:
            if func in WATCHING and each._call.spent:
                raise RuntimeError(
                    "a loss was made of a fused head's features, so that the gradient of the logits is not; "
                    "ask for it before the loss, or call softnll.torch.unfuse(model)"
                )
            each._note(func)
            if _changes(func, kwargs):
                each._settle()
        return func(*tree_map(_ordinary, args), **tree_map(_ordinary, kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it so
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do ``func`` with numbers, for callers below autograd."""
        if func._schema.is_mutable:
            raise RuntimeError(
                f"{func} would write to the logits of a fused head, which are not there; call .clone() on them first, "
                "or softnll.torch.unfuse(model)"
            )
        return func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs or {}))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Say what this is, without multiplying it out."""
        if self._ordinary is not None:
            return repr(self._ordinary)
        return f"LazyLogits({tuple(self.shape)}, dtype={self.dtype}, not made yet)"

    def ordinary(self) -> Tensor:
        """Return the logits that an ordinary head would have returned, made once."""
        if self._ordinary is not None:
            return self._ordinary
        made = self._made()
        if not torch._C._are_functorch_transforms_active():  # what is made there ends with the transform
            self._ordinary = made
        return made

    def _made(self) -> Tensor:
        """Make the logits."""
        if not self._own():
            return _Plain.apply(self)
        if self._parent is None:
            return self._call.made()
        func, args, kwargs = self._step
        with torch.set_grad_enabled(self._records):
            return func(self._parent.ordinary(), *args, **kwargs)

    def numbers(self) -> Tensor:
        """Return the logits' values, in no graph."""
        if self._ordinary is not None:
            return self._ordinary.detach()
        if self._below is None:
            self._call.check()
            with torch.no_grad():
                self._below = _followed(self._call, self._steps(), self._call.features, self._call.weight)
        return self._below

    def _put_off(self) -> bool:
        """Whether the logits can still do without being made."""
        transformed = torch._C._are_functorch_transforms_active()  # which _Recipe has no rules for
        return self._ordinary is None and self._own() and not transformed

    def _own(self) -> bool:
        """Whether this is still the tensor that was made here; another function may have made it its output."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.grad_fn is self._node

    def _steps(self) -> tuple[Step, ...]:
        """Return what was done to the head's logits, in order."""
        return () if self._parent is None else (*self._parent._steps(), self._step)

    def _without(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what ``func`` gives, without the logits; or NotImplemented."""
        if func in (torch.nn.functional.cross_entropy, cross_entropy):
            return self._fused(args, kwargs)
        if func not in KEPT:
            return NotImplemented
        records = self._records and torch.is_grad_enabled() and func is not Tensor.detach
        try:
            with torch.set_grad_enabled(records):
                effective = KEPT[func](self._effective, *args, **kwargs)
        except (TypeError, ValueError, IndexError, RuntimeError):  # torch's own function says what is wrong
            return NotImplemented
        return NotImplemented if effective is None else self._child(effective, (func, args, kwargs), records)

    def _child(self, effective: Effective, step: Step, records: bool) -> LazyLogits:
        """Return the logits that one more step leads to."""
        with torch.set_grad_enabled(records):
            child = _as_tensor(self._call, effective, (*self._steps(), step))
        child._become(self._call, effective, self, step, self._noted, records)
        self._children = [ref for ref in self._children if ref() is not None] + [weakref.ref(child)]
        return child

    def _fused(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the loss of a linear layer, if these arguments of a cross-entropy have one."""
        options = _named(*args, **kwargs)
        of, call = self._effective, self._call
        if of.axis != min(1, len(of.shape) - 1) or of.features.numel() == 0:
            return NotImplemented
        capped = options.get("softcap") is not None
        if any(isinstance(each, LazyLogits) for each in options.values()) or (capped and of.softcap is not None):
            return NotImplemented
        if of.softcap is not None:
            options["softcap"] = of.softcap
        elif capped and of.temperature != 1:
            return NotImplemented
        options["temperature"] = options.get("temperature", 1.0) * of.temperature
        call.check()
        features = of.features.movedim(of.axis, -1)
        target = options.pop("target")
        if isinstance(target, Tensor) and target.is_floating_point() and target.dim() == len(of.shape):
            target = target.movedim(of.axis, -1)
        records = self._records and torch.is_grad_enabled()
        call.spent |= records
        with torch.set_grad_enabled(records):
            return linear_cross_entropy(features, call.weight, target, linear_bias=call.bias, **options)

    def _note(self, func: Any) -> None:
        """Say once what had the logits made, where they were meant not to be."""
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__  # of the attribute
        if not self._records or self._ordinary is not None or name in self._noted:
            return
        self._noted.add(name)
        shape = " \N{MULTIPLICATION SIGN} ".join(map(str, self.shape))
        warnings.warn(
            f"{name} reads the logits of a fused head: all {shape} are made, as without softnll.torch.fuse",
            stacklevel=3,
        )

    def _settle(self) -> None:
        """Make all logits that others share with these, before they are written to."""
        root = self
        while root._parent is not None:
            root = root._parent
        waiting = [root]
        while waiting:
            each = waiting.pop()
            each.ordinary()
            waiting += [child for ref in each._children if (child := ref()) is not None]


def _named(
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **ours: Any,
) -> dict[str, Any]:
    """Return the arguments of a cross-entropy by those names that linear_cross_entropy has for them."""
    if size_average is not None or reduce is not None:
        reduction = torch.nn._reduction.legacy_get_string(size_average, reduce)
    ignored = None if isinstance(target, Tensor) and target.is_floating_point() else ignore_index
    found = {"target": target, "weight": weight, "ignore_index": ignored, "reduction": reduction}
    return found | {"label_smoothing": label_smoothing} | ours


def _loss(logits: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the loss of logits that are there."""
    options = tree_map(_ordinary, _named(*args, **kwargs))
    if options["ignore_index"] is None:
        del options["ignore_index"]
    return cross_entropy(logits, **options)


def _changes(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function writes to what it is given."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in CHANGING or (name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}"))
    return name.endswith("_") or kwargs.get("out") is not None


def _tensors(tree: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(tree)


def _ordinary(each: Any) -> Any:
    return each.ordinary() if isinstance(each, LazyLogits) else each


def _numbers(each: Any) -> Any:
    return each.numbers() if isinstance(each, LazyLogits) else each


def _followed(call: HeadCall, steps: tuple[Step, ...], features: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    """Return what the steps make of the logits of inputs like those of the call."""
    logits = call.logits(features, weight, call.bias if bias is None else bias)
    for func, args, kwargs in steps:
        logits = func(logits, *args, **kwargs)
    return logits


class _Recipe(Function):
    """``(call, shape and type, steps, features, weight, bias)`` to lazy logits, as autograd sees them."""

    @staticmethod
    def forward(ctx: Any, call: HeadCall, effective: Effective, steps: tuple[Step, ...], *inputs: Any) -> LazyLogits:
        """Return a tensor without memory."""
        ctx.call, ctx.steps = call, steps
        ctx.save_for_backward(*inputs)
        return Tensor._make_wrapper_subclass(
            LazyLogits, effective.shape, dtype=effective.dtype, device=inputs[0].device
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return the gradients, for functions that autograd has connected with the lazy tensor itself."""
        needed = ctx.needs_input_grad[3:]
        given: list[Any] = [None if each is None else each.detach() for each in ctx.saved_tensors]
        leaves = [each.requires_grad_() for each, wanted in zip(given, needed, strict=True) if wanted]
        with torch.enable_grad():
            logits = _followed(ctx.call, ctx.steps, *given)
        made = iter(torch.autograd.grad(logits, leaves, grad))
        return None, None, None, *(next(made) if wanted else None for wanted in needed)


class _Plain(Function):
    """A lazy tensor, the output of some other function by now, to its numbers."""

    @staticmethod
    def forward(ctx: Any, lazy: LazyLogits) -> Tensor:  # noqa: ARG004
        """Return the numbers."""
        return lazy.numbers().clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        """Return the gradient as it is."""
        return grad


def _as_tensor(call: HeadCall, effective: Effective, steps: tuple[Step, ...]) -> LazyLogits:
    """Return lazy logits that autograd knows."""
    apply: Callable[..., LazyLogits] = _Recipe.apply
    return apply(call, effective, steps, call.features, call.weight, call.bias)
