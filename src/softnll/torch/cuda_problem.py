"""What a loss on a CUDA device is given, checked as far as shapes and types go, and as a Problem of tensors there.

Values are looked at with ``check=True`` only: to look at them, the processor has to wait for the device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softnll.objective import CrossEntropy
from softnll.problem import Problem
from softnll.targets import TargetIndexError
from softnll.torch.devices import capturing

__all__ = ["Rows", "loss_problem", "row_vector", "weights_of"]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Rows(NamedTuple):
    """Which dimension of a tensor holds its classes.

    Attributes
    ----------
    shape
        The tensor's shape.
    dim
        The class dimension, counted from the front.
    """

    shape: tuple[int, ...]
    dim: int

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape without the class dimension."""
        return (*self.shape[: self.dim], *self.shape[self.dim + 1 :])

    @property
    def n_rows(self) -> int:
        """N."""
        return math.prod(self.row_shape)

    @property
    def n_classes(self) -> int:
        """C."""
        return self.shape[self.dim]

    def rows(self, x: Tensor) -> Tensor:
        """Return a tensor as ``(N, C)`` rows: a view where its strides allow, else a copy."""
        return x.movedim(self.dim, -1).reshape(self.n_rows, self.n_classes)

    def restore(self, rows: Tensor, like: Tensor) -> Tensor:
        """Return ``(N, C)`` rows in the tensor's own shape, with the strides that torch's functions give."""
        result = rows.reshape(*self.row_shape, self.n_classes).movedim(-1, self.dim)
        if like.is_contiguous():
            return result.contiguous()
        wanted = torch.empty_like(like)
        return result if result.stride() == wanted.stride() else wanted.copy_(result)


def _floating(name: str, each: Tensor) -> None:
    """Raise unless these are real numbers."""
    if each.dtype == torch.bool or each.is_complex():
        raise TypeError(f"{name} has dtype {each.dtype}; allowed: {', '.join(map(str, _FLOATS))} and integers")


def weights_of(name: str, each: Tensor | None, shape: tuple[int, ...], *, check: bool) -> Tensor | None:
    """Return weights as a vector; ``check``: they must be finite and not negative."""
    if each is None:
        return None
    _floating(name, each)
    if tuple(each.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(each.shape)}; allowed: {shape}")
    each = row_vector(each)
    if check:
        _all(name, each, (each >= 0) & (each < torch.inf), "finite numbers >= 0", shape)
    return each


def row_vector(each: Tensor) -> Tensor:
    """Return what there is one of a row as a contiguous vector of floating-point numbers."""
    each = each.detach().reshape(-1)
    return (each if each.is_floating_point() else each.double()).contiguous()


def _all(
    name: str, values: Tensor, good: Tensor, allowed: str, shape: tuple[int, ...], error: Any = ValueError
) -> None:
    """Raise unless all are good; this waits for the device."""
    if capturing():
        raise RuntimeError("check=True waits for the device, which a CUDA graph that is being captured cannot")
    if bool(good.all()):
        return
    at = int((~good).nonzero()[0, 0])
    place = [int(each) for each in torch.unravel_index(torch.tensor(at), shape)] if shape else []
    index = "[" + ", ".join(map(str, place)) + "]" if shape else "[()]"
    raise error(f"{name}{index} is {values[at].item()}; allowed: {allowed}")


def loss_problem(  # noqa: C901 - one thing after the other is looked at
    x: Tensor | None,
    rows: Rows,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    temperature: Tensor | None,
    objective: CrossEntropy,
    *,
    check: bool,
    sparse: bool = False,
) -> Problem:
    """Check everything that a loss is given and return it as a Problem of ``(N, C)`` logits (or None).

    ``sparse``: targets are soft, and what is given as hard ones stands for them.
    """
    w = weights_of("class_weight", weight, (rows.n_classes,), check=check)
    s = weights_of("sample_weight", sample_weight, rows.row_shape, check=check)
    tau = None
    if temperature is not None:
        _floating("temperature", temperature)
        if tuple(temperature.shape) != rows.row_shape:
            raise ValueError(
                f"temperature has shape {tuple(temperature.shape)}; allowed: a number, or one a row: "
                f"shape {rows.row_shape}"
            )
        tau = row_vector(temperature)
        if check:
            _all("temperature", tau, (tau > 0) & (tau < torch.inf), "finite numbers > 0", rows.row_shape)
    y = q = None
    hard = not target.is_floating_point()
    if hard and tuple(target.shape) == rows.row_shape and target.dtype != torch.bool and not target.is_complex():
        y = target.detach().reshape(-1).to(torch.int64).contiguous()
        if check:
            good = ((y >= 0) & (y < rows.n_classes)) | (y == objective.ignore_index)
            allowed = f"0 <= target < {rows.n_classes} classes, or ignore_index={objective.ignore_index}"
            _all("targets", y, good, allowed, rows.row_shape, TargetIndexError)
    elif not hard and tuple(target.shape) == rows.shape:
        q = rows.rows(target.detach())
        if check:
            _check_soft(q, s, rows)
    elif not hard and tuple(target.shape) == rows.row_shape:
        raise TypeError(f"hard targets have dtype {target.dtype}; allowed: integers")
    elif target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"targets has dtype {target.dtype}; allowed: integers (hard) or floats (soft)")
    else:
        raise ValueError(
            f"targets has shape {tuple(target.shape)} and dtype {target.dtype}, logits have shape {rows.shape} with "
            f"the classes on axis {rows.dim}; "
            f"allowed: integers of shape {rows.row_shape} or floats of shape {rows.shape}"
        )
    y = None if sparse else y
    divisor: Any = 1.0
    if objective.reduction == "mean":
        s = _near_one(s, None if y is None else y == objective.ignore_index)
        w = w if y is None else _near_one(w)  # class weights are not in the denominator of soft targets
        divisor = _divisor(y, w, s, rows, objective.ignore_index)
    return Problem(x, objective, y, q, w, s, None, tau, divisor)


def _check_soft(q: Tensor, s: Tensor | None, rows: Rows) -> None:
    """Raise unless each row of soft targets that takes part is a distribution."""
    counts = torch.ones(rows.n_rows, dtype=torch.bool, device=q.device) if s is None else s != 0
    least = q.amin(1) if rows.n_classes else q.new_zeros(rows.n_rows)
    _all("targets", least, (least >= 0) | ~counts, "soft targets >= 0 (check=False lets them pass)", rows.row_shape)
    total = q.sum(1, dtype=torch.float64)
    tolerance = max(1e-6, 4 * torch.finfo(q.dtype).eps)
    allowed = f"a sum of 1 within {tolerance:.2g} (check=False lets other masses pass)"
    _all("the sum of targets", total, ((total - 1).abs() <= tolerance) | ~counts, allowed, rows.row_shape)


def _near_one(weights: Tensor | None, ignored: Tensor | None = None) -> Tensor | None:
    """Return weights times a power of two, so that no product or sum of them leaves the range: a mean has no unit."""
    if weights is None or weights.dtype != torch.float64 or weights.numel() == 0:
        return weights  # others are near enough, in float64
    if ignored is not None:
        weights = torch.where(ignored, 0.0, weights)
    largest = weights.amax()
    exponent = torch.where(torch.isfinite(largest), torch.frexp(largest)[1], 0).double()
    half = (exponent / 2).floor()  # in two steps, as a power may be out of range itself
    return weights * torch.exp2(-half) * torch.exp2(half - exponent)


def _divisor(y: Tensor | None, w: Tensor | None, s: Tensor | None, rows: Rows, ignore_index: int) -> Any:
    """Return D, the mean's denominator, where the tensors lie."""
    if y is None:
        return float(rows.n_rows) if s is None else s.sum(dtype=torch.float64)
    counted = y != ignore_index
    if s is None and w is None:
        return counted.sum().double()
    value = torch.ones_like(y, dtype=torch.float64) if s is None else s.double()
    if w is not None:
        inside = (y >= 0) & (y < rows.n_classes)
        value = value * torch.where(inside, w.double()[torch.where(inside, y, 0)], 1.0)
    return torch.where(counted, value, 0.0).sum()
