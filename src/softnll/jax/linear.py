"""The public linear functions on JAX arrays: a few rows of the N × C logits are in memory at a time."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from softnll._core.chunked import check_shapes
from softnll._core.layout import Layout, loss_dtype
from softnll._core.options import LinearOptions
from softnll.jax import _scan
from softnll.jax._inputs import checked_options, divisor, floating, reduced, target_arrays, temperatures

__all__ = ["TokenStatistics", "linear_cross_entropy", "token_stats"]

_LEAST = 1 << 25  # bytes that chunks may take in any case
_ROWS = 256  # of a chunk: more make products no faster


def linear_cross_entropy(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    max_bytes: int | None = None,
    **options: Unpack[LinearOptions],
) -> Array:
    """Return ``cross_entropy(features @ weight.T + bias, targets)``; the compiled program has no N × C array.

    A reduced loss computes its gradients with it, chunk by chunk: three matrix products in all. With
    ``reduction="none"``, and for further derivatives, chunks of logits are computed again.

    Parameters
    ----------
    features, weight, bias
        ``(..., H)``, ``(C, H)`` and ``(C,)``.
    targets
        Hard: integers of shape ``(...)``; soft: floats of shape ``(..., C)``.
    max_bytes
        The most bytes of a chunk's logits and their gradients; default 32 MiB, or more
        for at most 256 and N/12 rows.
    **options
        The options of :func:`cross_entropy` except ``axis`` and ``where``.

    Returns
    -------
    Array
        The loss in nats: float64 if features, weight or bias are float64, else float32. Half types are multiplied with
        sums in float32.

    Raises
    ------
    TypeError, ValueError
        As in :func:`cross_entropy`; for shapes that do not match; for a ``max_bytes`` too small for one row.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> features, weight = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> f"{linear_cross_entropy(features, weight, jnp.array([1])):.4f}"
    '1.4076'
    """
    given: dict[str, Any] = dict(options)
    weights = {name: given.pop(name, None) for name in ("class_weight", "sample_weight")}
    check, temperature = given.pop("check", None), given.pop("temperature", 1.0)
    objective, per_row = checked_options(temperature, **given)
    layer, layout = _layer(features, weight, bias)
    tau = temperatures(per_row, layout)
    arrays = target_arrays(targets, layout, objective, **weights, tau=tau, where=None, check=check)
    chunks = _chunks(layer, layout, max_bytes)
    dtype = _dtype(layer)
    if objective.reduction == "none":
        loss = _scan.losses(objective, chunks, *layer, *arrays)
        return jnp.asarray(reduced(loss, (None, *arrays), objective, layout, dtype))
    D = divisor((None, *arrays), objective, layout)
    return jnp.asarray(_scan.total(objective, chunks, *layer, *arrays, D).astype(dtype))


class TokenStatistics(NamedTuple):
    """Log-probability, entropy, argmax and logsumexp of each token; an ignored one has 0, 0, −1 and 0."""

    log_prob: Array
    entropy: Array
    argmax: Array
    lse: Array


def token_stats(
    features: ArrayLike,
    weight: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    temperature: float | ArrayLike = 1.0,
    max_bytes: int | None = None,
    check: bool | None = None,
) -> TokenStatistics:
    """Return log-probability, entropy, argmax and logsumexp of each token, in one pass over chunks of logits.

    They are differentiable, to any order; a backward computes the logits again.

    Parameters
    ----------
    features, weight, bias, ignore_index, softcap, temperature, max_bytes, check
        As in :func:`linear_cross_entropy`.
    targets
        Integers in [0, C) of shape ``(...)``: the tokens whose log-probabilities are returned.

    Returns
    -------
    TokenStatistics
        ``log_prob``, ``entropy`` and ``lse`` in nats, float32 or wider; ``argmax`` int32.

    Raises
    ------
    TypeError, ValueError
        As in :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> features, weight = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> stats = token_stats(features, weight, jnp.array([1]))
    >>> f"{stats.log_prob[0]:.4f} {stats.entropy[0]:.4f} {stats.argmax[0]}"
    '-1.4076 0.8324 2'
    """
    objective, per_row = checked_options(temperature, softcap=softcap, ignore_index=ignore_index, reduction="none")
    layer, layout = _layer(features, weight, bias)
    arrays = target_arrays(targets, layout, objective, None, None, temperatures(per_row, layout), None, check)
    if arrays[0] is None:
        raise TypeError("targets are floats; allowed: integers of shape " + str(layout.row_shape))
    found = _scan.statistics(objective, _chunks(layer, layout, max_bytes), *layer, *arrays)
    dtype = _dtype(layer)
    return TokenStatistics(
        *(each.reshape(layout.row_shape).astype(jnp.int32 if each.dtype == jnp.int32 else dtype) for each in found)
    )


def _layer(features: Any, weight: Any, bias: Any) -> tuple[tuple[Any, Any, Any], Layout]:
    """Return features as rows, weight and bias, and the layout of the logits, after checking them."""
    f, W = floating(features, "features"), floating(weight, "weight")
    b = None if bias is None else floating(bias, "bias")
    check_shapes(f, W, b)
    layout = Layout((*f.shape[:-1], W.shape[0]), (f.ndim - 1,))
    return (f.reshape(layout.n_rows, f.shape[-1]), W, b), layout


def _dtype(layer: Any) -> Any:
    return max((loss_dtype(np.dtype(each.dtype)) for each in layer if each is not None), key=lambda each: each.itemsize)


def _chunks(layer: Any, layout: Layout, max_bytes: int | None) -> int:
    """Return into how many chunks the rows are divided."""
    N, row = layout.n_rows, 3 * layout.n_classes * _dtype(layer).itemsize  # logits, exponentials or their gradient
    if max_bytes is None:
        max_bytes = max(_LEAST, min(N // 12, _ROWS) * row)
    if max_bytes < row:
        raise ValueError(f"max_bytes is {max_bytes}; allowed: at least {row}, for one row")
    least = max(1, -(-int(N * row) // max_bytes))
    # Chunks of one size need no copies of features and their gradients with further rows.
    return next((each for each in range(least, 2 * least) if N % each == 0), least)
