"""Bad input to softnll.dask: one clear line that says what, in which partition, and what is allowed."""

from __future__ import annotations

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from scipy.sparse import csr_matrix

from dask_tables import H, K, in_memory, rows_of, table, unknown
from softnll.dask import SoftmaxClassifier


def blocks(*parts):
    """Return a Dask array of given blocks of unknown lengths, which may not be what the array says."""
    shape = (np.nan, *parts[0].shape[1:])
    made = [da.from_delayed(delayed(each, traverse=False), shape, parts[0].dtype) for each in parts]
    return da.concatenate(made, allow_unknown_chunksizes=True)


X, y = in_memory()
XS, YS = table()
PARTS = [rows_of(k, 50) for k in range(3)]


def with_a(value, column=2):
    changed = PARTS[1][0].copy()
    changed[17, column] = value
    return blocks(PARTS[0][0], changed, PARTS[2][0])


WHOLE = blocks(*(each for each, _ in PARTS))
LABELS = blocks(*(each for _, each in PARTS))

BAD = {
    "X in memory": ((X, y), "X is a ndarray; allowed: a Dask array or dataframe; softnll.SoftmaxClassifier"),
    "X of one dimension": ((YS, YS), "X has 1 dimensions; allowed: 2"),
    "y of three": ((XS, XS[:, None]), "y has 3 dimensions; allowed: 1 or 2"),
    "y is a number": ((XS, 3), "y is array"),
    "other length": ((XS, YS[:900]), "X has 1000 rows, y 900"),
    "other length in memory": ((XS, y[:900]), "X has 1000 rows, y 900"),
    "weights of two dimensions": ((XS, YS, XS), "sample_weight has 2 dimensions; allowed: 1"),
    "unknown lengths, y in memory": (
        (unknown(XS), y),
        r"y is in memory, and the lengths of X's partitions are unknown; compute them: X.compute_chunk_sizes\(\)",
    ),
    "unknown lengths, other partitions": (
        (unknown(XS), YS.rechunk(500)),
        r"X has 4 partitions and y 2, and their lengths are unknown; compute them: X.compute_chunk_sizes\(\)",
    ),
    "a frame, y in memory": (
        (dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0]}), npartitions=1), [0, 1]),
        r"compute them: X.to_dask_array\(lengths=True\)",
    ),
    "unknown lengths that differ": (
        (WHOLE, blocks(PARTS[0][1], PARTS[1][1][:40], PARTS[2][1])),
        r"partition 1 \(0 first\): X has 50 rows, y 40",
    ),
    "weights that differ": (
        (WHOLE, LABELS, blocks(np.ones(50), np.ones(50), np.ones(3))),
        r"partition 2 \(0 first\): X has 50 rows, sample_weight 3",
    ),
    "NaN": ((with_a(np.nan), LABELS), r"partition 1 \(0 first\): .*X contains NaN"),
    "infinity": ((with_a(np.inf), LABELS), r"partition 1 \(0 first\): .*X contains infinity"),
    "width": (
        (blocks(PARTS[0][0], PARTS[1][0][:, :5], PARTS[2][0]), LABELS),
        r"partition 1 \(0 first\): X has 5 features, 12 in partition 0",
    ),
    "type": (
        (blocks(PARTS[0][0], PARTS[1][0].astype(np.float32), PARTS[2][0]), LABELS),
        r"partition 1 \(0 first\): X is float32, float64 in partition 0",
    ),
    "text": (
        (blocks(PARTS[0][0], np.full((50, H), "a"), PARTS[2][0]), LABELS),
        r"partition 1 \(0 first\): .*could not convert string to float",
    ),
    "sparse": (
        (blocks(csr_matrix(PARTS[0][0])), LABELS.blocks[0]),
        "X is sparse; allowed: dense",
    ),
    "labels of two kinds": (
        (WHOLE, blocks(PARTS[0][1], PARTS[1][1].astype(str), PARTS[2][1])),
        r"partition 1 \(0 first\): y holds text, numbers in partition 0",
    ),
    "soft and hard": (
        (WHOLE, blocks(np.eye(K)[PARTS[0][1]], PARTS[1][1], PARTS[2][1])),
        r"partition 1 \(0 first\): y has other columns than in partition 0",
    ),
    "fractions": ((WHOLE, LABELS + 0.5), r"partition \d \(0 first\): Unknown label type"),
    "missing labels": (
        (WHOLE, blocks(*(np.where(each == 2, np.nan, each) for _, each in PARTS))),
        r"partition \d \(0 first\): y holds missing labels",
    ),
    "one class": ((WHOLE, LABELS * 0), "y holds one class"),
    "no distribution": ((XS, XS[:, :3] ** 2), r"partition \d \(0 first\): .*sum"),
    "negative weights": ((XS, YS, -y), r"partition \d \(0 first\): sample_weight holds negative"),
    "weights of 0": ((XS, YS, 0 * y), "the weights of all rows are 0"),
    "infinite sum": ((XS, YS, np.full(1000, 1e306)), "the sum of the weights is infinite"),
    "no rows": ((XS[:0], YS[:0]), "X holds no rows"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:.*PerformanceWarning")
def test_bad_input_is_one_line(case):
    arguments, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        SoftmaxClassifier().fit(*arguments)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(("options", "error"), [({"C": -1}, ValueError), ({"tol": "a"}, TypeError)])
def test_options_are_checked_first(options, error):
    with pytest.raises(error, match=next(iter(options))):
        SoftmaxClassifier(**options).fit(None, None)


def test_predictions_of_other_widths_and_missing_numbers():
    model = SoftmaxClassifier().fit(XS, YS)
    with pytest.raises(ValueError, match=r"allowed: \(N, 12\)"):
        model.predict(XS[:, :5])
    with pytest.raises(ValueError, match="X contains NaN"):
        model.predict(with_a(np.nan)).compute()
    with pytest.raises(ValueError, match="there is no score"):
        model.score(XS, YS, 0 * YS)


def test_lengths_that_are_computed_are_taken():
    found = unknown(XS)
    found.compute_chunk_sizes()
    assert SoftmaxClassifier().fit(found, y).score(XS, YS) > 0.5
