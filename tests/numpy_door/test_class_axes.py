"""Losses over several class axes, and scalars: the same numbers as those of one axis."""

from __future__ import annotations

import re

import numpy as np
import pytest

import softnll as sn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 5))
Y = RNG.integers(0, 12, size=(2, 5))
FLAT = X.reshape(2, 12, 5)
OPTIONS = {"label_smoothing": 0.1, "class_weight": np.linspace(0.5, 2, 12), "z_loss": 0.01, "temperature": 1.5}


@pytest.mark.parametrize("axes", [(1, 2), (2, 1), (-3, -2)])
@pytest.mark.parametrize("soft", [False, True])
def test_several_axes_are_one_of_all_their_entries(axes, soft):
    targets = sn.softmax(RNG.normal(size=X.shape), axis=axes) if soft else Y
    flat = targets.reshape(FLAT.shape) if soft else Y
    for options in ({}, OPTIONS):
        for reduction in ("none", "sum", "mean"):
            given = {**options, "reduction": reduction}
            want, d_want = sn.cross_entropy_and_grad(FLAT, flat, axis=1, **given)
            got, d_got = sn.cross_entropy_and_grad(X, targets, axis=axes, **given)
            np.testing.assert_array_equal(got, want)
            np.testing.assert_array_equal(d_got, d_want.reshape(X.shape))
            np.testing.assert_array_equal(sn.cross_entropy(X, targets, axis=axes, **given), want)
    v = RNG.normal(size=X.shape)
    product = sn.cross_entropy_hvp(FLAT, flat, v.reshape(FLAT.shape), axis=1)
    np.testing.assert_array_equal(sn.cross_entropy_hvp(X, targets, v, axis=axes), product.reshape(X.shape))
    log_p = sn.log_softmax(X, axis=axes)
    np.testing.assert_array_equal(
        sn.nll_loss(log_p, targets, axis=axes), sn.nll_loss(log_p.reshape(FLAT.shape), flat, axis=1)
    )


def test_a_hard_target_is_a_place_among_the_entries():
    x, place = X[0, :, :, 0], (2, 1)
    target = int(np.ravel_multi_index(place, x.shape))
    assert sn.cross_entropy(x, target, axis=None) == pytest.approx(-sn.log_softmax(x, axis=None)[place], rel=1e-15)
    with pytest.raises(ValueError, match=r"classes on axes \(1, 2\); allowed: integers of shape \(2, 5\)"):
        sn.cross_entropy(X, Y.T, axis=(1, 2))
    with pytest.raises(ValueError, match=r"targets\[1, 0\] is 12; allowed: 0 <= target < 12"):
        sn.cross_entropy(X, np.where(np.arange(10).reshape(2, 5) == 5, 12, Y), axis=(1, 2))


@pytest.mark.parametrize("x", [3.0, np.float32(3), np.float64(3), 3, np.array(3.0), np.float16(3)])
def test_a_scalar_in_is_a_scalar_out(x):
    wide = np.dtype(np.float64) if isinstance(x, int | float) else np.asarray(x).dtype
    for value in (sn.softmax(x), sn.log_softmax(x), sn.logsumexp(x), sn.softmax_vjp(x, 1.0), sn.softmax_jvp(x, 1.0)):
        assert isinstance(value, np.generic)
        assert value.dtype == wide
    loss, gradient = sn.cross_entropy_and_grad(x, 0)
    assert isinstance(loss, np.generic)
    assert isinstance(gradient, np.generic)
    assert (sn.softmax(x), sn.log_softmax(x), loss, gradient) == (1, 0, 0, 0)
    out = np.empty((), wide)
    assert sn.softmax(x, out=out) is out


def test_no_rows_and_no_classes():
    assert sn.softmax(np.zeros((0, 3))).shape == sn.log_softmax(np.zeros((0, 3))).shape == (0, 3)
    assert sn.cross_entropy(np.zeros((0, 2, 3)), np.zeros((0, 3), int), axis=1, reduction="none").shape == (0, 3)
    assert sn.softmax(np.zeros((0, 2, 3)), axis=(1, 2)).shape == (0, 2, 3)
    for axis in (1, (1, 2)):
        with pytest.raises(ValueError, match="no classes"):
            sn.softmax(np.zeros((2, 0, 3)), axis=axis)


def test_a_row_of_an_image_that_is_no_distribution_is_named():
    x = np.zeros((3, 5, 4, 4), np.float32)
    q = np.full_like(x, 0.2)
    assert np.isclose(sn.cross_entropy(x, q, axis=1), np.log(5))
    for wrong, told in ((0.3, "sums to"), (-0.2, "holds -0.2"), (np.nan, "holds nan")):
        bad = q.copy()
        bad[1, 2, 3, 1] = wrong
        with pytest.raises(ValueError, match=re.escape("targets[1, 3, 1] ") + told):
            sn.cross_entropy(x, bad, axis=1)
