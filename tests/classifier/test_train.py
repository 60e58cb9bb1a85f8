"""Training: preparing the inputs, holding out, folding the preparation into the weights, stopping."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import softnll as sn
from softnll._classifier.evaluate import evaluate, measure
from softnll._classifier.prepare import hold_out, standardise
from softnll._classifier.train import Settings, train
from softnll.data import Dataset, load


def table(N=120, F=5, C=3, seed=0, dtype=np.float64):
    """Return a data set of features of very different units, one of them constant."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, C, N)
    inputs = rng.normal(size=(N, F)) + labels[:, None] * np.linspace(0, 1.5, F)
    inputs = inputs * 10.0 ** np.arange(-2, F - 2) + 7
    inputs[:, 0] = 0.1
    return Dataset(inputs.astype(dtype), labels, tuple(f"c{c}" for c in range(C)), "all", "table")


@pytest.fixture(scope="module")
def digits():
    """Return the digits, and what training on them gave."""
    first, second = load("digits")
    trained = train(first, Settings(C=10, tol=1e-5))
    return first, second, trained, evaluate(trained.model, second)


def test_pixels_are_centred_and_keep_their_unit(digits):
    X, mean, scale = standardise(digits[0])
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-6)
    assert np.array_equal(scale, np.ones(64))
    np.testing.assert_allclose(X + mean, digits[0].features(), atol=1e-6)
    assert X.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_of_a_table_are_standardised_and_a_constant_one_is_0(dtype):
    data = table(dtype=dtype)
    before = data.inputs.copy()
    X, _, scale = standardise(data)
    np.testing.assert_allclose(X[:, 1:].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(X[:, 1:].std(axis=0), 1, rtol=1e-5)
    assert np.array_equal(X[:, 0], np.zeros(120))
    assert scale[0] == 1
    assert X.dtype == dtype
    assert np.array_equal(data.inputs, before)


def test_digits_reach_the_optimum_that_scikit_learn_reaches_uncentred(digits):
    first, second, trained, result = digits
    assert trained.converged
    peer = LogisticRegression(C=10, tol=1e-6, max_iter=1000).fit(first.features().astype(float), first.labels)
    scores = peer.decision_function(second.features())
    assert result.quality.nll == pytest.approx(float(sn.cross_entropy(scores, second.labels)), abs=5e-4)
    assert result.quality.nll == pytest.approx(0.2526, abs=5e-4)
    assert result.quality.accuracy == pytest.approx(0.9377, abs=0.0012)  # one image of 899 is 0.0011
    assert result.quality.ece < 0.03


def test_an_end_before_convergence_is_reported(digits):
    trained = train(digits[0], Settings(C=10, max_iter=3))
    assert (trained.converged, trained.interrupted, len(trained.history)) == (False, False, 3)


def test_the_model_takes_features_as_they_are(digits, tmp_path):
    _, second, trained, result = digits
    np.testing.assert_allclose(
        second.features() @ trained.model.coef_.T + trained.model.intercept_, result.logits, rtol=1e-6, atol=1e-6
    )
    trained.model.save(tmp_path / "model.npz")
    again = sn.SoftmaxClassifier.load(tmp_path / "model.npz")
    assert np.array_equal(again.predict(second.features()), result.logits.argmax(axis=1))
    np.testing.assert_allclose(again.predict_proba(second.features()), sn.softmax(result.logits), atol=1e-5)


def test_folding_the_standardisation_changes_no_score():
    data = table()
    trained = train(data, Settings(C=10))
    X, mean, scale = standardise(data)
    inside = trained.model.coef_ * scale
    np.testing.assert_allclose(
        X @ inside.T + (trained.model.intercept_ + trained.model.coef_ @ mean),
        evaluate(trained.model, data).logits,
        atol=1e-8,
    )


def test_history_has_each_iteration(digits):
    history = digits[2].history
    assert [step.iteration for step in history] == list(range(1, len(history) + 1))
    assert history[-1].loss < history[0].loss < 2.5
    assert history[-1].accuracy > 0.98


def test_measured_numbers_are_the_worked_ones():
    quality = measure(np.array([[5.0, 4, 2], [4, 2, 8], [4, 4, 1]]), np.array([0, 2, 1]))
    assert quality.nll == pytest.approx(0.362443, abs=5e-7)
    assert quality.perplexity == pytest.approx(1.436835, abs=1e-5)
    assert quality.accuracy == pytest.approx(2 / 3)


def test_a_class_without_training_examples_has_no_column():
    data = table()
    part = Dataset(data.inputs[data.labels != 1], data.labels[data.labels != 1], data.class_names, "train", "part")
    trained = train(part, Settings(C=10))
    result = evaluate(trained.model, part)
    assert result.class_names == ("c0", "c2")
    assert result.logits.shape == (len(part.labels), 2)
    assert set(result.targets.tolist()) == {0, 1}
    with pytest.raises(ValueError, match="class 'c1' is in the test data only"):
        evaluate(trained.model, data)


def test_other_features_to_test_are_refused():
    with pytest.raises(ValueError, match="4 features to test, 5 to train"):
        evaluate(train(table(), Settings(C=10)).model, table(F=4))


def test_held_out_class_by_class_by_the_seed():
    labels = np.array([0] * 50 + [1] * 10 + [2] * 3 + [3], dtype=np.int64)
    data = Dataset(np.arange(64.0)[:, None], labels, tuple("abcd"), "all", "few")
    first, second = hold_out(data, 0)
    assert np.bincount(second.labels, minlength=4).tolist() == [10, 2, 1, 0]
    assert np.bincount(first.labels).tolist() == [40, 8, 2, 1]
    assert sorted([*first.inputs[:, 0], *second.inputs[:, 0]]) == list(range(64))
    again = hold_out(data, 0)[1]
    assert np.array_equal(again.inputs, second.inputs)
    assert not np.array_equal(hold_out(data, 1)[1].inputs, second.inputs)
    assert (first.split, second.split) == ("train", "test")


def test_nothing_to_hold_out_is_refused():
    data = Dataset(np.eye(2), np.array([0, 1]), ("a", "b"), "all", "two")
    with pytest.raises(ValueError, match="no class has two examples"):
        hold_out(data, 0)


def test_ctrl_c_ends_the_fit_and_keeps_what_was_reached(digits):
    before = signal.getsignal(signal.SIGINT)

    def watch(step):
        if step.iteration == 3:
            signal.raise_signal(signal.SIGINT)

    trained = train(digits[0], Settings(C=10), watch)
    assert trained.interrupted
    assert len(trained.history) == 3
    assert evaluate(trained.model, digits[1]).quality.accuracy > 0.5
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts_at_once(digits):
    def watch(_step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        trained = train(digits[0], Settings(C=10), watch)
    except KeyboardInterrupt:
        pass
    else:  # the classifier took it for the end of the fit, which is as good
        assert len(trained.history) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_outside_the_main_thread(digits):
    found = []
    worker = threading.Thread(target=lambda: found.append(train(digits[0], Settings(C=10, max_iter=2))))
    worker.start()
    worker.join()
    assert not found[0].interrupted
