"""The public linear_cross_entropy, with torch's name and signature, and the plan of its computation."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from softnll._core.plan import Plan
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LinearValues, LossSettings
from softnll.torch._base.errors import LINEAR_NAMES, InputValueError, raise_as_torch
from softnll.torch._base.inputs import compiling, lacks_classes, tracked
from softnll.torch._base.scripting import scriptable
from softnll.torch._base.sharded import SERVES, is_sharded
from softnll.torch._base.signatures import signature_of
from softnll.torch._base.sparse import SparseTargets
from softnll.torch._linear import autograd, compute, direct, ops
from softnll.torch._linear.inputs import prepare
from softnll.torch._linear.positions import over_positions
from softnll.torch._losses.inputs import loss_without_classes


@scriptable
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
    """Return the cross-entropy of targets and a linear layer's logits, without storing all N × C logits.

    ``loss(input @ linear_weight.T + linear_bias, target)``, with the loss of :func:`cross_entropy`. A few rows of
    logits are computed at a time, then their losses and, where an input requires a gradient, their gradients:
    ``dz = s·( T·(1 + 2ζ·lse)·p − t ) ⊙ du/dz / D``, ``d input = dz @ linear_weight``,
    ``d linear_weight = dzᵀ @ input``, ``d linear_bias = Σ_n dz_n``. These are three matrix products in all.

    As :func:`torch.nn.functional.linear_cross_entropy`, which torch has since 2.13; this one needs torch ≥ 2.6.

    Parameters
    ----------
    input
        ``(..., H)`` features; torch has ``(H,)`` and ``(N, H)``. float16, bfloat16, float32 or float64.
    linear_weight
        ``(C, H)``, one row a class. Its type may differ from that of the input, and so may that of the bias. With
        ``(C, d1, …, dK, H)`` each position has a layer of its own; targets are then ``(N, d1, …, dK)``, or soft
        ``(N, C, d1, …, dK)``, and the input is ``(N, H)``.
    target
        Hard: integers in [0, C) of shape ``(...)``. Soft: floats of shape ``(..., C)``, of any mass; they may require a
        gradient. :class:`SparseTargets` are soft targets of a few classes a row.
    linear_bias
        ``(C,)``, or ``(C, d1, …, dK)``.
    weight, reduction, label_smoothing, z_loss, softcap, check
        As in :func:`cross_entropy`. With ``reduction="none"`` the backward computes the logits again: four products.
    ignore_index
        Rows with this hard target contribute exactly 0, are not counted and not multiplied; None means −100.
    options
        A ``torch.nn.LinearCrossEntropyOptions``. Its chunk size limits the rows of a chunk. What its other fields ask
        for always holds: sums are float32 or wider, and a graph may be retained.
    sample_weight, temperature
        As in :func:`cross_entropy`, of shape ``(...)``.
    max_bytes
        The most memory to use beyond inputs and gradients; None:
        ``max(32 MiB, min(¼·(inputs + gradients), ⅛·max(N, 4096)·C·itemsize))``. For a weight of a half type, several
        chunks need a float32 accumulator of its gradient in addition. With ``reduction="none"``, a backward computes
        the logits again, unless there is room for all: then the forward keeps them. :func:`plan` returns the sizes.
    compact
        None, True: rows that take no part are left out of the products. False: they are multiplied as zeros, so that
        the shapes of the products, and with them the last bits, do not depend on the targets.

    Returns
    -------
    Tensor
        The loss: float64 if any of input, linear_weight and linear_bias is, else float32. Half types are multiplied in
        float32.

    Raises
    ------
    TypeError, RuntimeError, ValueError, IndexError, NotImplementedError
        As in :func:`cross_entropy`; ValueError for a ``max_bytes`` too small for one row.

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
    tensors = (input, linear_weight, *_target_tensors(target), linear_bias, weight, sample_weight, temperature)
    overridden = has_torch_function(tensors)
    absent = sample_weight is None and options is None and max_bytes is None and compact is None
    if (
        absent
        and not overridden
        and isinstance(target, Tensor)
        and direct.serves(input, linear_weight, target, linear_bias, weight, temperature, ignore_index)
    ):
        scalars = (label_smoothing, z_loss, softcap, temperature, direct.index_of(ignore_index), reduction)
        try:
            settings = LossSettings.of(*scalars, 1, check)
            loss = direct.linear_cross_entropy(input, linear_weight, target, linear_bias, weight, settings)
        except (TypeError, ValueError) as error:
            raise_as_torch(error, LINEAR_NAMES)
        if loss is not None:
            return loss
    keywords: dict[str, Any] = {
        "linear_bias": linear_bias,
        "weight": weight,
        "reduction": reduction,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "options": options,
        "sample_weight": sample_weight,
        "z_loss": z_loss,
        "softcap": softcap,
        "temperature": temperature,
        "max_bytes": max_bytes,
        "compact": compact,
        "check": check,
    }
    if overridden:
        return handle_torch_function(linear_cross_entropy, tensors, input, linear_weight, target, **keywords)
    if is_sharded(linear_weight) or is_sharded(input):
        return SERVES["linear_cross_entropy"](linear_cross_entropy, input, linear_weight, target, **keywords)
    if isinstance(linear_weight, Tensor) and linear_weight.dim() > 2:
        return over_positions(linear_cross_entropy, input, linear_weight, target, **keywords)
    inputs, values = prepare(input, linear_weight, target, **keywords)
    if linear_weight.dim() == 2 and inputs.indices is None and lacks_classes(linear_weight, 0):
        logits = input @ linear_weight.t()
        return loss_without_classes(logits, inputs.target, logits.dim() - 1, values.ignore_index, reduction)
    return computed(ops.linear_cross_entropy, autograd.linear_cross_entropy, compute.losses, inputs, values)


def computed(operator: Any, recorded: Any, plain: Any, inputs: LinearInputs, values: LinearValues) -> Any:
    """Return what one of three functions computes of validated tensors and of values that are not yet checked.

    In compiled code that is the operator; where autograd records the call, the autograd function; else the plain one.
    """
    if compiling():
        return operator(inputs, values)
    try:
        settings = LinearSettings.of(*values)
        return (recorded if tracked(*inputs) else plain)(inputs, settings)
    except (TypeError, ValueError) as error:
        raise_as_torch(error, LINEAR_NAMES)


def _target_tensors(target: Any) -> tuple[Any, ...]:
    """Return the tensors of targets: of sparse ones, two."""
    return tuple(target) if isinstance(target, SparseTargets) else (target,)


@signature_of(linear_cross_entropy)
def plan(*arguments: Any, **keywords: Any) -> Plan:
    """Return how :func:`linear_cross_entropy` and its backward would compute these arguments, without computing.

    Parameters
    ----------
    input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
        As in :func:`linear_cross_entropy`. The plan includes the gradients of inputs that require one.
    sample_weight, z_loss, softcap, temperature, max_bytes, compact, check
        As in :func:`linear_cross_entropy`.

    Returns
    -------
    Plan
        The rows of a chunk, and the numbers of chunks, matrix products (GEMMs) and bytes, with the plans for other
        limits in ``others``; it prints as a table.

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
    working memory   31.7 MiB
    accumulator         0 MiB
    gradients         8.8 MiB
    peak             40.5 MiB
    max_bytes=8 << 20: 47 rows a chunk, 88 chunks, 3 GEMMs
    max_bytes=128 << 20: 1024 rows a chunk, 4 chunks, 3 GEMMs
    max_bytes=503 << 20: 4096 rows a chunk, 1 chunk, 3 GEMMs
    """
    bound = inspect.signature(linear_cross_entropy).bind(*arguments, **keywords)
    inputs, values = prepare(*bound.args, **bound.kwargs)
    if inputs.linear_weight.dim() > 2:
        raise InputValueError(
            f"linear_weight has shape {tuple(inputs.linear_weight.shape)}; allowed: (C, H), of one position at a time"
        )
    try:
        return compute.planned(inputs, LinearSettings.of(*values), torch.is_grad_enabled())
    except (TypeError, ValueError) as error:
        raise_as_torch(error, LINEAR_NAMES)
