"""The linear layer with its loss as a differentiable expression, a few rows at a time.

What ``formulas`` is to the losses on logits: values and gradients come from the kernels, every further derivative from
here. Features and weight are multiplied in their own type, half types in float32; the rest is float64. Where nothing
records, no more than a few rows of logits are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from softnll.plan import default_max_bytes
from softnll.torch import formulas
from softnll.torch.compute import Loss, unreduced
from softnll.torch.linear_compute import LinearLoss

__all__ = ["gradient", "gradient_pullback", "gradient_push", "logits", "loss_push", "pull_rows", "push_rows"]

Given = tuple[Any, ...]
Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
_A_ROW = (True, False, False, True)  # which of features, weight, bias and target are one a row
_COPIES = 24 * 8  # bytes that an entry of the logits takes here: two dozen arrays of float64


def _exact(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Keep autocast from multiplying in a narrower type."""

    @wraps(function)
    def call(*args: Parameters.args, **options: Parameters.kwargs) -> Returned:
        device = _device(args)
        if not torch.is_autocast_enabled(device):
            return function(*args, **options)
        with torch.autocast(device, enabled=False):
            return function(*args, **options)

    return call


def _device(args: tuple[Any, ...]) -> str:
    """Return the kind of device that the first tensor lies on, in a tuple or by itself."""
    for each in args:
        for inner in each if isinstance(each, (tuple, list)) else (each,):
            if isinstance(inner, Tensor):
                return inner.device.type
    return "cpu"


def _rows_at_once(n_classes: int, width: int, n_rows: int, what: LinearLoss) -> int:
    """Return how many rows of logits the memory allows here."""
    allowed = what.max_bytes
    if allowed is None:
        allowed = default_max_bytes(4 * width * (n_rows + n_classes), n_rows, n_classes, 4)
    rows = max(1, allowed // (_COPIES * max(1, n_classes)))
    return rows if what.at_most is None else min(rows, what.at_most)


def _pick(inputs: Sequence[Any], at: Sequence[int], given: Sequence[Any]) -> list[Any]:
    """Return the inputs with others in some places."""
    return [given[at.index(i)] if i in at else each for i, each in enumerate(inputs)]


def _product_type(*tensors: Tensor | None) -> torch.dtype:
    """Return the type that is multiplied in."""
    wide = any(each is not None and each.dtype == torch.float64 for each in tensors)
    return torch.float64 if wide else torch.float32


def logits(f: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """Return f @ Wᵀ + b, of tensors of one type."""
    z = f @ W.t()
    return z if b is None else z + b


def _dense(q: Tensor, indices: Tensor, n_classes: int) -> Tensor:
    """Return sparse soft targets with all their classes."""
    return torch.zeros(q.shape[0], n_classes, dtype=torch.float64, device=q.device).scatter_add(1, indices, q.double())


def _silent(target: Tensor, s: Tensor, weight: Tensor | None, what: Loss) -> Tensor:
    """Return which rows take no part: their features may be anything."""
    if weight is None or target.is_floating_point() or what.objective.label_smoothing > 0:
        return s == 0
    inside = (target >= 0) & (target < weight.shape[0])
    return (s == 0) | (inside & (weight[torch.where(inside, target, 0).long()] == 0))


def _losses(
    f: Tensor,
    W: Tensor,
    b: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    s: Tensor,
    temperature: Tensor | None,
    indices: Tensor | None,
    what: Loss,
) -> Tensor:
    """Return the losses of some rows, in float64."""
    if indices is not None:  # sparse soft targets
        target = _dense(target, indices, W.shape[0])
    silent = _silent(target, s, weight, what)
    z = logits(torch.where(silent.unsqueeze(1), 0.0, f), W, b)
    return formulas.loss(z, target, weight, s, temperature, what)


def _rows(f: Tensor, target: Tensor, temperature: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return features, targets and temperatures with their leading dimensions as one."""
    n = f.dim() - 1
    target = target.reshape(-1, target.shape[-1]) if target.dim() > n else target.reshape(-1)
    return f.reshape(-1, f.shape[-1]), target, None if temperature is None else temperature.reshape(-1)


class _Pieces:
    """A loss and its inputs as rows, cut into pieces."""

    def __init__(self, given: Given) -> None:
        f, W, b, target, weight, sample_weight, temperature, indices, what = given
        self.shapes: tuple[Any, ...] = (f.shape, W.shape, None if b is None else b.shape, target.shape)
        self.types: tuple[Any, ...] = (f.dtype, W.dtype, None if b is None else b.dtype, target.dtype)
        dtype = _product_type(f, W, b)
        rows, target, self.temperature = _rows(f, target, temperature)
        self.inputs: tuple[Any, ...] = (rows.to(dtype), W.to(dtype), None if b is None else b.to(dtype), target)
        self.weight = weight
        self.indices = None if indices is None else indices.reshape(-1, indices.shape[-1]).long()
        whole = Loss(what.loss.objective, 1, check=False)
        s = None if sample_weight is None else sample_weight.reshape(-1)
        self.s, D = formulas.row_weights(target, weight, s, whole)
        self.loss = Loss(unreduced(what.loss.objective), 1, check=False)
        self.reduction = what.loss.objective.reduction
        # Of a mean of nothing the value is NaN, and all its derivatives are 0.
        mean = torch.where(D > 0, 1.0 / torch.where(D > 0, D, 1.0), 0.0)
        self.factor = mean if self.reduction == "mean" else torch.ones_like(D)
        self.step = _rows_at_once(W.shape[0], W.shape[1], rows.shape[0], what)

    def __iter__(self) -> Iterator[tuple[slice, tuple[Any, ...], tuple[Any, ...]]]:
        """Yield which rows, their features, weight, bias and targets, and what the derivative is not with respect to.

        If there are no rows, then once all the same: what is summed has a shape.
        """
        f, W, b, target = self.inputs
        for start in range(0, max(1, f.shape[0]), self.step):
            rows = slice(start, start + self.step)
            tau = None if self.temperature is None else self.temperature[rows]
            at = None if self.indices is None else self.indices[rows]
            yield rows, (f[rows], W, b, target[rows]), (self.weight, self.s[rows], tau, at, self.loss)

    def spread(self, upstream: Tensor) -> Tensor:
        """Return the upstream gradient of each row's loss."""
        if self.reduction == "none":
            return upstream.reshape(-1).double()
        return (upstream.double() * self.factor).expand(self.s.shape[0])

    def reduce(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Return what the reduction makes of derivatives of the rows' losses."""
        return rows.reshape(shape) if self.reduction == "none" else rows.sum() * self.factor

    def flatten(self, tensors: Sequence[Any], at: Sequence[int]) -> list[Tensor]:
        """Return what has the inputs' shapes, such as tangents, as rows and in the types that are computed in."""
        return [
            each.to(self.inputs[i].dtype).reshape(self.inputs[i].shape) for each, i in zip(tensors, at, strict=True)
        ]

    def gather(self, pieces: list[tuple[Tensor, ...]], at: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the pieces of gradients as gradients: rows one after another, the others' sum."""
        joined = []
        for i, parts in zip(at, zip(*pieces, strict=True), strict=True):
            whole = torch.cat(parts) if _A_ROW[i] else _sum(parts)
            joined.append(whole.reshape(self.shapes[i]).to(self.types[i]))
        return tuple(joined)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Return a sum."""
    total = parts[0]
    for each in parts[1:]:
        total = total + each
    return total


def _cut(tensors: Sequence[Tensor], at: Sequence[int], rows: slice) -> tuple[Tensor, ...]:
    """Return the rows of those that are one a row."""
    return tuple(each[rows] if _A_ROW[i] else each for each, i in zip(tensors, at, strict=True))


def _gradients(up: Tensor, inputs: Given, at: Sequence[int], others: Given) -> tuple[Tensor, ...]:
    """Return the gradients of some rows' losses with respect to some inputs."""

    def of(*given: Tensor) -> Tensor:
        return _losses(*_pick(inputs, at, given), *others)

    return formulas.pullback(of, *(inputs[i] for i in at))(up)


@_exact
def gradient(upstream: Tensor, given: Given, at: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the gradients with respect to the inputs in these places: 0 features, 1 weight, 2 bias, 3 target."""
    pieces = _Pieces(given)
    up = pieces.spread(upstream)
    return pieces.gather([_gradients(up[rows], inputs, at, others) for rows, inputs, others in pieces], at)


@_exact
def gradient_pullback(
    cotangents: Sequence[Tensor], upstream: Tensor, given: Given, at: Sequence[int], wanted: Sequence[int]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the gradients of the gradients ``at``: with respect to the upstream gradient, and to the ``wanted``."""
    pieces = _Pieces(given)
    up = pieces.spread(upstream)
    cotangents = pieces.flatten(cotangents, at)
    to_up, to_inputs = [], []
    for rows, inputs, others in pieces:

        def of(up: Tensor, *given: Tensor, inputs: Given = inputs, others: Given = others) -> tuple[Tensor, ...]:
            return _gradients(up, tuple(_pick(inputs, wanted, given)), at, others)

        pulled = formulas.pullback(of, up[rows], *(inputs[i] for i in wanted))(_cut(cotangents, at, rows))
        first, *rest = pulled
        to_up.append(first)
        to_inputs.append(tuple(rest))
    to_upstream = pieces.reduce(torch.cat(to_up), upstream.shape)
    return to_upstream.to(upstream.dtype), pieces.gather(to_inputs, wanted)


def _push(function: Callable[..., Any], inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the derivatives of a function of several results along tangents, as ``formulas.push``."""
    value, pull = torch.func.vjp(function, *inputs)[:2]
    return formulas.pullback(lambda *each: pull(each), *(torch.zeros_like(each) for each in value))(tuple(tangents))


@_exact
def push_rows(function: Callable[..., tuple[Tensor, ...]], given: Given, tangents: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return the derivatives of a function with several results a row, along those tangents that are there."""
    at = [i for i, each in enumerate(tangents) if each is not None]
    pieces = _Pieces(given)
    moved = pieces.flatten([tangents[i] for i in at], at)
    results = []
    for rows, inputs, others in pieces:

        def of(*given: Tensor, inputs: Given = inputs, others: Given = others) -> tuple[Tensor, ...]:
            return function(*_pick(inputs, at, given), *others)

        results.append(_push(of, [inputs[i] for i in at], _cut(moved, at, rows)))
    return tuple(torch.cat(each).reshape(given[0].shape[:-1]) for each in zip(*results, strict=True))


@_exact
def pull_rows(
    function: Callable[..., tuple[Tensor, ...]], given: Given, cotangents: Sequence[Any], at: Sequence[int]
) -> tuple[Tensor, ...]:
    """Return the gradients of a function with several results a row; no cotangent is one of 0."""
    pieces = _Pieces(given)
    n = pieces.s.shape[0]
    full = [pieces.s.new_zeros(n) if each is None else each.reshape(n).double() for each in cotangents]
    results = []
    for rows, inputs, others in pieces:

        def of(*given: Tensor, inputs: Given = inputs, others: Given = others) -> tuple[Tensor, ...]:
            return function(*_pick(inputs, at, given), *others)

        pull = formulas.pullback(of, *(inputs[i] for i in at))
        results.append(pull(tuple(each[rows] for each in full)))
    return pieces.gather(results, at)


def loss_push(given: Given, tangents: Sequence[Any]) -> Tensor:
    """Return the loss's derivative along those tangents of features, weight, bias and target that are there."""
    (rows,) = push_rows(lambda *each: (_losses(*each),), given, tangents)
    return _Pieces(given).reduce(rows, rows.shape)


@_exact
def gradient_push(
    upstream: Tensor, to_upstream: Tensor | None, given: Given, tangents: Sequence[Any], at: Sequence[int]
) -> tuple[Tensor, ...]:
    """Return the derivatives of the gradients ``at`` along tangents of the upstream gradient and of the inputs."""
    moved = [i for i, each in enumerate(tangents) if each is not None]
    pieces = _Pieces(given)
    up = pieces.spread(upstream)
    up_tangent = torch.zeros_like(up) if to_upstream is None else pieces.spread(to_upstream)
    moving = pieces.flatten([tangents[i] for i in moved], moved)
    results = []
    for rows, inputs, others in pieces:

        def of(up: Tensor, *given: Tensor, inputs: Given = inputs, others: Given = others) -> tuple[Tensor, ...]:
            return _gradients(up, tuple(_pick(inputs, moved, given)), at, others)

        start = [up[rows], *(inputs[i] for i in moved)]
        results.append(_push(of, start, (up_tangent[rows], *_cut(moving, moved, rows))))
    return pieces.gather(results, at)
