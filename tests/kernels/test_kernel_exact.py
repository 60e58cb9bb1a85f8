"""The vector kernels against extended precision: rows of every length with everything that goes wrong in one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import oracle
from softnll._core.problem import Problem
from softnll._kernels.cpu import execute
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cpu import scalar_interface as scalar

wide = np.longdouble
REACH = {"float16": 16.0, "bfloat16": 100.0, "float32": 106.0, "float64": 750.0}
pytestmark = pytest.mark.skipif(np.finfo(wide).nmant < 63, reason="longdouble is float64 here")


def truth(x, y):
    """Return softmax, log-softmax, gradients, losses and lse in longdouble: NUMERICS §2 as it stands."""
    rows = np.arange(len(x))
    x = x.astype(wide)
    a = np.argmax(x, axis=1)
    d = x - x[rows, a][:, None]
    e = np.exp(d)
    rest = e.copy()
    rest[rows, a] = 0
    rest = rest.sum(axis=1)
    log_r = np.log1p(rest)
    p = e / (1 + rest)[:, None]
    grad = p.copy()
    grad[rows, y] = np.where(y == a, -rest / (1 + rest), p[rows, y] - 1)
    return p, d - log_r[:, None], grad, log_r - d[rows, y], x[rows, a] + log_r


def errors(got, exact, dtype):
    """Return errors in units in the last place; two of the smallest subnormals count as the bound that is tested."""
    digits, least = oracle.format_of(dtype)
    got = np.asarray(got, wide)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(exact)[1] - 1, least)
        error = np.abs(got - exact) / np.ldexp(wide(1), exponent - digits + 1)
        tiny = np.abs(exact) < np.ldexp(wide(1), least)
        error = np.where(tiny, error * (2 if digits > 20 else 0.25), error)
    return np.where(got == exact, 0, np.where(np.isfinite(exact), error, np.inf))


def hard(n, dtype):
    """Return rows of n entries: spreads, spikes, offsets, ties, subnormal results, −∞."""
    rng = np.random.default_rng(n)
    reach = REACH[np.dtype(dtype).name]
    rows = [rng.normal(size=n) * scale for scale in (0.01, 1, 6, 6, 6)]
    rows += [-rng.random(n) * reach for _ in range(3)]
    for at in (0, n // 2, n - 1):
        row = rng.normal(size=n)
        row[at] += reach * 0.6
        rows.append(row)
    rows += [np.zeros(n), np.where(np.arange(n) % 3, -reach * 0.97, 0.0)]
    far = np.dtype(dtype).itemsize > 2
    rows.append(rng.normal(size=n) + (1e6 if far else 40.0))
    rows.append(rng.normal(size=n) * 9 - (1e6 if far else 90.0))
    rows.append(np.where(np.arange(n) == n - 1, 0.3, -np.inf))
    rows.append(np.where(np.arange(n) < n // 2, -np.inf, rng.normal(size=n)))
    rows.append(np.linspace(-reach, 0, n) if n > 1 else np.zeros(1))
    return np.array(rows).astype(dtype)


def measured(x):
    """Return the largest error of each output, the losses' and lse's in the type that losses have."""
    dtype = x.dtype
    rows = np.arange(len(x))
    y = np.random.default_rng(0).integers(0, x.shape[1], len(x))
    y = np.where(np.isfinite(x[rows, y].astype(np.float64)), y, np.argmax(x, axis=1))
    p, log_p, grad, loss, lse = truth(x, y)
    got = [np.full(x.shape, np.nan, dtype) for _ in range(3)]
    cpu.softmax(Problem(x), got[0])
    cpu.log_softmax(Problem(x), got[1])
    losses = cpu.forward_backward(Problem(x, y=y), got[2])
    loss_type = np.float64 if dtype == np.float64 else np.float32
    result = [float(errors(a, b, dtype).max()) for a, b in zip(got, (p, log_p, grad), strict=True)]
    result.append(float(errors(losses, loss, loss_type).max()))
    m = np.max(np.abs(x.astype(wide)), axis=1, where=np.isfinite(x.astype(np.float64)), initial=0)
    largest = np.maximum(np.maximum(m, np.abs(lse)), np.log(wide(x.shape[1]))).astype(loss_type)
    error = np.abs(cpu.logsumexp(Problem(x)) - lse) / np.spacing(np.maximum(largest, np.finfo(loss_type).tiny))
    return [*result, float(error.max())]


@pytest.mark.parametrize("group", range(10))
def test_every_length(group, real):
    """Lengths 1 to 300: each tail of a vector, both kinds of kernel."""
    for n in range(1 + group, 301, 10):
        assert max(measured(hard(n, real))) <= 4, n


@pytest.mark.parametrize("n", range(4090, 4103))
def test_around_4096(n, real):
    assert max(measured(hard(n, real))) <= 4


@pytest.mark.parametrize("n", [30, 160, 500, 1000, 4000])
@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])
def test_ordinary_rows(n, scale, real):
    """Roundings of the row's sum are errors of each of its entries: many rows, so that the worst comes up."""
    x = (np.random.default_rng(n).normal(size=(300, n)) * scale).astype(real)
    assert max(measured(x)) <= 4


@pytest.mark.parametrize("n", [57, 100, 121, 129, 160, 161, 500, 1921])
def test_sums_that_always_round_the_same_way(n, real):
    """Few large entries and many of just under half a unit of their sum: each addition one by one would lose them."""
    eps = np.finfo(real).eps
    rows = []
    for step in (2, 3, 4, 7, 8, 9, 16, 64, 128):
        for tail in (0.499, 0.4999, 0.7, 1.2):
            for top in (0.0, 1.0):
                row = np.full(n, np.log(eps * tail))
                row[::step] = 0
                row[-1] = top
                rows.append(row)
    assert max(measured(np.array(rows).astype(real))) <= 4


@pytest.mark.parametrize("place", [255, 256, 300, 399])
@pytest.mark.parametrize("gap", [15.0, 30.0, 38.0, 39.9, 60.0])
def test_a_largest_entry_after_the_guess_and_a_small_scale(place, gap):
    """The gradient's factor is of float32's range however far the guess of the largest entry was off."""
    x = np.zeros((3, 400), np.float32)
    x[:, place] = gap
    y, s = np.array([0, place, 1]), np.array([1e-9, 1.0, 1e-6])
    grad, want = np.empty_like(x), np.empty(x.shape)
    problem = Problem(x, y=y, s=s, divisor=65536.0)
    cpu.forward_backward(problem, grad)
    scalar.forward_backward(Problem(x.astype(np.float64), y=y, s=s, divisor=65536.0), want)
    assert np.allclose(grad, want, rtol=1e-6, atol=1e-44)
    _, m, r = cpu.forward(problem)
    cpu.backward(problem, m, r, grad)
    assert np.allclose(grad, want, rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_half_types_are_rounded_once(kind):
    for n in (1, 2, 3, 7, 8, 9, 15, 16, 17, 40, 150, 159, 160, 161, 175, 176, 177, 300, 1000):
        p, log_p, grad, loss, lse = measured(hard(n, kind))
        assert max(p, log_p, grad) <= 0.51, n
        assert max(loss, lse) <= 4, n


@pytest.mark.parametrize("n", [5, 70, 200])
def test_nan_and_infinity_at_each_place(n, real):
    """One +∞ or NaN at each place, rows that take no part and hold NaN: other rows stay the same, in place too."""
    clean = np.random.default_rng(n).normal(size=(3 * n + 1, n)).astype(real)
    x, y = clean.copy(), np.arange(3 * n + 1) % n
    s, at = np.ones(len(x)), np.arange(n)
    x[3 * at, at] = np.inf
    x[3 * at + 1, at] = np.nan
    s[1::6] = 0
    usual = np.ones(len(x), bool)
    usual[3 * at] = usual[3 * at + 1] = False
    p, want_p, grad, want = (np.empty_like(x) for _ in range(4))
    cpu.softmax(Problem(x), p)
    cpu.softmax(Problem(clean), want_p)
    loss = cpu.forward_backward(Problem(x, y=y, s=s), grad)
    clean_loss = cpu.forward_backward(Problem(clean, y=y, s=s), want)
    assert np.array_equal(p[usual], want_p[usual])
    assert np.array_equal(grad[usual], want[usual])
    assert np.array_equal(loss[usual], clean_loss[usual])
    assert np.array_equal(p[3 * at], np.eye(n))
    assert np.array_equal(grad[3 * at], np.eye(n) - np.eye(n)[y[3 * at]])
    assert np.isnan(p[3 * at + 1]).all()
    assert (np.isnan(grad).all(axis=1) == (np.isnan(x).any(axis=1) & (s > 0))).all()
    assert not grad[s == 0].any()
    assert not loss[s == 0].any()
    same = x.copy()
    assert np.array_equal(cpu.forward_backward(Problem(same, y=y, s=s), same), loss, equal_nan=True)
    assert np.array_equal(same, grad, equal_nan=True)


@pytest.mark.parametrize("n", [10, 200])
def test_every_alignment(n, monkeypatch, real):
    """Input and output at each multiple of an entry's size, streamed too; what lies around is left alone."""
    base = np.random.default_rng(n).normal(size=(18, n)).astype(real)
    y, want = np.arange(18) % n, np.empty_like(base)
    loss = cpu.forward_backward(Problem(base, y=y), want)
    for streamed in (1 << 60, 0):
        monkeypatch.setattr(execute, "_STREAMED", streamed)
        for offset in range(64 // real.itemsize):
            x = np.full(18 * n + 64, 9, real)
            out = np.full(18 * n + 64, 7, real)
            x[offset : offset + 18 * n] = base.ravel()
            place = slice(3 * offset % 17, 3 * offset % 17 + 18 * n)
            target = out[place].reshape(18, n)
            got = cpu.forward_backward(Problem(x[offset : offset + 18 * n].reshape(18, n), y=y), target)
            assert np.array_equal(got, loss)
            assert np.array_equal(target, want)
            assert (np.delete(out, place) == 7).all()
