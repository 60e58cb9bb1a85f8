"""fit_temperature finds the minimum; reliability counts what it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import softnll as sn
from softnll.calibration import reliability


def scored(N=2000, C=7, scale=3.0, dtype=np.float64):
    """Return logits that are `scale` times too confident, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(N, C)) * 2
    labels = (sn.softmax(true).cumsum(axis=1) > rng.random((N, 1))).argmax(axis=1)
    return (true * scale).astype(dtype), labels


@pytest.mark.usefixtures("backend")
def test_finds_the_minimum(real):
    logits, labels = scored(dtype=real)
    got = sn.fit_temperature(logits, labels)
    assert got == pytest.approx(3.0, rel=0.05)
    best = minimize_scalar(lambda t: sn.cross_entropy(logits.astype(float), labels, temperature=t), bounds=(1, 9))
    assert got == pytest.approx(best.x, rel=1e-4)
    hot = np.eye(7)[labels]
    assert sn.fit_temperature(logits, hot) == pytest.approx(got, rel=1e-9)


@pytest.mark.parametrize("filler", [-1e9, -1e10, -1e30, -3.4e38])
def test_a_filler_for_masked_classes_changes_nothing(filler):
    logits, labels = scored(500)
    filled = np.concatenate([logits, np.full((500, 1), filler)], axis=1)
    assert sn.fit_temperature(filled, labels) == pytest.approx(sn.fit_temperature(logits, labels), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e3, 1e6])
def test_scales_with_the_logits(scale):
    logits, labels = scored(300)
    assert sn.fit_temperature(logits * scale, labels) == pytest.approx(
        sn.fit_temperature(logits, labels) * scale, rel=1e-9
    )
    offset = logits + np.arange(300)[:, None] * 2.0**10
    assert sn.fit_temperature(offset, labels) == pytest.approx(sn.fit_temperature(logits, labels), rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.eye(3), [0, 1, 2], "falling towards 0"),
        (np.eye(3), [-100, -100, -100], "all of them ignored"),
        ([[1.7e308, -1.7e308]] * 3, [0, 0, 1], "apart"),
        (np.eye(3), [1, 2, 0], "scores do not fit"),
        (np.zeros((3, 3)), [0, 1, 2], "all equal"),
        (np.zeros((0, 3)), [], "at least one row"),
        ([[0.0, np.nan]], [0], r"logits\[0\]"),
        ([[0.0, 1.0], [0.0, -np.inf]], [0, 0], r"logits\[1\]"),
        ([[0.0, 1.0]], [2], r"targets\[0\] is 2"),
    ],
)
def test_no_best_temperature(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        sn.fit_temperature(logits, labels)


def test_reliability():
    got = reliability([0.05, 0.15, 0.15, 1.0, 0.0], [False, True, False, True, False], bins=10)
    assert got.counts.tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert got.accuracy[[0, 1, 9]].tolist() == [0, 0.5, 1]
    assert got.confidence[1] == pytest.approx(0.15)
    assert np.isnan(got.confidence[5])
    assert got.ece == pytest.approx((2 * 0.025 + 2 * 0.35 + 0) / 5)
    for bad in (([0.5], [True, False]), ([], []), ([1.5], [True]), ([np.nan], [True])):
        with pytest.raises(ValueError, match="confidence"):
            reliability(*bad)
    with pytest.raises(ValueError, match="bins"):
        reliability([0.5], [True], bins=0)
