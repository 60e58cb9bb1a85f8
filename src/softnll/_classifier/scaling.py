"""Shift and scale of the features within a fit, for features that are sparse, far from 0 or of very different units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from softnll._classifier.penalised_loss import Objective, pack, unpack

_SAMPLE = 1 << 21  # numbers of dense features that the moments are computed from: 16 MiB
_FEWEST = 64  # rows, whatever their width
_UNITS = 1e2  # by which the median deviation may differ from 1, and the largest from the median,
_TINY = 1e6  # the median from the smallest (a border pixel is rarely not 0), and
_OFFSET = 1e2  # means from 0 in standard deviations, before the features count as badly scaled
_SINGLE = 1e3  # the same for float32: beyond it, products are rounded more than the features differ

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each feature, ``(H,)``."""

    mean: Vector
    variance: Vector

    @property
    def _offsets(self) -> Vector:
        """The means in standard deviations, of the features that vary."""
        varies = self.variance > 0
        return np.asarray(np.abs(self.mean[varies]) / np.sqrt(self.variance[varies]))

    def badly_scaled(self, *, centre: bool) -> bool:
        """Return whether a fit needs `scaling`."""
        deviations = np.sqrt(self.variance[self.variance > 0])
        if not len(deviations):
            return False
        low, high = float(deviations.min()), float(deviations.max())
        typical = float(np.median(deviations))
        far = centre and float(self._offsets.max()) > _OFFSET
        uneven = high > _UNITS * typical or typical > _TINY * low
        return far or uneven or not 1 / _UNITS < typical < _UNITS

    def needs_float64(self, *, centre: bool) -> bool:
        """Return whether float32 products would lose how the features differ."""
        offsets = self._offsets
        return centre and bool(len(offsets)) and float(offsets.max()) > _SINGLE


@np.errstate(all="ignore")  # features too large to be squared have an infinite variance: no scaling
def moments(X: Any, weight: Vector | None, *, centre: bool) -> Moments:
    """Return the moments of CSR features, or of evenly spaced rows of dense features.

    Rows count by their weight, and those of weight 0 not at all. Without ``centre`` the mean is 0, and the variance the
    mean square.
    """
    N, H = X.shape
    if issparse(X):
        share = np.full(N, 1 / N) if weight is None else weight / weight.sum()
        each = np.repeat(share, np.diff(X.indptr))
        square = np.bincount(X.indices, np.square(X.data, dtype=np.float64) * each, minlength=H)
        sums = np.bincount(X.indices, X.data * each, minlength=H) if centre else np.zeros(H)
        return Moments(np.asarray(sums, np.float64), np.asarray(np.maximum(square - sums**2, 0), np.float64))
    at = np.arange(N) if weight is None else np.flatnonzero(weight)
    at = at[:: row_step(len(at), H)]
    share = np.ones(len(at)) if weight is None else weight[at]
    share = share / share.sum()
    rows = X[at].astype(np.float64)
    mean: Vector = np.einsum("n,nh->h", share, rows) if centre else np.zeros(H)
    rows -= mean
    variance = np.einsum("n,nh,nh->h", share, rows, rows)
    # Rounding gives a constant column of 0.1 a deviation of 1e-17.
    variance[variance <= (1e-12 * mean) ** 2] = 0
    return Moments(mean, variance)


def row_step(N: int, H: int) -> int:
    """Return the distance of the rows that the moments are computed from, of N that count."""
    return -(-N // max(1, min(N, max(_FEWEST, _SAMPLE // H))))


@dataclass(frozen=True, slots=True)
class Scaling:
    """``W = U·diag(f), b = √K·β − W·μ``: L-BFGS optimises U and β, in one vector.

    The fit ends by the gradient in these variables alone, which has no unit of a feature in it.
    """

    factors: Vector  # (H,) f
    mean: Vector  # (H,) μ
    shape: tuple[int, ...]  # (K, H) of W
    alone: bool = True

    def step(self, vector: Vector) -> Vector:
        """Map U and β to W and b."""
        U, beta = unpack(vector, self.shape)
        W = U * self.factors
        if vector.size == U.size:
            return pack(W, None)
        return pack(W, np.sqrt(self.shape[0]) * beta - np.einsum("kh,h->k", W, self.mean))

    def gradient(self, vector: Vector) -> Vector:
        """Map a gradient by W and b to one by U and β: the transpose of `step`."""
        dW, db = unpack(vector, self.shape)
        if vector.size == dW.size:
            return pack(dW * self.factors, None)
        return pack((dW - np.outer(db, self.mean)) * self.factors, np.sqrt(self.shape[0]) * db)


def scaling(problem: Objective, found: Moments) -> Scaling | None:
    """Return the scaling in which each feature is as curved as the others; None where the moments are not finite.

    At W = 0 the Hessian's entry of a feature is about ``variance / K + λ``, with λ = 1/(C·D); f is its inverse root.
    """
    K, H = problem.shape
    curvature = found.variance / K + problem.strength
    if not (np.isfinite(curvature).all() and np.isfinite(found.mean).all() and curvature.min() > 0):
        return None
    return Scaling(curvature**-0.5, found.mean, (K, H))
