"""NUMERICS §5: the three images, and the values that everybody can check."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import softnll as sn

pytestmark = pytest.mark.usefixtures("backend")


def test_three_images():
    assert np.allclose(sn.softmax(cases.SCORES), cases.PROBABILITIES, atol=5e-7)
    losses = sn.cross_entropy(cases.SCORES, cases.TRUE, reduction="none")
    assert np.allclose(losses, cases.LOSSES, atol=5e-7)
    total, grad = sn.cross_entropy_and_grad(cases.SCORES, cases.TRUE, reduction="sum")
    assert np.allclose(grad, cases.GRADIENTS, atol=5e-7)
    assert round(float(total), 6) == 1.087329
    assert round(float(sn.cross_entropy(cases.SCORES, cases.TRUE)), 6) == 0.362443
    assert np.allclose(sn.nll_loss(sn.log_softmax(cases.SCORES), cases.TRUE, reduction="none"), cases.LOSSES, atol=5e-7)


def test_uniform_scores_give_ln_c():
    assert round(float(sn.cross_entropy(np.zeros((1, 10)), [3])), 6) == 2.302585


@pytest.mark.parametrize(("C", "floor"), [(10, 1.461150), (3, 0.551445)])
def test_softmax_applied_twice_has_a_floor(C, floor):
    scores = np.zeros((1, C))
    scores[0, 0] = 1000.0
    assert round(float(sn.cross_entropy(sn.softmax(scores), [0])), 6) == pytest.approx(floor, abs=1e-6)


def test_seventeen_ahead_is_not_certain():
    """Where the usual formulas return a loss and a gradient of exactly 0 (Prieto et al., ICLR 2025)."""
    loss, grad = sn.cross_entropy_and_grad(np.float32([[17, 0, 0]]), [0])
    rest = 2 * np.exp(-17.0)
    assert loss == pytest.approx(np.log1p(rest), rel=1e-7)
    assert grad[0, 0] == pytest.approx(-rest / (1 + rest), rel=1e-7)
    assert grad[0].sum() == pytest.approx(0, abs=1e-14)


def test_large_offset_costs_nothing():
    x = np.float32([[1e6 + 0.5, 1e6 + 0.25, 1e6]])
    exact = np.log(np.exp([0.5, 0.25, 0.0]).sum()) - 0.5
    assert sn.cross_entropy(x, [0]) == pytest.approx(exact, rel=1e-7)
