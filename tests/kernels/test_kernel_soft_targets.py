"""The vector kernels of soft and smoothed targets, against their scalar twin and against wider arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import EPS, LENGTHS, agree, distributions, losses_and_gradients

import softnll as sn
from cases import DTYPES
from softnll._core.options import CrossEntropy
from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cpu import scalar_interface as scalar

RARE = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "all smoothing": {"label_smoothing": 1.0},
    "z-loss": {"label_smoothing": 0.1, "z_loss": 1e-2},
    "temperature": {"label_smoothing": 0.1, "temperature": 0.7},
}


@pytest.mark.parametrize("n", LENGTHS)
def test_every_length(n, real):
    rng = np.random.default_rng(n)
    N = 9 if n < 300 else 3
    x, y = (rng.normal(size=(N, n)) * 5).astype(real), rng.integers(0, n, N)
    agree(Problem(x, q=distributions(rng, N, n, real), divisor=float(N)))
    agree(Problem(x, CrossEntropy(label_smoothing=0.1), y=y, divisor=float(N)))


def test_ordinary_rows_are_not_left_to_the_scalar_kernels(monkeypatch, dtype):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(scalar, "losses", never)
    monkeypatch.setattr(scalar, "backward", never)
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(20, 50)) * 5).astype(dtype), rng.integers(0, 50, 20)
    losses_and_gradients(cpu, Problem(x, q=distributions(rng, 20, 50, dtype)))
    losses_and_gradients(cpu, Problem(x, CrossEntropy(label_smoothing=0.1, z_loss=1e-3, temperature=2.0), y=y))


@pytest.mark.parametrize("n", [5, 50, 200])
def test_weights_of_either_sign_are_not_left_to_the_scalar_kernels(n, monkeypatch, real):
    """Such as advantages: one row at a time takes ten times as long."""
    rng = np.random.default_rng(n)
    x, y, s = (rng.normal(size=(20, n)) * 5).astype(real), rng.integers(0, n, 20), rng.normal(size=20)
    q, w = distributions(rng, 20, n, real), rng.normal(size=n)
    smoothed = CrossEntropy(label_smoothing=0.1, z_loss=1e-3)
    given = (Problem(x, y=y, s=s), Problem(x, y=y, w=w, s=s), Problem(x, q=q, s=s), Problem(x, smoothed, y=y, s=s))
    for each in given:
        agree(each)

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(scalar, "losses", never)
    monkeypatch.setattr(scalar, "backward", never)
    for each in given:
        losses_and_gradients(cpu, each)


@pytest.mark.parametrize("options", RARE.values(), ids=RARE)
@pytest.mark.parametrize("n", [5, 170, 600])
def test_options(n, options, real):
    check_options(n, options, real, weighted=[(), ("w",), ("s",), ("w", "s")])


@pytest.mark.parametrize("n", [5, 170, 600])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_options_of_half_types(n, name):
    """A half type differs from float32 in what is loaded and stored, whatever the options."""
    check_options(n, RARE["temperature"], np.dtype(DTYPES[name]), weighted=[("w", "s")])


def check_options(n, options, dtype, weighted):
    rng = np.random.default_rng(n)
    x, y = (rng.normal(size=(11, n)) * 4).astype(dtype), rng.integers(0, n, 11)
    w, s = rng.uniform(0, 30, n), rng.uniform(0, 3, 11)
    w[::3], s[4] = 0, 0
    w[0] = 1.5
    q = distributions(rng, 11, n, dtype)
    objective = CrossEntropy(**options)
    for names in weighted:
        weights = {name: {"w": w, "s": s}[name] for name in names}
        agree(Problem(x, objective, q=q, **weights))
        if objective.label_smoothing > 0:
            agree(Problem(x, objective, y=y, **weights))


def test_a_temperature_a_row(real):
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(9, 77)).astype(real), distributions(rng, 9, 77, real)
    tau = np.linspace(1.0, 3, 9)
    agree(Problem(x, q=q, tau=tau))


@pytest.mark.parametrize("n", [7, 170])
def test_rows_that_are_left_to_the_scalar_kernels(n, real):
    """NaN, infinities with and without mass, no mass, a target that is no class, masses out of range."""
    rng = np.random.default_rng(n)
    x, q = rng.normal(size=(12, n)).astype(real), distributions(rng, 12, n, real)
    x[0, n // 2] = np.nan
    x[1, 3], q[1, 3] = -np.inf, 0
    x[2, 3], q[2, 3] = -np.inf, 0.25
    x[3, 2], x[4], q[5] = np.inf, -np.inf, 0
    q[6], q[7] = q[6] * real.type(1e-20), q[7] * real.type(1e20)
    q[8, 1] = np.nan
    q[9, 1] = -0.5
    x[10, 0] = 1e30
    agree(Problem(x, q=q))
    y = rng.integers(0, n, 12)
    y[7], y[8], x[1, y[1]] = -1, n, 0
    x[2:5] = rng.normal(size=(3, n))
    agree(Problem(x, CrossEntropy(label_smoothing=0.2), y=y))


def test_types_that_differ():
    """Soft targets in any type beside logits in any other: as if they were of the logits'."""
    rng = np.random.default_rng(1)
    for one in ("float32", "float64", "float16"):
        for other in ("float32", "float64", "float16"):
            x, q = rng.normal(size=(5, 33)).astype(one), distributions(rng, 5, 33, other)
            agree(Problem(x, q=q))


def test_gaps_between_entries_and_in_place(real):
    rng = np.random.default_rng(2)
    x, q = rng.normal(size=(6, 80)).astype(real), distributions(rng, 6, 80, real)
    want = np.empty_like(x)
    loss = cpu.forward_backward(Problem(x, q=q), want)
    spread, spread_q = np.repeat(x, 2, axis=1)[:, ::2], np.asfortranarray(q)
    for problem in (Problem(spread, q=q), Problem(x, q=spread_q), Problem(np.asfortranarray(x), q=spread_q)):
        out = np.empty_like(x)
        assert np.array_equal(cpu.forward_backward(problem, out), loss)
        assert np.array_equal(out, want)
    same = x.copy()
    assert np.array_equal(cpu.forward_backward(Problem(same, q=q), same), loss)
    assert np.array_equal(same, want)


def test_masks_go_through_the_scalar_kernels(real):
    rng = np.random.default_rng(3)
    x, where = rng.normal(size=(6, 40)).astype(real), rng.random((6, 40)) < 0.7
    where[:, 0] = True
    agree(Problem(x, CrossEntropy(label_smoothing=0.1), y=np.zeros(6, np.int64), where=where))


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="no type wider than float64 here")
@pytest.mark.parametrize("gap", [0.0, 1.0, 12.0, 25.0, 60.0])
@pytest.mark.parametrize("n", [3, 33, 700])
def test_digits_of_sure_rows(n, gap, real):
    """A row sure of its soft target, mass 1 or nearly: loss to 4 units, gradient to 4 of the largest term."""
    rng = np.random.default_rng(int(gap) + n)
    x = rng.normal(size=(8, n)).astype(real)
    x[:, 1] += real.type(gap)
    for rest in (0.0, 1e-3):
        q = np.full((8, n), rest / n)
        q[:, 1] += 1 - rest
        q = q.astype(real)
        grad = np.empty_like(x)
        loss = cpu.forward_backward(Problem(x, q=q), grad)
        u, t = x.astype(np.longdouble), q.astype(np.longdouble)
        a = u.argmax(axis=1)[:, None]
        e = np.exp(u - np.take_along_axis(u, a, axis=1))
        others = e.copy()
        np.put_along_axis(others, a, 0, axis=1)
        r = others.sum(axis=1, keepdims=True)
        nll = (np.take_along_axis(u, a, axis=1) - u) + np.log1p(r)
        exact = (t * nll).sum(axis=1)
        p, T = e / (1 + r), t.sum(axis=1, keepdims=True)
        eps = EPS[real.name]
        assert (np.abs(loss - exact) <= 4 * eps * exact).all()
        absent = ((1 - e) + r) / (1 + r)
        np.put_along_axis(absent, a, r / (1 + r), axis=1)
        want = (T - t) * p - t * absent
        terms = np.maximum((T - t) * p, t * absent) if rest == 0 else np.maximum(T * p, t)
        assert (np.abs(grad - want) <= 4 * eps * terms + 2 * np.finfo(real).smallest_subnormal).all()


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 2e-19, reason="no type wider than float64 here")
@pytest.mark.parametrize("n", [3, 129, 1000])
def test_digits_of_ordinary_rows(n, real):
    """Masses and losses are sums too: within 4 units, also where every addition would round the same way."""
    rng = np.random.default_rng(n)
    N = 200
    x, q = rng.normal(size=(N, n)).astype(real), rng.dirichlet(np.ones(n), N)
    q[0], q[0, :: max(n // 16, 1)] = 2.0**-23 * 0.4999 / 16, 1 / 16
    x[0], x[0, -1] = -1, 0
    q = q.astype(real)
    grad = np.empty_like(x)
    loss = cpu.forward_backward(Problem(x, q=q), grad)
    u, t = x.astype(np.longdouble), q.astype(np.longdouble)
    lse = np.log(np.exp(u).sum(axis=1, keepdims=True))
    p, T = np.exp(u - lse), t.sum(axis=1, keepdims=True)
    eps = EPS[real.name]
    exact = (t * (lse - u)).sum(axis=1)
    assert (np.abs(loss - exact) <= 4 * eps * exact).all()
    assert (np.abs(grad - (T * p - t)) <= 4 * eps * np.maximum(T * p, t)).all()


def test_scales_beyond_float32():
    """The largest entry after the guess and a small scale; weights, masses and shares that float32 does not hold."""
    x, q = np.zeros((2, 400), np.float32), np.zeros((2, 400), np.float32)
    x[:, 300] = [38, 39.9]
    q[:, 0] = q[:, 300] = 0.5
    got, want = np.empty_like(x), np.empty(x.shape)
    cpu.forward_backward(Problem(x, q=q, divisor=65536.0), got)
    scalar.forward_backward(Problem(x.astype(np.float64), q=q, divisor=65536.0), want)
    assert np.allclose(got, want, rtol=1e-6, atol=0)
    x, q = np.array([[0, 1], [2, 0]], np.float32), np.array([[0.5, 0.5], [1e39, 1e39]])
    with np.errstate(all="raise"):
        agree(Problem(x[:1], q=np.array([[1, 1e-50]])))
        cpu.forward_backward(Problem(x, q=q, w=np.array([1e39, 1])), np.empty_like(x))
        loss = cpu.losses(Problem(x, q=q, s=np.array([1, 1e-30])))
        impossible = np.array([[0, -np.inf]], np.float32)
        assert cpu.losses(Problem(impossible, CrossEntropy(label_smoothing=1e-46), y=np.array([0])))[0] == np.inf
        assert cpu.losses(Problem(impossible, q=np.ones((1, 2)) / 2, w=np.array([1, 1e-46])))[0] == np.inf
    assert np.isclose(loss[1], scalar.losses(Problem(x, q=q, s=np.array([1, 1e-30])), None)[0][1], rtol=1e-12)


def test_a_normaliser_beyond_float64():
    for size, tau in ((1.7e308, 0.5), (1e300, 1e-9)):
        x, q = np.array([[size, size]]), np.array([[0.5, 0.5]])
        for targets in ({"q": q}, {"y": np.array([0])}):
            objective = CrossEntropy(label_smoothing=0.1, temperature=tau)
            assert np.isclose(cpu.losses(Problem(x, objective, **targets))[0], np.log(2))


def test_one_class_has_no_gradient(real):
    for smoothing in np.random.default_rng(0).random(200):
        grad = np.ones((1, 1), real)
        problem = Problem(np.full((1, 1), 3.5, real), CrossEntropy(label_smoothing=smoothing), y=np.zeros(1, np.int64))
        cpu.forward_backward(problem, grad)
        assert grad[0, 0] == 0


def test_large_class_weights_of_soft_targets_stay_in_the_mean():
    """The denominator of soft targets knows no class weights: they are not scaled down beside it."""
    x, q = np.array([[1.0, 2.0]]), np.array([[0.5, 0.5]])
    want = sn.cross_entropy(x, q)
    for more in ({}, {"sample_weight": [1e90]}):
        got = sn.cross_entropy(x, q, class_weight=[1e80, 1e80], **more)
        assert np.isclose(got, want * 1e80, rtol=1e-14)


@pytest.mark.parametrize("place", [2, 29])
@pytest.mark.parametrize("form", ["rows", "turned rows", "planes"])
def test_targets_of_both_signs_far_larger_than_their_sum(form, place):
    """Their products with exponentials, which are scaled up by 2⁶⁴, overflow in float32."""
    n = 20 if form == "turned rows" else 30
    x = np.random.default_rng(0).normal(size=(16, n)).astype(np.float32)
    q = np.zeros_like(x)
    q[:, 0], q[:, 16], q[:, min(place, n - 1)] = 2.0**90, -(2.0**90), 1
    want, got = np.empty(x.shape), np.empty_like(x)
    expected, _, _ = scalar.losses(Problem(x.astype(np.float64), q=q.astype(np.float64)), want)
    if form == "planes":
        across, result = (Planes(np.ascontiguousarray(each.T)[None]) for each in (x, got))
        found = cpu.forward_backward(Problem(across, q=Planes(np.ascontiguousarray(q.T)[None])), result)
        got = result.matrix()
    else:
        given = Problem(x, q=q)
        found, m, r = cpu.forward(given, got)
        again = np.empty_like(got)
        cpu.backward(given, m, r, again)
        np.testing.assert_allclose(again, want, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(got, want, rtol=1e-6)
