"""A printed loss is explained by its convention, or by the rows that make it NaN or infinite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import softnll as sn
from cases import SCORES, TRUE
from diagnose_cases import LABELS, LOGITS, C, N, P, calibrated, only


def _nan_at(row):
    """Return scores with NaN in one row."""
    scores = LOGITS.copy()
    scores[row, 3] = np.nan
    return scores


@pytest.mark.parametrize(
    ("loss", "code"),
    [
        (lambda: sn.cross_entropy(LOGITS, LABELS, reduction="sum"), "sum-nats"),
        (lambda: sn.cross_entropy(LOGITS, LABELS) / math.log(2), "mean-log2"),
        (lambda: sn.cross_entropy(LOGITS, LABELS) / math.log(10), "mean-log10"),
        (lambda: sn.cross_entropy(P, LABELS), "double-softmax"),
        (lambda: sn.cross_entropy(LOGITS, LABELS, label_smoothing=0.1), "label-smoothing-0.1"),
        (lambda: sn.cross_entropy(LOGITS, LABELS, ignore_index=0), "ignoring-class-0"),
        (lambda: sn.cross_entropy(LOGITS, LABELS, class_weight=1 / np.bincount(LABELS)), "class-mean"),
        (lambda: sn.cross_entropy(LOGITS, LABELS) / C, "mean-over-classes"),
        (lambda: math.exp(sn.cross_entropy(LOGITS, LABELS)), "perplexity"),
        (lambda: sn.cross_entropy(LOGITS, (LABELS + 1) % C), "labels-plus-1"),
        (lambda: -P[np.arange(N), LABELS].mean(), "minus-probability"),
        (lambda: -LOGITS[np.arange(N), LABELS].mean(), "minus-score"),
        (lambda: torch.nn.functional.binary_cross_entropy_with_logits(
            torch.tensor(LOGITS), torch.nn.functional.one_hot(torch.tensor(LABELS)).double()), "binary-mean"),
        (lambda: ((P - np.eye(C)[LABELS]) ** 2).sum(1).mean(), "brier"),
    ],
)  # fmt: skip
def test_conventions(loss, code):
    value = float(loss())
    found = only(sn.diagnose(LOGITS, LABELS, loss=f"{value:.6f}"), "loss-convention")
    assert found.evidence["conventions"][code] == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert found.evidence["mean_loss"] == pytest.approx(sn.cross_entropy(LOGITS, LABELS))
    assert found.evidence["by_accident"] < 0.05


def test_rounded_probabilities():
    scores, labels = calibrated(scale=0.5)
    p = np.round(sn.softmax(scores)[np.arange(N), labels], 2)
    found = only(sn.diagnose(scores, labels, loss=f"{-np.log(p).mean():.6f}"), "loss-convention")
    assert "rounded-2-mean" in found.evidence["conventions"]
    # A probability that rounds to 0 costs infinitely much, and raises no warning of NumPy's.
    rare = sn.diagnose([[9.0, 0.0]] * 3 + [[0.0, 1.0]] * 3, [1, 0, 0, 0, 1, 1], loss="4.0000")
    assert only(rare, "loss-unexplained")


def test_the_loss_that_is_widely_copied():
    scores, labels = SCORES, TRUE
    found = only(sn.diagnose(scores, labels, loss="1.07"), "loss-convention")
    assert "rounded-2-sum-of-rounded" in found.evidence["conventions"]
    assert "sum-nats" in only(sn.diagnose(scores, labels, loss="1.09"), "loss-convention").evidence["conventions"]
    assert only(sn.diagnose(scores, labels, loss=0.36), "loss-confirmed")


def test_the_loss_of_probabilities_taken_for_logits():
    found = only(sn.diagnose(P, LABELS, loss=f"{sn.cross_entropy(P, LABELS):.5f}"), "loss-convention")
    assert {"double-softmax", "scores-as-logits"} <= set(found.evidence["conventions"])
    assert found.title.endswith("with softmax applied once more")


def test_the_mean_of_the_means_of_unequal_batches():
    losses = sn.cross_entropy(LOGITS, LABELS, reduction="none")
    value = np.mean([losses[start : start + 64].mean() for start in range(0, N, 64)])
    found = only(sn.diagnose(LOGITS, LABELS, loss=f"{value:.7f}"), "loss-convention")
    assert list(found.evidence["conventions"]) == ["mean-of-batch-means-64"]


def test_the_digits_of_a_printed_loss_count():
    loss = float(sn.cross_entropy(LOGITS, LABELS))
    assert only(sn.diagnose(LOGITS, LABELS, loss=f"{loss:.2f}"), "loss-confirmed")
    assert only(sn.diagnose(LOGITS, LABELS, loss=f"{loss + 0.003:.2f}00"), "loss-unexplained")
    near = {each.code for each in sn.diagnose(LOGITS, LABELS, loss=f"{loss + 2e-4:.4f}")}
    assert "loss-confirmed" not in near


def _batch(size, rows=1990):
    """Return losses of batches of these rows, in order."""
    losses = sn.cross_entropy(LOGITS[:rows], LABELS[:rows], reduction="none")
    return [losses[start : start + size] for start in range(0, rows, size)]


_HOT = np.eye(C)[LABELS]


@pytest.mark.parametrize(
    ("loss", "code"),
    [
        (lambda: sum(b.mean() for b in _batch(64)) / 1990, "sum-over-rows-64"),
        (lambda: sum(b.mean() for b in _batch(24)) / 1990, "sum-over-rows-24"),
        (lambda: sum(b.mean() for b in _batch(77)) / 1990, "sum-over-rows-77"),  # no usual size
        (lambda: np.mean([b.sum() for b in _batch(48)]), "mean-of-batch-sums-48"),
        (lambda: np.mean([b.mean() for b in _batch(96)]), "mean-of-batch-means-96"),
        (lambda: np.concatenate(_batch(64)[:-1]).mean(), "drop-last-64"),
        (lambda: np.mean(_batch(128)[-1]), "last-batch-128"),
        (lambda: sum(b.mean() * 64 for b in _batch(64)) / 1990, "batch-means-times-size-64"),
        (lambda: sum(b.mean() for b in _batch(64)) / (1990 // 64), "sum-over-whole-batches-64"),
        (lambda: -np.concatenate(_batch(64)).mean(), "minus-mean"),
        (lambda: -np.log(np.clip(np.sum(LOGITS * _HOT, 1) / LOGITS.sum(1), 1e-7, 1 - 1e-7))[:1990].mean(),
         "keras-from-logits-false"),
        (lambda: sn.nll_loss(sn.log_softmax(np.log(np.clip(LOGITS, 1e-7, 1 - 1e-7)))[:1990], LABELS[:1990]),
         "keras-sparse-from-logits-false"),
        (lambda: -(_HOT * np.log(P) + (1 - _HOT) * np.log1p(-P))[:1990].mean(), "binary-softmax-mean"),
    ],
)  # fmt: skip
def test_losses_of_loops_and_frameworks(loss, code):
    value = float(loss())
    found = only(sn.diagnose(LOGITS[:1990], LABELS[:1990], loss=f"{value:.7f}"), "loss-convention")
    assert found.evidence["conventions"][code] == pytest.approx(value, abs=1e-6)
    assert found.evidence["by_accident"] < 0.05


def test_ignored_rows_that_are_counted():
    labels = LABELS.copy()
    labels[::7] = -100
    losses = np.asarray(sn.cross_entropy(LOGITS, labels, reduction="none"))
    found = only(sn.diagnose(LOGITS, labels, loss=f"{losses.sum() / N:.6f}"), "loss-convention")
    assert "ignored-rows-counted" in found.evidence["conventions"]
    assert only(sn.diagnose(LOGITS, labels, loss=f"{sn.cross_entropy(LOGITS, labels):.6f}"), "loss-confirmed")
    kept = losses[:1984][labels[:1984] != -100]
    found = only(sn.diagnose(LOGITS, labels, loss=f"{kept.mean():.7f}"), "loss-convention")
    assert "drop-last-64" in found.evidence["conventions"]


@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        (_nan_at(7), LABELS, "1 of 2000 rows have no softmax: NaN, +inf or nothing but -inf; the first is row 7"),
        (LOGITS, np.full(N, -100), "none of 2000 rows has a label that counts"),
        (LOGITS.astype(np.float16), LABELS, "every one of them finite"),
    ],
)
def test_where_a_printed_nan_comes_from(scores, labels, says):
    assert says in str(only(sn.diagnose(scores, labels, loss="nan"), "loss-not-finite").evidence)


@pytest.mark.parametrize("loss", ["", "abc", "1.07x", "nan()", "1e999", "1_0", "\x1b[31m", "1" * 60, None, [1, 2]])
def test_a_loss_that_is_no_number_is_refused(loss):
    if loss is None:
        assert "the convention of the printed loss (none given)" in sn.diagnose(LOGITS, LABELS).unchecked
        return
    with pytest.raises(ValueError, match="loss"):
        sn.diagnose(LOGITS, LABELS, loss=loss)
