"""The change of variables of a fit: the same optimum in fewer iterations, also for degenerate features."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.exceptions import ConvergenceWarning

import softnll as sn
from softnll._classifier import estimator as classifier
from softnll._classifier.lbfgs import _failure, minimise
from softnll._classifier.penalised_loss import Penalised, pack
from softnll._classifier.precondition import precondition

RULE = import_module("softnll._classifier.precondition")
N, H, K = 3000, 30, 4


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Precondition small problems too, which would not pay."""
    monkeypatch.setattr(RULE, "_EVALUATIONS", 1000)


def correlated(dtype=np.float64, seed=0, n=N):
    """Return features that vary 100 times as much in some directions as in others, around 5, and their classes."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(rng.normal(size=(H, H)))[0] * np.geomspace(3, 0.03, H)
    hidden = rng.normal(size=(n, H))
    y = (hidden[:, :K] * [1.0, 2.0, 3.0, 4.0] + rng.gumbel(size=(n, K))).argmax(axis=1)
    return (hidden @ mix.T + 5).astype(dtype), y


def objective(X, y, *, C=1.0, fit_intercept=True, **options):
    return Penalised.check(X, y, K, C, fit_intercept, options)


def plain(monkeypatch):
    monkeypatch.setattr(classifier, "precondition", lambda _problem: None)


def fitted(X, y, sample_weight=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        return sn.SoftmaxClassifier(**{"max_iter": 20_000} | options).fit(X, y, sample_weight)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("C", [1e-3, 0.1])
def test_the_optimum_is_the_same_in_a_third_of_the_iterations(monkeypatch, C, fit_intercept):
    X, y = correlated()
    ours = fitted(X, y, tol=1e-7, C=C, fit_intercept=fit_intercept)
    plain(monkeypatch)
    theirs = fitted(X, y, tol=1e-7, C=C, fit_intercept=fit_intercept)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-4)
    assert 3 * ours.n_iter_ <= theirs.n_iter_


def test_no_entry_of_the_gradient_is_larger_than_tol_in_either_variables():
    X, y = correlated(np.float32)
    for tol in (1e-3, 1e-4):
        problem = objective(X, y)
        variables = precondition(problem)
        minimum = minimise(problem, np.zeros(K * (H + 1)), tol=tol, max_iter=1000, variables=variables)
        _, gradient = problem(minimum.x)
        assert np.abs(gradient).max() <= tol
        assert np.abs(variables.gradient(gradient)).max() <= tol * 1.001  # the point was rounded in between
        assert not minimum.failure


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_gradient_is_that_of_the_objective_in_the_new_variables(fit_intercept):
    X, y = correlated()
    problem = objective(X, y, fit_intercept=fit_intercept)
    variables = precondition(problem)
    u = np.random.default_rng(1).normal(size=K * (H + fit_intercept))
    _, gradient = problem(variables.step(u))
    numeric = approx_fprime(u, lambda u: problem(variables.step(u))[0], 1e-6)
    np.testing.assert_allclose(variables.gradient(gradient), numeric, rtol=0, atol=1e-4 * np.abs(numeric).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_the_start_the_objective_is_as_curved_in_all_directions(dtype):
    X, y = correlated(dtype)
    problem = objective(X, y, C=1e-3)
    variables = precondition(problem)
    # The rows of W and b less their mean: along it, softmax is constant.
    rng = np.random.default_rng(0)
    curvatures = []
    for by_intercept in [True] + [False] * 20:
        u = rng.normal(size=(K, H + 1))
        u[:, :H] *= not by_intercept
        u -= u.mean(axis=0)
        u = np.concatenate([u[:, :H].ravel(), u[:, H]])
        u *= 1e-2 / np.linalg.norm(u)
        there, here = (variables.gradient(problem(variables.step(sign * u))[1]) for sign in (1, -1))
        curvatures.append(np.vdot(there - here, u) / 2 / np.vdot(u, u))
    assert 0.8 < min(curvatures) <= max(curvatures) < 1.2


DEGENERATE = {
    "constant column": lambda X: np.hstack([X, np.full((len(X), 1), 7.0)]),
    "column of zeros": lambda X: np.hstack([np.zeros((len(X), 1)), X]),
    "columns twice": lambda X: np.hstack([X, X]),
    "one feature": lambda X: X[:, :1],
    "all features constant": np.ones_like,
    "more columns than rows vary in": lambda X: X[:, :3] @ np.random.default_rng(0).normal(size=(3, 80)),
    "one column a million times the others": lambda X: np.hstack([X[:, :5], X[:, 5:6] * 1e6]),
    "tiny": lambda X: X * 1e-12,
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_features(monkeypatch, name, dtype):
    X, y = correlated()
    X = DEGENERATE[name](X - 5).astype(dtype)
    ours = fitted(X, y, C=1e-2)
    assert ours.coef_.dtype == dtype
    plain(monkeypatch)
    theirs = sn.SoftmaxClassifier(C=1e-2, max_iter=300, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(X, y)

    def value(model):
        W, b = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        penalty = (W**2).sum() / (2 * 1e-2 * N)
        return sn.cross_entropy(X.astype(np.float64) @ W.T + b, y) + penalty

    assert value(ours) <= value(theirs) + 1e-5


def test_weights_are_repeated_rows_and_those_of_weight_zero_are_not_looked_at():
    X, y = correlated()
    s = np.random.default_rng(2).integers(0, 3, N)
    weighted = fitted(np.where(s[:, None] > 0, X, 1e30), y, s, tol=1e-7)
    repeated = fitted(np.repeat(X, s, axis=0), np.repeat(y, s), tol=1e-7)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=0, atol=1e-5)
    assert weighted.n_iter_ < 2 * repeated.n_iter_


@pytest.mark.parametrize(
    "options", [{"class_weight": {0: 0.1, 1: 2.0}}, {"label_smoothing": 0.1}, {"C": np.inf}], ids=str
)
@pytest.mark.parametrize("soft", [False, True])
def test_options_reach_the_optimum(options, soft):
    X, y = correlated()
    target = np.eye(K)[y] * 0.9 + 0.1 / K if soft else y
    s = np.random.default_rng(1).uniform(0, 2, N)
    model = fitted(X, target, s, tol=1e-6, **options)
    weight = options.get("class_weight")
    w = None if weight is None else np.array([weight.get(k, 1.0) for k in range(K)])
    smoothing = options.get("label_smoothing", 0.0)
    problem = objective(X, target, C=model.C, class_weight=w, sample_weight=s, label_smoothing=smoothing)
    assert np.abs(problem(pack(model.coef_, model.intercept_))[1]).max() <= 1e-6
    assert model.n_iter_ < 200


def test_directions_follow_the_weights():
    X, y = correlated()
    s = np.zeros(N)
    s[:1000] = 1
    X[1000:] = np.random.default_rng(0).normal(size=(N - 1000, H)) * 100
    variances = precondition(objective(X, y, sample_weight=s)).factors ** -2.0
    expected = np.linalg.eigvalsh(np.cov(X[:1000].T))[::-1] / K
    np.testing.assert_allclose(variances[:10], expected[:10], rtol=0.3)


def test_a_fit_repeats_and_a_warm_start_stays():
    X, y = correlated(np.float32)
    model = fitted(X, y, warm_start=True, random_state=1)
    coef = model.coef_
    np.testing.assert_array_equal(fitted(X, y, random_state=2).coef_, coef)
    assert model.fit(X, y).n_iter_ <= 1
    np.testing.assert_allclose(model.coef_, coef, rtol=0, atol=5e-3)  # one step along the flat directions, in float32


@pytest.mark.parametrize(
    ("shape", "classes", "pays"),
    [
        ((8000, 40), 10, True),
        ((50_000, 30), 10, True),
        ((898, 64), 10, False),  # the digits
        ((999, 200), 1000, False),  # a change of variables as dear as an evaluation
        ((1000, 200), 1000, True),
        ((3000, 200), 2, False),  # the directions cost more than ten evaluations
        ((5000, 0), 10, False),
    ],
)
def test_where_it_pays(monkeypatch, shape, classes, pays):
    monkeypatch.undo()
    X = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    problem = Penalised.check(X, np.arange(shape[0]) % classes, classes, 1.0, True, {})
    assert (precondition(problem) is not None) == pays


def test_features_out_of_range_are_reported():
    X, y = correlated()
    for factor in (1e300, 1e307):
        with pytest.raises(ValueError, match="not finite"):
            sn.SoftmaxClassifier().fit(X * factor, y)


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt])
def test_an_ended_fit_keeps_what_was_reached(error):
    X, y = correlated()
    seen = []

    def callback(iteration, loss, coef, intercept):
        assert loss == pytest.approx(sn.linear_cross_entropy(X, coef, y, bias=intercept), rel=1e-9)
        seen.append((coef, intercept))
        if iteration == 3:
            raise error

    model = sn.SoftmaxClassifier(tol=1e-7)
    try:
        model.fit(X, y, callback=callback)
    except KeyboardInterrupt:
        assert error is KeyboardInterrupt
    else:
        assert error is StopIteration
    assert model.n_iter_ == len(seen) == 3
    np.testing.assert_array_equal(model.coef_, seen[-1][0])
    np.testing.assert_array_equal(model.intercept_, seen[-1][1])


def test_too_few_iterations_are_reported():
    X, y = correlated()
    with pytest.warns(ConvergenceWarning, match="max_iter=2 iterations"):
        model = sn.SoftmaxClassifier(max_iter=2).fit(X, y)
    assert model.n_iter_ == 2


@pytest.mark.parametrize(
    ("status", "largest", "reason"),
    [(2, 1e-5, ""), (2, 2e-4, "the search ended"), (0, 2e-4, "the search ended"), (0, 1e-5, ""), (1, 2e-4, "max_iter")],
)
def test_an_early_end_is_a_failure_where_the_gradient_is_large(status, largest, reason):
    iterations = 10 if status == 1 else 5
    failure = _failure(SimpleNamespace(status=status, message="ABNORMAL"), largest, 1e-4, iterations, 10)
    assert failure.startswith(reason)
    assert bool(failure) == bool(reason)
