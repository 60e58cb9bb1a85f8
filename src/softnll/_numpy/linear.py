"""The last linear layer and its loss together: the N × C logits are made, used and forgotten a few rows at a time."""

from __future__ import annotations

from typing import Any, Unpack

from numpy.typing import ArrayLike

from softnll.head import Head, LinearGradients
from softnll.options import LinearOptions
from softnll.plan import ALL_GRADIENTS

__all__ = ["LinearGradients", "linear_cross_entropy", "linear_cross_entropy_and_grad"]


def linear_cross_entropy(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    **options: Unpack[LinearOptions],
) -> Any:
    """Return ``cross_entropy(features @ weight.T + bias, targets)`` without ever holding the N × C logits.

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
        The most memory to use beyond the inputs; default ``max(32 MiB, min(¼·inputs, ⅛·N·C·itemsize))``.
    **options
        Those of :func:`softnll.cross_entropy` but ``axis`` and ``where``.

    Returns
    -------
    NumPy scalar or ndarray
        The loss in nats: float64 if features, weight or bias are float64 or integers, else float32. Half types are
        multiplied in float32.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.cross_entropy`; for shapes that do not fit; for a ``max_bytes`` too small for one row.

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
    head = Head.check(features, weight, targets, bias, options)
    return head.losses(head.plan(max_bytes))


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
        ⅛·N·C·itemsize))``. Where the weight's type is narrower than what is multiplied in (half types),
        several chunks take an accumulator of its gradient in the wider type besides.

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
    head = Head.check(features, weight, targets, bias, options)
    plan = head.plan(max_bytes, ALL_GRADIENTS)
    gradients = head.empty_gradients()
    loss = head.gradients(plan, gradients)
    return loss, LinearGradients(*gradients)  # type: ignore[arg-type]
