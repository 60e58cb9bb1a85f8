"""The public functions on tensors, with the names and signatures of torch.nn.functional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from softnll._core.options import with_defaults
from softnll.torch._base.arguments import LossInputs, LossSettings
from softnll.torch._base.errors import InputTypeError, InputValueError, raise_as_torch
from softnll.torch._base.inputs import as_logits, compiling, lacks_classes, refuse_deprecated, tracked
from softnll.torch._base.scripting import scriptable
from softnll.torch._base.sharded import SERVES, is_sharded
from softnll.torch._losses import autograd, compute, direct, normalise, ops, plain
from softnll.torch._losses.inputs import class_dim, loss_input, loss_without_classes, one_class_dim, row_temperatures

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax"]

_implied_dim = getattr(torch.nn.functional, "_get_softmax_dim")  # noqa: B009 - not in its type hints


@scriptable
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:  # noqa: A002 - torch's name
    """Return the probabilities of scores: ``p_k = exp(x_k) / Σ_j exp(x_j)``.

    As :func:`torch.nn.functional.softmax`, within 4 units in the last place (half types: 0.51).

    Parameters
    ----------
    input
        Scores of any shape: float16, bfloat16, float32, float64; integers become the default type.
    dim
        The class dimension. None selects one by torch's rule, with torch's warning.
    _stacklevel
        The stack level of that warning.
    dtype
        The type that ``input`` is cast to first.

    Returns
    -------
    Tensor
        Probabilities of the input's shape and type.

    Raises
    ------
    TypeError, RuntimeError
        For bool or complex input, and for input that is not a tensor.
    IndexError
        If the dimension is out of range.

    Examples
    --------
    >>> import torch
    >>> softmax(torch.tensor([5.0, 4.0, 2.0]), dim=0)
    tensor([0.7054, 0.2595, 0.0351])

    Notes
    -----
    Bridle (1990), "Probabilistic interpretation of feedforward classification network outputs".
    """
    if has_torch_function((input,)):
        return handle_torch_function(softmax, (input,), input, dim, _stacklevel, dtype)
    return _normalised("softmax", input, dim, _stacklevel, dtype)


@scriptable
def log_softmax(
    input: Tensor,  # noqa: A002
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the logarithms of softmax's probabilities, in nats, also where those underflow to 0 or round to 1.

    ``log p_k = (x_k − m) − log1p(r)``, with the largest entry m and the rest r. As
    :func:`torch.nn.functional.log_softmax`; the gradient computes 1 − p from log p, so that it does not round to 0.

    Parameters
    ----------
    input, dim, _stacklevel, dtype
        As in :func:`softmax`.

    Returns
    -------
    Tensor
        Log-probabilities ≤ 0 of the input's shape and type.

    Raises
    ------
    TypeError, RuntimeError, IndexError, ValueError
        As in :func:`softmax`.

    Examples
    --------
    A prediction 17 ahead of two others is not certain, also in float32:

    >>> import torch
    >>> log_softmax(torch.tensor([17.0, 0.0, 0.0]), dim=0)[0]
    tensor(-8.2799e-08)
    """
    if has_torch_function((input,)):
        return handle_torch_function(log_softmax, (input,), input, dim, _stacklevel, dtype)
    return _normalised("log_softmax", input, dim, _stacklevel, dtype)


@scriptable
def logsumexp(input: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:  # noqa: A002
    """Return the logarithm of the sum of exponentials: ``log Σ_j exp(x_j) = m + log1p(r)``.

    As :func:`torch.logsumexp`.

    Parameters
    ----------
    input
        As in :func:`softmax`.
    dim
        The dimension, or several that are reduced together; an empty tuple means all of them.
    keepdim
        Whether the result keeps those dimensions, with size 1.

    Returns
    -------
    Tensor
        One value a row in the input's type; −∞ for a row without entries.

    Raises
    ------
    TypeError, RuntimeError, IndexError
        As in :func:`softmax`.

    Examples
    --------
    >>> import torch
    >>> logsumexp(torch.tensor([[1000.0, 1000.0]]), dim=1)
    tensor([1000.6932])
    """
    if has_torch_function((input,)):
        return handle_torch_function(logsumexp, (input,), input, dim, keepdim)
    x = input if is_sharded(input) else as_logits(input)
    given = (dim,) if isinstance(dim, int) else tuple(dim)
    dims = sorted({class_dim(x, each) for each in given}) or list(range(x.dim()))
    if len(dims) < len(given):
        raise InputValueError(f"dim is {dim}; allowed: each dimension once")
    if is_sharded(x):
        return SERVES["logsumexp"](logsumexp, x, dims, keepdim)
    lse = _along_dim("logsumexp", *one_class_dim(x, dims))
    for each in dims if keepdim and x.dim() else ():
        lse = lse.unsqueeze(each)
    return lse


@scriptable
def nll_loss(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    *,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Return the negative log-likelihood of targets under given log-probabilities: ``−s_n·w_y·log p_ny``.

    As :func:`torch.nn.functional.nll_loss`; it differs from that as :func:`cross_entropy` does.

    Parameters
    ----------
    input
        Log-probabilities, as :func:`log_softmax` returns them: ``(C,)``, ``(N, C)`` or ``(N, C, d1, …)``. For logits
        use :func:`cross_entropy`.
    target
        Integers in [0, C) of any integer type: ``()``, ``(N,)`` or ``(N, d1, …)``.
    weight, ignore_index, reduction, sample_weight
        As in :func:`cross_entropy`.
    size_average, reduce
        None: torch's deprecated parameters, which ``reduction`` replaces.

    Returns
    -------
    Tensor
        The loss in nats, float32 or wider.

    Raises
    ------
    TypeError, RuntimeError, ValueError, IndexError, NotImplementedError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> nll_loss(torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]).log(), torch.tensor([0, 1]))
    tensor(0.3567)
    """
    tensors = (input, target, weight, sample_weight)
    if has_torch_function(tensors):
        given = (input, target, weight, size_average, ignore_index, reduce, reduction)
        return handle_torch_function(nll_loss, tensors, *given, sample_weight=sample_weight)
    if is_sharded(input):
        refuse_deprecated(size_average, reduce)
        options = {"ignore_index": ignore_index, "reduction": reduction, "sample_weight": sample_weight}
        return SERVES["nll_loss"](nll_loss, input, target, weight, **options)
    x, target, dim = loss_input(tensors, size_average, reduce)
    if target.is_floating_point():
        raise InputTypeError(
            f"target has dtype {target.dtype}; allowed: integers, of the input's shape without classes"
        )
    if lacks_classes(x, dim):
        return loss_without_classes(x, target, dim, ignore_index, reduction)
    inputs = LossInputs(x, target, weight, sample_weight)
    scalars = with_defaults(ignore_index=ignore_index, reduction=reduction)
    if compiling():
        return ops.nll_loss(inputs, (*scalars, dim, None))
    return _loss(autograd.nll_loss if tracked(*inputs) else compute.pick, inputs, scalars, dim, None)


@scriptable
def cross_entropy(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    sample_weight: Tensor | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float | Tensor = 1.0,
    check: bool | None = None,
) -> Tensor:
    """Return the cross-entropy of targets and the softmax of logits, in nats.

    ``loss_n = s_n·( T·(lse(u) + ζ·lse(u)²) − ⟨t, u⟩ )``, with effective logits
    ``u = softcap·tanh(x/softcap)/temperature`` and target measure ``t_c = w_c·[(1 − ε)·q_c + ε/C]`` of mass T.
    For a hard target y without options: ``−log p_y``.

    As :func:`torch.nn.functional.cross_entropy`, but a confident row's small loss and gradient do not round to 0, the
    loss is float32 or wider also for half types, and an ignored row's gradient is 0 even if its logits are NaN or inf.

    Parameters
    ----------
    input
        Logits ``(C,)``, ``(N, C)`` or ``(N, C, d1, …)``: float16, bfloat16, float32, float64; integers become the
        default type.
    target
        Hard: integers in [0, C) of any integer type, of the input's shape without the class dimension. Soft: floats of
        the input's shape, of any mass; they may require a gradient.
    weight
        ``(C,)`` class weights w, of either sign.
    size_average, reduce
        None: torch's deprecated parameters, which ``reduction`` replaces.
    ignore_index
        Rows with this hard target contribute exactly 0 and are not counted.
    reduction
        ``"mean"``: Σ loss / D with ``D = Σ s_n·w_{y_n}`` (hard) or ``Σ s_n`` (soft) over the rows not ignored;
        ``"sum"``; ``"none"``: one loss a row.
    label_smoothing
        ε in [0, 1]: spreads that share of each target over all classes.
    sample_weight
        Weights s of the input's shape without the class dimension, of either sign, such as advantages. A row of weight
        0 contributes exactly 0.
    z_loss
        ζ ≥ 0: adds ζ·T·lse² to each row. Class weights multiply it as they multiply the cross-entropy: T is w_y for a
        hard target, 1 without class weights.
    softcap
        A bound > 0 on the absolute value of the logits, by ``softcap·tanh(x/softcap)``; None for no bound.
    temperature
        A number > 0, or a tensor of one a row.
    check
        None: raise for hard targets out of range on the CPU; on other devices the check would synchronise, and is left
        out. True: also raise for soft targets that are not distributions and for negative weights. False: check no
        values. An unchecked hard target out of range makes its row NaN.

    Returns
    -------
    Tensor
        The loss: float64 for float64 logits, else float32. The mean of no rows is NaN.

    Raises
    ------
    TypeError
        For ``size_average`` and ``reduce``, and for arguments that should be tensors and are not.
    RuntimeError, TypeError
        For invalid dtypes.
    RuntimeError, ValueError
        For shapes that do not match and options out of range.
    IndexError
        For a hard target that is neither a class nor ``ignore_index``.
    NotImplementedError
        If ``weight``, ``sample_weight`` or ``temperature`` requires a gradient.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]])  # cat, horse, dog
    >>> cross_entropy(scores, torch.tensor([0, 2, 1]), reduction="none")
    tensor([0.3490, 0.0206, 0.7177])
    >>> confident = torch.tensor([[17.0, 0.0, 0.0]], requires_grad=True)
    >>> cross_entropy(confident, torch.tensor([0])).backward()
    >>> confident.grad
    tensor([[-8.2799e-08,  4.1399e-08,  4.1399e-08]])

    Notes
    -----
    Smoothing: Szegedy et al. (2016). z-loss: Chowdhery et al. (2022), PaLM. Soft cap: Gemma Team (2024).
    """
    tensors = (input, target, weight, sample_weight, temperature)
    if has_torch_function(tensors) or is_sharded(input):
        given = (input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        keywords: dict[str, Any] = {
            "sample_weight": sample_weight,
            "z_loss": z_loss,
            "softcap": softcap,
            "temperature": temperature,
            "check": check,
        }
        if not has_torch_function(tensors):
            refuse_deprecated(size_average, reduce)
            keywords |= {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
            return SERVES["cross_entropy"](cross_entropy, input, target, weight, **keywords)
        return handle_torch_function(cross_entropy, tensors, *given, **keywords)
    by_row = isinstance(temperature, Tensor)
    scalars = (label_smoothing, z_loss, softcap, 1.0 if by_row else temperature, ignore_index, reduction)
    form = plain.loss_form(input, target, weight, temperature, ignore_index, sample_weight, size_average, reduce)
    if form is not None:
        try:
            return direct.cross_entropy(input, target, weight, LossSettings.of(*scalars, 1, check), form)
        except (TypeError, ValueError) as error:
            raise_as_torch(error)
    x, target, dim = loss_input(tensors[:4], size_average, reduce)
    if isinstance(ignore_index, int) and ignore_index >= 0 and target.is_floating_point():
        raise InputValueError(f"ignore_index is {ignore_index}; allowed: >= 0 only with hard targets")
    if lacks_classes(x, dim):
        return loss_without_classes(x, target, dim, ignore_index, reduction)
    tau = row_temperatures(temperature, x, dim) if isinstance(temperature, Tensor) else None
    inputs = LossInputs(x, target, weight, sample_weight, tau)
    if compiling():
        loss, _, _ = ops.cross_entropy(inputs, (*scalars, dim, check))
        return loss
    return _loss(autograd.cross_entropy if tracked(*inputs) else compute.losses, inputs, scalars, dim, check)


def _loss(function: Any, inputs: LossInputs, scalars: tuple[Any, ...], dim: int, check: bool | None) -> Tensor:
    """Return a function's loss of inputs and settings, after checking the latter."""
    try:
        return function(inputs, LossSettings.of(*scalars, dim, check))
    except (TypeError, ValueError) as error:
        raise_as_torch(error)


def _normalised(name: str, input: Any, dim: int | None, stacklevel: int, dtype: torch.dtype | None) -> Tensor:  # noqa: A002
    """Return softmax or log_softmax, whichever ``name`` is."""
    form = plain.normalised_form(input, dim, dtype)
    if form is not None:
        return direct.normalise(input, form, log=name == "log_softmax")
    if dtype is not None and isinstance(input, Tensor):
        input = input.to(dtype)  # noqa: A001
    x = input if is_sharded(input) else as_logits(input)
    if dim is None:
        dim = _implied_dim(name, x.dim(), stacklevel + 1)  # torch's rule, and its warning
    dim = class_dim(x, dim)
    if is_sharded(x):
        return SERVES["normalised"](softmax if name == "softmax" else log_softmax, name, x, dim)
    if x.dim() == 0:
        return _normalised(name, x.reshape(1), 0, stacklevel, None).reshape(())
    if lacks_classes(x, dim):
        return x.clone()  # of no entries
    return _along_dim(name, x, dim)


def _along_dim(name: str, x: Tensor, dim: int) -> Tensor:
    """Return softmax, log_softmax or logsumexp over one dimension."""
    return getattr(ops if compiling() else normalise if tracked(x) else compute, name)(x, dim)
