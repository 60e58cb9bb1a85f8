"""Rows that take no part: checks do not look at them, through every function, and their results are 0."""

from __future__ import annotations

import numpy as np
import pytest

import softnll as sn

NAN, INF = np.nan, np.inf
X = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0], [2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
KEPT = [0, 2]
W = np.array([[1.0, 0.5], [0.0, 1.0], [-1.0, 2.0]])
FEATURES = np.array([[1.0, 2.0], [NAN, INF], [0.5, -1.0], [-INF, 0.0]])


def losses(targets, **options):
    """Return loss and gradient of all rows, and of those that take part alone."""
    rows = {name: np.asarray(value)[KEPT] for name, value in options.items() if np.ndim(value)}
    whole = sn.cross_entropy_and_grad(X, targets, **options)
    assert sn.cross_entropy(X, targets, **options) == pytest.approx(whole[0], rel=1e-15)
    return whole, sn.cross_entropy_and_grad(X[KEPT], np.asarray(targets)[KEPT], **options | rows)


def same(got, want):
    assert got[0] == pytest.approx(want[0], rel=1e-15)
    assert np.allclose(got[1][KEPT], want[1], rtol=1e-15, atol=0)
    assert (got[1][[1, 3]] == 0).all()


@pytest.mark.usefixtures("backend")
class TestLosses:
    @pytest.mark.parametrize("bad", [3, -1, 10**12, -(2**63)])
    @pytest.mark.parametrize("kind", [np.int64, np.float64])
    def test_targets_out_of_range(self, bad, kind):
        s = np.array([1, 0, 2, 0], kind)
        same(*losses([0, bad, 1, bad], sample_weight=s))
        with pytest.raises(ValueError, match=r"targets\[2\] is 5"):
            sn.cross_entropy(X, [0, bad, 5, 1], sample_weight=s)

    def test_narrow_and_unsigned_targets(self):
        for kind in (np.uint8, np.uint64, np.int8):
            same(*losses(np.array([0, 100, 1, 77], kind), sample_weight=[1.0, 0.0, 2.0, 0.0]))

    @pytest.mark.parametrize("bad", [NAN, -1.0, INF, -INF])
    def test_weights_of_ignored_rows(self, bad):
        same(*losses([0, -100, 1, -100], sample_weight=[1.0, bad, 2.0, bad]))
        with pytest.raises(ValueError, match=r"sample_weight\[2\]"):
            sn.cross_entropy(X, [0, -100, 1, -100], sample_weight=[1.0, bad, -2.0, bad])
        with pytest.raises(ValueError, match=r"sample_weight\[1\]"):
            sn.cross_entropy(X, [0, 1, 1, -100], sample_weight=[1.0, bad, 2.0, bad])

    @pytest.mark.parametrize("bad", [NAN, 0.0, -1.0, INF])
    def test_temperatures(self, bad):
        tau = [0.5, bad, 2.0, bad]
        same(*losses([0, -100, 1, -100], temperature=tau))
        same(*losses([0, 2, 1, 1], temperature=tau, sample_weight=[1.0, 0.0, 2.0, 0.0]))
        with pytest.raises(ValueError, match=r"temperature\[1\]"):
            sn.cross_entropy(X, [0, 1, 1, -100], temperature=tau)

    @pytest.mark.needs("masks")
    def test_masks(self):
        mask = np.array([[True, True, False], [False, False, False], [True, True, True], [True, False, True]])
        s = [1.0, 0.0, 2.0, 0.0]
        same(*losses([0, 1, 1, 1], where=mask, sample_weight=s))
        same(*losses([0, 7, 1, -9], where=mask, sample_weight=s))
        with pytest.raises(ValueError, match=r"targets\[3\].*where"):
            sn.cross_entropy(X, [0, 7, 1, 1], where=mask, sample_weight=[1.0, 0.0, 2.0, 1.0])

    @pytest.mark.parametrize("bad", [NAN, -3.0, INF])
    def test_soft_targets(self, bad):
        q = np.array([[0.5, 0.5, 0.0], [bad, 0.0, 2.0], [0.0, 1.0, 0.0], [bad, bad, bad]])
        same(*losses(q, sample_weight=[1.0, 0.0, 2.0, 0.0]))

    def test_linear(self):
        for options in ({}, {"max_bytes": 61_000}):
            for targets, s, tau in (
                ([0, 9, 1, -7], [1.0, 0.0, 2.0, 0.0], [0.5, NAN, 2.0, -1.0]),
                ([0, -100, 1, -100], [1.0, NAN, 2.0, -1.0], [0.5, 0.0, 2.0, NAN]),
            ):
                got = sn.linear_cross_entropy_and_grad(
                    FEATURES, W, targets, sample_weight=s, temperature=tau, **options
                )
                want = sn.linear_cross_entropy_and_grad(
                    FEATURES[KEPT], W, [0, 1], sample_weight=[1.0, 2.0], temperature=[0.5, 2.0], **options
                )
                assert got[0] == pytest.approx(want[0], rel=1e-15)
                assert np.allclose(got[1].weight, want[1].weight, rtol=1e-14, atol=0)
                assert (got[1].features[[1, 3]] == 0).all()

    def test_given_log_probabilities(self):
        log_p = sn.log_softmax(X)
        got = sn.nll_loss(log_p, [0, 9, 1, -7], sample_weight=[1.0, 0.0, 2.0, 0.0])
        assert got == pytest.approx(sn.nll_loss(log_p[KEPT], [0, 1], sample_weight=[1.0, 2.0]), rel=1e-15)
        got = sn.nll_loss(log_p, [0, -100, 1, -100], sample_weight=[1.0, NAN, 2.0, -1.0])
        assert got == pytest.approx(sn.nll_loss(log_p[KEPT], [0, 1], sample_weight=[1.0, 2.0]), rel=1e-15)


def test_hessian_products():
    v = np.ones_like(X)
    got = sn.cross_entropy_hvp(X, [0, 9, 1, -7], v, sample_weight=[1.0, 0.0, 2.0, 0.0], temperature=[1, NAN, 2, 0])
    want = sn.cross_entropy_hvp(X[KEPT], [0, 1], v[KEPT], sample_weight=[1.0, 2.0], temperature=[1, 2])
    assert np.allclose(got[KEPT], want, rtol=1e-14, atol=1e-17)
    assert (got[[1, 3]] == 0).all()


def test_the_inputs_are_not_written_to():
    tau, s = np.array([0.5, NAN, 2.0, -1.0]), np.array([1.0, NAN, 2.0, -1.0])
    sn.cross_entropy(X, [0, -100, 1, -100], temperature=tau, sample_weight=s)
    assert np.isnan(tau[1])
    assert np.isnan(s[1])
    assert s[3] == -1
