"""One pass over scores: the same figures as from arrays in memory, however the rows are cut into blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softnll as sn
from softnll._inspection.calibration import fit_temperature, reliability
from softnll._inspection.report import summary as module
from softnll._inspection.report.summary import examine, summary, suspicious
from softnll._inspection.survey import NONE, Block, LargestRows, confusion_counts, survey, worst_share
from softnll.data.rows import ArrayRows, as_rows


class Blocks(ArrayRows):
    """Rows cut where the test wants it."""

    def __init__(self, array, cuts):
        super().__init__(array)
        self.cuts = cuts
        self.passes = 0

    def blocks(self):
        self.passes += 1
        edges = [0, *self.cuts, self.shape[0]]
        for start, stop in itertools.pairwise(edges):
            if stop > start:
                yield slice(start, stop), self._array[start:stop]


def data(N=300, C=7, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, scale, (N, C)).astype(np.float32)
    p = sn.softmax(x.astype(np.float64))
    return x, np.array([rng.choice(C, p=row / row.sum()) for row in p])


def test_figures_are_those_of_the_whole_arrays():
    x, y = data()
    rows = Blocks(x, [100, 101, 250])
    seen = examine(rows, y)
    found = seen.found
    assert rows.passes == 1
    p = sn.softmax(x)
    np.testing.assert_allclose(found["nll"], sn.cross_entropy(x, y, reduction="none"))
    assert found.mean == pytest.approx(float(sn.cross_entropy(x.astype(np.float64), y)), rel=1e-6)
    onehot = np.eye(7)[y]
    assert found.brier == pytest.approx(float(((p - onehot) ** 2).sum(1).mean()), rel=1e-6)
    assert found.reliability.ece == pytest.approx(reliability(p.max(1), p.argmax(1) == y).ece, rel=1e-5)
    assert seen.temperature[0] == pytest.approx(fit_temperature(x, y), rel=1e-9)
    share = np.bincount(y, minlength=7) / len(y)
    assert found.prior_nll == pytest.approx(float(sn.cross_entropy(np.log(share)[None].repeat(len(y), 0), y)))
    others = np.where(onehot == 1, -1, p)
    np.testing.assert_allclose(found["margin"], p[np.arange(300), y] - others.max(1), atol=1e-7)
    assert seen.worst.rows.tolist() == np.argsort(-found["nll"], kind="stable")[:24].tolist()
    assert seen.best.rows.tolist() == np.argsort(found["nll"], kind="stable")[:72].tolist()
    np.testing.assert_array_equal(seen.worst.logits, x[seen.worst.rows])
    assert worst_share(found["nll"]) == pytest.approx(np.sort(found["nll"])[-3:].sum() / found["nll"].sum())
    true, taken, times = found.confusions()
    assert times.sum() == (p.argmax(1) != y).sum()
    assert (times[:-1] >= times[1:]).all()
    assert times[0] == ((y == true[0]) & (p.argmax(1) == taken[0])).sum()


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 119), max_size=12).map(sorted))
def test_blocks_do_not_matter(cuts):
    x, y = data(120, 5)
    x[::7] = x[0]  # ties
    y[::7] = y[0]
    whole, cut = examine(as_rows(x), y), examine(Blocks(x, cuts), y)
    for name in ("nll", "prediction", "confidence", "p_true", "margin", "square"):
        np.testing.assert_array_equal(whole.found[name], cut.found[name])
    for name in ("worst", "best", "doubtful"):
        np.testing.assert_array_equal(getattr(whole, name).rows, getattr(cut, name).rows)
        np.testing.assert_array_equal(getattr(whole, name).logits, getattr(cut, name).logits)
    assert summary(whole) == summary(cut)


def test_kept_are_the_largest():
    rng = np.random.default_rng(0)
    kept = LargestRows(10, lambda block: block.logits[:, 0])
    values = rng.integers(0, 20, 200).astype(float)
    for start in range(0, 200, 30):
        part = values[start : start + 30]
        kept.add(start, Block(np.stack([part, part * 2], axis=1)))
    order = np.argsort(-values, kind="stable")[:10]
    assert kept.rows.tolist() == order.tolist()
    np.testing.assert_array_equal(kept.logits[:, 1], 2 * values[order])


def test_the_temperature_is_fitted_on_a_seeded_sample(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 100)
    x, y = data(1000, 4)
    first, again, other = (examine(Blocks(x, [3, 700]), y, seed=seed) for seed in (1, 1, 2))
    assert len(first.sample.rows) == 100
    assert first.temperature == again.temperature != other.temperature
    chosen = np.sort(np.random.default_rng(1).choice(1000, 100, replace=False))
    assert first.temperature[0] == pytest.approx(fit_temperature(x[chosen], y[chosen]))
    assert first.temperature[1] >= 0


def test_suspicious_labels_are_those_that_were_swapped():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 2000)
    x = rng.normal(0, 0.6, (2000, 5)) + 5 * np.eye(5)[true]
    y = true.copy()
    swapped = rng.choice(2000, 40, replace=False)
    y[swapped] = (y[swapped] + 1 + rng.integers(0, 4, 40)) % 5
    rows, count = suspicious(examine(as_rows(x), y).found, 100)
    assert len(set(rows) & set(swapped)) >= 28  # of 40: a quarter is predicted less surely than usual
    assert count <= 36
    clean, none = suspicious(examine(as_rows(x), true).found, 100)
    assert none == len(clean) <= 5


@pytest.mark.parametrize("bad", [[np.nan, 0, 0], [-np.inf] * 3, [np.inf, np.inf, 0]])
def test_rows_without_a_softmax_are_named(bad):
    x = np.zeros((10, 3))
    x[7] = bad
    with pytest.raises(ValueError, match="row 7 of the scores has no softmax"):
        examine(Blocks(x, [4]), np.zeros(10, np.int64))


def test_infinite_losses_and_single_classes():
    x = np.array([[0.0, -np.inf], [1.0, 0.0], [0.0, 1.0]])
    figures = summary(examine(as_rows(x), np.array([1, 0, 1])))
    assert figures["nll"] is None
    assert figures["worst_hundredth_of_loss"] is None
    one = summary(examine(as_rows(np.zeros((3, 1))), np.zeros(3, np.int64)))
    assert (one["nll"], one["accuracy"], one["brier"], one["temperature"]) == (0, 1, 0, None)
    assert one["perplexity"] == 1
    assert not math.isnan(one["ece"])


@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 8]])
def test_rows_without_a_softmax_or_a_label_do_not_change_the_others(cuts):
    x, y = data(10, 4)
    y = y.copy()
    x[3], x[5, 2], y[7] = -np.inf, np.nan, NONE
    good = np.delete(np.arange(10), [3, 5, 7])

    def finite(logits):
        return np.isfinite(logits.max(axis=1))

    def twice(block):
        return block.loss(block.probabilities)

    found = survey(
        Blocks(x, cuts), y, ("usable", "prediction", "nll", "p_true", "square", ("twice", twice)), usable=finite
    )
    np.testing.assert_array_equal(np.flatnonzero(found["usable"]), np.delete(np.arange(10), [3, 5]))
    assert np.isnan(found["nll"][[3, 5, 7]]).all()
    assert np.isnan(found["p_true"][[3, 5, 7]]).all()
    part = found.only(found["usable"] & (y != NONE))
    np.testing.assert_array_equal(part["nll"], sn.cross_entropy(x[good], y[good], reduction="none"))
    p = sn.softmax(x[good])
    np.testing.assert_array_equal(part["twice"], sn.cross_entropy(p, y[good], reduction="none"))
    assert part.accuracy == (x[good].argmax(1) == y[good]).mean()
    assert part.support.tolist() == np.bincount(y[good], minlength=4).tolist()
    assert part.brier == pytest.approx(float(((p - np.eye(4)[y[good]]) ** 2).sum(1).mean()), rel=1e-6)


def test_narrow_label_types_count_every_confusion():
    y = np.arange(200, dtype=np.uint8)
    counts = confusion_counts(y, y.astype(np.int64), 200)
    np.testing.assert_array_equal(counts, np.eye(200))
