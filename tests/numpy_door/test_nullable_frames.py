"""Data frames of pandas' nullable and Arrow types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import softnll as sn
from cases import SCORES, TRUE

KINDS = ["Float64", "Float32", "double[pyarrow]", "float[pyarrow]", "Int64", "int16[pyarrow]", "float64", "float32"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", ["Int64", "UInt8", "int64[pyarrow]", "int32"])
def test_numbers_are_those_of_arrays(kind, labels):
    frame = pd.DataFrame(SCORES, columns=list("abc")).astype(kind)
    y = pd.Series(TRUE, dtype=labels)
    assert float(sn.cross_entropy(frame, y)) == pytest.approx(0.362443, abs=1e-6)
    assert np.allclose(sn.softmax(frame), sn.softmax(np.array(SCORES)), rtol=1e-6)


def test_float32_stays_float32():
    frame = pd.DataFrame(SCORES).astype("Float32")
    assert sn.softmax(frame).dtype == np.float32


@pytest.mark.parametrize("kind", ["Float64", "double[pyarrow]", "Int64"])
def test_missing_values_are_refused_where_they_are(kind):
    frame = pd.DataFrame({"a": [1, 2], "b": [3, None]}, dtype=kind)
    with pytest.raises(ValueError, match=r"logits\[1, 1\] is missing"):
        sn.cross_entropy(frame, [0, 1])


def test_words_are_refused():
    with pytest.raises(TypeError, match="dtype object"):
        sn.softmax(pd.DataFrame({"a": [1.0], "b": ["x"]}))
