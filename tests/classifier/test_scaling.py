"""Features of any unit and offset: the fit reaches its optimum, or says that it does not."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import softnll as sn
from softnll._classifier import lbfgs
from softnll._classifier.lbfgs import minimise
from softnll._classifier.penalised_loss import Penalised, pack
from softnll._classifier.scaling import moments, scaling

N, H, K = 600, 4, 3


def classes_of(Z, seed=0):
    rng = np.random.default_rng(seed)
    return (Z @ rng.normal(size=(K, H)).T * 1.5 + rng.gumbel(size=(len(Z), K))).argmax(axis=1)


def standard(n=N, seed=0):
    return np.random.default_rng(seed).normal(size=(n, H))


# Each is a unit and an offset of the columns: time stamps in s, ms and ns, micrometres in metres, prices.
UNITS = {
    "time stamps": ([86_400.0, 1, 1, 1], [1.7e9, 0, 0, 0]),
    "milliseconds": ([3.6e6, 1, 1, 1], [1.7e12, 0, 0, 5]),
    "nanoseconds": ([8.6e13, 1, 1, 1], [1.7e18, 0, 0, 0]),
    "tiny": ([1e-6] * 4, [0.0] * 4),
    "huge": ([1e7] * 4, [0.0] * 4),
    "mixed": ([1e-3, 1, 1e3, 1e6], [0.0, 1, 0, 1e7]),
    "offset": ([1.0] * 4, [5e3] * 4),
}


@pytest.mark.parametrize("name", UNITS)
def test_the_optimum_does_not_depend_on_units(name):
    Z = standard()
    y, (unit, offset) = classes_of(Z), UNITS[name]
    X = Z * unit + offset
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        # Next to no penalty: its meaning depends on the units.
        model = sn.SoftmaxClassifier(C=1e20, max_iter=200).fit(X, y)
        right = sn.SoftmaxClassifier(C=1e20, max_iter=200, tol=1e-7).fit(Z, y)
    np.testing.assert_allclose(model.predict_proba(X), right.predict_proba(Z), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["time stamps", "offset", "mixed", "huge"])
def test_float32_features_lose_no_more_than_their_type(name):
    Z = standard()
    unit, offset = UNITS[name]
    X = (Z * unit + offset).astype(np.float32)
    Z = (X.astype(np.float64) - offset) / unit  # what float32 kept
    y = classes_of(Z)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = sn.SoftmaxClassifier(C=1e20, max_iter=200).fit(X, y)
    right = sn.SoftmaxClassifier(C=1e20, max_iter=500, tol=1e-7).fit(Z, y)
    np.testing.assert_allclose(model.predict_proba(X), right.predict_proba(Z), rtol=0, atol=5e-3)
    assert model.score(X, y) == pytest.approx(right.score(Z, y), abs=0.01)


def test_the_penalty_stays_that_of_the_coefficients():
    X = standard() * [1e4, 1, 1, 1e-2] + [1e6, 0, 3, 0]
    y = classes_of(standard())
    model = sn.SoftmaxClassifier(C=3.0, tol=1e-9, max_iter=2000).fit(X, y)
    problem = Penalised.check(X, y, K, 3.0, True, {})
    best = pack(model.coef_, model.intercept_)
    value = problem(best)[0]
    for seed in range(20):
        step = np.random.default_rng(seed).normal(size=(K, H)) * [1e-7, 1e-3, 1e-3, 1e-1]
        moved = pack(model.coef_ + step, model.intercept_ - step @ X.mean(axis=0))
        assert problem(moved)[0] > value


def test_scaling_and_its_transpose_fit_each_other():
    X = standard() * [1e4, 1, 1, 1e-2] + [1e6, 0, 3, 0]
    problem = Penalised.check(X, classes_of(standard()), K, 1.0, True, {})
    found = scaling(problem, moments(X, None, centre=True))
    rng = np.random.default_rng(0)
    for size in (K * H, K * H + K):
        u, g = rng.normal(size=(2, size))
        assert found.step(u) @ g == pytest.approx(found.gradient(g) @ u, rel=1e-12)


def test_ordinary_features_are_not_scaled():
    X = standard()
    for each in (X, X * 30 + 2, np.abs(X) / 50, X * [1, 1, 0, 1e-3]):
        assert not moments(each, None, centre=True).badly_scaled(centre=True)
    for each in (X * 1e3, X * 1e-3, X + 1e3, X * [1, 1, 1, 1e4], X * [1, 1, 1, 1e-8]):
        assert moments(each, None, centre=True).badly_scaled(centre=True)


def test_moments_count_rows_by_weight():
    X = standard()
    s = np.random.default_rng(1).integers(0, 3, N)
    X[s == 0] = 1e200
    found, right = moments(X, s.astype(float), centre=True), np.repeat(X, s, axis=0)
    np.testing.assert_allclose(found.mean, right.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.variance, right.var(axis=0), rtol=1e-12)


def test_a_small_decrease_with_a_large_gradient_is_a_failure(monkeypatch):
    calls = []

    def ended(_function, at, **_options):
        calls.append(at)
        return SimpleNamespace(status=0, fun=1.0 - 1e-16 * len(calls), jac=np.ones(2), x=at, message="RELATIVE")

    monkeypatch.setattr("scipy.optimize.minimize", ended)
    found = minimise(lambda x: (1.0, np.ones_like(x)), np.zeros(2), tol=1e-4, max_iter=10)
    assert "gradient is 1" in found.failure
    assert len(calls) == 2  # once more from there, in case it gains


def test_a_search_that_stalls_goes_on_without_its_memory(monkeypatch):
    import scipy.optimize  # noqa: PLC0415 - its real function, before it is replaced

    real, calls = scipy.optimize.minimize, []

    def stalls_first(function, at, **options):
        calls.append(1)
        if len(calls) == 1:
            options["options"] = options["options"] | {"ftol": 1e-3}
        return real(function, at, **options)

    monkeypatch.setattr("scipy.optimize.minimize", stalls_first)
    found = minimise(lambda x: (float((x**4).sum()), 4 * x**3), np.full(3, 2.0), tol=1e-4, max_iter=100)
    assert len(calls) > 1
    assert found.failure == ""
    assert np.abs(4 * found.x**3).max() <= 1e-4
    assert lbfgs._RELATIVE_DECREASE < 1e-13
