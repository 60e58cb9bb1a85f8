"""The functions of plain CPU tensors, in few steps: of small batches, checks and general functions take most time.

Plain are logits in one piece, outside transforms, traces and modes, with the classes last in memory or with rows side
by side: ``(N, C)``, images with either layout, transposed sequences. The loss has int64 targets or soft ones of the
logits' shape, strides and type. Any option of the loss but weights and temperatures of the rows is served.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from softnll._core.layout import layout_of
from softnll._core.options import CrossEntropy
from softnll._kernels.cpu.parameters import REDUCTIONS
from softnll._kernels.select import kernels
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.autograd_base import applied, in_batch, records
from softnll.torch._base.cpu_backend import keeps_gradient
from softnll.torch._base.team import Team, team_of
from softnll.torch._base.views import empty_like
from softnll.torch._losses import compute
from softnll.torch._losses.autograd import loss_gradients
from softnll.torch._losses.compute import Kept
from softnll.torch._losses.normalise import LogSoftmax, Softmax, log_softmax_product, softmax_product, wide
from softnll.torch._losses.plain import TYPES, WIDE, Form, is_plain

_EXPRESSIONS = ((Softmax, softmax_product), (LogSoftmax, log_softmax_product))  # without and with the logarithm
_SCALARS = {
    each: torch.empty((), dtype=each, device="cpu") for each in WIDE
}  # what a new tensor is made like, in half the time
_FAR = 2**63 - 1
_NOTHING = (0, 0)  # the address and the length of an array without entries


def cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None, settings: LossSettings, form: Form) -> Tensor:
    """Return the loss, which autograd can differentiate."""
    if x.requires_grad and torch.is_grad_enabled():
        value: Tensor = _cross_entropy(x, target, weight, settings, form)
        return value
    found = in_one_call(x, target, weight, settings, form, written=False)
    return compute.losses(LossInputs(x, target, weight), settings) if found is None else found.value


class InOneCall(NamedTuple):
    """What one call of a kernel returns."""

    value: Tensor  # the loss
    gradient: Any  # if it is written
    without_part: bool  # whether a row takes no part


def in_one_call(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    settings: LossSettings,
    form: Form,
    *,
    written: bool,
    upstream: Tensor | None = None,
) -> InOneCall | None:
    """Return the loss and, if it is to be ``written``, its gradient from one call of a kernel; None if it has none.

    ``upstream`` has one number a row, of the type of the loss.
    """
    call = call_of(x.dtype, form, target, weight, settings, written=written)
    return None if call is None else computed(call, x, target, weight, form, written=written, upstream=upstream)


def computed(
    call: OneCall,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    form: Form,
    *,
    written: bool,
    upstream: Tensor | None = None,
) -> InOneCall | None:
    """Return what a call of ``call_of`` computes of these arguments; None if it leaves a row out."""
    n_rows, soft, dtype = form.n_rows, target.dtype is not torch.int64, call.dtype
    value = torch.empty(form.row_shape, dtype=dtype) if call.by_row else torch.empty_like(_SCALARS[dtype])
    gradient = empty_like(x) if written else None
    target, w, u = target if soft else target.contiguous(), _NOTHING, _NOTHING  # held until the call is over
    if weight is not None:
        weight = _in_one_piece(weight, dtype)
        w = weight.data_ptr(), form.n_classes
    if upstream is not None:
        upstream = _in_one_piece(upstream, dtype)
        u = upstream.data_ptr(), n_rows
    y = target.data_ptr()
    left = call.function(
        *form.sizes,
        x.data_ptr(),
        *((y, *_NOTHING) if soft else (None, y, n_rows)),
        *w,
        *u,
        *call.options,
        value.data_ptr(),
        n_rows if call.by_row else 1,
        None if gradient is None else gradient.data_ptr(),
        *call.team,
    )
    return None if left > 0 else InOneCall(value, gradient, left < 0)


def call_of(
    dtype: torch.dtype, form: Form, target: Tensor, weight: Tensor | None, settings: LossSettings, *, written: bool
) -> OneCall | None:
    """Return the one call of a kernel for logits of a type and form; None if there is none."""
    select, objective, soft = getattr(kernels(), "loss_call", None), settings.objective, target.dtype is not torch.int64
    if select is None or (soft and settings.check):
        return None
    team = team_of(form.n_rows, form.n_classes, dear=objective.softcap is not None)
    return _loss_call(select, dtype, form, objective, soft, weight is not None, written, team)


class OneCall(NamedTuple):
    """A function of ``loss_call``, and what it takes and returns for any values of the tensors."""

    function: Callable[..., int]
    dtype: torch.dtype  # of the loss
    by_row: bool  # whether there is a loss for each row
    options: tuple[Any, ...]  # from ignored to softcap
    team: Team


@lru_cache(maxsize=256)
def _loss_call(
    select: Callable[..., Any],
    dtype: torch.dtype,
    form: Form,
    objective: CrossEntropy,
    soft: bool,
    weighted: bool,
    written: bool,
    team: Team,
) -> OneCall | None:
    """Return the function that ``select`` finds for tensors of these types and shapes, if any."""
    if objective.ignore_index > _FAR:
        return None
    kind = {"soft": soft, "weighted": weighted, "written": written, "threaded": team.parallel != 0}
    sizes, temperature = (form.n_rows, form.n_classes), objective.temperature
    function = select(TYPES[dtype], *sizes, objective, **kind, planes=form.planes)
    if function is None:
        return None
    options = (
        objective.ignore_index,
        REDUCTIONS[objective.reduction],
        objective.label_smoothing,
        objective.z_loss,
        None if temperature == 1 else temperature,
        objective.softcap,
    )
    by_row = objective.reduction == "none"
    return OneCall(function, dtype if dtype in WIDE else torch.float32, by_row, options, team)


def _in_one_piece(vector: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a vector in one piece, of a type; itself if it is."""
    return (vector if vector.dtype is dtype else vector.to(dtype)).contiguous()


def normalise(x: Tensor, form: Form, *, log: bool) -> Tensor:
    """Return softmax or, with ``log``, log_softmax, which autograd can differentiate."""
    if x.requires_grad and torch.is_grad_enabled():
        value: Tensor = _normalise(x, form, log)
        return value
    return _normalised(x, form, log)


def _normalised(x: Tensor, form: Form, log: bool) -> Tensor:
    """Return probabilities, or their logarithms."""
    sizes = form.n_rows, form.n_classes
    team, select = team_of(*sizes), getattr(kernels(), "normalise_call", None)
    call = None if select is None else select(TYPES[x.dtype], *sizes, log, team.parallel != 0, form.planes)
    if call is not None:
        out = empty_like(x)
        if not call(*form.sizes, x.data_ptr(), out.data_ptr(), 0, 0, *team):
            return out
    return (compute.log_softmax if log else compute.softmax)(x, form.dim)


class DirectNormalise(Function):
    """``Softmax`` or ``LogSoftmax`` of plain logits, which are saved if the result has too few digits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, form: Form, log: bool) -> Tensor:
        """Return the probabilities, or their logarithms."""
        value = _normalised(x, form, log)
        ctx.form, ctx.log, ctx.narrow = form, log, x.dtype not in WIDE
        ctx.save_for_backward(x if ctx.narrow else value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the product of the Jacobian and the upstream gradient; autograd can differentiate it if it records."""
        (saved,) = ctx.saved_tensors
        found = None if in_batch(grad) or records() or not is_plain(grad) else _computed_product(saved, grad, ctx)
        return _product(saved, grad, ctx) if found is None else found, None, None


def _computed_product(saved: Tensor, grad: Tensor, ctx: Any) -> Tensor | None:
    """Return the backward's product by a kernel; None without one."""
    log, logits, form = ctx.log, ctx.narrow, ctx.form
    if grad.dtype is not saved.dtype or grad.stride() != saved.stride():
        grad = torch.empty_like(saved).copy_(grad)
    sizes = form.n_rows, form.n_classes
    team, select = team_of(*sizes), getattr(kernels(), "product_call", None)
    kind = log, logits, team.parallel != 0, form.planes
    call = select(TYPES[saved.dtype], *sizes, *kind) if select is not None and saved.stride() == form.strides else None
    if call is not None:
        out = empty_like(saved)
        addresses = saved.data_ptr(), logits or None, log or None, grad.data_ptr(), out.data_ptr()
        if not call(*form.sizes, *addresses, 0, 0, *team):
            return out
    return compute.product(saved, grad, form.dim, log=log, logits=logits)


def _product(saved: Tensor, grad: Tensor, ctx: Any) -> Tensor:
    """Return the backward's product, which autograd can differentiate."""
    dtype, (function, product), dim = saved.dtype, _EXPRESSIONS[ctx.log], ctx.form.dim
    if ctx.narrow:
        saved, grad = function.apply(wide(saved), dim), wide(grad)
    return product(saved, grad, dim).to(dtype)


class DirectCrossEntropy(Function):
    """``EagerCrossEntropy`` of plain tensors ``(x, target, weight)`` and settings.

    The gradient is always kept, but for rows of a half type, where a product with it would be rounded twice.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, weight: Tensor | None, settings: LossSettings, form: Form
    ) -> Tensor:
        """Return the loss."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, target, weight, None, None)
        ctx.settings, ctx.form, ctx.keeps = settings, form, keeps_gradient(x.dtype, settings)
        found = in_one_call(x, target, weight, settings, form, written=ctx.keeps)
        if found is not None:
            ctx.kept, ctx.gradient = None, found.gradient
            return found.value
        value, ctx.kept, ctx.gradient = compute.recorded(LossInputs(x, target, weight), settings, keeps=ctx.keeps)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        """Return the gradient with respect to the logits."""
        gradient = None
        if upstream is not None and not (in_batch(upstream) or records()):
            if ctx.gradient is None and ctx.kept is None and ctx.keeps:  # another backward: with the bits of the first
                x, target, weight, _, _ = ctx.saved_tensors
                found = in_one_call(x, target, weight, ctx.settings, ctx.form, written=True)
                ctx.gradient = None if found is None else found.gradient
            gradient = _gradient(ctx, upstream)
        if gradient is None:
            kept = ctx.kept
            ctx.kept = _KeptLater(ctx) if kept is None else kept
            try:
                gradient, _ = loss_gradients(ctx, upstream, for_input=True, for_target=False)
            finally:
                ctx.kept = kept  # the other refers to ctx
        return gradient, None, None, None, None


_normalise, _cross_entropy = applied(DirectNormalise), applied(DirectCrossEntropy)


def _gradient(ctx: Any, upstream: Tensor) -> Tensor | None:
    """Return the gradient where one call computes it, or the kept one if the upstream gradient is 1; else None."""
    gradient = ctx.gradient
    if gradient is not None:
        if not is_one(upstream):
            return None
        ctx.gradient = None  # returned to the caller: a second backward computes anew
        return gradient
    if not upstream.dim():
        return None
    x, target, weight, _, _ = ctx.saved_tensors
    found = in_one_call(x, target, weight, ctx.settings, ctx.form, written=True, upstream=upstream)
    return None if found is None else found.gradient


def is_one(upstream: Tensor) -> bool:
    """Return whether an upstream gradient is 1: that of a scalar, or the one number for all rows that a sum has."""
    if upstream.dim():
        if any(upstream.stride()) or not upstream.numel():
            return False
        upstream = upstream[(0,) * upstream.dim()]
    return bool(upstream.item() == 1)


class _KeptLater:
    """The ``Kept`` of a forward in one call: a second forward computes it if a backward reads more than its layout."""

    def __init__(self, ctx: Any) -> None:
        self._ctx, gradient = ctx, ctx.gradient
        self.layout = self._kept.layout if gradient is None else layout_of(tuple(gradient.shape), 1)

    @cached_property
    def _kept(self) -> Kept:
        _, kept = compute.forward(LossInputs(*self._ctx.saved_tensors), self._ctx.settings)
        return kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)
