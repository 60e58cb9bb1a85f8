"""Calibrated classifiers of every kind get neither an error nor a warning; no explanation wins without evidence."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import softnll as sn
from diagnose_cases import LABELS, C, N, calibrated, severe


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    n=st.integers(1, 3000),
    c=st.integers(2, 200),
    scale=st.floats(0.7, 6),
    spread=st.floats(0, 2),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_calibrated_classifiers_raise_no_alarm(n, c, scale, spread, seed, dtype):
    """At most 10 tests of 1e-4 each: 0.15 alarms are expected in these 150 by the bound, far fewer come."""
    bias = np.random.default_rng(seed).normal(size=c) * spread
    scores, labels = calibrated(n, c, scale, seed, dtype, bias)
    assert severe(sn.diagnose(scores, labels)) == set()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_types_raise_no_alarm(dtype):
    scores, labels = calibrated(3000, 20, 3.0, 4, dtype)
    assert severe(sn.diagnose(scores, labels)) == set()


def test_our_own_classifier_on_digits_raises_no_alarm():
    X, y = load_digits(return_X_y=True)
    model = sn.SoftmaxClassifier(C=10.0).fit(X[:898] / 16, y[:898])
    scores = model.decision_function(X[898:] / 16)
    assert sn.diagnose(scores, y[898:]) == []
    assert severe(sn.diagnose(model.predict_proba(X[898:] / 16), y[898:] + 1)) == {
        "probabilities-as-logits",
        "labels-off-by-one",
    }
    # Penalised a hundred times as much it is 67 % sure and 91 % right: that is no false alarm.
    timid = sn.SoftmaxClassifier(C=0.1).fit(X[:898] / 16, y[:898])
    assert severe(sn.diagnose(timid.decision_function(X[898:] / 16), y[898:])) == {"underconfident"}


def test_few_rows_that_show_nothing_of_the_frequencies_are_no_warning():
    """Nine in ten rows are of one class; 120 rows do not show whether the classifier knows more than that."""
    for seed in range(20):
        scores, labels = calibrated(n=120, c=3, scale=0.8, seed=seed, bias=[3.0, 0.0, 0.0])
        assert severe(sn.diagnose(scores, labels)) == set()


def test_no_reading_wins_because_the_present_one_is_at_chance():
    """Constant predictions agree with a shifted majority as often as it is frequent: that shows nothing."""
    rng = np.random.default_rng(0)
    labels = rng.choice(5, 2000, p=[0.1, 0.6, 0.1, 0.1, 0.1])
    for offset in ([3, 0, 0, 0, 0], [0, -3, 0, 0, 0]):
        scores = rng.normal(size=(2000, 5)) + np.array(offset)
        codes = {each.code for each in sn.diagnose(scores, labels)}
        assert not codes & {"labels-off-by-one", "classes-permuted", "labels-shifted-rows", "scores-negated"}, codes


@pytest.mark.parametrize("size", [0, 1, 5, 50])
def test_a_softmax_too_many_is_judged_by_the_labels_as_well(size):
    """Votes of an ensemble gather where a double softmax does; labels drawn from them show that they are calibrated."""
    rng = np.random.default_rng(size)
    votes = np.where(rng.random(1500) < 0.6, 1.0, rng.random(1500)) * rng.choice([-1, 1], 1500)
    scores = np.stack([-votes, votes], axis=1) / 2
    labels = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    assert severe(sn.diagnose(sn.softmax(scores), labels)) == {"probabilities-as-logits"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cells", [2, 30, 300, 3000])
def test_leaves_and_neighbours_repeat_without_a_reason(cells, seed):
    """Different inputs in one leaf have equal scores, whatever their order: sorted, alternating or like a series."""
    rng = np.random.default_rng(seed)
    leaves = rng.normal(size=(cells, 2)) * 2
    share = rng.gamma(0.5, size=cells) + 1e-3
    drawn = rng.choice(cells, 3000, p=share / share.sum())
    series = np.repeat(drawn, rng.integers(1, 3, 3000))[:3000]
    for rows in (drawn, np.sort(drawn), np.arange(3000) % 2, series):
        labels = (leaves[rows] + rng.gumbel(size=(3000, 2))).argmax(axis=1)
        assert "duplicate-rows" not in severe(sn.diagnose(leaves[rows], labels))


@functools.cache
def _split(name):
    """Return features and labels of one of scikit-learn's data sets, both halves after a shuffle."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(y))
    half = len(y) // 2
    return X[order[:half]], y[order[:half]], X[order[half:]]


CLASSIFIERS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
    "forest": lambda: RandomForestClassifier(20, min_samples_leaf=3, random_state=0),
    "boosted": lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0),
    "tree": lambda: DecisionTreeClassifier(min_samples_leaf=10, random_state=0),
    "stump": lambda: DecisionTreeClassifier(max_depth=1, random_state=0),
    "neighbours": lambda: KNeighborsClassifier(7),
    "isotonic": lambda: CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=3),
    "sigmoid": lambda: CalibratedClassifierCV(GaussianNB(), cv=3),
}


@pytest.mark.parametrize("data", ["iris", "wine", "breast_cancer", "digits"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_calibrated_classifiers_of_every_kind_raise_no_alarm(kind, data):
    """Labels drawn from the probabilities of a tree, neighbours and others: only the form of the scores is found."""
    X, y, test = _split(data)
    p = CLASSIFIERS[kind]().fit(X, y).predict_proba(test)
    rng = np.random.default_rng(0)
    with np.errstate(divide="ignore"):
        labels = (np.log(p) + rng.gumbel(size=p.shape)).argmax(axis=1)
    assert severe(sn.diagnose(p, labels)) == {"probabilities-as-logits"}
    assert severe(sn.diagnose(np.log(p + 1e-9), labels)) == set()
    assert severe(sn.diagnose(np.log(p + 1e-9).astype(np.float32), labels)) == set()


@pytest.mark.parametrize("C", [2, 20, 300, 1000])
@pytest.mark.parametrize("trees", [3, 25])
def test_votes_of_many_classes_raise_no_alarm(C, trees):
    """Shares of a few votes: most classes have none, some never have one, and rows repeat."""
    rng = np.random.default_rng(C + trees)
    logits = rng.normal(size=(2000, C)) * 3 + rng.normal(size=C)
    votes = (logits[:, None, :] + rng.gumbel(size=(2000, 1, C)) * 2 + rng.gumbel(size=(1, trees, C))).argmax(axis=2)
    p = np.stack([np.bincount(row, minlength=C) for row in votes]) / trees
    with np.errstate(divide="ignore"):
        labels = (np.log(p) + rng.gumbel(size=p.shape)).argmax(axis=1)
    allowed = {"probabilities-as-logits", "hard-predictions"}
    assert severe(sn.diagnose(p, labels)) <= allowed
    assert severe(sn.diagnose(np.log(p + 1e-9), labels)) <= {"saturation"}


def test_the_most_frequent_of_many_classes_explains_nothing():
    """In a balanced set of 1000 classes the most frequent has 0.2 %; three times as many right is no such answer."""
    scores, labels = calibrated(n=10_000, c=1000, scale=0.7)
    assert "imbalance-explains-accuracy" not in {each.code for each in sn.diagnose(scores, labels)}


def test_little_knowledge_is_no_scale():
    """Noise with a little signal is overconfident at any size; no factor makes its loss that of a classifier."""
    scores = np.random.default_rng(77).normal(size=(N, C)) * 50
    scores[np.arange(N), LABELS] += 15
    codes = severe(sn.diagnose(scores, LABELS))
    assert "overconfident" in codes
    assert "common-scale" not in codes
