"""The last linear layer and its loss together, with the name and signature of torch.nn.functional."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from softnll.plan import Plan
from softnll.torch import linear_autograd, linear_compute, linear_ops
from softnll.torch.errors import raise_as_torch
from softnll.torch.inputs import compiling, tracked
from softnll.torch.linear_compute import LinearLoss
from softnll.torch.linear_inputs import NAMES, prepare
from softnll.torch.sparse import SparseTargets

__all__ = ["linear_cross_entropy", "plan"]


def linear_cross_entropy(
    input: Tensor,  # noqa: A002 - torch's name
    linear_weight: Tensor,
    target: Tensor | SparseTargets,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    sample_weight: Tensor | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    max_bytes: int | None = None,
    compact: bool | None = None,
    check: bool | None = None,
) -> Tensor:
    """Return the cross-entropy of targets and a linear layer's scores, without ever holding all N × C of them.

    ``loss(input @ linear_weight.T + linear_bias, target)``, with the loss of :func:`cross_entropy`: a few rows of
    logits are made at a time, turned into their losses and, where something requires a gradient, into theirs at once:
    ``dz = s·( T·(1 + 2ζ·lse)·p − t ) ⊙ du/dz / D``, ``d input = dz @ linear_weight``,
    ``d linear_weight = dzᵀ @ input``, ``d linear_bias = Σ_n dz_n``. That is three matrix products in all.

    As :func:`torch.nn.functional.linear_cross_entropy` (torch ≥ 2.13), with options or without; here with torch ≥ 2.6.

    Parameters
    ----------
    input
        ``(..., H)`` features; torch has ``(H,)`` and ``(N, H)``. float16, bfloat16, float32 or float64.
    linear_weight
        ``(C, H)``, one row a class; it may be of another type than the input, and the bias of a third.
    target
        Hard: integers in [0, C) of shape ``(...)``. Soft: floats of shape ``(..., C)``, of any mass; they may require a
        gradient. :class:`SparseTargets` are soft targets of a few classes a row.
    linear_bias
        ``(C,)``.
    weight, reduction, label_smoothing, z_loss, softcap, check
        As in :func:`cross_entropy`. With ``reduction="none"`` the backward makes the logits again: four products.
    ignore_index
        Rows with this hard target contribute exactly 0, are not counted and not multiplied; None is −100.
    options
        A ``torch.nn.LinearCrossEntropyOptions``: its chunk size is the most rows at a time. Its other fields are met
        whatever they say: sums are float32 or wider, and a graph may always be retained.
    sample_weight, temperature
        As in :func:`cross_entropy`, of shape ``(...)``.
    max_bytes
        The most memory to use beyond inputs and gradients; None:
        ``max(32 MiB, min(¼·(inputs + gradients), ⅛·N·C·itemsize))``. Where the weight is of a half type, several chunks
        take a float32 accumulator of its gradient besides. :func:`plan` tells.
    compact
        None, True: rows that take no part are left out of the products. False: they take part as zeros, so that the
        products' shapes, and with them the last bits, do not depend on the targets.

    Returns
    -------
    Tensor
        The loss: float64 if any of input, linear_weight and linear_bias is, else float32. Half types are multiplied in
        float32.

    Raises
    ------
    TypeError, RuntimeError, ValueError, IndexError, NotImplementedError
        As in :func:`cross_entropy`; ValueError for a ``max_bytes`` too small for one row; NotImplementedError for a
        ``linear_weight`` of more than two dimensions.

    Examples
    --------
    >>> import torch
    >>> features = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> head = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    >>> loss = linear_cross_entropy(features, head, torch.tensor([1]))
    >>> loss.backward()
    >>> round(loss.item(), 4)
    1.4076
    >>> head.grad
    tensor([[ 0.0900,  0.1801],
            [-0.7553, -1.5105],
            [ 0.6652,  1.3305]])

    Notes
    -----
    Wijmans et al. (2025), "Cut your losses in large-vocabulary language models", ICLR. Gradients in the forward: Hsu et
    al. (2024), "Liger Kernel".
    """
    tensors = (input, linear_weight, *_each(target), linear_bias, weight, sample_weight, temperature)
    scalars = (reduction, ignore_index, label_smoothing, options)
    given = (linear_bias, weight, *scalars, sample_weight, z_loss, softcap, temperature, max_bytes, compact, check)
    if has_torch_function(tensors):
        return handle_torch_function(
            linear_cross_entropy, tensors, input, linear_weight, target, **dict(zip(_KEYWORDS, given, strict=True))
        )
    inputs, options = prepare(input, linear_weight, target, *given)
    if compiling():
        return linear_ops.linear_cross_entropy(inputs, options)
    try:
        what = LinearLoss.of(*options)
        if tracked(*inputs):
            return linear_autograd.linear_cross_entropy(*inputs, what)
        return linear_compute.losses(*inputs, what)
    except (TypeError, ValueError) as error:
        raise_as_torch(error, NAMES)


_KEYWORDS = (
    "linear_bias",
    "weight",
    "reduction",
    "ignore_index",
    "label_smoothing",
    "options",
    "sample_weight",
    "z_loss",
    "softcap",
    "temperature",
    "max_bytes",
    "compact",
    "check",
)


def _each(target: Any) -> tuple[Any, ...]:
    """Return the tensors of targets."""
    return tuple(target) if isinstance(target, SparseTargets) else (target,)


def plan(
    input: Tensor,  # noqa: A002
    linear_weight: Tensor,
    target: Tensor | SparseTargets,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    sample_weight: Tensor | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    max_bytes: int | None = None,
    compact: bool | None = None,
    check: bool | None = None,
) -> Plan:
    """Return what :func:`linear_cross_entropy` of the same arguments, and its backward, will do; compute nothing.

    Parameters
    ----------
    input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
        As in :func:`linear_cross_entropy`. What requires a gradient is planned for.
    sample_weight, z_loss, softcap, temperature, max_bytes, compact, check
        As in :func:`linear_cross_entropy`.

    Returns
    -------
    Plan
        Rows a chunk, chunks, matrix products (GEMMs), and bytes; it prints as a table.

    Raises
    ------
    TypeError, RuntimeError, ValueError, IndexError, NotImplementedError
        As in :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> features, head = torch.zeros(4096, 64, requires_grad=True), torch.zeros(32_000, 64, requires_grad=True)
    >>> print(plan(features, head, torch.zeros(4096, dtype=torch.int64)))
    rows a chunk          241
    chunks                 17
    GEMMs                   3
    working memory   30.5 MiB
    accumulator         0 MiB
    gradients         8.8 MiB
    peak             39.3 MiB
    """
    inputs, options = prepare(
        input,
        linear_weight,
        target,
        linear_bias,
        weight,
        reduction,
        ignore_index,
        label_smoothing,
        options,
        sample_weight,
        z_loss,
        softcap,
        temperature,
        max_bytes,
        compact,
        check,
    )
    try:
        return linear_compute.planned(inputs, LinearLoss.of(*options), torch.is_grad_enabled())
    except (TypeError, ValueError) as error:
        raise_as_torch(error, NAMES)
