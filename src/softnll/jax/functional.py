"""The public functions of logits on JAX arrays: softmax, log_softmax, logsumexp, nll_loss and cross_entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from softnll._core.layout import Layout
from softnll._core.options import LossOptions, NormaliserOptions, Reduction
from softnll.jax import _rows
from softnll.jax._inputs import checked_options, divisor, floating, loss_arrays, normalised_arrays, reduced, result_type

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax"]


def softmax(
    logits: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    temperature: float | ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    """Return the probabilities of scores: ``p_k = exp(u_k) / Σ_j exp(u_j)``, with ``u = logits / temperature``.

    Parameters
    ----------
    logits
        Scores of any shape; float16, bfloat16, float32, float64, or integers (computed as the default float type).
    axis
        The class axis; a tuple of axes, or None for all of them, normalises over several together.
    temperature
        A number > 0, or an array with one a row, in the logits' shape without the class axis. It may be traced.
    where
        Bool, broadcasts to the logits: False masks a class, whose probability is then 0.

    Returns
    -------
    Array
        Probabilities in the logits' shape and type. A row whose classes are all masked is 0; one of −∞ only is NaN.

    Raises
    ------
    TypeError, ValueError
        For invalid types, shapes and options, also while tracing. Values are checked where an array has values.

    Examples
    --------
    >>> [f"{p:.4f}" for p in softmax([5.0, 4.0, 2.0])]
    ['0.7054', '0.2595', '0.0351']
    """
    return _written(_rows.probabilities, logits, axis, temperature, where)


def log_softmax(
    logits: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    temperature: float | ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    """Return the logarithms of softmax's probabilities, in nats: ``(u_k − m) − log1p(r)``.

    Parameters
    ----------
    logits, axis, temperature, where
        As in :func:`softmax`.

    Returns
    -------
    Array
        Log-probabilities ≤ 0 in the logits' shape and type; −∞ for masked classes.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softmax`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> f"{log_softmax(jnp.float32([17, 0, 0]))[0]:.4g}"
    '-8.28e-08'
    """
    return _written(_rows.log_probabilities, logits, axis, temperature, where)


def _written(function: Any, logits: Any, axis: Any, temperature: Any, where: Any) -> Array:
    """Return a function of each row in the logits' shape and type."""
    x = floating(logits, "logits")
    objective, per_row = checked_options(temperature)
    arrays, layout = normalised_arrays(x, axis, per_row, where)
    return jnp.asarray(layout.restore(function(objective, *arrays)).astype(x.dtype).reshape(x.shape))


@overload
def logsumexp(
    logits: ArrayLike, *, return_sign: Literal[False] = False, **options: Unpack[NormaliserOptions]
) -> Array: ...
@overload
def logsumexp(
    logits: ArrayLike, *, return_sign: Literal[True], **options: Unpack[NormaliserOptions]
) -> tuple[Array, Array]: ...
@overload
def logsumexp(
    logits: ArrayLike, *, return_sign: bool, **options: Unpack[NormaliserOptions]
) -> Array | tuple[Array, Array]: ...
def logsumexp(
    logits: ArrayLike,
    *,
    axis: int | Sequence[int] | None = -1,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    b: ArrayLike | None = None,
    return_sign: bool = False,
) -> Any:
    """Return the logarithm of the sum of exponentials: ``log Σ_j exp(x_j) = m + log1p(r)``.

    Parameters
    ----------
    logits, axis, where
        As in :func:`softmax`; here the class axis may be empty.
    keepdims
        Whether the result keeps the class axes, with size 1.
    b
        Real weights of any sign: ``log Σ_j b_j exp(x_j)``, as ``jax.scipy.special.logsumexp`` computes it.
    return_sign
        Whether the sign of the sum is returned as well; the value is then the logarithm of the sum's absolute value.

    Returns
    -------
    Array
        One value a row in the logits' type; −∞ for a row without entries. With ``return_sign``: values and signs.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softmax`.

    Examples
    --------
    >>> f"{logsumexp([100.0, 100.0]):.4f}"
    '100.6931'
    """
    x = floating(logits, "logits")
    if b is not None:
        axes = tuple(axis) if isinstance(axis, Sequence) else axis
        return jax.scipy.special.logsumexp(
            x, axis=axes, b=jnp.asarray(b), keepdims=keepdims, return_sign=return_sign, where=where
        )
    objective, _ = checked_options(1.0)
    (rows, _, mask), layout = normalised_arrays(x, axis, None, where, empty=True)
    shape = layout.kept_shape if keepdims else layout.row_shape
    lse = _rows.normalisers(objective, rows, None, mask).astype(x.dtype).reshape(shape)
    if not return_sign:
        return lse
    return lse, jnp.where(jnp.isnan(lse), lse, (lse != -jnp.inf).astype(lse.dtype))


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
) -> Array:
    """Return the negative log-likelihood of targets under given log-probabilities: ``−s_n Σ_c w_c q_nc log p_nc``.

    Parameters
    ----------
    log_probs
        Log-probabilities, as :func:`log_softmax` returns them. For logits use :func:`cross_entropy`.
    targets, axis, class_weight, sample_weight, ignore_index, reduction, check
        As in :func:`cross_entropy`.

    Returns
    -------
    Array
        The loss in nats, float32 or wider.

    Raises
    ------
    TypeError, ValueError
        As in :func:`cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> f"{nll_loss(jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])), [0, 1]):.4f}"
    '0.3567'
    """
    x = floating(log_probs, "log_probs")
    objective, _ = checked_options(1.0, ignore_index=ignore_index, reduction=reduction)
    given: dict[str, Any] = {"class_weight": class_weight, "sample_weight": sample_weight, "check": check}
    arrays, layout = loss_arrays(x, targets, objective, axis, name="log_probs", **given)
    return _loss(_rows.picked, objective, arrays, layout, x)


def cross_entropy(logits: ArrayLike, targets: ArrayLike, **options: Unpack[LossOptions]) -> Array:
    """Return the cross-entropy of targets and the softmax of logits, in nats; :func:`softnll.cross_entropy` in JAX.

    ``loss_n = s_n·( T·(lse(u) + ζ·lse(u)²) − ⟨t, u⟩ )``, with effective logits
    ``u = softcap·tanh(x/softcap)/temperature`` and target measure ``t_c = w_c·[(1 − ε)·q_c + ε/C]`` of mass T.

    Parameters
    ----------
    logits
        Scores; C classes on ``axis``; float16, bfloat16, float32, float64 or integers.
    targets
        Hard: integers in [0, C) of the logits' shape without the class axis. Soft: floats of the logits' shape.
    **options
        Those of :func:`softnll.cross_entropy`: ``axis``, ``class_weight``, ``sample_weight``, ``ignore_index``,
        ``label_smoothing``, ``z_loss``, ``softcap``, ``temperature``, ``where``, ``reduction``, ``check``. Arrays may
        be traced, and the loss is differentiable with respect to logits, soft targets, weights and temperatures.
        Targets' values are not checked under tracing: a target out of range then makes its row NaN.

    Returns
    -------
    Array
        The loss: float64 for float64 logits, else float32. The mean of no rows is NaN, and its gradient 0.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.cross_entropy`; while tracing, for types, shapes and options.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]])  # cat, horse, dog
    >>> targets = jnp.array([0, 2, 1])
    >>> loss, grad = jax.value_and_grad(cross_entropy)(scores, targets)
    >>> f"{loss:.4f}"
    '0.3624'
    """
    x = floating(logits, "logits")
    given: dict[str, Any] = dict(options)
    arrays_given = {name: given.pop(name, None) for name in ("class_weight", "sample_weight", "where", "check")}
    axis = given.pop("axis", -1)
    objective, per_row = checked_options(given.pop("temperature", 1.0), **given)
    arrays, layout = loss_arrays(x, targets, objective, axis, per_row=per_row, **arrays_given)
    if objective.reduction == "none":
        return _loss(_rows.losses, objective, arrays, layout, x)
    total = _rows.losses(objective, *arrays, divisor(arrays, objective, layout))
    return jnp.asarray(total.astype(result_type(x)))


def _loss(function: Any, objective: Any, arrays: Any, layout: Layout, x: Any) -> Array:
    """Return the reduced losses of rows."""
    return jnp.asarray(reduced(function(objective, *arrays), arrays, objective, layout, result_type(x)))
