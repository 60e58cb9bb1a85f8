"""The public linear losses on NumPy arrays: a few rows of the N × C logits are in memory at a time."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.chunked import LinearLoss, Outputs, check_shapes
from softnll._core.layout import as_real, layout_of
from softnll._core.options import LinearOptions, UnreducedOptions, split
from softnll._core.plan import ALL_GRADIENTS
from softnll._core.problem import Problem, prepare_targets
from softnll._kernels.select import are_distributions
from softnll._numpy.backend import NUMPY
from softnll._numpy.few_logits import few_logits


class LinearGradients(NamedTuple):
    """Gradients of the loss with respect to features, weight and bias (None without one)."""

    features: NDArray[Any]
    weight: NDArray[Any]
    bias: NDArray[Any] | None


def checked_loss(features: Any, weight: Any, targets: Any, bias: Any, options: LinearOptions) -> LinearLoss:
    """Return the ``LinearLoss`` of the arguments, after checking all of them."""
    features, weight = as_real(features, "features"), as_real(weight, "weight")
    bias = None if bias is None else as_real(bias, "bias")
    check_shapes(features, weight, bias)
    layout = layout_of((*features.shape[:-1], weight.shape[0]), features.ndim - 1)
    objective, per_row, arrays = split(options)
    problem = prepare_targets(
        Problem(None, objective), layout, targets, temperatures=per_row, certain=are_distributions, **arrays
    )
    return LinearLoss.of(features, weight, bias, problem, layout, NUMPY)


def _gradients(features: Any, weight: Any, bias: Any) -> LinearGradients:
    """Return uninitialised arrays for the gradients of inputs: of their types, or float64 for integers."""
    arrays: list[Any] = [
        None if each is None else np.empty(each.shape, np.float64 if each.dtype.kind in "iu" else each.dtype)
        for each in (features, weight, bias)
    ]
    return LinearGradients(*arrays)


@overload
def linear_cross_entropy(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[UnreducedOptions],
) -> np.floating[Any]: ...
@overload
def linear_cross_entropy(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    reduction: Literal["none"],
    **options: Unpack[UnreducedOptions],
) -> NDArray[np.floating[Any]]: ...
def linear_cross_entropy(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    **options: Unpack[LinearOptions],
) -> Any:
    """Return ``cross_entropy(features @ weight.T + bias, targets)`` without storing the N × C logits.

    Parameters
    ----------
    features
        ``(..., H)`` inputs of the layer.
    weight
        ``(C, H)``, one row a class.
    targets
        Hard: integers of shape ``(...)``; soft: floats of shape ``(..., C)``.
    bias
        ``(C,)``.
    max_bytes
        The most memory to use beyond the inputs; default ``max(32 MiB, min(¼·inputs, ⅛·max(N, 4096)·C·itemsize))``.
    **options
        The options of :func:`softnll.cross_entropy` except ``axis`` and ``where``.

    Returns
    -------
    NumPy scalar or ndarray
        The loss in nats: float64 if features, weight or bias are float64 or integers, else float32. Half types are
        multiplied in float32.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.cross_entropy`; for shapes that do not match; for a ``max_bytes`` too small for one row.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> round(float(linear_cross_entropy(features, weight, [1])), 6)
    1.407606

    Notes
    -----
    Wijmans et al. (2025), "Cut your losses in large-vocabulary language models", ICLR.
    """
    few = few_logits(features, weight, targets, bias, options) if max_bytes is None else None
    if few is not None:
        return few.loss()
    loss = checked_loss(features, weight, targets, bias, options)
    return loss.losses(loss.plan(max_bytes))


@overload
def linear_cross_entropy_and_grad(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    **options: Unpack[UnreducedOptions],
) -> tuple[np.floating[Any], LinearGradients]: ...
@overload
def linear_cross_entropy_and_grad(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    reduction: Literal["none"],
    **options: Unpack[UnreducedOptions],
) -> tuple[NDArray[np.floating[Any]], LinearGradients]: ...
def linear_cross_entropy_and_grad(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    **options: Unpack[LinearOptions],
) -> tuple[Any, LinearGradients]:
    """Return the loss of a linear layer and its gradients, with three matrix products and no N × C array.

    With ``dz = s·( T·(1 + 2ζ·lse)·p − t ) ⊙ du/dz / D``, a few rows at a time:
    ``d features = dz @ weight``, ``d weight = dzᵀ @ features``, ``d bias = Σ_n dz_n``.

    Parameters
    ----------
    features, weight, targets, bias, **options
        As in :func:`linear_cross_entropy`.
    max_bytes
        The most memory to use beyond inputs and gradients; default ``max(32 MiB, min(¼·(inputs + gradients),
        ⅛·max(N, 4096)·C·itemsize))``. If the weight's type is narrower than that of the products (half types),
        several chunks need an accumulator of its gradient in the wider type in addition.

    Returns
    -------
    loss : NumPy scalar or ndarray
        As :func:`linear_cross_entropy` returns it.
    gradients : LinearGradients
        ``features``, ``weight`` and ``bias`` (or None), each in its input's shape and type (integers: float64).

    Raises
    ------
    TypeError, ValueError
        As in :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> features, weight = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> loss, gradients = linear_cross_entropy_and_grad(features, weight, [1])
    >>> gradients.weight.round(4)
    array([[ 0.09  ,  0.1801],
           [-0.7553, -1.5105],
           [ 0.6652,  1.3305]])
    """
    few = few_logits(features, weight, targets, bias, options) if max_bytes is None else None
    if few is not None:
        gradients = _gradients(few.features, few.weight, bias)
        return few.gradients(*gradients), gradients
    loss = checked_loss(features, weight, targets, bias, options)
    gradients = _gradients(loss.features, loss.weight, loss.bias)
    plan = loss.plan(max_bytes, ALL_GRADIENTS, weight_itemsize=gradients.weight.itemsize)
    return loss.gradients(plan, Outputs(*gradients)), gradients
