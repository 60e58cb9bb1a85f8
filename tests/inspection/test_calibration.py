"""fit_temperature finds the minimum; reliability counts what it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import softnll as sn
from softnll._inspection.calibration import reliability


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


def test_a_class_at_minus_infinity_has_no_probability_at_any_temperature():
    logits, labels = scored(500)
    ruled_out = np.random.default_rng(1).random(logits.shape) < 0.3
    ruled_out[np.arange(500), labels] = False
    for targets in (labels, np.eye(7)[labels]):
        got = sn.fit_temperature(np.where(ruled_out, -np.inf, logits), targets)
        assert got == pytest.approx(sn.fit_temperature(np.where(ruled_out, -1e6, logits), targets), rel=1e-9)
    best = minimize_scalar(
        lambda t: sn.cross_entropy(np.where(ruled_out, -np.inf, logits), labels, temperature=t), bounds=(1, 9)
    )
    assert got == pytest.approx(best.x, rel=1e-4)


def test_rows_without_a_part_change_nothing_whatever_they_hold():
    logits, labels = scored(300)
    weight = np.random.default_rng(1).integers(0, 3, 300)
    kept = np.repeat(np.arange(300), weight)
    want = sn.fit_temperature(logits[kept], labels[kept])
    hostile, marked = logits.copy(), labels.copy()
    hostile[weight == 0] = np.resize([np.nan, np.inf, -np.inf, 1e308, -1e308], 7)
    assert sn.fit_temperature(hostile, labels, sample_weight=weight) == pytest.approx(want, rel=1e-9)
    hot = np.where((weight == 0)[:, None], 7.0, np.eye(7)[labels])
    assert sn.fit_temperature(hostile, hot, sample_weight=weight) == pytest.approx(want, rel=1e-9)
    marked[weight == 0] = 5
    marked[labels == 5] = 6
    want = sn.fit_temperature(logits[kept][labels[kept] != 5], labels[kept][labels[kept] != 5])
    marked[labels == 5] = 5
    assert sn.fit_temperature(hostile, marked, sample_weight=weight, ignore_index=5) == pytest.approx(want, rel=1e-9)


def test_axis_mask_and_class_weights_mean_what_they_do_in_the_loss():
    logits, labels = scored(300)
    moved, shaped = logits.reshape(10, 30, 7).transpose(2, 0, 1), labels.reshape(10, 30)
    assert sn.fit_temperature(moved, shaped, axis=0) == sn.fit_temperature(logits, labels)
    masked = np.random.default_rng(1).random(logits.shape) < 0.3
    masked[np.arange(300), labels] = False
    got = sn.fit_temperature(np.where(masked, np.nan, logits), labels, where=~masked)
    assert got == sn.fit_temperature(np.where(masked, -np.inf, logits), labels)
    w = np.array([1, 2, 0, 0.5, 3, 1, 1])
    for targets in (labels, np.eye(7)[labels] * 0.9 + 0.1 / 7):
        got = sn.fit_temperature(logits, targets, class_weight=w)
        best = minimize_scalar(
            lambda t, targets=targets: sn.cross_entropy(logits, targets, temperature=t, class_weight=w), bounds=(1, 19)
        )
        assert got == pytest.approx(best.x, rel=1e-4)
    with pytest.raises(ValueError, match=r"logits\[3, 1\] holds NaN"):
        sn.fit_temperature(np.where(np.arange(300)[:, None] == 91, np.nan, logits).reshape(10, 30, 7), shaped)


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
        ([[0.0, 1.0], [0.0, np.inf]], [0, 0], r"logits\[1\]"),
        ([[0.0, 1.0], [-np.inf, -np.inf]], [0, 0], r"logits\[1\]"),
        ([[0.0, 1.0], [0.0, -np.inf]], [0, 1], r"logits\[1\] has -inf at its target"),
        ([[0.0, 1.0], [0.0, -np.inf]], [0, 0], "scores do not fit"),
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
