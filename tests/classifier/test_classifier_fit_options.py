"""Fits with scikit-learn's callbacks, without iterations, and to y of other masses; the words of its warning."""
# ruff: noqa: ARG002 - the arguments of callbacks are scikit-learn's

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import softnll as sn

X = np.random.default_rng(0).normal(size=(200, 5))
Y = (X[:, 0] + X[:, 1] ** 2 > 1).astype(int) + (X[:, 2] > 1)


class Recorder:
    """A callback in scikit-learn's manner."""

    def __init__(self, stop=None):
        self.calls, self.scores, self.stop = [], [], stop

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, fitted_estimator=None):
        self.calls.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.calls.append(f"end {context.task_name}")
        if context.task_name == "lbfgs-iter" and fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X, y, **(metadata or {})))
            return len(self.scores) == self.stop
        return False


def with_callbacks(estimator, *callbacks):
    if not hasattr(estimator, "set_callbacks"):
        pytest.skip("scikit-learn before 1.9 has no callbacks")
    return estimator.set_callbacks(*callbacks)


def test_each_iteration_is_a_task_of_the_fit():
    recorder = Recorder()
    model = with_callbacks(sn.SoftmaxClassifier(), recorder).fit(X, Y)
    assert len(recorder.scores) == model.n_iter_ > 2
    assert recorder.scores[-1] == model.score(X, Y)
    tasks = ["begin lbfgs-iter", "end lbfgs-iter"] * (model.n_iter_ + 1)  # the last one never ran
    assert recorder.calls == ["setup", "begin fit", *tasks, "end fit", "teardown"]
    plain = sn.SoftmaxClassifier().fit(X, Y)
    np.testing.assert_array_equal(model.coef_, plain.coef_)


def test_a_callback_can_end_the_fit_and_sees_weights_and_pipelines():
    recorder = Recorder(stop=2)
    model = with_callbacks(sn.SoftmaxClassifier(), recorder).fit(X, Y, sample_weight=np.arange(200))
    assert model.n_iter_ == 2
    assert recorder.calls[-2:] == ["end fit", "teardown"]
    recorder = Recorder()
    with_callbacks(sn.SoftmaxClassifier(C=-1), recorder)
    with pytest.raises(ValueError, match="C is -1"):
        sn.SoftmaxClassifier(C=-1).fit(X, Y)
    pipeline = make_pipeline(StandardScaler(), with_callbacks(sn.SoftmaxClassifier(max_iter=50), recorder))
    assert pipeline.fit(X, Y).score(X, Y) == recorder.scores[-1]


def test_no_iterations_keep_the_start():
    with pytest.warns(ConvergenceWarning, match="^lbfgs failed to converge after 0 iteration.*max_iter=0 iterations"):
        model = sn.SoftmaxClassifier(max_iter=0).fit(X, Y)
    assert model.n_iter_ == 0
    np.testing.assert_array_equal(model.coef_, 0)
    np.testing.assert_allclose(model.predict_proba(X), 1 / 3)
    warm = sn.SoftmaxClassifier(warm_start=True).fit(X, Y)
    before = warm.coef_
    np.testing.assert_array_equal(warm.set_params(max_iter=0).fit(X, Y).coef_, before)


def test_the_warning_has_the_words_that_users_of_scikit_learn_search_for():
    with pytest.warns(ConvergenceWarning) as caught:
        sn.SoftmaxClassifier(max_iter=1).fit(X, Y)
    message = str(caught[0].message)
    assert message.startswith("lbfgs failed to converge after 1 iteration(s)")
    assert "Increase the number of iterations (max_iter)" in message
    assert "scale the data" in message
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_distributions_of_every_type_and_other_masses(dtype):
    q = np.random.default_rng(1).dirichlet([1, 1, 1], 200).astype(dtype)
    wide = sn.SoftmaxClassifier(tol=1e-7).fit(X, q.astype(np.float64), check=False)
    np.testing.assert_allclose(sn.SoftmaxClassifier(tol=1e-7).fit(X, q).coef_, wide.coef_, rtol=0, atol=1e-6)
    doubled = sn.SoftmaxClassifier(tol=1e-7, C=0.5).fit(X, 2 * q, check=False)
    np.testing.assert_allclose(doubled.coef_, wide.coef_, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="sums to"):
        sn.SoftmaxClassifier().fit(X, 2 * q)


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["400", "-400", "5000"])
@pytest.mark.parametrize("name", ["C", "max_iter", "tol", "batch_size", "learning_rate", "label_smoothing"])
def test_integers_of_any_size(name, value):
    with pytest.raises(ValueError, match=f"^{name} is an integer of more than (63|1023) bits; allowed: "):
        sn.SoftmaxClassifier(**{name: value}).fit(X, Y)


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["400", "-400", "5000"])
@pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "softcap", "temperature", "ignore_index", "axis"])
def test_integers_of_any_size_in_the_losses(name, value):
    with pytest.raises(ValueError, match=f"^{name} "):
        sn.cross_entropy(X, Y, **{name: value})
