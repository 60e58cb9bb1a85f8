"""The public logsumexp on NumPy arrays: the normaliser of a softmax, also of weighted sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.layout import as_floating, as_real
from softnll._core.options import NormaliserOptions
from softnll._core.problem import prepare
from softnll._kernels.select import fitting, kernels
from softnll._numpy.array_types import Float
from softnll._numpy.output import narrowed
from softnll._numpy.signed_sum import signed_logsumexp


@overload
def logsumexp(
    logits: NDArray[Float],
    *,
    axis: int | Sequence[int] = -1,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    b: None = None,
    return_sign: Literal[False] = False,
) -> NDArray[Float]: ...
@overload  # None is also one of the axes of the next one, which returns an array
def logsumexp(  # type: ignore[overload-overlap]
    logits: ArrayLike,
    *,
    axis: None,
    keepdims: Literal[False] = False,
    where: ArrayLike | None = None,
    b: ArrayLike | None = None,
    return_sign: Literal[False] = False,
) -> np.floating[Any]: ...
@overload
def logsumexp(
    logits: ArrayLike, *, return_sign: Literal[False] = False, **options: Unpack[NormaliserOptions]
) -> NDArray[np.floating[Any]]: ...
@overload
def logsumexp(
    logits: ArrayLike, *, return_sign: Literal[True], **options: Unpack[NormaliserOptions]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]: ...
@overload
def logsumexp(logits: ArrayLike, *, return_sign: bool, **options: Unpack[NormaliserOptions]) -> Any: ...
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

    With weights ``log Σ_j b_j exp(x_j)``, as SciPy's: NaN where the sum is negative, unless its sign is asked for.

    Parameters
    ----------
    logits, axis, where
        As in :func:`softnll.softmax`; here the class axis may be empty.
    keepdims
        Whether the result keeps the class axes, with size 1.
    b
        Real weights of any sign; logits and weights broadcast to each other. An entry of weight 0 takes no part.
    return_sign
        Whether the sign of the sum is returned as well; the value is then the logarithm of the sum's absolute value.

    Returns
    -------
    ndarray or NumPy scalar
        One value a row in the logits' type (with b, in the wider type of the two); −∞ for a row without entries.
        With ``return_sign``: the values and their signs, −1, 0 or 1.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.softmax`.

    Examples
    --------
    >>> float(logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    >>> value, sign = logsumexp([0.0, 1.0], b=[1.0, -1.0], return_sign=True)
    >>> float(value.round(6)), float(sign)  # 1 - e
    (0.541325, -1.0)
    """
    if b is not None:
        logits, b = _broadcast(as_floating(logits, "logits"), as_real(b, "b"))
    problem, layout = prepare(logits, axis=axis, several=True, where=where, empty=True, planes=b is None)
    problem = fitting(problem, kernels)
    shape = layout.kept_shape if keepdims else layout.row_shape
    if b is None:
        lse = narrowed(kernels().logsumexp(problem), problem.x.dtype).reshape(shape)
        if not return_sign:
            return lse[()]
        return lse[()], np.where(np.isnan(lse), lse, lse != -np.inf).astype(lse.dtype)[()]
    weights = layout.rows(b)
    weights = weights if problem.where is None else np.where(problem.where, weights, 0)
    value, sign = (narrowed(each, problem.x.dtype).reshape(shape) for each in signed_logsumexp(problem.x, weights))
    if return_sign:
        return value[()], sign[()]
    return np.where(sign < 0, np.asarray(np.nan, value.dtype), value)[()]


def _broadcast(logits: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return logits and weights in their common shape, and the logits in the wider type of the two."""
    try:
        shape = np.broadcast_shapes(logits.shape, b.shape)
    except ValueError:
        message = f"b has shape {b.shape}; allowed: what broadcasts with the logits' shape {logits.shape}"
        raise ValueError(message) from None
    wide = b.dtype == np.float64 or (b.dtype == np.float32 and logits.dtype.itemsize == 2)
    dtype = b.dtype if wide and b.dtype.itemsize > logits.dtype.itemsize else logits.dtype
    return np.broadcast_to(logits.astype(dtype, copy=False), shape), np.broadcast_to(b, shape)
