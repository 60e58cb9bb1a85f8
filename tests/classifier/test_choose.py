"""The choice of C on held-out rows."""

from __future__ import annotations

import numpy as np
import pytest

from softnll._classifier.choose import Candidate, ChosenStrength, arranged, first_strength, parts_of, split
from softnll._classifier.options import Settings
from softnll._classifier.prepare import folds
from softnll._classifier.train import train
from softnll.data import Dataset


def noisy(N=400, F=60, C=3, seed=0):
    """Return rows of which few features matter, so that a weak penalty overfits."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, F))
    y = (1.5 * X[:, :C] + rng.gumbel(size=(N, C))).argmax(axis=1)
    return Dataset(X, y, tuple("abc"), "all", "noisy")


def images(N=40, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (N, 4, 5), dtype=np.uint8)
    return Dataset(pixels, np.arange(N) % 2, ("a", "b"), "all", "images")


def test_the_choice_is_better_than_a_weak_and_a_strong_penalty():
    data, fresh = noisy(), noisy(4000, seed=1)
    trained = train(data, Settings())
    losses = {}
    for C in (1e-4, trained.model.C, 100.0):
        model = train(data, Settings(C=C)).model
        log_p = model.predict_log_proba(fresh.inputs)
        losses[C] = -log_p[np.arange(4000), fresh.labels].mean()
    assert min(losses, key=losses.get) == trained.model.C
    assert trained.choice.C == trained.model.C
    judged = {each.C: each.held_out_loss for each in trained.choice.candidates}
    assert judged[trained.choice.C] < 1.03 * min(judged.values())
    assert list(judged)[-1] != min(judged, key=judged.get)  # the search went past the lowest
    assert trained.choice.folds == 5
    assert trained.converged


def test_the_history_has_what_was_held_out_while_c_is_chosen():
    trained = train(noisy(), Settings())
    searched = [step for step in trained.history if step.held_out_loss is not None]
    assert len(searched) == sum(each.iterations for each in trained.choice.candidates)
    assert all(0 <= step.held_out_accuracy <= 1 for step in searched)
    assert [step.iteration for step in trained.history] == list(range(1, len(trained.history) + 1))
    last = trained.history[len(searched) :]
    assert last
    assert {step.C for step in last} == {trained.choice.C}


def test_the_strongest_penalty_within_one_standard_error_is_chosen():
    candidates = tuple(Candidate(C, 1, 0.0, loss, 0.9) for C, loss in [(0.1, 0.5), (0.3, 0.41), (1, 0.4), (3, 0.45)])
    text = ChosenStrength(0.3, candidates, 100, 5, None).describe()
    assert text.startswith("C = 0.3: mean NLL 0.4100")
    assert "within one standard error of the lowest, 0.4000 at C = 1," in text
    assert "the lowest of 4" in ChosenStrength(1, candidates, 100, 1, None).describe()


def test_a_given_c_is_taken_without_a_search():
    trained = train(noisy(), Settings(C=0.5))
    assert trained.choice is None
    assert trained.model.C == 0.5
    assert {step.C for step in trained.history} == {0.5}


def test_few_rows_take_turns_and_many_have_one_part_held_out():
    labels = np.repeat(np.arange(3), [60, 39, 1])
    held = split(labels, 0)
    assert np.sum(held, axis=0).tolist() == [1] * 99 + [0]  # the only row of a class is never held out
    assert all(abs(int(each.sum()) - 20) <= 1 for each in held)
    assert np.array_equal(folds(labels, 5, np.random.default_rng(3)), folds(labels, 5, np.random.default_rng(3)))
    (one,) = split(np.arange(100_000) % 10, 0)
    assert one.sum() == 5000
    assert np.bincount((np.arange(100_000) % 10)[one]).tolist() == [500] * 10


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_no_fit_sees_a_held_out_image_or_its_mirror_image(mirror, many):
    data = images()
    held = split(data.labels, 0)[:1] if many else split(data.labels, 0)
    ordered = arranged(data, held, mirror=mirror)
    assert len(ordered.labels) == len(data.labels) * (1 + mirror)
    X = ordered.inputs.reshape(len(ordered.labels), -1).astype(float)
    for part in parts_of(X, ordered.labels, held, lambda: None):
        fitted = {row.tobytes() for row in part.X}
        shown = part.held_rows.reshape(-1, 4, 5)
        assert not fitted & {row.tobytes() for row in part.held_rows}
        assert not fitted & {np.ascontiguousarray(each).tobytes() for each in shown[:, :, ::-1].reshape(len(shown), -1)}
        assert len(part.X) == (len(data.labels) - len(part.held_rows)) * (1 + mirror)
        for X_of, y_of in ((part.X, part.y), (part.held_rows, part.held_labels)):
            truth = {row.tobytes(): label for row, label in zip(X, ordered.labels, strict=True)}
            assert [truth[row.tobytes()] for row in X_of] == y_of.tolist()


def test_mirrored_features_are_refused():
    with pytest.raises(ValueError, match="noisy: has features, not images; --mirror"):
        train(noisy(), Settings(mirror=True))


def test_the_search_begins_at_a_round_number_where_the_penalty_is_as_curved_as_the_loss():
    X = np.random.default_rng(0).normal(size=(1000, 20))
    assert first_strength(1.01 * X) == 3e-4  # below 1/1000
    assert first_strength(X / 9.9) == 3e-2
    assert first_strength(np.zeros((5, 2))) == 0


def test_features_that_do_not_vary_are_fitted_without_a_search():
    data = noisy()
    trained = train(Dataset(np.zeros((400, 2)), data.labels, data.class_names, "all", "constant"), Settings())
    assert trained.choice is None
    np.testing.assert_allclose(
        trained.model.predict_proba(np.zeros((1, 2)))[0], np.bincount(data.labels) / 400, atol=1e-3
    )
