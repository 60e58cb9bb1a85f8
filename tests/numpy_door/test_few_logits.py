"""Linear losses of few logits have the bits of the general path, which takes what they do not."""

import numpy as np
import pytest

import softnll
from softnll._numpy import linear

OPTIONS = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "soft cap and temperature": {"softcap": 3.0, "temperature": 0.7},
    "z-loss of rows": {"z_loss": 0.01, "reduction": "none"},
    "sum": {"reduction": "sum"},
}


def given(dtype=np.float32, n=40):
    rng = np.random.default_rng(3)
    x, W, b = rng.normal(size=(n, 16)), rng.normal(size=(9, 16)), rng.normal(size=9)
    return *(each.astype(dtype) for each in (x, W)), rng.integers(0, 9, n), b.astype(dtype)


def both(x, W, y, **options):
    loss, gradients = softnll.linear_cross_entropy_and_grad(x, W, y, **options)
    return softnll.linear_cross_entropy(x, W, y, **options), loss, *gradients


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_same_bits_as_the_general_path(options, dtype, soft, monkeypatch):
    x, W, y, b = given(dtype)
    targets = np.eye(9, dtype=dtype)[y] if soft else y
    for bias in (None, b):
        with monkeypatch.context() as general:
            general.setattr(linear, "few_logits", lambda *_: None)
            expected = both(x, W, targets, bias=bias, **options)
        assert linear.few_logits(x, W, targets, bias, options) is not None
        for found, other in zip(both(x, W, targets, bias=bias, **options), expected, strict=True):
            np.testing.assert_array_equal(found, other)
            assert (found is None and other is None) or found.dtype == other.dtype


def test_a_row_that_takes_no_part_may_hold_nan():
    x, W, y, _ = given()
    y[3] = -100
    expected = both(x, W, y)
    x[3] = np.nan
    for found, other in zip(both(x, W, y), expected, strict=True):
        if found is not None:
            np.testing.assert_array_equal(found, other)


def test_products_that_overflow_are_infinite_without_a_warning():
    x, W, y, b = given()
    x[0, 0], W[0, 0] = 3e38, 1e30
    y[0] = 1
    assert linear.few_logits(x, W, y, b, {}) is not None
    assert softnll.linear_cross_entropy(x, W, y, bias=b) == np.inf
    assert softnll.linear_cross_entropy_and_grad(x, W, y, bias=b)[0] == np.inf


def not_served():
    x, W, y, b = given()
    yield "half types", (x.astype(np.float16), W.astype(np.float16), y, None, {})
    yield "two types", (x, W.astype(np.float64), y, None, {})
    yield "a bias of another type", (x, W, y, b.astype(np.float64), {})
    yield "a bias of another shape", (x, W, y, b[:3], {})
    yield "another width", (x[:, :3].copy(), W, y, b, {})
    yield "columns apart", (np.asfortranarray(x), W, y, b, {})
    yield "lists", (x.tolist(), W, y, b, {})
    yield "integers", (x.astype(np.int64), W.astype(np.int64), y, None, {})
    yield "more dimensions", (x[None], W, y[None], b, {})
    yield "no rows", (x[:0], W, y[:0], b, {})
    yield "many logits", (np.zeros((8000, 16), "f"), W, np.zeros(8000, int), b, {})
    yield "class weights", (x, W, y, b, {"class_weight": np.ones(9)})
    yield "row weights", (x, W, y, b, {"sample_weight": np.ones(40)})
    yield "temperatures", (x, W, y, b, {"temperature": np.ones(40)})
    yield "an ignored row", (x, W, np.where(y == y[0], -100, y), b, {})


@pytest.mark.parametrize("arguments", [pytest.param(each, id=name) for name, each in not_served()])
def test_what_is_not_served(arguments):
    assert linear.few_logits(*arguments) is None


def test_errors_are_those_of_the_general_path(monkeypatch):
    x, W, y, b = given()
    told = []
    for served in (linear.few_logits, lambda *_: None):
        monkeypatch.setattr(linear, "few_logits", served)
        wrong = [(y + 1, {}), (y * 0.5, {}), (y[:3], {}), (y, {"label_smoothing": 2}), (y, {"reduction": "all"})]
        for targets, options in [*wrong, (y, {"axis": 1})]:
            with pytest.raises((ValueError, TypeError)) as raised:
                softnll.linear_cross_entropy(x, W, targets, bias=b, **options)
            told.append((raised.type, str(raised.value)))
    assert told[:6] == told[6:]
