"""The compiled check of soft targets, beside NumPy's check of each row."""

import numpy as np
import pytest

import softnll as sn
from cases import DTYPES
from softnll._core.planes import Planes
from softnll._kernels.cpu import interface

FORMS = {
    "rows": lambda q: q,
    "every second row": lambda q: np.repeat(q, 2, axis=0)[::2],
    "planes": lambda q: Planes(np.ascontiguousarray(q.T)[None]),
    "three planes": lambda q: Planes(np.ascontiguousarray(np.stack([q.T, q.T, q.T]))),
}


def distributions(n_rows, n_classes, dtype):
    q = np.random.default_rng(n_classes).dirichlet(np.ones(n_classes), n_rows)
    q[0] = 0.0
    q[0, n_classes // 2] = 1.0
    return q.astype(dtype)


@pytest.mark.parametrize("name", list(DTYPES))
@pytest.mark.parametrize("form", list(FORMS))
def test_each_entry_is_looked_at(name, form):
    tolerance = 0.05
    for n_rows, n_classes in ((1, 1), (3, 2), (17, 7), (40, 19), (5, 33), (2, 70)):
        q = distributions(n_rows, n_classes, DTYPES[name])
        assert interface.are_distributions(FORMS[form](q), tolerance)
        for place in np.ndindex(q.shape):
            for value in (-0.01, 1.2, np.nan, np.inf, -np.inf):
                if value == 1.2 and q[place] > 1:
                    continue
                changed = q.copy()
                changed[place] = value
                assert not interface.are_distributions(FORMS[form](changed), tolerance)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_sum_is_that_of_float64(form):
    q = np.full((3, 4096), 1 / 4096, np.float32)
    q[1, 7] += np.float32(1e-6)  # float32 would lose it where it adds the entries up one by one
    assert not interface.are_distributions(FORMS[form](q), 9e-7)
    assert interface.are_distributions(FORMS[form](q), 1.1e-6)


def test_rows_with_gaps_are_left_to_numpy():
    q = distributions(6, 4, np.float32)
    assert not interface.are_distributions(np.repeat(q, 2, axis=1)[:, ::2], 0.05)
    assert not interface.are_distributions(q[:, ::-1], 0.05)
    assert np.isfinite(sn.cross_entropy(np.zeros((6, 4)), np.repeat(q, 2, axis=1)[:, ::2]))


@pytest.mark.parametrize("n_rows", [9, 70000])
def test_rows_of_weight_0_may_have_any_targets(n_rows):
    q = distributions(n_rows, 5, np.float64)
    q[n_rows // 2] = 7.0
    x = np.zeros((n_rows, 5))
    with pytest.raises(ValueError, match=rf"targets\[{n_rows // 2}\] sums to 35.0"):
        sn.cross_entropy(x, q)
    s = np.ones(n_rows)
    s[n_rows // 2] = 0
    assert sn.cross_entropy(x, q, sample_weight=s) == pytest.approx(np.log(5))
