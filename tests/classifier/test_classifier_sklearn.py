"""SoftmaxClassifier among scikit-learn's tools: its whole estimator check, search, pipelines, frames, pickles."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import softnll as sn

IRIS = load_iris(as_frame=True)


# One check fits iris as it is, unscaled, to which 100 iterations are too few; it wants an answer, not a minimum.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([sn.SoftmaxClassifier()])
def test_estimator(estimator, check):
    check(estimator)


def test_search_and_pipeline():
    pipeline = make_pipeline(StandardScaler(), sn.SoftmaxClassifier())
    search = GridSearchCV(pipeline, {"softmaxclassifier__C": [0.1, 1.0, 10.0]}, cv=3).fit(IRIS.data, IRIS.target)
    assert search.best_score_ > 0.95


def test_calibration():
    model = CalibratedClassifierCV(sn.SoftmaxClassifier(max_iter=1000), cv=3).fit(IRIS.data, IRIS.target)
    assert model.score(IRIS.data, IRIS.target) > 0.9


def test_names_of_features_and_classes():
    names = IRIS.target_names[IRIS.target]
    model = sn.SoftmaxClassifier(max_iter=1000).fit(IRIS.data, names)
    np.testing.assert_array_equal(model.feature_names_in_, IRIS.data.columns)
    np.testing.assert_array_equal(model.classes_, ["setosa", "versicolor", "virginica"])
    assert set(model.predict(IRIS.data)) == {"setosa", "versicolor", "virginica"}
    frame = sn.SoftmaxClassifier(max_iter=1000).fit(IRIS.data, pd.Series(names, dtype=object))
    np.testing.assert_array_equal(frame.predict(IRIS.data), model.predict(IRIS.data))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(IRIS.data[IRIS.data.columns[::-1]])


def test_copies():
    model = sn.SoftmaxClassifier(C=3.0, label_smoothing=0.1, max_iter=1000).fit(IRIS.data, IRIS.target)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(again.predict_proba(IRIS.data), model.predict_proba(IRIS.data))
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not hasattr(fresh, "coef_")


def test_sparse_targets_are_refused():
    with pytest.raises(TypeError, match="sparse"):
        sn.SoftmaxClassifier().fit(IRIS.data, csr_array(np.eye(3)[IRIS.target]))


def test_without_scikit_learn_the_error_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import softnll; softnll.SoftmaxClassifier"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ImportError: SoftmaxClassifier needs more: pip install 'softnll[app]'"
