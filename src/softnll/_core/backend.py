"""The protocol of a backend: the computations on rows of one array library and device."""

from __future__ import annotations

from typing import Any, Protocol

from softnll._core.layout import Layout
from softnll._core.problem import Problem


class Backend(Protocol):
    """The kernels on rows of valid Problems, matrix products, and the creation of arrays.

    An ``upstream`` gradient is None for 1, else one number or one a row, on the device of the arrays.
    """

    multiple: int  # the number of rows in a chunk is a multiple of this, for faster matrix products; 1 for any number
    mixed_products: bool  # whether matrix products accept any strides and half types, and write results of any type

    @property
    def xp(self) -> Any:
        """The namespace of the function ``where``."""

    def wide(self, like: Any) -> Any:
        """Return the type of losses, m and r on an array's device: float64, or float32 without float64."""

    def softmax(self, problem: Problem, out: Any) -> Any:
        """Write the probabilities to ``out``."""

    def log_softmax(self, problem: Problem, out: Any) -> Any:
        """Write the log-probabilities to ``out``."""

    def logsumexp(self, problem: Problem) -> Any:
        """Return logsumexp of each row."""

    def losses(self, problem: Problem) -> Any:
        """Return the loss of each row, times its row weight, not divided by the mean's denominator."""

    def forward(self, problem: Problem, out: Any = None) -> Any:
        """Return loss, m and r of each row; with ``out``, also write the gradient of the reduced loss there."""

    def forward_backward(self, problem: Problem, out: Any, *, upstream: Any = None) -> Any:
        """Return the loss of each row and write the gradient of the reduced loss; ``out`` may be the logits."""

    def backward(self, problem: Problem, m: Any, r: Any, out: Any, *, upstream: Any = None) -> None:
        """Write the gradient of the reduced loss from the forward's m and r; ``out`` may be the logits."""

    def pick(self, problem: Problem) -> Any:
        """Return the loss of each row of log-probabilities."""

    def reduce(self, problem: Problem, layout: Layout, losses: Any, dtype: Any) -> Any:
        """Return the losses of the rows after the objective's reduction, in the type of losses of such logits."""

    def scratch_bytes(self, problem: Problem, n_rows: int, n_columns: int, itemsize: int) -> int:
        """Return the most bytes that the kernels take beside logits of this shape, the targets and the results.

        ``itemsize`` is that of the logits, which ``problem`` need not have. More rows take as many bytes or more.
        """

    def with_upstream(self, problem: Problem, upstream: Any) -> tuple[Problem, Any]:
        """Return a Problem and an upstream gradient for the kernels; the gradient may enter the row weights instead."""

    def rows_without_part(self, problem: Problem) -> Any:
        """Return one bool a row, True for rows that contribute exactly 0 whatever they hold; None if there are none."""

    def product_types(self, *arrays: Any) -> tuple[Any, Any]:
        """Return the type in which these inputs are multiplied, and the type in which products are summed."""

    def affine(self, x: Any, weight: Any, bias: Any, out: Any) -> None:
        """Write ``x @ weight.T + bias``; the bias may be None."""

    def multiply(self, a: Any, b: Any, out: Any, *, add: bool = False) -> None:
        """Write ``a @ b`` into ``out`` or, with ``add``, add it there."""

    def column_sums(self, matrix: Any) -> Any:
        """Return the sums over the rows, in float32 or wider, without a copy of the matrix in that type."""

    def empty(self, shape: Any, dtype: Any, like: Any) -> Any:
        """Return an uninitialised array on the device of ``like``."""

    def zeros(self, shape: Any, dtype: Any, like: Any) -> Any:
        """Return zeros on the device of ``like``."""

    def cast(self, array: Any, dtype: Any) -> Any:
        """Return a contiguous array of a type: the array itself if it is one already."""

    def feature_rows(self, features: Any, rows: Any, dtype: Any) -> Any:
        """Return some rows of ``(..., H)`` features as ``(n, H)`` for a product; a slice of rows may be a view."""

    def nonzero(self, mask: Any) -> Any:
        """Return the indices where a mask is True."""

    def scales(self, dtype: Any) -> bool:
        """Return whether the gradient of logits of this type is scaled before it is rounded."""

    def gradient_scale(self, problem: Problem, upstream: Any, dtype: Any, weight: Any) -> Any:
        """Return the factor of the logits' gradient before it is rounded to a narrow type; None for 1."""
