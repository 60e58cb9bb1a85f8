"""The public functions on NumPy arrays: softmax, log_softmax, nll_loss, cross_entropy and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.layout import Axis, Layout
from softnll._core.options import (
    LossOptions,
    PickOptions,
    Reduction,
    SoftmaxOptions,
    UnreducedLossOptions,
    checked,
    checked_temperature,
    split,
)
from softnll._core.planes import memory_of
from softnll._core.problem import Problem, loss_problem, prepare, prepare_loss, prepare_targets
from softnll._kernels.select import are_distributions, fitting, kernels
from softnll._numpy.array_types import Float, Loss, Shape
from softnll._numpy.output import reduce, write


def _softmax_problem(logits: Any, axis: Axis, temperature: Any, where: Any) -> tuple[Problem, Layout]:
    """Check the arguments of softmax or log_softmax and return their Problem and layout."""
    objective, per_row = checked_temperature(temperature)
    problem, layout = prepare(logits, axis, objective, per_row, where, True, planes=True)
    return fitting(problem, kernels), layout


@overload
def softmax(
    logits: np.ndarray[Shape, np.dtype[Float]], *, out: NDArray[Any] | None = None, **options: Unpack[SoftmaxOptions]
) -> np.ndarray[Shape, np.dtype[Float]]: ...
@overload
def softmax(
    logits: ArrayLike, *, out: NDArray[Any] | None = None, **options: Unpack[SoftmaxOptions]
) -> NDArray[Any]: ...
def softmax(
    logits: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    temperature: float | ArrayLike = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the probabilities of scores.

    ``p_k = exp(u_k) / Σ_j exp(u_j)``, with ``u = logits / temperature``.

    Parameters
    ----------
    logits
        Scores of any shape; float16, bfloat16 (ml_dtypes), float32, float64, or integers (computed as float64).
    axis
        The class axis; a tuple of axes, or None for all of them, normalises over several together.
    temperature
        A number > 0, or an array with one a row, in the logits' shape without the class axis.
    where
        Bool, broadcasts to the logits: False masks a class, whose probability is then 0.
    out
        Array of the logits' shape and type for the result; it may be ``logits`` itself.

    Returns
    -------
    ndarray
        Probabilities in the logits' shape and type, within 4 units in the last place (half types: 0.51).
        A row whose classes are all masked is 0; a row of −∞ only is NaN.

    Raises
    ------
    TypeError, ValueError
        For invalid types, shapes and options; the message names the argument, its value and what is allowed.

    Examples
    --------
    >>> softmax([5.0, 4.0, 2.0]).round(6)
    array([0.705385, 0.259496, 0.035119])

    Notes
    -----
    Bridle (1990), "Probabilistic interpretation of feedforward classification network outputs".
    """
    problem, layout = _softmax_problem(logits, axis, temperature, where)
    return write(problem, layout, out, kernels().softmax)[0]


@overload
def log_softmax(
    logits: np.ndarray[Shape, np.dtype[Float]], *, out: NDArray[Any] | None = None, **options: Unpack[SoftmaxOptions]
) -> np.ndarray[Shape, np.dtype[Float]]: ...
@overload
def log_softmax(
    logits: ArrayLike, *, out: NDArray[Any] | None = None, **options: Unpack[SoftmaxOptions]
) -> NDArray[Any]: ...
def log_softmax(
    logits: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    temperature: float | ArrayLike = 1.0,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the logarithms of softmax's probabilities, in nats, also where those underflow to 0 or round to 1.

    ``log p_k = u_k − log Σ_j exp(u_j)``, computed as ``(u_k − m) − log1p(r)`` with the largest entry m and the rest r.

    Parameters
    ----------
    logits, axis, temperature, where, out
        As in :func:`softmax`.

    Returns
    -------
    ndarray
        Log-probabilities ≤ 0 in the logits' shape and type; −∞ for masked classes.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softmax`.

    Examples
    --------
    >>> log_softmax([5.0, 4.0, 2.0]).round(6)
    array([-0.349012, -1.349012, -3.349012])

    A prediction 17 ahead of two others is not certain, also in float32:

    >>> import numpy as np
    >>> f"{log_softmax(np.float32([17, 0, 0]))[0]:.5g}"
    '-8.2799e-08'
    """
    problem, layout = _softmax_problem(logits, axis, temperature, where)
    return write(problem, layout, out, kernels().log_softmax)[0]


@overload
def nll_loss(
    log_probs: NDArray[Loss],
    targets: ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[PickOptions],
) -> Loss: ...
@overload
def nll_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[PickOptions],
) -> np.floating[Any]: ...
@overload
def nll_loss(
    log_probs: NDArray[Loss], targets: ArrayLike, *, reduction: Literal["none"], **options: Unpack[PickOptions]
) -> NDArray[Loss]: ...
@overload
def nll_loss(
    log_probs: ArrayLike, targets: ArrayLike, *, reduction: Literal["none"], **options: Unpack[PickOptions]
) -> NDArray[np.floating[Any]]: ...
def nll_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    check: bool | None = None,
) -> Any:
    """Return the negative log-likelihood of targets under given log-probabilities.

    ``loss_n = −s_n Σ_c w_c q_nc log p_nc``; for a hard target y that is ``−s_n w_y log p_ny``.

    Parameters
    ----------
    log_probs
        Log-probabilities, as :func:`log_softmax` returns them. For logits use :func:`cross_entropy`.
    targets, axis, class_weight, sample_weight, ignore_index, reduction, check
        As in :func:`cross_entropy`.

    Returns
    -------
    NumPy scalar or ndarray
        The loss in nats, float32 or wider.

    Raises
    ------
    TypeError, ValueError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> float(nll_loss(np.log([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]), [0, 1])).__round__(6)
    0.356675
    """
    objective, _, _ = split({"ignore_index": ignore_index, "reduction": reduction})
    problem, layout = prepare(log_probs, axis=axis, objective=objective, several=True, name="log_probs", planes=True)
    problem = fitting(prepare_targets(problem, layout, targets, class_weight, sample_weight, check), kernels)
    return reduce(problem, layout, kernels().pick(problem), again=kernels().pick)


@overload
def cross_entropy(
    logits: NDArray[Loss],
    targets: ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[UnreducedLossOptions],
) -> Loss: ...
@overload
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[UnreducedLossOptions],
) -> np.floating[Any]: ...
@overload
def cross_entropy(
    logits: NDArray[Loss], targets: ArrayLike, *, reduction: Literal["none"], **options: Unpack[UnreducedLossOptions]
) -> NDArray[Loss]: ...
@overload
def cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Literal["none"], **options: Unpack[UnreducedLossOptions]
) -> NDArray[np.floating[Any]]: ...
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float | ArrayLike = 1.0,
    where: ArrayLike | None = None,
    reduction: Reduction = "mean",
    check: bool | None = None,
) -> Any:
    """Return the cross-entropy of targets and the softmax of logits, in nats.

    ``loss_n = s_n·( T·(lse(u) + ζ·lse(u)²) − ⟨t, u⟩ )``, with effective logits
    ``u = softcap·tanh(x/softcap)/temperature`` and target measure ``t_c = w_c·[(1 − ε)·q_c + ε/C]`` of mass T.
    For a hard target y without options: ``−log p_y``.

    Parameters
    ----------
    logits
        Scores; C classes on ``axis``; float16, bfloat16 (ml_dtypes), float32, float64 or integers.
    targets
        Hard: integers in [0, C) of the logits' shape without the class axis. Soft: floats of the logits' shape, each
        row a distribution.
    axis
        The class axis; a tuple of axes, or None for all of them: their entries together are the C classes. A hard
        target is then the place among them in C order, as of ``numpy.ravel_multi_index``.
    class_weight
        ``(C,)`` weights w ≥ 0.
    sample_weight
        Weights s ≥ 0 of the logits' shape without the class axis. A row of weight 0 contributes exactly 0.
    ignore_index
        Rows with this hard target contribute exactly 0 and are not counted.
    label_smoothing
        ε in [0, 1]: spreads that share of each target over all (allowed) classes.
    z_loss
        ζ ≥ 0: adds ζ·T·lse² to each row. Class weights multiply it as they multiply the cross-entropy: T is w_y for a
        hard target, 1 without class weights.
    softcap
        A bound > 0 on the absolute value of the logits, by ``softcap·tanh(x/softcap)``; None for no bound.
    temperature
        A number > 0, or an array with one a row.
    where
        Bool, broadcasts to the logits: False masks a class.
    reduction
        ``"mean"``: Σ loss / D with ``D = Σ s_n·w_{y_n}`` (hard) or ``Σ s_n`` (soft) over the rows not ignored;
        ``"sum"``; ``"none"``: one loss a row.
    check
        False skips the checks of the targets' values: an out-of-range target makes its row NaN.

    Returns
    -------
    NumPy scalar or ndarray
        The loss: float64 for float64 and integer logits, else float32. The mean of no rows is NaN.

    Raises
    ------
    TypeError
        For bool or float hard targets, bool, complex or object logits.
    ValueError
        For shapes that do not match, targets out of range, soft targets that are not a distribution, or options out of
        range; the message names the argument, its value and what is allowed.

    Examples
    --------
    >>> scores = [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]]  # cat, horse, dog
    >>> cross_entropy(scores, [0, 2, 1], reduction="none").round(6)
    array([0.349012, 0.020581, 0.717736])

    Notes
    -----
    Smoothing: Szegedy et al. (2016). z-loss: Chowdhery et al. (2022), PaLM. Soft cap: Gemma Team (2024).
    """
    objective, per_row = checked(label_smoothing, z_loss, softcap, temperature, ignore_index, reduction)
    # Positional arguments, as keywords take 0.2 µs more.
    arrays = (axis, class_weight, sample_weight, where, check, True, are_distributions)
    problem, layout = prepare_loss(logits, targets, objective, per_row, *arrays)
    problem = fitting(problem, kernels)
    return reduce(problem, layout, kernels().losses(problem), again=kernels().losses)


@overload
def cross_entropy_and_grad(
    logits: NDArray[Loss],
    targets: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[UnreducedLossOptions],
) -> tuple[Loss, NDArray[Loss]]: ...
@overload
def cross_entropy_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[UnreducedLossOptions],
) -> tuple[np.floating[Any], NDArray[Any]]: ...
@overload
def cross_entropy_and_grad(
    logits: NDArray[Loss],
    targets: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    reduction: Literal["none"],
    **options: Unpack[UnreducedLossOptions],
) -> tuple[NDArray[Loss], NDArray[Loss]]: ...
@overload
def cross_entropy_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    reduction: Literal["none"],
    **options: Unpack[UnreducedLossOptions],
) -> tuple[NDArray[np.floating[Any]], NDArray[Any]]: ...
def cross_entropy_and_grad(
    logits: ArrayLike, targets: ArrayLike, *, out: NDArray[Any] | None = None, **options: Unpack[LossOptions]
) -> tuple[Any, NDArray[Any]]:
    """Return the cross-entropy and its gradient with respect to the logits, in one pass.

    ``dloss/dx = s·( T·(1 + 2ζ·lse)·p − t ) ⊙ du/dx / D``; for a hard target y without options ``p − onehot(y)``: at the
    target p_y − 1, at every other class p_k. The entry at the target is computed without that subtraction.

    Parameters
    ----------
    logits, targets
        As in :func:`cross_entropy`.
    out
        Array of the logits' shape and type for the gradient; ``out=logits`` works in place.
    **options
        The options of :func:`cross_entropy`: ``axis``, ``class_weight``, ``sample_weight``, ``ignore_index``,
        ``label_smoothing``, ``z_loss``, ``softcap``, ``temperature``, ``where``, ``reduction``, ``check``.

    Returns
    -------
    loss : NumPy scalar or ndarray
        As :func:`cross_entropy` returns it.
    grad : ndarray
        The gradient of the reduced loss, in the logits' shape and type; with ``reduction="none"``, of the losses' sum.

    Raises
    ------
    TypeError, ValueError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> loss, grad = cross_entropy_and_grad([[5.0, 4.0, 2.0]], [0])
    >>> grad.round(6)
    array([[-0.294615,  0.259496,  0.035119]])
    """
    problem, layout = loss_problem(logits, targets, planes=True, certain=are_distributions, **options)
    problem = fitting(problem, kernels)
    grad, losses = write(problem, layout, out, kernels().forward_backward)
    overwritten = out is not None and np.may_share_memory(grad, memory_of(problem.x))
    again = None if overwritten else kernels().losses
    return reduce(problem, layout, losses, again=again), grad
