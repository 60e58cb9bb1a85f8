"""Further derivatives on NumPy arrays: the Jacobian of softmax, its products, the Hessian of the loss times v."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core import equation
from softnll._core.layout import Layout, as_real
from softnll._core.options import LossOptions
from softnll._core.problem import Problem, loss_problem, prepare
from softnll._core.targets import blocks


def softmax_jacobian(logits: ArrayLike, *, axis: int = -1) -> NDArray[Any]:
    """Return the Jacobian of softmax: ``∂p_i/∂x_j = p_i·(1[i = j] − p_j)``, that is ``diag(p) − p pᵀ``.

    Parameters
    ----------
    logits
        Scores with C classes on ``axis``; types as in :func:`softnll.softmax`.
    axis
        The class axis.

    Returns
    -------
    ndarray
        ``(..., C, C)`` in the logits' type: the other axes in their order, then i, then j.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.softmax`.

    Examples
    --------
    >>> softmax_jacobian([5.0, 4.0, 2.0]).round(4)
    array([[ 0.2078, -0.183 , -0.0248],
           [-0.183 ,  0.1922, -0.0091],
           [-0.0248, -0.0091,  0.0339]])
    """
    problem, layout = prepare(logits, axis=axis)
    N, C = problem.x.shape
    jacobian = np.empty((N, C, C), problem.x.dtype)
    for rows in blocks((N, C * C)):
        parts = equation.normalise(problem.take(rows, problem.x[rows, ...]))
        p, rest = equation.probabilities(parts), equation.complements(parts)
        with np.errstate(all="ignore"):
            block = -p[:, :, None] * p[:, None, :]
            np.einsum("nii->ni", block)[...] = p * rest
            jacobian[rows] = block
    return jacobian.reshape(*layout.row_shape, C, C)


def softmax_vjp(logits: ArrayLike, v: ArrayLike, *, axis: int = -1) -> NDArray[Any]:
    """Return vᵀ·J with J the Jacobian of softmax: ``p ⊙ (v − ⟨p, v⟩)``; which backpropagation computes.

    Parameters
    ----------
    logits, axis
        As in :func:`softmax_jacobian`.
    v
        The upstream gradient, in the logits' shape.

    Returns
    -------
    ndarray
        The product in the logits' shape and type.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.softmax`, and if the shapes differ.

    Examples
    --------
    >>> softmax_vjp([5.0, 4.0, 2.0], [1.0, 0.0, 0.0]).round(4)
    array([ 0.2078, -0.183 , -0.0248])
    """
    problem, layout = prepare(logits, axis=axis)
    return _by_rows(
        problem, layout, v, lambda _, rows, v: equation.softmax_product(np, rows, equation.probabilities(rows), v)
    )


def softmax_jvp(logits: ArrayLike, v: ArrayLike, *, axis: int = -1) -> NDArray[Any]:
    """Return J·v with J the Jacobian of softmax: the derivative of p along v.

    J is symmetric, so this is :func:`softmax_vjp`; both names exist because users look for both.

    Parameters
    ----------
    logits, v, axis
        As in :func:`softmax_vjp`.

    Returns
    -------
    ndarray
        The product in the logits' shape and type.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softmax_vjp`.

    Examples
    --------
    >>> softmax_jvp([4.0, 4.0, 1.0], [1.0, 1.0, 1.0])
    array([0., 0., 0.])
    """
    return softmax_vjp(logits, v, axis=axis)


def cross_entropy_hvp(
    logits: ArrayLike, targets: ArrayLike, v: ArrayLike, **options: Unpack[LossOptions]
) -> NDArray[Any]:
    """Return the Hessian of the reduced cross-entropy times v, without forming it.

    For a hard target without options, row by row, ``(diag(p) − p pᵀ)·v``: it does not depend on the target. With
    options: ``s·{ g'⊙[T(1 + 2ζ·lse)(p⊙a − p⟨p, a⟩) + 2ζT·p⟨p, a⟩] + g''⊙v⊙[T(1 + 2ζ·lse)·p − t] } / D``, a = g'⊙v.

    Parameters
    ----------
    logits, targets, **options
        As in :func:`softnll.cross_entropy`.
    v
        A direction, in the logits' shape.

    Returns
    -------
    ndarray
        The product in the logits' shape and type; with ``reduction="none"``, of the Hessian of the losses' sum.

    Raises
    ------
    TypeError, ValueError
        As in :func:`softnll.cross_entropy`, and if v has another shape.

    Examples
    --------
    >>> cross_entropy_hvp([[5.0, 4.0, 2.0]], [0], [[1.0, 0.0, 0.0]]).round(4)
    array([[ 0.2078, -0.183 , -0.0248]])

    Notes
    -----
    Pearlmutter (1994), "Fast exact multiplication by the Hessian".
    """
    problem, layout = loss_problem(logits, targets, **options)
    return _by_rows(problem, layout, v, equation.hessian_product)


def _by_rows(problem: Problem, layout: Layout, v: ArrayLike, function: Any) -> NDArray[Any]:
    """Return the results of a function of (Problem, intermediate results, v), block by block of the rows."""
    array = as_real(v, "v")
    if array.shape != layout.shape:
        raise ValueError(f"v has shape {array.shape}; allowed: the logits' shape {layout.shape}")
    v_rows = layout.rows(array)
    out = np.empty(problem.x.shape, problem.x.dtype)
    for rows in blocks(problem.x.shape, 1 << 16):
        part = problem.take(rows, problem.x[rows, ...])
        with np.errstate(all="ignore"):
            out[rows] = function(part, equation.normalise(part), v_rows[rows].astype(np.float64))
    restored: NDArray[Any] = layout.restore(out)[()]
    return restored
