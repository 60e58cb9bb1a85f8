"""Lazy logits: a tensor without memory, which keeps the features and the weight that its logits follow from.

A lazy tensor has shape, type and device, but its logits are computed only when something reads them; the result, the
*ordinary logits*, is what an ordinary ``nn.Linear`` would have returned. Torch calls it at three levels:

1. ``__torch_function__`` receives every call of a torch function that has a lazy tensor among its arguments. A
   cross-entropy is computed from features and weight by ``linear_cross_entropy``. A function that has a rule in
   ``recipe.RULES`` returns another lazy tensor, with a changed recipe. Every other function gets the ordinary logits.
2. Autograd sees a lazy tensor as the output of ``_LazyOutput``, whose backward computes the gradients of features,
   weight and bias. Code that bypasses level 1, such as ``autograd.Function.apply``, connects to that node.
3. ``__torch_dispatch__`` receives calls from below autograd, such as those from C++, and passes them the values.

Lazy tensors of one head call form a tree: the head's output is the root, and each rule adds a child. The ordinary
logits of a child are its function applied to those of its parent, so that they are the same bits as without ``fuse``.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves, tree_map

from softnll._core.warn import warn
from softnll.torch._base.uncompiled import uncompiled
from softnll.torch._lazy.functions import GRADIENT_USERS, METADATA, NODE, TYPED, loss_options, writes
from softnll.torch._lazy.head_call import HeadCall
from softnll.torch._lazy.parts import PARTS
from softnll.torch._lazy.recipe import RULES, Recipe
from softnll.torch._linear.api import linear_cross_entropy
from softnll.torch.functional import cross_entropy

Step = tuple[Any, tuple[Any, ...], dict[str, Any]]  # a torch function, and its arguments after the logits


class LazyLogits(Tensor):
    """The logits of a fused head, which are computed when something reads them."""

    _call: HeadCall
    _recipe: Recipe
    _parent: LazyLogits | None  # None for the head's output
    _step: Step  # the function that led from the parent to these logits
    _children: WeakSet[LazyLogits]
    _ordinary: Tensor | None  # the ordinary logits, once they are computed
    _ordinary_node: Any  # the autograd node of this tensor at that moment
    _detached: Tensor | None  # their values outside autograd's graph, once those are computed
    _records: bool  # whether autograd recorded the step
    _node: Any  # the autograd node that this tensor was created with
    _warned: set[str]  # the names of functions for which a warning was given, shared by all logits of the head

    @staticmethod
    def of(call: HeadCall, warned: set[str]) -> LazyLogits:
        """Return the lazy logits of a head call; ``warned`` has the names of functions that need no further warning."""
        recipe = Recipe(call.features, call.weight.shape[0], call.features.dim() - 1, call.dtype)
        return _new_tensor(call, recipe, None, (None, (), {}), warned, call.records)

    @classmethod
    @uncompiled
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return ``func(*args, **kwargs)``, without computing the logits where that is possible."""
        kwargs = kwargs or {}
        if func in METADATA or (func == NODE and not args[0]._may_give_node()):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        first = args[0] if args and isinstance(args[0], LazyLogits) else None
        if first is not None and first._stays_lazy():
            result = first._call_lazily(func, args[1:], kwargs)
            if result is not NotImplemented:
                return result
        elif func is torch.nn.functional.cross_entropy and first is not None:
            return _ordinary_loss(first.ordinary(), args[1:], kwargs)
        for each in tree_leaves((args, kwargs)):
            if not isinstance(each, LazyLogits):
                continue
            if func in GRADIENT_USERS and each._call.fused_loss:
                raise RuntimeError(
                    "a loss was computed from a fused head's features, so that the gradient of the logits is not "
                    "available; ask for it before the loss, or call softnll.torch.unfuse(model)"
                )
            each._warn_once(func)
            if writes(func, kwargs):
                each._compute_tree()
                each._call.written.append(each)
            elif func in GRADIENT_USERS or func == NODE:
                each._compute_tree()
        return func(*tree_map(_ordinary, args), **tree_map(_ordinary, kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # the name of the parameter is torch's
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return ``func`` of the values, for callers below autograd."""
        if func._schema.is_mutable:
            raise RuntimeError(
                f"{func} would write to the logits of a fused head, which have no memory; call .clone() on them first, "
                "or softnll.torch.unfuse(model)"
            )
        return func(*tree_map(_detached, args), **tree_map(_detached, kwargs or {}))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Return a text, which shows values only if the logits are computed already."""
        if self._ordinary is not None:
            return repr(self._ordinary)
        return f"LazyLogits({tuple(self.shape)}, dtype={self.dtype}, not computed yet)"

    def ordinary(self) -> Tensor:
        """Return the ordinary logits; the first call computes them.

        So does the first one after another autograd function has returned this tensor as its own output.
        """
        node = self._current_node()
        if self._ordinary is not None and self._ordinary_node is node:
            return self._ordinary
        logits = self._compute()
        if not torch._C._are_functorch_transforms_active():  # a tensor of a transform is invalid after it
            self._ordinary, self._ordinary_node = logits, node
        return logits

    def _compute(self) -> Tensor:
        """Return the ordinary logits, in autograd's graph."""
        if not self._has_own_node():
            return _Values.apply(self)
        if self._parent is None:
            return self._call.compute()
        func, args, kwargs = self._step
        with torch.set_grad_enabled(self._records):
            return func(self._parent.ordinary(), *args, **kwargs)

    def detached(self) -> Tensor:
        """Return the values of the logits, outside autograd's graph."""
        if self._ordinary is not None:
            return self._ordinary.detach()
        if self._detached is None:
            self._call.check()
            with torch.no_grad():
                self._detached = _replay(self._call, self._steps(), self._call.features, self._call.weight)
        return self._detached

    def _check_writes(self) -> None:
        """Raise if an autograd function wrote to other logits of this call: its backward is not in these' graph."""
        for each in self._call.written:
            if each is not self and not each._has_own_node():
                raise RuntimeError(
                    "an autograd function wrote in place to logits of a fused head that share their memory with these; "
                    "call .clone() on them first, or softnll.torch.unfuse(model)"
                )

    def _stays_lazy(self) -> bool:
        """Return whether functions may still use the recipe instead of the logits."""
        self._check_writes()
        transformed = torch._C._are_functorch_transforms_active()  # for which _LazyOutput has no rules
        return self._ordinary is None and self._has_own_node() and not transformed

    def _has_own_node(self) -> bool:
        """Return whether autograd still sees this tensor as the output of ``_LazyOutput``.

        Another ``autograd.Function``, such as a checkpoint, may have returned it as an output of its own. Its node has
        then replaced ours, and a loss from the recipe would bypass that function's backward.
        """
        return self._current_node() is self._node

    def _may_give_node(self) -> bool:
        """Return whether the gradient of these logits can still go through the node of the ordinary ones."""
        return self._records and not self._call.fused_loss and self._has_own_node()

    def _current_node(self) -> Any:
        """Return the autograd node of this tensor."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.grad_fn

    def _steps(self) -> tuple[Step, ...]:
        """Return the steps from the head's output to these logits, in order."""
        return () if self._parent is None else (*self._parent._steps(), self._step)

    def _call_lazily(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of ``func`` on these logits without computing them, or NotImplemented."""
        if func in (torch.nn.functional.cross_entropy, cross_entropy):
            return self._fused_loss(args, kwargs)
        if func in PARTS:
            return self._parts(func, args, kwargs)
        if func not in RULES:
            return NotImplemented
        records = self._records and torch.is_grad_enabled() and func is not Tensor.detach
        try:
            with torch.set_grad_enabled(records):
                recipe = RULES[func](self._recipe, *args, **kwargs)
        except (TypeError, ValueError, IndexError, RuntimeError):  # torch's own function raises, with its message
            return NotImplemented
        if recipe is None:
            return NotImplemented
        if func not in TYPED:  # the step may be taken later, when an index or a constant has other values
            args = tree_map(lambda each: each.detach().clone() if isinstance(each, Tensor) else each, args)
        return self._child(recipe, (func, args, kwargs), records)

    def _parts(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the lazy results of a function that cuts the logits into parts, or NotImplemented."""
        try:
            indices = PARTS[func](self._recipe.shape, *args, **kwargs)
        except (TypeError, ValueError, IndexError):  # torch's own function raises, with its message
            return NotImplemented
        if indices is None:
            return NotImplemented
        parts = [self._call_lazily(Tensor.__getitem__, (each,), {}) for each in indices]
        if any(each is NotImplemented for each in parts):
            return NotImplemented
        return iter(parts) if func is Tensor.__iter__ else tuple(parts)

    def _child(self, recipe: Recipe, step: Step, records: bool) -> LazyLogits:
        """Return the lazy result of ``step`` on these logits; ``recipe`` is the recipe of the result.

        Autograd records the step only if ``records``.
        """
        with torch.set_grad_enabled(records):
            child = _new_tensor(self._call, recipe, self, step, self._warned, records)
        self._children.add(child)
        return child

    def _fused_loss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the cross-entropy from features and weight, or NotImplemented for arguments that need the logits."""
        options = loss_options(*args, **kwargs)
        recipe, call = self._recipe, self._call
        if recipe.axis != min(1, len(recipe.shape) - 1) or recipe.features.numel() == 0:
            return NotImplemented
        capped = options.get("softcap") is not None
        if any(isinstance(each, LazyLogits) for each in options.values()) or (capped and recipe.softcap is not None):
            return NotImplemented
        if recipe.softcap is not None:
            options["softcap"] = recipe.softcap
        elif capped and recipe.temperature != 1:
            return NotImplemented
        options["temperature"] = options.get("temperature", 1.0) * recipe.temperature
        call.check(reads=False)
        features = recipe.features.movedim(recipe.axis, -1)
        target = options.pop("target")
        if isinstance(target, Tensor) and target.is_floating_point() and target.dim() == len(recipe.shape):
            target = target.movedim(recipe.axis, -1)
        records = self._records and torch.is_grad_enabled()
        call.fused_loss |= records
        with torch.set_grad_enabled(records):
            return linear_cross_entropy(features, call.weight, target, linear_bias=recipe.bias(call.bias), **options)

    def _warn_once(self, func: Any) -> None:
        """Warn, once for each function and head, that a function reads the logits while gradients are recorded."""
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__  # the attribute, such as mT
        if not self._records or self._ordinary is not None or name in self._warned:
            return
        self._warned.add(name)
        shape = " \N{MULTIPLICATION SIGN} ".join(map(str, self.shape))
        warn(f"{name} reads the logits of a fused head: all {shape} are computed, as without softnll.torch.fuse")

    def _compute_tree(self) -> None:
        """Compute all logits of this head call before one is written to or gets a hook on its gradient.

        Views share the memory of what they are views of, copies do not; and a loss of a view from its features would
        leave the gradient of the whole without that of the view.
        """
        root = self
        while root._parent is not None:
            root = root._parent
        pending = [root]
        while pending:
            each = pending.pop()
            each.ordinary()
            pending += each._children


def _ordinary_loss(logits: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return softnll's cross-entropy of ordinary logits."""
    options = tree_map(_ordinary, loss_options(*args, **kwargs))
    if options["ignore_index"] is None:
        del options["ignore_index"]
    return cross_entropy(logits, **options)


def _ordinary(each: Any) -> Any:
    """Return the ordinary logits of lazy logits, and everything else as it is."""
    if not isinstance(each, LazyLogits):
        return each
    each._check_writes()
    return each.ordinary()


def _detached(each: Any) -> Any:
    """Return the values of lazy logits, and everything else as it is."""
    return each.detached() if isinstance(each, LazyLogits) else each


def _replay(call: HeadCall, steps: tuple[Step, ...], features: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    """Return the logits after the steps, for features, weight and bias like those of the call."""
    logits = call.logits(features, weight, call.bias if bias is None else bias)
    for func, args, kwargs in steps:
        logits = func(logits, *args, **kwargs)
    return logits


class _LazyOutput(Function):
    """The autograd function of ``(call, recipe, steps, features, weight, bias)`` whose output is a lazy tensor."""

    @staticmethod
    def forward(ctx: Any, call: HeadCall, recipe: Recipe, steps: tuple[Step, ...], *inputs: Any) -> LazyLogits:
        """Return a tensor without memory."""
        ctx.call, ctx.steps = call, steps
        ctx.save_for_backward(*inputs)
        return Tensor._make_wrapper_subclass(LazyLogits, recipe.shape, dtype=recipe.dtype, device=call.features.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return the gradients of features, weight and bias, by computing the logits and differentiating them."""
        _call, _recipe, _steps, *needed = ctx.needs_input_grad
        inputs: list[Any] = [None if each is None else each.detach() for each in ctx.saved_tensors]
        leaves = [each.requires_grad_() for each, wanted in zip(inputs, needed, strict=True) if wanted]
        with torch.enable_grad():
            logits = _replay(ctx.call, ctx.steps, *inputs)
        found = iter(torch.autograd.grad(logits, leaves, grad))
        return None, None, None, *(next(found) if wanted else None for wanted in needed)


class _Values(Function):
    """The values of a lazy tensor that another autograd function has returned as its output."""

    @staticmethod
    def forward(ctx: Any, lazy: LazyLogits) -> Tensor:  # noqa: ARG004
        """Return a copy of the values of the lazy tensor."""
        return lazy.detached().clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        """Return the gradient as it is."""
        return grad


def _new_tensor(
    call: HeadCall, recipe: Recipe, parent: LazyLogits | None, step: Step, warned: set[str], records: bool
) -> LazyLogits:
    """Return a lazy tensor that is an output of ``_LazyOutput`` in autograd's graph."""
    steps = () if parent is None else (*parent._steps(), step)
    lazy: LazyLogits = _LazyOutput.apply(call, recipe, steps, call.features, call.weight, call.bias)
    lazy._call, lazy._recipe, lazy._parent, lazy._step = call, recipe, parent, step
    lazy._children, lazy._warned, lazy._records = WeakSet(), warned, records
    lazy._ordinary = lazy._ordinary_node = lazy._detached = None
    lazy._node = lazy._current_node()
    return lazy
