"""Check the inputs of losses on devices: shapes and types always; values only with ``check=True``: it synchronises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softnll._core.arithmetic import arithmetic_of
from softnll._core.layout import Layout
from softnll._core.problem import Problem
from softnll._core.target_errors import float_error, shape_error
from softnll._core.targets import SparseRows, TargetIndexError, counted_weights, mass_tolerance, rows_without_part
from softnll.torch._base.arguments import LinearInputs, LossInputs, LossSettings
from softnll.torch._base.inputs import FLOATS
from softnll.torch._base.sparse import densify, flat_sparse


def wide_type(x: Tensor) -> torch.dtype:
    """Return the widest floating-point type of a tensor's device: float64, or float32 where there is no float64."""
    return arithmetic_of(x).dtype


def capturing() -> bool:
    """Return whether a CUDA graph is being captured; nothing may synchronise with the device during that."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def has_values(x: Tensor) -> bool:
    """Return whether a tensor has values: meta and fake tensors have none."""
    return x.device.type != "meta" and not isinstance(x, torch._subclasses.FakeTensor)  # noqa: SLF001 - its public name


def loss_problem(
    x: Tensor | None, layout: Layout, inputs: LossInputs | LinearInputs, settings: LossSettings
) -> Problem:
    """Return the Problem of a loss after checking its inputs; ``x`` is ``(N, C)`` logits, or None for a linear loss.

    An ignored row keeps its target, which kernels on devices compare with ``ignore_index``. What a row that takes no
    part holds is not checked.
    """
    objective, check, shape = settings.objective, settings.check is True, layout.row_shape
    y, q = _targets(inputs, layout, check=check)
    ignored = None if y is None else y == objective.ignore_index
    w = _vector("class_weight", inputs.weight, (layout.n_classes,), check=check)
    s = _vector("sample_weight", inputs.sample_weight, shape, check=check, skip=ignored)
    skip = rows_without_part(torch, None, None, s, ignored, 0.0)
    tau = _vector("temperature", inputs.temperatures, shape, check=check, skip=skip)
    if y is not None and skip is not None and check:
        good = ((y >= 0) & (y < layout.n_classes)) | skip
        allowed = f"0 <= target < {layout.n_classes} classes, or ignore_index={objective.ignore_index}"
        _require("targets", y, good, allowed, shape, TargetIndexError)
    if q is not None and check:
        _check_soft(q.probabilities if isinstance(q, SparseRows) else q, s, layout)
    divisor: Any = 1.0
    if objective.reduction == "mean":
        s = near_one(s, ignored)
        w = w if y is None else near_one(w)  # class weights are not in the denominator of soft targets
        divisor = denominator(y, w, s, ignored, layout.n_rows)
        if isinstance(divisor, Tensor) and not check:  # of weights of any sign: kernels divide by positive numbers only
            sign = torch.where(divisor < 0, -1.0, 1.0)
            s, w = (s * sign, w) if s is not None else (s, w if w is None or y is None else w * sign)
            divisor = divisor * sign
    return Problem(x, objective, y, q, w, s, None, tau, divisor)


def _vector(
    name: str, each: Tensor | None, shape: tuple[int, ...], *, check: bool, skip: Tensor | None = None
) -> Tensor | None:
    """Return weights or per-row temperatures as a contiguous vector; with ``check``, raise for values out of range.

    ``skip`` is None or True for each value that may be anything.
    """
    if each is None:
        return None
    if each.dtype == torch.bool or each.is_complex():
        raise TypeError(f"{name} has dtype {each.dtype}; allowed: {', '.join(map(str, FLOATS))} and integers")
    positive = name == "temperature"
    if tuple(each.shape) != shape:
        allowed = f"a number, or one a row: shape {shape}" if positive else f"{shape}"
        raise ValueError(f"{name} has shape {tuple(each.shape)}; allowed: {allowed}")
    vector = each.detach().reshape(-1)
    vector = (vector if vector.is_floating_point() else vector.to(wide_type(each))).contiguous()
    if check:
        good = (vector > 0 if positive else vector >= 0) & (vector < torch.inf)
        good = good if skip is None else good | skip
        _require(name, vector, good, f"finite numbers {'>' if positive else '>='} 0", shape)
    return vector


def _targets(inputs: LossInputs | LinearInputs, layout: Layout, *, check: bool) -> tuple[Tensor | None, Any]:
    """Return ``(y, None)``, int64 hard targets ``(N,)``, or ``(None, q)``, soft targets ``(N, C)``, maybe sparse."""
    target, indices = inputs.target, getattr(inputs, "indices", None)
    if indices is not None:
        return None, _sparse(indices, target, layout, check=check)
    shape, floating = tuple(target.shape), target.is_floating_point()
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"targets has dtype {target.dtype}; allowed: integers (hard) or floats (soft)")
    if not floating and shape == layout.row_shape:
        return target.detach().reshape(-1).to(torch.int64).contiguous(), None
    if floating and shape == layout.shape:
        return None, layout.rows(target.detach())
    if floating and shape == layout.row_shape:
        raise float_error(target.dtype)
    raise shape_error(shape, target.dtype, layout, hard=not floating)


def _sparse(indices: Tensor, probabilities: Tensor, layout: Layout, *, check: bool) -> SparseRows:
    """Return sparse targets; without ``check``, a class out of range makes its row NaN."""
    classes, q, good = flat_sparse(indices, probabilities, layout)
    if check and has_values(q) and not bool(good.all()):
        raise TargetIndexError(f"target.indices has a class out of range; allowed: 0 <= class < {layout.n_classes}")
    return SparseRows(torch.where(good, classes, 0), torch.where(good, q, torch.nan), layout.n_classes, densify)


def _require(
    name: str, values: Tensor, good: Tensor, allowed: str, shape: tuple[int, ...], error: type[Exception] = ValueError
) -> None:
    """Raise for the first value that is not good. This synchronises with the device."""
    if capturing():
        raise RuntimeError("check=True waits for the device, which a CUDA graph that is being captured cannot")
    if not has_values(values) or bool(good.all()):
        return
    at = int((~good).nonzero()[0, 0])
    place = [int(each) for each in torch.unravel_index(torch.tensor(at), shape)] if shape else []
    index = "[" + ", ".join(map(str, place)) + "]" if shape else "[()]"
    raise error(f"{name}{index} is {values[at].item()}; allowed: {allowed}")


def _check_soft(q: Tensor, s: Tensor | None, layout: Layout) -> None:
    """Raise unless each row of soft targets that takes part is a distribution."""
    counts = torch.ones(layout.n_rows, dtype=torch.bool, device=q.device) if s is None else s != 0
    least = q.amin(1) if q.shape[1] else q.new_zeros(layout.n_rows)
    row_shape = layout.row_shape
    _require("targets", least, (least >= 0) | ~counts, "soft targets >= 0 unless check is False", row_shape)
    total = q.sum(1, dtype=wide_type(q))
    tolerance = mass_tolerance(str(q.dtype).removeprefix("torch."), layout.n_classes)
    allowed = f"1 within {tolerance:.2g} unless check is False"
    _require("the sum of targets", total, ((total - 1).abs() <= tolerance) | ~counts, allowed, row_shape)


def near_one(weights: Tensor | None, ignored: Tensor | None = None) -> Tensor | None:
    """Return weights times a power of two, which a mean does not depend on, so that no product or sum overflows."""
    if weights is None or weights.dtype != torch.float64 or weights.numel() == 0:
        return weights  # narrower types cannot overflow in float64
    if ignored is not None:
        weights = torch.where(ignored, 0.0, weights)
    largest = weights.abs().amax()
    exponent = torch.where(torch.isfinite(largest), torch.frexp(largest)[1], 0).double()
    half = (exponent / 2).floor()  # in two steps, as a power may be out of range itself
    return weights * torch.exp2(-half) * torch.exp2(half - exponent)


def denominator(y: Tensor | None, w: Tensor | None, s: Tensor | None, ignored: Tensor | None, n_rows: int) -> Any:
    """Return D, the mean's denominator: a tensor on the device, or a number if it depends on no tensor."""
    like = next((each for each in (w, s, ignored) if each is not None), None)
    if like is None:
        return float(n_rows)
    wide = wide_type(like)
    counted = counted_weights(torch, y, None if w is None else w.to(wide), None if s is None else s.to(wide), ignored)
    return float(n_rows) if counted is None else counted.sum(dtype=wide)
