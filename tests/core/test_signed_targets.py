"""Soft targets of both signs, as of advantages or a difference of two distributions: a mass of 0 is not "nothing"."""

from __future__ import annotations

import numpy as np
import pytest

import oracle
import softnll as sn

SIGNED = np.array(
    [
        [0.5, -0.5, 0.25, -0.25],  # of mass exactly 0
        [1.0, 0.0, 0.0, -1.0],
        [0.0, 0.0, 0.0, 0.0],  # nothing
        [-0.5, -0.5, 0.0, 0.0],
        [0.75, 0.5, 0.0, -0.25],
    ]
)
LOGITS = np.array(
    [[1.0, 2.0, 0.5, -1.0], [17.0, 0.0, 0.0, 0.0], [np.nan, 1.0, 2.0, 3.0], [3.0, 1.0, 4.0, 1.0], [0.0] * 4]
)
OPTIONS = {
    "plain": {},
    "weights": {"class_weight": [1.0, 0.5, 2.0, 0.25]},
    "z-loss": {"z_loss": 0.02},
    "temperature": {"temperature": 2.0},
    "softcap": {"softcap": 5.0},
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_loss_and_gradient(real, options):
    x, t = LOGITS.astype(real), SIGNED.astype(real)
    loss = sn.cross_entropy(x, t, reduction="none", check=False, **options)
    _, grad = sn.cross_entropy_and_grad(x, t, reduction="sum", check=False, **options)
    assert loss[2] == 0
    assert (grad[2] == 0).all()
    eps = float(np.finfo(real).eps)
    for i in (0, 1, 3, 4):
        exact = oracle.row(x[i], t[i], **options)
        assert float(loss[i]) == pytest.approx(float(exact.loss), abs=20 * eps, rel=8 * eps)
        assert np.allclose(grad[i], [float(each) for each in exact.grad], rtol=0, atol=8 * eps)


@pytest.mark.usefixtures("backend")
def test_class_weights_that_cancel():
    x, t = LOGITS[:1], np.array([[0.5, 0.25, -0.25, -0.25]])
    w = np.array([1.0, 2.0, 2.0, 2.0])  # Σ w·t = 0
    exact = oracle.row(x[0], t[0], class_weight=w)
    loss, grad = sn.cross_entropy_and_grad(x, t, class_weight=w, reduction="sum", check=False)
    assert loss == pytest.approx(float(exact.loss), rel=1e-14)
    assert np.allclose(grad[0], [float(each) for each in exact.grad], rtol=1e-14)


def test_the_linear_loss():
    rng = np.random.default_rng(0)
    features, weight = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    want, grad = sn.cross_entropy_and_grad(features @ weight.T, SIGNED, reduction="sum", check=False)
    got, grads = sn.linear_cross_entropy_and_grad(features, weight, SIGNED, reduction="sum", check=False)
    assert got == pytest.approx(want, rel=1e-13)
    assert np.allclose(grads.weight, grad.T @ features, rtol=1e-12)
