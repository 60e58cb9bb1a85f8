"""logsumexp with weights and signs: against exact sums, and SciPy where its conventions are asked for."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import special

import softnll as sn

INF, NAN = np.inf, np.nan


def exact(x, b):
    """Return logarithm and sign of the sum, and how much larger the sum of the absolute values is."""
    with mpmath.workdps(700):
        terms = [mpmath.mpf(float(w)) * mpmath.exp(mpmath.mpf(float(z))) for z, w in zip(x, b, strict=True)]
        total = mpmath.fsum(terms)
        if total == 0:
            return -INF, 0, 1.0
        larger = mpmath.fsum(map(abs, terms)) / abs(total)
        return float(mpmath.log(abs(total))), int(mpmath.sign(total)), float(larger)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0, 700.0])
@pytest.mark.parametrize("powers", [(0,), (0, 5, -5), (300, -300, 0)])
def test_sums_are_exact_up_to_what_cancels(spread, powers):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)) * spread
    b = rng.normal(size=(60, 6)) * 10.0 ** rng.choice(powers, size=(60, 6))
    b[::3] = np.abs(b[::3])
    b[::7] = rng.integers(-2, 3, size=b[::7].shape)
    values, signs = sn.logsumexp(x, b=b, return_sign=True)
    plain = sn.logsumexp(x, b=b)
    for row in range(60):
        value, sign, larger = exact(x[row], b[row])
        assert signs[row] == sign
        size = max(abs(x[row]).max(), abs(np.log(np.where(b[row] == 0, 1, np.abs(b[row])))).max(), 1e-300)
        assert values[row] == value or abs(values[row] - value) <= 2 * (np.spacing(size) + 2.3e-16 * larger)
        assert (plain[row] == values[row]) if sign >= 0 else np.isnan(plain[row])


@pytest.mark.parametrize(
    ("x", "b", "value", "sign"),
    [
        ([1.0, 1.0], [1, -1], -INF, 0),
        ([-INF], [0], -INF, 0),
        ([-INF, 1.0], [-1, 1], 1, 1),
        ([INF, 1.0], [0, 1], 1, 1),
        ([NAN, 1.0], [0, 1], 1, 1),
        ([INF, 1.0], [-1, 1], INF, -1),
        ([INF, INF], [2, 3], INF, 1),
        ([INF, INF], [1, -1], NAN, NAN),
        ([1.0, 2.0], [1, INF], INF, 1),
        ([1.0, 2.0], [1, -INF], INF, -1),
        ([-INF, 2.0], [INF, 1], NAN, NAN),
        ([1.0, NAN], [1, 1], NAN, NAN),
        ([1.0, 2.0], [NAN, 1], NAN, NAN),
        (5.0, -2.0, 5 + np.log(2), -1),
        ([1e300, -1e300], [1, 1], 1e300, 1),
    ],
)
def test_conventions_are_scipys(x, b, value, sign):
    got = sn.logsumexp(x, b=b, return_sign=True)
    np.testing.assert_array_equal(got, (value, sign))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, special.logsumexp(x, b=b, return_sign=True))


def test_weights_broadcast_and_keep_shape_type_and_mask():
    x, b = np.zeros((3, 1), np.float32), np.ones((1, 4), np.float32)
    assert sn.logsumexp(x, b=b, axis=1).dtype == np.float32
    np.testing.assert_allclose(sn.logsumexp(x, b=b, axis=1, keepdims=True), np.full((3, 1), np.log(4)), rtol=1e-6)
    assert sn.logsumexp(x, b=b.astype(np.float64)).dtype == np.float64
    assert sn.logsumexp(x, b=[2]).dtype == np.float32
    assert sn.logsumexp(np.zeros((2, 3, 4)), b=np.ones(4), axis=(0, 2)).shape == (3,)
    value, sign = sn.logsumexp([1.0, NAN, 2.0], b=[1, 1, -1], where=[True, False, True], return_sign=True)
    np.testing.assert_allclose((value, sign), special.logsumexp([1.0, 2.0], b=[1, -1], return_sign=True), rtol=1e-15)
    for shape in ((2, 0), (0, 3)):
        for given in (
            sn.logsumexp(np.zeros(shape), b=np.zeros(shape)),
            *sn.logsumexp(np.zeros(shape), return_sign=True),
        ):
            assert given.shape == shape[:1]


def test_the_sign_without_weights():
    value, sign = sn.logsumexp([[1.0, 2.0], [-INF, -INF], [NAN, 0], [INF, 0]], return_sign=True)
    np.testing.assert_array_equal(value, sn.logsumexp([[1.0, 2.0], [-INF, -INF], [NAN, 0], [INF, 0]]))
    np.testing.assert_array_equal(sign, [1, 0, NAN, 1])


@pytest.mark.parametrize(
    ("b", "error"), [(1j, TypeError), ("1", TypeError), (True, TypeError), ([1, 2, 3], ValueError)]
)
def test_weights_that_are_none(b, error):
    with pytest.raises(error, match=r"^b has "):
        sn.logsumexp([1.0, 2.0], b=b)
    with pytest.raises(TypeError, match="logits has dtype complex128"):
        sn.logsumexp(1 + 1j)
