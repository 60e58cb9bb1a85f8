"""SoftmaxClassifier: its minimum against scikit-learn, and against equivalent formulations of itself."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import softnll as sn
from softnll._classifier.inputs import class_weights
from softnll._classifier.penalised_loss import Penalised, pack
from softnll._core.plan import ALL_GRADIENTS
from softnll._numpy.linear import checked_loss

DATA = {"digits": load_digits, "iris": load_iris, "wine": load_wine}


def standard(load):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def blobs(N=300, H=6, K=4, seed=0, dtype=np.float64):
    """Return overlapping classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, N)
    return (rng.normal(size=(N, H)) + rng.normal(size=(K, H))[y]).astype(dtype), y


def tight(**options):
    return sn.SoftmaxClassifier(**{"tol": 1e-9, "max_iter": 5000} | options)


def gradient(model, X, y, sample_weight=None):
    """Return the objective's gradient at the model's coefficients, by the public functions in float64."""
    targets = y if np.ndim(y) == 2 else np.searchsorted(model.classes_, y)
    w = class_weights(model.class_weight, model.classes_, targets, sample_weight)
    options = {"class_weight": w, "sample_weight": sample_weight, "label_smoothing": model.label_smoothing}
    W, b = np.float64(model.coef_), np.float64(model.intercept_)
    _, g = sn.linear_cross_entropy_and_grad(np.float64(X), W, targets, bias=b, **options)
    s = np.ones(len(X)) if sample_weight is None else sample_weight
    total = np.sum(s if w is None or targets.ndim == 2 else s * w[targets])
    return np.concatenate([(g.weight + W / (model.C * total)).ravel(), g.bias])


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("C", [0.1, 1.0, 10.0])
def test_probabilities_are_those_of_logistic_regression(name, C):
    X, y = standard(DATA[name])
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X, y)
    ours = sn.SoftmaxClassifier(C=C, tol=1e-8, max_iter=5000).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-3)


def test_two_classes_are_logistic_regression_with_twice_the_strength():
    X, y = standard(load_breast_cancer)
    theirs = LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(X, y)
    ours = sn.SoftmaxClassifier(C=1.0, tol=1e-8, max_iter=5000).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-4)
    assert ours.coef_.shape == (2, X.shape[1])
    assert ours.decision_function(X).shape == (len(X),)
    np.testing.assert_array_equal(ours.decision_function(X) > 0, ours.predict(X) == 1)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("C", "accuracy", "nll"), [(10.0, 0.9366, 0.2481), (1.0, 0.9344, 0.2777)])
def test_digits_first_half_second_half(C, accuracy, nll):
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = sn.SoftmaxClassifier(C=C).fit(X[:898], y[:898])
    assert model.score(X[898:], y[898:]) == pytest.approx(accuracy, abs=5e-5)
    assert -model.predict_log_proba(X[898:])[np.arange(899), y[898:]].mean() == pytest.approx(nll, abs=1.5e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"class_weight": "balanced"}, {"class_weight": {0: 3.0, 2: 0.5}}, {"C": 100.0}],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_vanishes_where_a_fit_ends(options, weighted):
    X, y = blobs()
    s = np.random.default_rng(1).uniform(0, 2, len(X)) if weighted else None
    model = sn.SoftmaxClassifier(tol=1e-6, max_iter=1000, **options).fit(X, y, sample_weight=s)
    assert np.abs(gradient(model, X, y, s)).max() <= 1e-6
    assert np.abs(gradient(model.set_params(C=model.C / 2), X, y, s)).max() > 1e-5


def test_one_hot_soft_targets_are_hard_targets():
    X, y = blobs()
    hard = tight().fit(X, y)
    for q in (np.eye(4)[y], np.eye(4, dtype=np.float32)[y], np.eye(4, dtype=int)[y]):
        soft = tight().fit(X, q)
        np.testing.assert_allclose(soft.coef_, hard.coef_, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(soft.classes_, np.arange(4))


def test_soft_targets_are_fitted_to():
    X, _ = blobs()
    q = sn.softmax(np.random.default_rng(3).normal(size=(len(X), 4)))
    s = np.random.default_rng(1).uniform(0, 2, len(X))
    for class_weight in (None, "balanced", {1: 2.0}):
        model = tight(class_weight=class_weight, tol=1e-7).fit(X, q, s)
        assert np.abs(gradient(model, X, q, s)).max() <= 1e-7


def test_integer_weights_are_repeated_rows():
    X, y = blobs(N=200)
    s = np.random.default_rng(2).integers(0, 4, len(X))
    for options in ({}, {"class_weight": "balanced", "label_smoothing": 0.1}):
        weighted = tight(**options).fit(X, y, sample_weight=s)
        repeated = tight(**options).fit(np.repeat(X, s, axis=0), np.repeat(y, s))
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=0, atol=1e-6)


def test_class_weights_are_sample_weights():
    X, y = blobs()
    w = np.array([1.0, 2.0, 0.5, 3.0])
    by_class = tight(class_weight=dict(enumerate(w))).fit(X, y)
    by_sample = tight().fit(X, y, sample_weight=w[y])
    np.testing.assert_allclose(by_class.coef_, by_sample.coef_, rtol=0, atol=1e-6)
    theirs = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=5000).fit(X, y)
    ours = tight(class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-4)


def test_float32_stays_float32():
    X, y = blobs(dtype=np.float32)
    model = sn.SoftmaxClassifier().fit(X, y)
    wide = sn.SoftmaxClassifier().fit(X.astype(np.float64), y)
    for array in (model.coef_, model.intercept_, model.predict_proba(X), model.decision_function(X)):
        assert array.dtype == np.float32
    assert wide.coef_.dtype == sn.SoftmaxClassifier().fit(X.astype(np.int64), y).coef_.dtype == np.float64
    np.testing.assert_allclose(model.predict_proba(X), wide.predict_proba(X), rtol=0, atol=1e-3)


def test_no_intercept():
    X, y = blobs()
    model = tight(fit_intercept=False).fit(X, y)
    theirs = LogisticRegression(fit_intercept=False, tol=1e-8, max_iter=5000).fit(X, y)
    np.testing.assert_array_equal(model.intercept_, 0)
    np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "arrange", [np.asfortranarray, lambda X: np.repeat(X, 2, axis=1)[:, ::2], lambda X: X[::-1][::-1]]
)
def test_the_order_in_memory_does_not_matter(arrange):
    X, y = blobs()
    expected = sn.SoftmaxClassifier().fit(X, y)
    X.setflags(write=False)
    np.testing.assert_array_equal(sn.SoftmaxClassifier().fit(arrange(X), y).coef_, expected.coef_)


def test_separable_classes_with_hardly_a_penalty_stay_finite():
    X = np.r_[-np.ones((20, 2)), np.ones((20, 2))] + np.random.default_rng(0).normal(size=(40, 2)) / 10
    y = np.repeat([0, 1], 20)
    for C in (1e8, np.inf):
        for dtype in (np.float32, np.float64):
            model = sn.SoftmaxClassifier(C=C, max_iter=1000).fit(X.astype(dtype), y)
            assert np.isfinite(model.coef_).all()
            assert np.isfinite(model.predict_log_proba(X)).all()
            assert model.score(X, y) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_probabilities_are_finite_where_probabilities_are_zero(dtype):
    model = sn.SoftmaxClassifier().fit(*blobs(dtype=dtype))
    model.coef_ = np.eye(4, 6, dtype=dtype) * 1e4
    X = np.eye(4, 6, dtype=dtype) * np.array([[1], [-1], [1], [-1]], dtype)
    assert (model.predict_proba(X) == 0).any()
    assert np.isfinite(model.predict_log_proba(X)).all()
    assert model.predict_log_proba(X).min() < -9000


def test_a_warm_start_begins_where_the_last_fit_ended():
    X, y = blobs()
    model = tight(warm_start=True, tol=1e-7).fit(X, y)
    cold = model.n_iter_
    assert model.fit(X, y).n_iter_ <= 1 < cold
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X[:, :3], y)


def test_too_few_iterations_give_a_warning():
    X, y = blobs()
    with pytest.warns(ConvergenceWarning, match="max_iter=2 iterations"):
        model = sn.SoftmaxClassifier(max_iter=2).fit(X, y)
    assert model.n_iter_ == 2
    with pytest.raises(ValueError, match="not finite"):
        sn.SoftmaxClassifier().fit(X * 1e300, y)


def test_one_column_of_labels_is_labels():
    X, y = blobs()
    with pytest.warns(DataConversionWarning):
        model = sn.SoftmaxClassifier().fit(X, y[:, None])
    np.testing.assert_array_equal(model.coef_, sn.SoftmaxClassifier().fit(X, y).coef_)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"C": 0}, ValueError, "C is 0"),
        ({"C": "1"}, TypeError, "C is '1'"),
        ({"C": np.nan}, ValueError, "C is nan"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
        ({"tol": -1}, ValueError, "tol is -1"),
        ({"max_iter": -1}, ValueError, "max_iter is -1"),
        ({"max_iter": 1.5}, TypeError, "max_iter is 1.5"),
        ({"batch_size": True}, TypeError, "batch_size is True"),
        ({"fit_intercept": 1}, TypeError, "fit_intercept is 1"),
        ({"class_weight": "even"}, ValueError, "class_weight is 'even'"),
        ({"class_weight": {0: -1.0}}, ValueError, r"class_weight\[0\] is -1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(change, error, match):
    X, y = blobs()
    for method in ("fit", "partial_fit"):
        with pytest.raises(error, match=match):
            getattr(sn.SoftmaxClassifier(**change), method)(X, y, **({"classes": range(4)} if method != "fit" else {}))


@pytest.mark.parametrize(
    ("targets", "weights", "error", "match"),
    [
        (np.zeros_like, None, ValueError, "at least 2 classes"),
        (lambda y: np.eye(4)[y] * 2, None, ValueError, "targets"),
        (lambda y: np.eye(4)[y].astype(str), None, TypeError, "soft y"),
        (lambda y: y + 0.5, None, ValueError, "continuous"),
        (lambda y: y[1:], None, ValueError, "inconsistent"),
        (lambda y: y, np.zeros(300), ValueError, "at least one non-zero"),
        (lambda y: y, -np.ones(300), ValueError, "[Nn]egative"),
    ],
)
def test_targets_and_weights_without_meaning_are_refused(targets, weights, error, match):
    X, y = blobs()
    with pytest.raises(error, match=match):
        sn.SoftmaxClassifier().fit(X, targets(y), weights)


def test_memory_beyond_the_features():
    X = np.random.default_rng(0).standard_normal((20_000, 2000), dtype=np.float32)
    y = np.arange(20_000) % 10
    sn.SoftmaxClassifier(max_iter=3, tol=1).fit(X[:50], y[:50])  # compiles
    gc.collect()  # what finalisers of earlier tests ask for is not ours
    tracemalloc.start()
    sn.SoftmaxClassifier(max_iter=3, tol=1e-3).fit(X, y, callback=stop_after(3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 64 << 20


def stop_after(n):
    def callback(iteration, *_):
        if iteration == n:
            raise StopIteration

    return callback


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_bytes", [None, 150_000])
def test_without_the_features_gradient_the_others_are_the_same_bit_for_bit(dtype, max_bytes):
    X, y = blobs(N=1000, H=64, K=7, dtype=dtype)
    W = np.random.default_rng(1).normal(size=(7, 64)).astype(dtype)
    head = checked_loss(X, W, y, np.zeros(7, dtype), {})
    plan = head.plan(max_bytes, ALL_GRADIENTS)
    assert (plan.chunks > 1) == (max_bytes is not None)
    loss, weight, bias = head.weight_gradients(plan)
    public_loss, public = sn.linear_cross_entropy_and_grad(X, W, y, bias=np.zeros(7, dtype), max_bytes=max_bytes)
    assert dtype(loss) == public_loss
    np.testing.assert_array_equal(weight, public.weight)
    np.testing.assert_array_equal(bias.astype(dtype), public.bias)


def test_the_objective_in_chunks_is_the_objective():
    X, y = blobs(N=10_000, H=20)
    problem = Penalised.check(X, y, 4, 2.0, True, {})
    assert problem.rows.plan.chunks == 10
    W, b = np.random.default_rng(1).normal(size=(4, 20)), np.arange(4.0)
    value, _ = problem(pack(W, b))
    expected = sn.cross_entropy(X @ W.T + b, y) + (W**2).sum() / (2 * 2.0 * 10_000)
    assert value == pytest.approx(expected, rel=1e-13)
