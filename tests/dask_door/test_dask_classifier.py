"""softnll.dask.SoftmaxClassifier is the local estimator, on partitions."""

from __future__ import annotations

import subprocess
import sys
import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import softnll as sn
from dask_tables import H, K, in_memory, rows_of, table
from softnll._classifier.penalised_loss import Penalised, pack
from softnll.dask import SoftmaxClassifier
from softnll.dask._scheduler import Scheduler

TIGHT = {"tol": 1e-9, "max_iter": 2000}
SIZES = (300, 200, 250, 250)


def objective(model, X, y, **options):
    """Return the local objective at a model's coefficients."""
    problem = Penalised.check(X, y, len(model.classes_), model.C, True, options)
    return problem(pack(model.coef_, model.intercept_))[0]


def same_bits(one, other):
    return np.array_equal(one.coef_, other.coef_) and np.array_equal(one.intercept_, other.intercept_)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize(
    ("options", "weighted", "soft"),
    [
        ({}, False, False),
        ({"class_weight": "balanced", "C": 0.1}, True, False),
        ({"class_weight": {0: 2.0, 3: 0.25}}, False, False),
        ({"fit_intercept": False}, True, False),
        ({"label_smoothing": 0.1}, False, True),
        ({"C": np.inf}, True, True),
    ],
)
def test_the_coefficients_are_those_of_the_local_estimator(scheduler, options, weighted, soft):
    X, y = in_memory()
    dX, dy = table()
    weight = np.arange(len(y)) % 3 + 0.5 if weighted else None
    if soft:
        y = 0.8 * np.eye(K)[y] + 0.05
        dy = da.from_array(y, chunks=(333, 3))
    ours = sn.SoftmaxClassifier(**TIGHT, **options).fit(X, y, weight)
    with dask.config.set(scheduler=scheduler):
        model = SoftmaxClassifier(**TIGHT, **options).fit(dX, dy, weight)
    np.testing.assert_allclose(model.coef_, ours.coef_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, ours.intercept_, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(model.classes_, ours.classes_)
    assert model._weight_seen == pytest.approx(ours._weight_seen, rel=1e-12)


@pytest.mark.parametrize("scale", ["preconditioned", "scaled"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_rows_and_badly_scaled_features_take_the_local_path(dtype, scale):
    sizes = (4000, 0, 3000, 5000)
    X, y = in_memory(sizes, dtype)
    dX, dy = table(sizes, dtype)
    if scale == "scaled":
        X, dX = X * dtype(1e-3) + dtype(1), dX * dtype(1e-3) + dtype(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # float32's rounding
        ours = sn.SoftmaxClassifier(tol=1e-6, max_iter=500).fit(X, y)
        model = SoftmaxClassifier(tol=1e-6, max_iter=500).fit(dX, dy)
    found = [objective(each, X.astype(np.float64), y) for each in (model, ours)]
    assert found[0] == pytest.approx(found[1], rel=1e-9 if dtype is np.float64 else 1e-6)
    assert model.coef_.dtype == ours.coef_.dtype
    assert abs(model.n_iter_ - ours.n_iter_) <= (1 if dtype is np.float64 else 10)
    if dtype is np.float64:
        np.testing.assert_allclose(model.predict_proba(dX).compute(), ours.predict_proba(X), rtol=0, atol=1e-6)


def test_the_sample_for_the_change_of_variables_is_that_of_the_local_estimator():
    sizes = (4000, 3000, 5000)
    X, y = in_memory(sizes)
    weight = np.arange(len(y)) % 4.0
    with pytest.warns(ConvergenceWarning):
        local = sn.SoftmaxClassifier(max_iter=3).fit(X, y, weight)
    with pytest.warns(ConvergenceWarning):
        ours = SoftmaxClassifier(max_iter=3).fit(*table(sizes), weight)
    # After three steps from 0 only the same change of variables gives the same point.
    np.testing.assert_allclose(ours.coef_, local.coef_, rtol=0, atol=1e-9)


def test_the_bits_do_not_depend_on_the_scheduler_or_the_threads():
    X, y = table((700, 650, 720, 690, 640, 700, 10, 700, 700, 650))
    models = []
    for options in ({"scheduler": "synchronous"}, {"scheduler": "threads", "num_workers": 4}):
        with dask.config.set(**options):
            models.append(SoftmaxClassifier(tol=1e-6).fit(X, y))
    assert same_bits(*models)


def test_the_filters_of_warnings_are_left_as_they_were():
    X, y = table((40,) * 24)
    before = [*warnings.filters]
    with dask.config.set(scheduler="threads", num_workers=8):
        for _ in range(3):
            SoftmaxClassifier(tol=1e-2).fit(X, y)
    assert warnings.filters == before


def test_partitions_that_are_not_kept_give_the_same_bits(monkeypatch):
    X, y = table()
    kept = SoftmaxClassifier().fit(X, y)
    monkeypatch.setattr("softnll.dask._scheduler._SHARE", 0.0)
    called = []
    monkeypatch.setattr("softnll.dask._scheduler.Scheduler.keep", lambda *_: called.append(1))
    assert same_bits(SoftmaxClassifier().fit(X, y), kept)
    assert not called


def test_a_common_source_of_features_and_labels_is_read_once_a_pass(monkeypatch):
    made, passes = [], []

    def make(block_info=None):
        k = block_info[None]["chunk-location"][0]
        made.append(k)
        return np.column_stack(rows_of(k, 50))

    whole = da.map_blocks(make, chunks=((50,) * 4, (H + 1,)), dtype=np.float64, meta=np.zeros((0, 0)))
    compute = Scheduler.compute
    monkeypatch.setattr(Scheduler, "compute", lambda self, task: (passes.append(1), compute(self, task))[1])
    monkeypatch.setattr("softnll.dask._scheduler._SHARE", 0.0)
    SoftmaxClassifier(tol=1e-3).fit(whole[:, :H], whole[:, H].astype(int))
    assert len(made) == 4 * len(passes)


def test_dataframes_with_words_for_labels():
    parts = [rows_of(k, n) for k, n in enumerate(SIZES)]
    names = np.array(["cat", "dog", "horse", "owl"])
    frames = [pd.DataFrame(X, columns=[f"f{k}" for k in range(H)]).assign(label=names[y]) for X, y in parts]
    frame = dd.from_map(lambda k: frames[k], range(4), meta=frames[0].iloc[:0])
    X, y = frame.drop(columns="label"), frame["label"]
    model = SoftmaxClassifier(**TIGHT).fit(X, y)
    whole = pd.concat(frames)
    ours = sn.SoftmaxClassifier(**TIGHT).fit(whole.drop(columns="label"), whole["label"].astype(object))
    np.testing.assert_allclose(model.coef_, ours.coef_, rtol=0, atol=1e-8)
    assert [*model.feature_names_in_] == [f"f{k}" for k in range(H)]
    assert [*model.classes_] == [*names]
    assert model.predict(X).compute().tolist() == ours.predict(whole.drop(columns="label")).tolist()
    assert model.score(X, y) == ours.score(whole.drop(columns="label"), whole["label"].astype(object))
    with pytest.raises(ValueError, match="X has the columns"):
        model.predict(X[[*X.columns][::-1]])
    model.to_local().predict(whole.drop(columns="label"))


def test_categories_and_integers_are_labels_and_features():
    frame = pd.DataFrame({"a": np.arange(60) % 7, "b": np.arange(60) % 11 - 0.5})
    y = pd.Series(pd.Categorical(np.where(np.arange(60) % 7 > 3, "high", "low")))
    model = SoftmaxClassifier(max_iter=200).fit(dd.from_pandas(frame, npartitions=3), dd.from_pandas(y, npartitions=3))
    assert [*model.classes_] == ["high", "low"]
    assert model.score(dd.from_pandas(frame, npartitions=2), dd.from_pandas(y, npartitions=2)) == 1.0


def test_lengths_may_be_unknown_and_partitions_empty_or_of_one_class():
    X, y = in_memory()
    dX, dy = table()
    at = da.from_array(np.repeat([0, 1, 2, 3], SIZES), chunks=(SIZES,))
    masked = dX[(dy == 1) | (at != 2)], dy[(dy == 1) | (at != 2)]  # the third partition holds one class
    few = (y == 1) | (np.repeat([0, 1, 2, 3], SIZES) != 2)
    none = dX[at != 1], dy[at != 1]  # the second one is empty
    for (one, other), rows in ((masked, few), (none, np.repeat([0, 1, 2, 3], SIZES) != 1)):
        assert np.isnan(one.shape[0])
        model = SoftmaxClassifier(**TIGHT).fit(one, other)
        ours = sn.SoftmaxClassifier(**TIGHT).fit(X[rows], y[rows])
        np.testing.assert_allclose(model.coef_, ours.coef_, rtol=0, atol=1e-8)
        assert model.predict_proba(one).compute().shape == (rows.sum(), K)
        assert model.score(one, other) == ours.score(X[rows], y[rows])


def test_rows_of_weight_0_take_no_part():
    X, y = table()
    weight = (np.arange(1000) >= 300).astype(float)  # all of the first partition
    model = SoftmaxClassifier(**TIGHT).fit(X, y, da.from_array(weight, chunks=100))
    ours = sn.SoftmaxClassifier(**TIGHT).fit(*(each[300:] for each in in_memory()))
    np.testing.assert_allclose(model.coef_, ours.coef_, rtol=0, atol=1e-8)


@pytest.mark.parametrize("n_classes", [2, K])
def test_predictions_are_lazy_and_those_of_the_local_model(n_classes):
    X, y = in_memory()
    dX, dy = table()
    model = SoftmaxClassifier().fit(dX, dy % n_classes)
    local = model.to_local()
    assert type(local) is sn.SoftmaxClassifier
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        expected = getattr(local, method)(X)
        found = getattr(model, method)(dX)
        assert isinstance(found, da.Array)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert found.chunks[0] == dX.chunks[0]
        np.testing.assert_array_equal(
            found.compute(), np.concatenate([getattr(local, method)(X[rows]) for rows in ROWS])
        )
        np.testing.assert_array_equal(getattr(model, method)(X), expected)  # arrays in memory give arrays
    assert model.score(X, y % n_classes) == local.score(X, y % n_classes)


ROWS = [slice(0, 300), slice(300, 500), slice(500, 750), slice(750, 1000)]


def test_the_local_model_is_saved_and_read(tmp_path):
    X, y = table()
    model = SoftmaxClassifier(C=3.0).fit(X, y)
    model.to_local().save(tmp_path / "model.npz")
    read = sn.SoftmaxClassifier.load(tmp_path / "model.npz")
    assert read.C == 3.0
    assert same_bits(read, model)


def test_it_is_an_estimator_of_scikit_learn():
    model = SoftmaxClassifier(C=2.0)
    assert clone(model).get_params() == sn.SoftmaxClassifier(C=2.0).get_params()
    assert repr(model) == "SoftmaxClassifier(C=2.0)"
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError, match=r"softnll.SoftmaxClassifier has"):
        _ = model.partial_fit


def test_warm_start_callbacks_and_their_end():
    X, y = table()
    model = SoftmaxClassifier(warm_start=True, **TIGHT).fit(X, y)
    before = model.n_iter_
    model.fit(X, y)
    assert model.n_iter_ <= 1 < before
    seen = []

    def stop(iteration, loss, coef, intercept):
        seen.append((iteration, loss, coef.shape, intercept.shape))
        if iteration == 2:
            raise StopIteration

    assert SoftmaxClassifier().fit(X, y, callback=stop).n_iter_ == 2
    assert [each[0] for each in seen] == [1, 2]
    assert seen[0][2:] == ((K, H), (K,))

    def interrupt(*_):
        raise KeyboardInterrupt

    model = SoftmaxClassifier()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y, callback=interrupt)
    assert model.coef_.shape == (K, H)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
        SoftmaxClassifier(max_iter=1).fit(X, y)


def test_the_package_needs_no_dask_and_says_what_to_install():
    code = (
        "import sys; sys.modules['dask'] = None\n"
        "import softnll\n"
        "try:\n    import softnll.dask\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "softnll.dask needs Dask: pip install 'softnll[dask]'\n"
