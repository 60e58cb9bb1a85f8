"""The displays: their values are the core's, and they draw on the axes that they are given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import softnll as sn

SCORES = np.random.default_rng(0).normal(0, 2, (500, 4))
LABELS = np.random.default_rng(1).integers(0, 4, 500)


@pytest.mark.parametrize("kind", [sn.LossDisplay, sn.ReliabilityDisplay, sn.ConfusionDisplay])
def test_they_draw(kind):
    display = kind.from_scores(SCORES, LABELS)
    assert display.plot() is display
    assert display.ax_ in display.figure_.axes
    axes = Figure().subplots()
    assert kind.from_scores(SCORES, LABELS).plot(ax=axes).ax_ is axes
    assert axes.has_data()


def test_their_values_are_the_cores():
    np.testing.assert_array_equal(
        sn.LossDisplay.from_scores(SCORES, LABELS).nll, sn.cross_entropy(SCORES, LABELS, reduction="none")
    )
    counts = sn.ConfusionDisplay.from_scores(SCORES, LABELS).counts
    assert counts.sum() == 500
    assert np.trace(counts) == (SCORES.argmax(1) == LABELS).sum()
    found = sn.ReliabilityDisplay.from_scores(SCORES, LABELS, bins=5).reliability
    assert found.counts.sum() == 500
    assert len(found.counts) == 5
    nll = np.ones(1000)
    nll[0] = 999
    assert sn.LossDisplay(nll).worst_share == pytest.approx((999 + 9) / (999 + 999))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sn.ConfusionDisplay(np.zeros((2, 3))), r"counts has shape \(2, 3\)"),
        (lambda: sn.ConfusionDisplay(np.zeros((2, 2)), ["a"]), "1 name; allowed: 2, one for each class"),
        (lambda: sn.ConfusionDisplay.from_scores(SCORES, LABELS + 1), "target"),
        (lambda: sn.ConfusionDisplay.from_scores(SCORES, LABELS[1:]), "target"),
        (lambda: sn.ReliabilityDisplay.from_scores(SCORES, LABELS + 1), "target"),
        (lambda: sn.ReliabilityDisplay.from_scores(SCORES, np.full(500, -100)), "all 500 labels are -100"),
        (lambda: sn.LossDisplay.from_scores(SCORES, LABELS + 1), "target"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_infinite_losses_are_drawn():
    display = sn.LossDisplay([0.1, np.inf, 0.3]).plot()
    assert np.isnan(display.worst_share)


@pytest.mark.parametrize("kind", [sn.LossDisplay, sn.ReliabilityDisplay, sn.ConfusionDisplay])
def test_ignored_rows_are_left_out_and_words_are_refused(kind):
    labels = LABELS.copy()
    labels[:100] = -100

    def values(display):
        (value,) = [v for k, v in vars(display).items() if k in ("nll", "reliability", "counts")]
        return value if isinstance(value, np.ndarray) else value.counts

    expected = kind.from_scores(SCORES[100:], LABELS[100:])
    np.testing.assert_array_equal(values(kind.from_scores(SCORES, labels)), values(expected))
    with pytest.raises((TypeError, ValueError)):
        kind.from_scores(SCORES, ["cat"] * 500)


def test_the_mean_of_the_display_is_the_loss():
    labels = LABELS.copy()
    labels[:100] = -100
    display = sn.LossDisplay.from_scores(SCORES, labels)
    assert display.nll.mean() == pytest.approx(float(sn.cross_entropy(SCORES, labels)))
    soft = np.eye(4)[LABELS]
    assert sn.LossDisplay.from_scores(SCORES, soft).nll.mean() == pytest.approx(float(sn.cross_entropy(SCORES, soft)))
