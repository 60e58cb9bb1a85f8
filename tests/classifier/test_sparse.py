"""Sparse features: the optimum of dense ones, and memory that follows the non-zeros."""

from __future__ import annotations

import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

import softnll as sn
from softnll._classifier.penalised_loss import Penalised

K = 4


def counts(N=300, H=500, density=0.02, seed=0, dtype=np.float64):
    """Return counts of rare and of frequent words, and classes that depend on them."""
    rng = np.random.default_rng(seed)
    X = sp.random(N, H, density=density, format="csr", random_state=seed, dtype=np.float64)
    X = sp.csr_matrix(X.multiply(np.geomspace(0.1, 30, H)[None]))
    y = (X[:, : H // K * K].toarray().reshape(N, K, -1).sum(axis=2) + 3 * rng.gumbel(size=(N, K))).argmax(axis=1)
    return X.astype(dtype), y


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array, sp.coo_array])
def test_the_optimum_is_that_of_dense_features(kind):
    X, y = counts()
    dense = sn.SoftmaxClassifier(tol=1e-8, max_iter=5000).fit(X.toarray(), y)
    model = sn.SoftmaxClassifier(tol=1e-8, max_iter=5000).fit(kind(X), y)
    np.testing.assert_allclose(model.predict_proba(kind(X)), dense.predict_proba(X.toarray()), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model.predict(kind(X)), model.predict(X.toarray()))
    np.testing.assert_allclose(model.decision_function(kind(X)), model.decision_function(X.toarray()), atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"fit_intercept": False},
        {"class_weight": "balanced"},
        {"label_smoothing": 0.2},
        {"C": 100.0},
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_options_and_weights_mean_what_they_mean_for_dense_features(options, weighted):
    X, y = counts()
    s = np.random.default_rng(1).integers(0, 3, len(y)) if weighted else None
    fits = [
        sn.SoftmaxClassifier(tol=1e-8, max_iter=5000, **options).fit(each, y, s).predict_proba(each)
        for each in (X, X.toarray())
    ]
    np.testing.assert_allclose(fits[0], fits[1], rtol=0, atol=5e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_of_rows_add_up(weighted):
    X, y = counts()
    options = {"sample_weight": (np.arange(len(y)) % 3).astype(float)} if weighted else {}
    whole = Penalised.check(X.toarray(), y, K, 1.0, True, options)
    parts = Penalised.check(X, y, K, 1.0, True, options)
    plan = replace(parts.rows.plan, rows=64, chunks=-(-parts.head.n_rows // 64))
    parts = replace(parts, rows=replace(parts.rows, plan=plan))
    vector = np.random.default_rng(0).normal(size=K * X.shape[1] + K)
    for ours, right in zip(parts(vector), whole(vector), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-10, atol=1e-14)


def test_soft_targets_and_a_warm_start():
    X, y = counts()
    model = sn.SoftmaxClassifier(tol=1e-7, max_iter=5000).fit(X, np.eye(K)[y])
    hard = sn.SoftmaxClassifier(tol=1e-7, max_iter=5000, warm_start=True).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), hard.predict_proba(X), rtol=0, atol=1e-5)
    assert hard.fit(X, y).n_iter_ == 0


def test_scikit_learns_optimum():
    X, y = counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = LogisticRegression(C=1.0, tol=1e-9, max_iter=5000).fit(X, y)
    ours = sn.SoftmaxClassifier(C=1.0, tol=1e-8, max_iter=5000).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), rtol=0, atol=1e-5)


def test_float32_stays_float32():
    X, y = counts(dtype=np.float32)
    model = sn.SoftmaxClassifier().fit(X, y)
    assert model.coef_.dtype == model.predict_proba(X).dtype == np.float32
    wide = sn.SoftmaxClassifier().fit(X.astype(np.float64), y)
    np.testing.assert_allclose(model.predict_proba(X), wide.predict_proba(X), atol=2e-3)


def test_parts_are_what_parts_of_dense_features_are():
    X, y = counts()
    models = [
        sn.SoftmaxClassifier(random_state=0, batch_size=32).partial_fit(each, y, classes=range(K)).partial_fit(each, y)
        for each in (X, X.toarray(), sp.csc_array(X))
    ]
    for each in models[1:]:
        np.testing.assert_allclose(each.coef_, models[0].coef_, rtol=0, atol=1e-9)


def test_memory_follows_the_non_zeros():
    at = np.random.default_rng(0).integers(0, 20_000, 80_000)
    X = sp.csr_matrix((np.ones(80_000), (np.arange(80_000) // 20, at)), shape=(4000, 20_000))
    y = np.arange(4000) % K
    sn.SoftmaxClassifier().partial_fit(X[:100], y[:100], classes=range(K))  # compiles
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sn.SoftmaxClassifier(max_iter=3).fit(X, y)
    model.predict_proba(X)
    model.partial_fit(X[:500], y[:500])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # L-BFGS keeps 20 vectors of W's size and needs a few more; dense features would take 640 MB.
    assert peak < 40 * model.coef_.nbytes + 8 * X.data.nbytes < 100e6


def test_bad_sparse_features_are_refused():
    X, y = counts()
    X.data[5] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        sn.SoftmaxClassifier().fit(X, y)
    model = sn.SoftmaxClassifier().fit(counts()[0], y)
    with pytest.raises(ValueError, match="500 features"):
        model.predict(counts(H=400)[0])
