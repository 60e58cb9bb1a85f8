"""NUMERICS §3: the promised bounds, against mpmath, on rows that are hard to get right."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import oracle
import softnll as sn
from cases import DTYPES, hard_rows


@cache
def truth(name):
    """Return the hard rows of a type, targets that visit every class, and their exact values."""
    x = hard_rows(DTYPES[name])
    y = np.arange(len(x)) % 4
    return x, y, [oracle.row(x[i], int(y[i])) for i in range(len(x))]


def bound(dtype):
    return 4.0 if dtype.name in ("float32", "float64") else 0.51


def worst(got, exact, dtype):
    """Return the largest error, over all entries, in units in the last place."""
    pairs = ((g, t) for got_row, row in zip(got, exact, strict=True) for g, t in zip(got_row, row, strict=True))
    return max(oracle.ulps(g, t, dtype, bound(dtype)) for g, t in pairs)


@pytest.mark.needs("subnormal numbers")
@pytest.mark.usefixtures("backend")
class TestHardRows:
    def test_softmax(self, dtype):
        x, _, rows = truth(dtype.name)
        got = sn.softmax(x)
        assert got.dtype == dtype
        assert worst(got, [row.p for row in rows], dtype) <= bound(dtype)

    def test_log_softmax(self, dtype):
        x, _, rows = truth(dtype.name)
        assert worst(sn.log_softmax(x), [row.log_p for row in rows], dtype) <= bound(dtype)

    def test_logsumexp(self, dtype):
        x, _, rows = truth(dtype.name)
        limit = 2.0 if bound(dtype) > 1 else 0.51
        for got, row, logits in zip(sn.logsumexp(x), rows, x, strict=True):
            m = max(float(each) for each in logits)
            with oracle.mp.workprec(oracle.PRECISION):
                # The unit of the larger summand, or of their sum: no type holds that closer than half a unit.
                largest = max(abs(oracle.mpf(m)), row.lse - m, abs(row.lse))
                error = abs(oracle.mpf(float(got)) - row.lse)
                digits, least = oracle.format_of(dtype)
                unit = oracle.mp.ldexp(1, max(int(oracle.mp.floor(oracle.mp.log(largest, 2))), least) - digits + 1)
                assert error <= limit * unit

    def test_losses(self, dtype):
        x, y, rows = truth(dtype.name)
        got = sn.cross_entropy(x, y, reduction="none")
        wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
        assert got.dtype == wide
        assert worst(got[:, None], [[row.loss] for row in rows], wide) <= 4

    def test_gradients(self, dtype):
        x, y, rows = truth(dtype.name)
        _, got = sn.cross_entropy_and_grad(x, y, reduction="sum")
        assert got.dtype == dtype
        assert worst(got, [row.grad for row in rows], dtype) <= bound(dtype)

    def test_gradients_sum_to_zero(self, dtype):
        x, y, _ = truth(dtype.name)
        grad = sn.cross_entropy_and_grad(x, y, reduction="sum")[1].astype(np.float64)
        digits, least = oracle.format_of(dtype)
        largest = np.abs(grad).max(axis=1)
        unit = np.ldexp(1.0, np.maximum(np.frexp(largest)[1] - 1, least) - digits + 1)
        allowed = (8 if digits > 20 else 2) * unit + 4 * np.ldexp(1.0, max(least - digits + 1, -1074))
        assert (np.abs(grad.sum(axis=1)) <= allowed).all()

    def test_temperature_and_weights_add_little(self, real):
        x, y, _ = truth(real.name)
        rng = np.random.default_rng(2)
        tau, s = 0.5 + rng.random(len(x)) * 3, 0.1 + rng.random(len(x)) * 9
        loss = sn.cross_entropy(x, y, temperature=tau, reduction="none")
        rows = [oracle.row(x[i], int(y[i]), temperature=tau[i]) for i in range(len(x))]
        assert worst(loss[:, None], [[row.loss] for row in rows], real) <= 6
        _, grad = sn.cross_entropy_and_grad(x, y, temperature=tau, sample_weight=s, reduction="sum")
        rows = [oracle.row(x[i], int(y[i]), temperature=tau[i], scale=s[i]) for i in range(len(x))]
        assert worst(grad, [row.grad for row in rows], real) <= 8

    def test_large_scale_meets_no_subnormal(self):
        x = np.array([[0.0, -730.0, -744.0]])
        loss, grad = sn.cross_entropy_and_grad(x, [0], sample_weight=[1e200], reduction="sum")
        exact = oracle.row(x[0], 0, scale=1e200)
        assert worst(grad, [exact.grad], np.dtype(np.float64)) <= 6
        assert worst([[loss]], [[exact.loss]], np.dtype(np.float64)) <= 6

    def test_soft_targets_and_smoothing(self, real):
        x, _, _ = truth(real.name)
        q = np.random.default_rng(3).dirichlet(np.ones(4), len(x)).astype(real)
        for options in ({}, {"label_smoothing": 0.1}):
            loss = sn.cross_entropy(x, q, reduction="none", check=False, **options)
            _, grad = sn.cross_entropy_and_grad(x, q, reduction="sum", check=False, **options)
            for i, each in enumerate(x):
                exact = oracle.row(each, q[i], **options)
                size = max(abs(float(value)) for value in (*exact.log_p, 1.0))
                assert abs(float(exact.loss - float(loss[i]))) <= 4 * np.spacing(real.type(size))
                error = max(abs(float(t - float(g))) for g, t in zip(grad[i], exact.grad, strict=True))
                assert error <= 4 * np.spacing(real.type(1))

    @pytest.mark.parametrize("z_loss", [1e-2, 1e-6, 1e-18])
    def test_z_loss_gradient_of_confident_rows(self, z_loss):
        """2ζ·lse·p is added to p − 1, not to 1: the sum has the digits of both."""
        x = np.array([[40.0, 0.0, 0.0, -3.0], [17.0, 0.0, 0.0, 0.0]])
        grad = sn.cross_entropy_and_grad(x, [0, 0], z_loss=z_loss, reduction="sum")[1]
        exact = [oracle.row(each, 0, z_loss=z_loss).grad for each in x]
        assert worst(grad, exact, np.dtype(np.float64)) <= 8

    def test_softcap_and_z_loss(self, real):
        x, y, _ = truth(real.name)
        eps = float(np.finfo(real).eps)
        loss = sn.cross_entropy(x, y, softcap=30.0, reduction="none")
        grad = sn.cross_entropy_and_grad(x, y, softcap=30.0, reduction="sum")[1]
        z = sn.cross_entropy(x, y, z_loss=1e-2, reduction="none")
        for i, each in enumerate(x):
            exact = oracle.row(each, int(y[i]), softcap=30.0)
            extra = 4 * 30.0 * eps if real == np.float64 else 0
            assert abs(float(exact.loss - float(loss[i]))) <= 4 * np.spacing(real.type(abs(exact.loss))) + extra
            assert np.allclose(grad[i], [float(g) for g in exact.grad], rtol=8 * eps + extra * 4, atol=1e-37)
            exact = oracle.row(each, int(y[i]), z_loss=1e-2)
            size = float(max(abs(exact.loss), abs(exact.lse)))
            assert abs(float(exact.loss - float(z[i]))) <= 4 * np.spacing(real.type(size))


in_blocks = pytest.mark.needs("blocks of classes")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("n", [1, 2, *(pytest.param(n, marks=in_blocks) for n in (127, 128, 129)), 4097, 1_000_000])
def test_many_classes(real, n):
    """Row sums do not drift: 10⁶ equal terms, and random ones, against extended precision."""
    rng = np.random.default_rng(n)
    for x in (np.zeros((1, n)), rng.normal(size=(1, n)) * 4, np.linspace(-20, 0, n)[None]):
        x = x.astype(real)  # noqa: PLW2901
        wide = x[0].astype(np.longdouble)
        a = int(np.argmax(x[0]))
        e = np.exp(wide - wide[a])
        rest = np.delete(e, a).sum()
        total = rest + 1
        p, loss = e / total, np.log1p(rest) - (wide[-1] - wide[a])
        eps = np.finfo(real).eps
        assert (np.abs(sn.softmax(x)[0] - p) <= 4 * eps * p + np.finfo(real).smallest_subnormal * 2).all()
        got, grad = sn.cross_entropy_and_grad(x, [n - 1], reduction="sum")
        assert abs(got - loss) <= 4 * eps * abs(loss)
        p[-1] = -(rest + (1 - e[-1])) / total
        assert (np.abs(grad[0] - p) <= 4 * eps * np.abs(p) + np.finfo(real).smallest_subnormal * 2).all()


@pytest.mark.parametrize("N", [1, 3, 1000, 300_001])
def test_reductions(real, N):
    """Sums of losses add (log₂N + 2)·u to the rows' errors; float32 is summed wider and rounded once."""
    x = np.random.default_rng(N).normal(size=(N, 3)).astype(real) * 5
    y = np.arange(N) % 3
    rows = sn.cross_entropy(x, y, reduction="none")
    exact = np.sum(sn.cross_entropy(x.astype(np.float64), y, reduction="none").astype(np.longdouble))
    eps = np.finfo(real).eps
    assert abs(sn.cross_entropy(x, y, reduction="sum") - exact) <= eps * exact
    assert abs(sn.cross_entropy(x, y) - exact / N) <= 1.5 * eps * exact / N
    assert rows.shape == (N,)
