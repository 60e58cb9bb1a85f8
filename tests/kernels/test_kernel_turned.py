"""Rows of few classes with spread targets or a temperature are turned into planes: which rows, and their values."""

import ml_dtypes
import numpy as np
import pytest

from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cpu import scalar_interface as scalar
from softnll._kernels.cpu import turned

OPTIONS = CrossEntropy(label_smoothing=0.1, z_loss=0.01)
TYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def problem(n_rows, n_classes, dtype, soft, signed=False):
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(n_rows, n_classes))).astype(dtype)
    s = rng.random(n_rows) * rng.choice([-1.0, 1.0], n_rows) if signed else rng.random(n_rows)
    s[::7] = 0
    x[::7] = np.nan  # rows that take no part
    targets = (
        {"q": rng.random((n_rows, n_classes)).astype(dtype)} if soft else {"y": rng.integers(0, n_classes, n_rows)}
    )
    return Problem(x, OPTIONS, s=s, w=1 + rng.random(n_classes), divisor=3.0, **targets)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n_classes", [1, 3, 24])
@pytest.mark.parametrize("dtype", TYPES)
def test_values_are_those_of_the_scalar_kernels(dtype, n_classes, soft):
    """In several blocks of rows: 3000 rows of 24 classes have three."""
    given = problem(3000, n_classes, TYPES[dtype], soft)
    assert turned.serves(given)
    got, want = np.empty_like(given.x), np.empty(given.x.shape)
    found = cpu.forward(given, got)
    wide = given.with_rows(given.x.astype(np.float64), None if given.q is None else given.q.astype(np.float64))
    expected = scalar.losses(wide, want)
    eps = float(ml_dtypes.finfo(given.x.dtype).eps)
    for one, other in zip(found, expected, strict=True):
        taking_part = given.s != 0
        np.testing.assert_allclose(one[taking_part], other[taking_part], rtol=2e-6 if eps > 1e-10 else 1e-14)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=8 * eps, atol=2 * eps)
    assert not got[::7].astype(np.float64).any()
    backward = np.empty_like(given.x)
    cpu.backward(given, *found[1:], backward)
    assert backward.tobytes() == got.tobytes()


def test_the_gradient_may_be_written_over_the_logits():
    given = problem(3000, 24, np.float32, soft=True)
    apart = np.empty_like(given.x)
    loss = cpu.forward_backward(given, apart)
    assert np.array_equal(cpu.forward_backward(given, given.x), loss)
    assert np.array_equal(given.x, apart)


def test_weights_of_either_sign():
    given = problem(100, 5, np.float64, soft=False, signed=True)
    got, want = np.empty_like(given.x), np.empty_like(given.x)
    np.testing.assert_allclose(cpu.forward_backward(given, got), scalar.losses(given, want)[0], rtol=1e-14)
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_temperature(dtype):
    x = problem(200, 6, TYPES[dtype], soft=False).x
    given = Problem(x, CrossEntropy(temperature=3.0, z_loss=0.01), y=np.arange(200) % 6, divisor=3.0)
    given.x[::7] = 1.0
    assert turned.serves(given)
    got, want = np.empty_like(given.x), np.empty(given.x.shape)
    found, expected = cpu.forward(given, got), scalar.losses(given.with_rows(x.astype(np.float64), None), want)
    eps = float(ml_dtypes.finfo(x.dtype).eps)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6 if eps > 1e-10 else 1e-14)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=4 * eps, atol=eps)


def test_a_backward_of_temperatures_reads_m_and_r_which_may_be_those_of_more_classes():
    """So do losses of a vocabulary that is divided among processes."""
    whole = np.random.default_rng(0).normal(size=(50, 9))
    y, tau = np.arange(50) % 4, CrossEntropy(temperature=3.0)
    want, got = np.empty_like(whole), np.empty((50, 4))
    _, m, r = cpu.forward(Problem(whole, tau, y=y), want)
    part = Problem(np.ascontiguousarray(whole[:, :4]), tau, y=y, tau=np.full(50, 3.0))
    assert not turned.serves(part)
    cpu.backward(part, m, r, got)
    np.testing.assert_allclose(got, want[:, :4], rtol=1e-13, atol=1e-15)


def test_rows_that_are_not_in_one_piece():
    given = problem(200, 6, np.float64, soft=True)
    wide = np.repeat(given.x, 2, axis=1)[:, ::2]
    targets = np.asfortranarray(given.q)
    one, other = np.empty(given.x.shape), np.empty((6, 200)).T
    loss = cpu.forward_backward(given, one)
    assert np.array_equal(cpu.forward_backward(given.with_rows(wide, targets), other), loss)
    assert np.array_equal(one, other)


def not_served():
    hard, soft = problem(4, 5, np.float32, soft=False), problem(4, 5, np.float32, soft=True)
    yield "hard targets", Problem(hard.x, y=hard.y)
    yield "many classes", problem(4, 25, np.float32, soft=True)
    yield "temperatures", Problem(hard.x, q=soft.q, tau=np.ones(4))
    yield "a soft cap", Problem(hard.x, CrossEntropy(softcap=2.0), q=soft.q)
    yield "a mask", Problem(hard.x, q=soft.q, where=np.ones((4, 5), bool))


@pytest.mark.parametrize("given", [pytest.param(each, id=name) for name, each in not_served()])
def test_what_is_not_turned(given):
    assert not turned.serves(given)
