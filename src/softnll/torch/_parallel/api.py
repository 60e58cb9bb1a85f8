"""The public functions over classes that are divided among ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from softnll._core.layout import Layout, layout_of
from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LinearInputs, LinearSettings, LossSettings
from softnll.torch._base.errors import LINEAR_NAMES, NAMES, InputTypeError, InputValueError, raise_as_torch
from softnll.torch._base.inputs import as_logits
from softnll.torch._base.sparse import SparseTargets
from softnll.torch._linear.inputs import prepare as prepare_linear
from softnll.torch._losses.inputs import class_dim, loss_input, row_temperatures
from softnll.torch._parallel import linear, logits, normalise, tokens
from softnll.torch._parallel.prepare import Given, prepare
from softnll.torch._parallel.sliced import Sliced
from softnll.torch._tokens.compute import TokenStats

__all__ = ["cross_entropy", "linear_cross_entropy", "log_softmax", "logsumexp", "softmax", "token_stats"]

Returned = TypeVar("Returned")


def cross_entropy(
    input: Tensor,  # noqa: A002 - torch's name
    target: Tensor,
    weight: Tensor | None = None,
    *,
    group: Any = None,
    start: int | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    check: bool | None = None,
    **further: Any,
) -> Tensor:
    """Return the cross-entropy of targets and logits whose classes are divided among ranks.

    As :func:`softnll.torch.cross_entropy` of the logits of all ranks side by side. The gradient of the rank's logits
    needs no communication.

    Parameters
    ----------
    input
        The rank's slice of the logits: ``(C_k,)``, ``(N, C_k)`` or ``(N, C_k, d1, …)``. Slices may have different
        numbers of classes, also none.
    target
        Hard: classes in [0, C) over all slices, the same on every rank. Soft: the rank's slice, of the input's shape,
        or that of all C classes.
    weight
        Class weights of the slice or of all classes.
    group
        The process group; None for the default one. Every rank of it calls.
    start
        The slice's first class; None: the slices lie in rank order.
    ignore_index, reduction, label_smoothing, sample_weight, temperature, check, **further
        With ``z_loss`` and ``softcap``, as in :func:`softnll.torch.cross_entropy`, the same on every rank.

    Returns
    -------
    Tensor
        The loss, with the same bits on every rank: float64 for float64 logits, else float32. It has a first derivative.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`softnll.torch.cross_entropy`, on every rank, with the number of the first rank that has the error;
        for arguments that differ between ranks, and slices that are not adjacent.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> cross_entropy(torch.tensor([[5.0, 4.0, 2.0]]), torch.tensor([0]))
    tensor(0.3490)
    >>> dist.destroy_process_group()
    """

    def given() -> tuple[LinearInputs, LinearSettings, Layout]:
        x, y, dim = loss_input((input, target, weight, sample_weight), None, None)
        if isinstance(ignore_index, int) and ignore_index >= 0 and y.is_floating_point():
            raise InputValueError(f"ignore_index is {ignore_index}; allowed: >= 0 only with hard targets")
        tau, number = (
            (row_temperatures(temperature, x, dim), 1.0) if isinstance(temperature, Tensor) else (None, temperature)
        )
        named = {"label_smoothing": label_smoothing, "ignore_index": ignore_index, "reduction": reduction, **further}
        settings = LinearSettings(LossSettings.of(*with_defaults(temperature=number, **named), dim, check))
        return LinearInputs(x, x, None, y, weight, sample_weight, tau), settings, layout_of(tuple(x.shape), dim)

    return _run(
        "cross_entropy",
        group,
        start,
        input,
        given,
        lambda inputs, _, sliced: logits.loss(inputs.input, inputs.target, sliced),
    )


def linear_cross_entropy(
    input: Tensor,  # noqa: A002
    linear_weight: Tensor,
    target: Tensor | SparseTargets,
    *,
    group: Any = None,
    start: int | None = None,
    **options: Any,
) -> Tensor:
    """Return the cross-entropy of targets and a linear layer whose classes are divided among ranks.

    As :func:`softnll.torch.linear_cross_entropy` of the weights of all ranks on top of each other. The gradient of the
    input is summed over the ranks, once, in float32 or wider; those of weight and bias stay on their rank.

    Parameters
    ----------
    input
        ``(..., H)`` features, the same on every rank.
    linear_weight
        ``(C_k, H)``, the rank's rows of the weight.
    target
        As in :func:`cross_entropy`; of :class:`softnll.torch.SparseTargets` the indices are classes over all slices.
    group, start
        As in :func:`cross_entropy`.
    **options
        Those of :func:`softnll.torch.linear_cross_entropy`: ``linear_bias`` of the slice, ``weight`` of the slice or of
        all classes, and the others the same on every rank.

    Returns
    -------
    Tensor
        The loss, with the same bits on every rank.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> linear_cross_entropy(torch.tensor([[1.0, 2.0]]), head, torch.tensor([1]))
    tensor(1.4076)
    >>> dist.destroy_process_group()
    """
    given = _layer(input, linear_weight, target, options)
    return _run("linear_cross_entropy", group, start, input, given, linear.loss)


def token_stats(
    input: Tensor,  # noqa: A002
    linear_weight: Tensor,
    target: Tensor,
    *,
    group: Any = None,
    start: int | None = None,
    **options: Any,
) -> TokenStats:
    """Return log-probability, entropy, argmax and logsumexp of each token, of classes divided among ranks.

    Parameters
    ----------
    input, linear_weight, target, group, start
        As in :func:`linear_cross_entropy`, with hard targets.
    **options
        Those of :func:`softnll.torch.token_stats`.

    Returns
    -------
    TokenStats
        As :func:`softnll.torch.token_stats`, with the same bits on every rank; ``argmax`` counts over all slices.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> token_stats(torch.tensor([[1.0, 2.0]]), head, torch.tensor([1])).argmax
    tensor([2])
    >>> dist.destroy_process_group()
    """
    given = _layer(input, linear_weight, target, options | {"reduction": "none"}, hard=True)
    return _run("token_stats", group, start, input, given, tokens.token_stats)


def softmax(input: Tensor, dim: int = -1, *, group: Any = None) -> Tensor:  # noqa: A002
    """Return the rank's slice of the probabilities of logits whose classes are divided among ranks.

    Parameters
    ----------
    input
        The rank's slice of the logits.
    dim
        The class dimension.
    group
        As in :func:`cross_entropy`.

    Returns
    -------
    Tensor
        Probabilities of the input's shape and type. The backward exchanges one number a row.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> softmax(torch.tensor([5.0, 4.0, 2.0]))
    tensor([0.7054, 0.2595, 0.0351])
    >>> dist.destroy_process_group()
    """
    return _normalised("softmax", input, dim, group)


def log_softmax(input: Tensor, dim: int = -1, *, group: Any = None) -> Tensor:  # noqa: A002
    """Return the rank's slice of the log-probabilities of logits whose classes are divided among ranks.

    Parameters
    ----------
    input, dim, group
        As in :func:`softmax`.

    Returns
    -------
    Tensor
        Log-probabilities of the input's shape and type. The backward exchanges one number a row.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`cross_entropy`.
    """
    return _normalised("log_softmax", input, dim, group)


def logsumexp(input: Tensor, dim: int = -1, *, group: Any = None) -> Tensor:  # noqa: A002
    """Return the logsumexp of logits whose classes are divided among ranks.

    Parameters
    ----------
    input, dim, group
        As in :func:`softmax`.

    Returns
    -------
    Tensor
        One value a row, with the same bits on every rank; the backward needs no communication.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`cross_entropy`.
    """
    return _normalised("logsumexp", input, dim, group)


def _normalised(name: str, input: Tensor, dim: int, group: Any) -> Tensor:  # noqa: A002
    """Return softmax, log_softmax or logsumexp."""

    def given() -> tuple[LinearInputs, LinearSettings, Layout]:
        x = as_logits(input)
        if x.dim() == 0:
            raise InputValueError("input has no dimensions; allowed: at least one")
        at = class_dim(x, dim)
        layout = layout_of(tuple(x.shape), at)
        y = torch.zeros(layout.row_shape, dtype=torch.int64, device=x.device)
        settings = LinearSettings(LossSettings.of(*with_defaults(reduction="none"), at, None))
        return LinearInputs(x, x, None, y), settings, layout

    return _run(
        name, group, None, input, given, lambda inputs, _, sliced: normalise.normalised(inputs.input, sliced, name)
    )


def _layer(input: Any, linear_weight: Any, target: Any, options: dict[str, Any], *, hard: bool = False) -> Given:  # noqa: A002
    """Return the function that checks the arguments of a linear loss."""

    def given() -> tuple[LinearInputs, LinearSettings, Layout]:
        inputs, values = prepare_linear(input, linear_weight, target, **options)
        x, head = inputs.input, inputs.linear_weight
        bias = inputs.linear_bias
        if head.dim() != 2 or x.dim() < 1 or x.shape[-1] != head.shape[-1]:
            shapes = f"input has shape {tuple(x.shape)}, linear_weight {tuple(head.shape)}"
            raise InputValueError(f"{shapes}; allowed: (..., H) and (C, H) of one H")
        if bias is not None and tuple(bias.shape) != (len(head),):
            raise InputValueError(f"linear_bias has shape {tuple(bias.shape)}; allowed: {(len(head),)}")
        if hard and inputs.target.is_floating_point():
            raise InputTypeError(f"target has dtype {inputs.target.dtype}; allowed: integers")
        return inputs, LinearSettings.of(*values), Layout((*x.shape[:-1], len(head)), (x.dim() - 1,))

    return given


def _run(
    function: str,
    group: Any,
    start: int | None,
    tensor: Any,
    given: Given,
    compute: Callable[[LinearInputs, LinearSettings, Sliced], Returned],
) -> Returned:
    """Return what ``compute`` returns for the slice of checked arguments."""
    try:
        return compute(*prepare(function, group, start, tensor, given))
    except (TypeError, ValueError) as error:
        raise_as_torch(error, LINEAR_NAMES if "linear" in function or "token" in function else NAMES)
