"""The public functions over classes that are divided among ranks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch  # noqa: F401 - of the examples
from torch import Tensor

from softnll.torch._base.sparse import SparseTargets
from softnll.torch._parallel import linear, logits, normalise, picked, sequence, tokens
from softnll.torch._parallel.call import given_layer, given_loss, given_scores, run
from softnll.torch._tokens.compute import TokenStats


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
    options = {"label_smoothing": label_smoothing, "ignore_index": ignore_index, "reduction": reduction, **further}
    return run(
        "cross_entropy",
        group,
        start,
        input,
        given_loss((input, target, weight, sample_weight), temperature, check, options),
        lambda inputs, _, sliced: logits.loss(inputs.input, inputs.target, sliced),
    )


def nll_loss(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None = None,
    *,
    group: Any = None,
    start: int | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Return the negative log-likelihood of targets under log-probabilities whose classes are divided among ranks.

    As :func:`softnll.torch.nll_loss` of the log-probabilities of all ranks side by side. The gradient needs no
    communication.

    Parameters
    ----------
    input
        The rank's slice of the log-probabilities, as :func:`log_softmax` returns it.
    target, weight, group, start
        As in :func:`cross_entropy`, with hard targets.
    ignore_index, reduction, sample_weight
        As in :func:`softnll.torch.nll_loss`, the same on every rank.

    Returns
    -------
    Tensor
        The loss, with the same bits on every rank. It has a first derivative.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> nll_loss(torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([0]))
    tensor(0.3567)
    >>> dist.destroy_process_group()
    """
    options = {"ignore_index": ignore_index, "reduction": reduction}
    return run(
        "nll_loss",
        group,
        start,
        input,
        given_loss((input, target, weight, sample_weight), 1.0, None, options, hard=True),
        lambda inputs, _, sliced: picked.loss(inputs.input, sliced),
    )


def linear_cross_entropy(
    input: Tensor,  # noqa: A002
    linear_weight: Tensor,
    target: Tensor | SparseTargets,
    *,
    group: Any = None,
    start: int | None = None,
    sequence_dim: int | None = None,
    **options: Any,
) -> Tensor:
    """Return the cross-entropy of targets and a linear layer whose classes are divided among ranks.

    As :func:`softnll.torch.linear_cross_entropy` of the weights of all ranks on top of each other. The gradient of the
    input is summed over the ranks, once, in float32 or wider; those of weight and bias stay on their rank.

    Parameters
    ----------
    input
        ``(..., H)`` features, the same on every rank; with ``sequence_dim`` the rank's part of them.
    linear_weight
        ``(C_k, H)``, the rank's rows of the weight.
    target
        As in :func:`cross_entropy`; of :class:`softnll.torch.SparseTargets` the indices are classes over all slices.
    group, start
        As in :func:`cross_entropy`.
    sequence_dim
        The dimension along which the features are sharded over the group, in rank order, in parts of any size. They are
        gathered; the backward has one reduce-scatter of their gradient. Targets and weights are those of all rows.
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
    parts = None if sequence_dim is None else sequence.gather("linear_cross_entropy", group, input, sequence_dim)
    x = input if parts is None else parts.whole
    given = given_layer(x, linear_weight, target, options)
    return run("linear_cross_entropy", group, start, x, given, partial(linear.loss, parts=parts))


def token_stats(
    input: Tensor,  # noqa: A002
    linear_weight: Tensor,
    target: Tensor,
    *,
    group: Any = None,
    start: int | None = None,
    sequence_dim: int | None = None,
    **options: Any,
) -> TokenStats:
    """Return log-probability, entropy, argmax and logsumexp of each token, of classes divided among ranks.

    Parameters
    ----------
    input, linear_weight, target, group, start, sequence_dim
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
    parts = None if sequence_dim is None else sequence.gather("token_stats", group, input, sequence_dim)
    x = input if parts is None else parts.whole
    given = given_layer(x, linear_weight, target, options | {"reduction": "none"}, hard=True)
    return run("token_stats", group, start, x, given, partial(tokens.token_stats, parts=parts))


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
    return run(
        name,
        group,
        None,
        input,
        given_scores(input, dim),
        lambda inputs, _, sliced: normalise.normalised(inputs.input, sliced, name),
    )
