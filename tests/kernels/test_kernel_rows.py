"""The vector kernels against their scalar twin: lengths, rows with NaN or infinities, places, strides, streams."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import LENGTHS, close, outputs

from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.cpu import execute
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cpu import scalar_interface as scalar


@pytest.mark.parametrize("n", LENGTHS)
def test_every_length(n, real):
    rng = np.random.default_rng(n)
    N = 19 if n < 300 else 3
    x = (rng.normal(size=(N, n)) * 6).astype(real)
    y = rng.integers(0, n, N)
    close(outputs(cpu, x, y), outputs(scalar, x, y), real)


@pytest.mark.parametrize("n", [3, 10, 170, 300])
def test_half_types(n, dtype):
    rng = np.random.default_rng(n)
    x = (rng.normal(size=(19, n)) * 4).astype(dtype)
    y = rng.integers(0, n, 19)
    close(outputs(cpu, x, y), outputs(scalar, x, y), dtype)


@pytest.mark.parametrize("n", [7, 70, 170, 600])
def test_rows_with_nan_or_infinity_are_whole_and_others_untouched(n, real):
    """NaN at every place, one and two +∞, all −∞, a −∞ head: what the scalar kernels say, also in place."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n + 6, n)).astype(real)
    x[np.arange(n), np.arange(n)] = np.nan
    x[n, n // 2] = np.inf
    x[n + 1, [0, n - 1]] = np.inf
    x[n + 2] = -np.inf
    x[n + 3, : n - 1] = -np.inf
    y = rng.integers(0, n, len(x))
    want = outputs(scalar, x, y)
    got = outputs(cpu, x, y)
    close(got, want, real)
    assert np.isnan(got[2][:n]).all()
    assert np.isfinite(got[2][n + 4 :]).all()
    same = x.copy()
    cpu.forward_backward(Problem(same, y=y), same)
    assert np.array_equal(same, got[1], equal_nan=True)


SPIKES = [30.0, 39.0, 41.0, 90.0, 200.0, 271.0, 273.0, 1699.0, 1701.0, 1e5, 3e38]


@pytest.mark.parametrize("spike", SPIKES)
@pytest.mark.parametrize("at", [0, 100, 255, 256, 300, 999])
def test_a_spike_wherever_it_is(spike, at, real):
    """The guess from the first 256 entries may be far off: the row is swept again."""
    x = np.random.default_rng(0).normal(size=(4, 1000)).astype(real)
    x[:, at] = spike
    x[1, :300] = -np.inf
    x[2] -= real.type(spike / 2)
    y = np.full(4, 500)
    close(outputs(cpu, x, y), outputs(scalar, x, y), real)


def test_subnormal_results(real):
    """At most two smallest subnormals off, nothing lost before."""
    low, high = (86.0, 104.0) if real == np.float32 else (707.0, 746.0)
    for n in (40, 400):
        x = np.zeros((1, n), real)
        x[0, 1:] = -np.linspace(low, high, n - 1)
        p = np.empty_like(x)
        cpu.softmax(Problem(x), p)
        exact = np.exp(x.astype(np.longdouble))
        exact /= exact.sum()
        error = np.abs(p.astype(np.longdouble) - exact)
        assert (error <= np.maximum(2 * np.finfo(real).smallest_subnormal, 4 * np.finfo(real).eps * exact)).all()
        assert (p[0, 1:] > 0).sum() > n / 2


@pytest.mark.parametrize("n", [5, 48, 161, 400])
def test_loss_gradient_and_backward_are_one(n, real):
    """Forward, forward-and-backward and backward agree to the bit; in place and streamed too."""
    rng = np.random.default_rng(n)
    x = (rng.normal(size=(37, n)) * 5).astype(real)
    y, w, s = rng.integers(0, n, 37), rng.random(n) + 0.1, rng.random(37)
    s[3] = 0
    problem = Problem(x, CrossEntropy(z_loss=0.01), y=y, w=w, s=s, divisor=11.0)
    grad, again = np.empty_like(x), np.empty_like(x)
    loss = cpu.forward_backward(problem, grad)
    first, m, r = cpu.forward(problem)
    assert np.array_equal(loss, first)
    assert np.array_equal(cpu.losses(problem), first)
    cpu.backward(problem, m, r, again)
    assert np.array_equal(grad, again)
    assert not grad[3].any()
    plain = np.empty_like(x)
    close((loss,), (scalar.forward_backward(problem, plain),), real, 32)
    at = np.arange(37), y  # here the z-loss' part may cancel p − 1: digits of both, not of their sum
    assert (np.abs(grad[at] - plain[at].astype(np.float64)) <= 8 * np.finfo(real).eps * w[y] * s / 11).all()
    grad[at] = plain[at] = 0
    close((grad,), (plain,), real, 32)
    close((m, r), scalar.forward(problem)[1:], real)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [40, 200])
def test_losses_alone_are_those_beside_m_and_r(n, smoothing):
    """m and r are then written to the losses' own memory, before the losses: also of rows left, and without a part."""
    rng = np.random.default_rng(n)
    x, y, s = rng.normal(size=(37, n)), rng.integers(0, n, 37), np.ones(37)
    x[3, 5], x[4], x[20, 7], x[21] = np.inf, -np.inf, np.nan, -1e308
    s[1] = s[30] = 0
    for rows in (x, np.asfortranarray(x)):
        problem = Problem(rows, CrossEntropy(label_smoothing=smoothing), y=y, s=s)
        loss, _, _ = cpu.forward(problem)
        assert np.array_equal(cpu.losses(problem), loss, equal_nan=True)
        assert np.array_equal(cpu.forward_backward(problem, np.empty_like(rows)), loss, equal_nan=True)


def test_streamed_outputs_are_the_same(monkeypatch, real):
    x = np.random.default_rng(1).normal(size=(9, 333)).astype(real)
    y = np.arange(9)
    want = outputs(cpu, x, y)
    monkeypatch.setattr(execute, "_STREAMED", 0)
    for got, expected in zip(outputs(cpu, x, y), want, strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("n", [10, 200])
def test_places_and_strides(n, real):
    """Any alignment, row stride and inner stride of input and output; nothing beside the output is written."""
    rng = np.random.default_rng(n)
    base = rng.normal(size=(20, n)).astype(real)
    y = rng.integers(0, n, 20)
    want = np.empty_like(base)
    loss = cpu.forward_backward(Problem(base, y=y), want)
    room = np.zeros(20 * (n + 5) * 2 + 16, real)
    for offset in range(0, 9, 2):
        wide = room[offset : offset + 20 * (n + 5)].reshape(20, n + 5)
        wide[...] = 7
        wide[:, 2 : 2 + n] = base
        view, out = wide[:, 2 : 2 + n], np.full((20, n + 3), 5, real)
        assert np.array_equal(cpu.forward_backward(Problem(view, y=y), out[:, 1 : 1 + n]), loss)
        assert np.array_equal(out[:, 1 : 1 + n], want)
        assert (out[:, [0, -2, -1]] == 5).all()
    for x in (np.asfortranarray(base), np.repeat(base, 2, axis=1)[:, ::2], base[::-1].copy()[::-1]):
        out = np.asfortranarray(np.empty_like(base))
        assert np.array_equal(cpu.forward_backward(Problem(x, y=y), out), loss)
        assert np.array_equal(out, want)


def test_both_kinds_of_kernel_agree(monkeypatch, real):
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(33, 40)) * 5).astype(real), rng.integers(0, 40, 33)
    tiles = outputs(cpu, x, y)
    monkeypatch.setattr(execute, "_FEW", 0)
    close(outputs(cpu, x, y), tiles, real, 4)


@pytest.mark.parametrize("weight", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("n", [6, 200])
def test_extreme_weights(weight, n, real):
    """Scales that a vector kernel cannot take go to the plain scalar."""
    x = np.zeros((3, n), real)
    x[:, 0] = 90
    x[1, 1] = 88
    y, s = np.array([0, 1, 2]), np.array([weight, 1.0, weight])
    out, want = np.empty_like(x), np.empty_like(x)
    got = cpu.forward_backward(Problem(x, y=y, s=s), out)
    close((got, out), (scalar.forward_backward(Problem(x, y=y, s=s), want), want), real, 16)


@pytest.mark.parametrize("n", [5, 200])
def test_masks_and_temperatures(n, real):
    rng = np.random.default_rng(n)
    x, y = (rng.normal(size=(21, n)) * 9).astype(real), rng.integers(0, n, 21)
    where = rng.random((21, n)) < 0.7
    where[np.arange(21), y] = True
    tau = 0.3 + 3 * rng.random(21)
    for options in ({"where": where}, {"tau": tau}, {"where": where, "tau": tau}):
        out, want = np.empty_like(x), np.empty_like(x)
        got = cpu.forward_backward(Problem(x, y=y, **options), out)
        close((got, out), (scalar.forward_backward(Problem(x, y=y, **options), want), want), real, 16)
        for name in ("softmax", "log_softmax"):
            getattr(cpu, name)(Problem(x, **options), out)
            getattr(scalar, name)(Problem(x, **options), want)
            close((out,), (want,), real, 16)


def test_what_the_backward_is_given_is_only_read(real):
    """Also where a row is left to the scalar kernels; m and r may be read-only."""
    x = np.zeros((3, 5), real)
    x[1, 0] = np.nan
    problem = Problem(x, y=np.array([0, 1, 2]))
    _, m, r = cpu.forward(problem)
    m.flags.writeable = r.flags.writeable = False
    out = np.empty_like(x)
    cpu.backward(problem, m, r, out)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[[0, 2]]).all()
