"""A Problem keeps its contract: it is never written to, and its methods return another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._core.targets import SparseRows

X = np.arange(12.0).reshape(4, 3)


def test_nobody_writes_to_a_problem():
    """In these tests a write raises (conftest.py), so that the whole suite shows that there is none."""
    problem = Problem(X, y=np.zeros(4, np.int64))
    with pytest.raises(AttributeError, match="x of a Problem is written to"):
        problem.x = None


def test_an_upstream_gradient_enters_as_a_weight_of_another_problem():
    s = np.array([1.0, 0.0, 2.0, 1.0])
    problem = Problem(X, CrossEntropy(), np.zeros(4, np.int64), s=s, divisor=4.0)
    before = dataclasses.asdict(problem)
    assert problem.with_upstream(1.0) is problem
    assert problem.with_upstream(2.0).divisor == 2.0
    per_row = problem.with_upstream(np.array([2.0, np.inf, 1.0, -1.0]))
    np.testing.assert_array_equal(per_row.s, [2.0, 0.0, 2.0, -1.0])  # a row of weight 0 takes no part
    tiny = problem.with_upstream(1e-300)  # beyond what a divisor takes
    np.testing.assert_array_equal(tiny.s, s * 1e-300)
    assert tiny.divisor == 4.0
    np.testing.assert_equal(dataclasses.asdict(problem), before)


def test_parts_of_sparse_targets_are_dense():
    def densify(indices, probabilities, n_classes):
        dense = np.zeros((len(indices), n_classes))
        np.add.at(dense, (np.arange(len(indices))[:, None], indices), probabilities)
        return dense

    sparse = SparseRows(np.array([[0, 2], [1, 1]]), np.array([[0.5, 0.5], [0.25, 0.5]]), 3, densify)
    part = Problem(None, q=sparse).take(slice(1, 2), X[1:2])
    np.testing.assert_array_equal(part.q, [[0.0, 0.75, 0.0]])
