"""A change of variables after which the objective of a fit is about equally curved in all directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll._classifier.penalised_loss import Objective, Penalised, pack, unpack
from softnll._numpy.blas import multiply

_RANK = 100  # directions that have a factor of their own
_SAMPLE = 2000  # rows of the sample that the directions are computed from, and
_SAMPLE_BYTES = 16 << 20  # its largest memory, unless a 32nd of the features' is more
_EVALUATIONS = 10  # largest cost of the directions, in evaluations of the objective; they save 20 and more
_FLAT = 1e-4  # smallest variance of a direction, relative to the largest

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Preconditioner:
    """``W = U·P, b = f·β − W·μ`` with a symmetric P; L-BFGS optimises U and β, in one vector."""

    basis: Matrix  # (R, H) orthonormal directions
    factors: Vector  # (R,) the factors of P in those directions
    rest: float  # the factor of P in all other directions
    mean: Vector  # (H,) μ, so that β is the intercept of centred features; 0 without an intercept
    bias: float  # f
    shape: tuple[int, ...]  # (K, H) of W
    alone: bool = False

    def step(self, vector: Vector) -> Vector:
        """Map U and β to W and b."""
        U, beta = unpack(vector, self.shape)
        W = self._stretch(U)
        return pack(W, self.bias * beta - _product(W, self.mean[:, None])[:, 0] if vector.size > U.size else None)

    def gradient(self, vector: Vector) -> Vector:
        """Map a gradient by W and b to one by U and β: the transpose of `step`."""
        dW, db = unpack(vector, self.shape)
        if vector.size == dW.size:
            return pack(self._stretch(dW), None)
        return pack(self._stretch(dW - np.outer(db, self.mean)), self.bias * db)

    def _stretch(self, rows: Matrix) -> Matrix:
        """Return rows·P."""
        along = _product(rows, self.basis.T)
        along *= self.factors - self.rest
        return self.rest * rows + _product(along, self.basis)


def precondition(problem: Penalised) -> Preconditioner | None:
    """Return the change of variables for an objective, or None where it would cost more than it saves.

    At W = 0 the Hessian by W is ``(I − 11ᵀ/K)/K ⊗ S + λ·I``, with S the features' covariance (about 0 without an
    intercept) and λ = 1/(C·D). P is the inverse square root of ``S/K + λ·I`` with S replaced by its R largest
    eigenvalues and, for all other directions, the least of them. S and its eigenvectors come from a sample of the rows,
    drawn by weight from a fixed seed.

    It saves time where

    - there are ten rows and more for each direction, since the change of variables (8·R·H·K flops) then costs a
      fraction of an evaluation (4·N·H·K), and
    - the directions cost less than ten evaluations: ``12·n·(R + 10)`` against ``10·4·N·K``, H times each, for n rows.

    Notes
    -----
    Frangella, Tropp, Udell (2023), "Randomized Nyström preconditioning", SIAM J. Matrix Anal. Appl. 44, 718; Böhning
    (1992), "Multinomial logistic regression algorithm", Ann. Inst. Statist. Math. 44, 197; Halko, Martinsson, Tropp
    (2011), "Finding structure with randomness", SIAM Review 53, 217, for the eigenvectors (scikit-learn's code).
    """
    head = problem.head
    N = head.layout.n_rows if head.active is None else len(head.active)
    size = sample_size(N, problem.shape, head.dtype)
    if size is None:
        return None
    weight = np.ones(head.layout.n_rows) if head.problem.s is None else head.problem.s
    if head.problem.w is not None and head.problem.y is not None:
        weight = weight * head.problem.w[head.problem.y]
    # The weights' sum may be out of range; rows of weight 0 are never drawn.
    share = np.cumsum(weight / weight.max())
    sample = head.features[np.searchsorted(share, draws(size) * share[-1], side="right")]
    return preconditioner(problem, sample, size)


class SampleSize(NamedTuple):
    """The rows of a sample, and the directions that are computed from it."""

    rows: int
    rank: int


def sample_size(N: int, shape: tuple[int, int], dtype: Any) -> SampleSize | None:
    """Return the size of the sample of N rows for W of this shape, or None where it would cost more than it saves."""
    K, H = shape
    n = min(N, _SAMPLE, max(_SAMPLE_BYTES // max(1, H * dtype.itemsize), N // 32))
    rank = min(_RANK, H, n // 2)
    if rank == 0 or 10 * rank > N or 12 * n * (rank + 10) > 4 * _EVALUATIONS * N * K:
        return None
    return SampleSize(n, rank)


def draws(size: SampleSize) -> Vector:
    """Return the numbers from 0 to 1 that draw the rows of the sample, as shares of the sum of all weights."""
    return np.random.default_rng(0).random(size.rows)


def preconditioner(problem: Objective, sample: Matrix, size: SampleSize) -> Preconditioner | None:
    """Return the change of variables from a sample of the rows, which is overwritten; None if they do not vary."""
    found = _directions(sample, size, centre=problem.fit_intercept)
    if found is None:
        return None
    variances, basis, mean = found
    K, H = problem.shape
    curvature = np.maximum(variances, _FLAT * variances[0]) / K + problem.strength
    factors = curvature**-0.5
    return Preconditioner(basis, factors, float(factors[-1]), mean, K**0.5, (K, H))


@np.errstate(all="ignore")  # the check of the result finds overflows
def _directions(sample: Matrix, size: SampleSize, *, centre: bool) -> tuple[Vector, Matrix, Vector] | None:
    """Return the features' largest variances, descending, their directions and the mean; None if they do not vary."""
    from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415 - loaded by the classifier already

    mean = np.zeros(sample.shape[1])
    if centre:
        mean = sample.mean(axis=0, dtype=np.float64)
        sample -= mean.astype(sample.dtype)
    peak = max(float(sample.max()), -float(sample.min()))
    if not (np.isfinite(peak) and peak > 0):
        return None
    sample /= peak  # keeps the products in float32's range
    _, values, basis = randomized_svd(sample, size.rank, n_iter=2, random_state=0)
    variances = (values.astype(np.float64) * peak) ** 2 / len(sample)
    if not (np.isfinite(variances).all() and variances[0] > 0):
        return None
    return variances, np.ascontiguousarray(basis, np.float64), mean


def _product(a: Matrix, b: Matrix) -> Matrix:
    """Return a @ b, by the BLAS that computes all other products."""
    out = np.empty((a.shape[0], b.shape[1]))
    multiply(a, b, out)
    return out
