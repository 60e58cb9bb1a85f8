"""The displays: their values are the core's, and they draw on the axes that they are given."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import cases
import softnll as sn
from softnll._inspection.figure_style import GRID, INK, MUTED, SERIES, figure_style

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


def drawn_texts(figure):
    """Return the rectangles of all texts that a figure shows, by their words."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    texts = [text for text in texts if text.get_rotation() % 90 == 0]  # a turned text is not its rectangle
    return [(text.get_text(), text.get_window_extent()) for text in texts]


def overlapping(figure):
    """Return the pairs of texts of which one covers a part of the other."""
    return [
        (one, other)
        for (one, a), (other, b) in combinations(drawn_texts(figure), 2)
        if a.width and b.width and a.shrunk(0.98, 0.9).overlaps(b.shrunk(0.98, 0.9))
    ]


@pytest.mark.parametrize("times", [1, 7, 160, 40_000])
@pytest.mark.parametrize("bins", [5, 15])
def test_counts_of_bins_overlap_nothing(times, bins):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 2, (800, 10)), rng.integers(0, 10, 800)
    scores[np.arange(800), labels] += 4
    display = sn.ReliabilityDisplay.from_scores(scores, labels, bins=bins)
    more = dataclasses.replace(display.reliability, counts=display.reliability.counts * times)
    display = sn.ReliabilityDisplay(more).plot()
    assert overlapping(display.figure_) == []
    axes = display.ax_
    marks = [axes.transData.transform(each.get_paths()[0].vertices) for each in axes.collections]
    counts = [box for words, box in drawn_texts(display.figure_) if words in {text.get_text() for text in axes.texts}]
    assert counts
    for box in counts:
        assert not any(box.contains(x, y) for mark in marks for x, y in mark)
        assert box.y0 > axes.transData.transform((0, 1))[1]  # above bars, marks and the diagonal


def test_class_names_of_a_confusion_overlap_nothing():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    counts = np.full((10, 10), 888)
    assert overlapping(sn.ConfusionDisplay(counts, names).plot().figure_) == []


def test_one_style_sheet_has_the_colours_of_all_figures():
    with figure_style():
        assert [each["color"] for each in mpl.rcParams["axes.prop_cycle"]] == list(SERIES)
        assert mpl.rcParams["text.color"] == INK
        assert mpl.rcParams["axes.labelcolor"] == MUTED
        assert mpl.rcParams["grid.color"] == GRID
    figure = sn.LossDisplay([0.1, 0.2]).plot().figure_
    assert not figure.axes[0].spines["top"].get_visible()
    ours = Figure().subplots()  # the reader's own axes keep their own style
    sn.LossDisplay([0.1, 0.2]).plot(ours)
    assert ours.spines["top"].get_visible()


def test_the_figure_of_an_explanation_overlaps_nothing():
    figure = sn.explain(cases.SCORES, cases.TRUE, class_names=["cat", "dog", "horse"]).plot()
    assert overlapping(figure) == []
    curve = figure.axes[1]
    ticks = [text.get_text() for text in (*curve.get_xticklabels(), *curve.get_yticklabels())]
    assert ticks.count("0") == 1  # both axes begin in the same corner
    assert len(set(ticks) & {"0.0", "1.0"}) == 0
