"""The linear loss of sparse features, SciPy's CSR: memory beyond W and the logits is that of the non-zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from softnll._core.chunked import LinearLoss
from softnll._core.layout import Layout
from softnll._core.options import LinearOptions, split
from softnll._core.problem import Problem, prepare_targets
from softnll._numpy.backend import NumpyBackend


class _Rows(csr_matrix):  # type: ignore[misc]
    """A CSR matrix whose length is its number of rows, as that of an array."""

    def __len__(self) -> int:
        return int(self.shape[0])


class SparseBackend(NumpyBackend):
    """The backend of NumPy arrays whose features are CSR matrices; SciPy multiplies them."""

    mixed_products = True

    def affine(self, x: Any, weight: Any, bias: Any, out: Any) -> None:
        """Write ``x @ weight.T + bias``."""
        out[...] = x @ np.ascontiguousarray(weight.T)
        if bias is not None:
            out += bias

    def multiply(self, a: Any, b: Any, out: Any, *, add: bool = False) -> None:
        """Write ``a @ b`` for sparse b into ``out`` or add it there."""
        product = (b.T @ np.ascontiguousarray(a.T)).T
        if add:
            out += product
        else:
            out[...] = product

    def feature_rows(self, features: Any, rows: Any, dtype: Any) -> Any:
        """Return some rows of the features; all of them are not copied."""
        if isinstance(rows, slice) and rows == slice(0, features.shape[0]):
            return features
        return features[rows].astype(dtype, copy=False)


_BACKEND = SparseBackend()


def sparse_loss(
    features: Any, weight: NDArray[Any], targets: Any, bias: NDArray[Any] | None, options: LinearOptions
) -> LinearLoss:
    """Return the loss of CSR features ``(N, H)`` as :func:`softnll._numpy.linear.checked_loss` does of dense ones."""
    layout = Layout((features.shape[0], weight.shape[0]), (1,))
    objective, _, arrays = split(options)
    rows = _Rows((features.data, features.indices, features.indptr), features.shape, copy=False)
    problem = prepare_targets(Problem(None, objective), layout, targets, **arrays)
    return LinearLoss.of(rows, weight, bias, problem, layout, _BACKEND)
