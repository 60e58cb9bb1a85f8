"""A fit that is watched, ended or interrupted, and one that goes over the data in parts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

import softnll as sn
from softnll._classifier.penalised_loss import Penalised


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:898] / 16, y[:898], X[898:] / 16, y[898:]


def test_the_callback_sees_each_iteration(digits):
    X, y, _, _ = digits
    seen = []
    model = sn.SoftmaxClassifier(C=10).fit(X, y, callback=lambda *each: seen.append(each))
    assert [each[0] for each in seen] == list(range(1, model.n_iter_ + 1))
    for _, loss, coef, intercept in seen[:: len(seen) // 5]:
        assert loss == pytest.approx(sn.linear_cross_entropy(X, coef, y, bias=intercept), rel=1e-9)
    np.testing.assert_array_equal(seen[-1][2], model.coef_)
    np.testing.assert_array_equal(seen[-1][3], model.intercept_)
    assert len({id(each[2]) for each in seen}) == len(seen)


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt])
def test_an_ended_fit_keeps_what_was_reached(digits, error):
    X, y, T, t = digits
    seen = []

    def callback(iteration, _loss, coef, intercept):
        seen.append((coef, intercept))
        if iteration == 5:
            raise error

    model = sn.SoftmaxClassifier(C=10)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y, callback=callback)
    else:
        assert model.fit(X, y, callback=callback) is model
    assert model.n_iter_ == len(seen) == 5
    np.testing.assert_array_equal(model.coef_, seen[-1][0])
    assert model.score(T, t) > 0.7


def test_ctrl_c_between_callbacks_keeps_the_last_iterate(digits, monkeypatch):
    X, y, _, _ = digits
    calls = 0
    evaluate = Penalised.__call__

    def interrupted(self, vector):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return evaluate(self, vector)

    monkeypatch.setattr(Penalised, "__call__", interrupted)
    seen = []
    model = sn.SoftmaxClassifier(C=10)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y, callback=lambda *each: seen.append(each))
    np.testing.assert_array_equal(model.coef_, seen[-1][2])
    assert model.n_iter_ == len(seen) > 0


def test_other_errors_of_the_callback_reach_the_caller(digits):
    def callback(*_):
        raise ZeroDivisionError

    model = sn.SoftmaxClassifier()
    with pytest.raises(ZeroDivisionError):
        model.fit(digits[0], digits[1], callback=callback)
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("soft", [False, True])
def test_parts_reach_what_the_whole_reaches(digits, soft):
    X, y, T, t = digits
    whole = sn.SoftmaxClassifier().fit(X, y)
    parts = sn.SoftmaxClassifier(random_state=0, batch_size=32)
    for _ in range(10):
        for start in range(0, len(X), 300):
            rows = slice(start, start + 300)
            parts.partial_fit(X[rows], np.eye(10)[y[rows]] if soft else y[rows], classes=range(10))
    assert parts.score(T, t) > whole.score(T, t) - 0.02
    assert parts.n_iter_ == 10 * 30


def test_parts_repeat_with_the_same_random_state_and_survive_a_pickle(digits):
    X, y, _, _ = digits
    first = sn.SoftmaxClassifier(random_state=3).partial_fit(X, y, classes=range(10))
    copy = pickle.loads(pickle.dumps(first))  # noqa: S301 - our own bytes
    second = sn.SoftmaxClassifier(random_state=3).partial_fit(X, y, classes=range(10))
    for model in (first, copy, second):
        model.partial_fit(X, y)
    np.testing.assert_array_equal(first.coef_, second.coef_)
    np.testing.assert_array_equal(first.coef_, copy.coef_)
    other = sn.SoftmaxClassifier(random_state=4).partial_fit(X, y, classes=range(10))
    assert not np.array_equal(first.coef_, other.coef_)


def test_rows_of_weight_zero_take_no_part(digits):
    X, y, _, _ = digits
    weight = (np.arange(len(X)) < 200).astype(float)
    spoiled = np.where(weight[:, None] > 0, X, 1e6)
    fits = [
        sn.SoftmaxClassifier(random_state=0).partial_fit(each, y, classes=range(10), sample_weight=weight)
        for each in (X, spoiled)
    ]
    np.testing.assert_array_equal(fits[0].coef_, fits[1].coef_)
    assert fits[0].n_iter_ == 1


def test_weights_of_parts_are_repeated_rows(digits):
    X, y, _, _ = digits
    s = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = sn.SoftmaxClassifier(batch_size=5000).partial_fit(X, y, range(10), sample_weight=s)
    repeated = sn.SoftmaxClassifier(batch_size=5000).partial_fit(np.repeat(X, s, axis=0), np.repeat(y, s), range(10))
    np.testing.assert_allclose(weighted._adam.mean, repeated._adam.mean, rtol=0, atol=1e-15)
    assert weighted._weight_seen == repeated._weight_seen == s.sum()


def test_float32_parts_stay_float32_and_follow_a_fit(digits):
    X, y, T, t = digits
    X = X.astype(np.float32)
    model = sn.SoftmaxClassifier(random_state=0).partial_fit(X, y, classes=range(10))
    assert model.partial_fit(X.astype(np.float64), y).coef_.dtype == np.float32
    fitted = sn.SoftmaxClassifier(C=10, random_state=0, learning_rate=1e-3).fit(X, y)
    before = fitted.score(T, t)
    assert fitted.partial_fit(X, y).score(T, t) > before - 0.02


def test_the_penalty_of_parts_is_that_of_all_rows_seen(digits):
    X, y, _, _ = digits
    size = [
        np.linalg.norm(sn.SoftmaxClassifier(C=C, random_state=0, batch_size=64).partial_fit(X, y, range(10)).coef_)
        for C in (1e-3, 1e-1, 1e6)
    ]
    assert size[0] < size[1] < size[2]


def test_classes_of_parts(digits):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match="classes must be passed"):
        sn.SoftmaxClassifier().partial_fit(X, y)
    model = sn.SoftmaxClassifier().partial_fit(X, y, classes=range(10))
    with pytest.raises(ValueError, match="is not the same as on last call"):
        model.partial_fit(X, y, classes=range(11))
    with pytest.raises(ValueError, match=r"y\[0\] is .*99.* not one of the classes"):
        model.partial_fit(X[:1], [99])
    with pytest.raises(ValueError, match="3 columns; allowed: 10"):
        model.partial_fit(X, np.full((len(X), 3), 1 / 3))
    with pytest.raises(ValueError, match="balanced"):
        sn.SoftmaxClassifier(class_weight="balanced").partial_fit(X, y, classes=range(10))
    weighted = sn.SoftmaxClassifier(class_weight={3: 0.0}).partial_fit(X, y, classes=range(10))
    assert np.isfinite(weighted.coef_).all()
