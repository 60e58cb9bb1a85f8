"""Products of the Jacobians of softmax and log_softmax with an upstream gradient, against float64 and mpmath."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import EPS
from mpmath import mp, mpf

from cases import DTYPES
from softnll._core.planes import Planes
from softnll._core.problem import Problem
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cpu import scalar_interface as scalar


def forms(*arrays):
    """Yield matrices as rows, as rows of which there are many, and as planes, with what reads the results."""
    yield arrays, np.asarray
    n = len(arrays[0])
    yield tuple(np.tile(each, (1200 // n, 1)) for each in arrays), lambda out: repeated(out, n)
    yield tuple(Planes(np.ascontiguousarray(each.T)[None]) for each in arrays), lambda out: out.array[0].T


def repeated(out, n):
    """Return the first n rows, of which the others are copies."""
    for start in range(n, len(out), n):
        np.testing.assert_array_equal(out[:n].astype(float), out[start : start + n].astype(float))
    return out[:n]


def expected(p, log_p, v, log):
    """Return the products in float64 (the arithmetic of the kernels) and the size of their terms."""
    if log:
        return v * -np.expm1(log_p) - p * (v.sum(1, keepdims=True) - v), abs(v) + p * abs(v).sum(1, keepdims=True)
    apart = v - np.take_along_axis(v, p.argmax(1)[:, None], 1)
    return p * (apart - (p * apart).sum(1, keepdims=True)), p * (abs(apart) + (p * abs(apart)).sum(1, keepdims=True))


@pytest.mark.parametrize("n", [1, 2, 7, 15, 16, 17, 33, 100, 129, 300, 1000])
@pytest.mark.parametrize("log", [False, True])
def test_every_length(n, log, real):
    rng = np.random.default_rng(n)
    x, v = (rng.normal(size=(37, n)) * 4).astype(real), rng.normal(size=(37, n)).astype(real)
    x[:5] *= 30
    saved = np.empty_like(x)
    (scalar.log_softmax if log else scalar.softmax)(Problem(x), saved)
    wide = saved.astype(np.float64)
    want, size = expected(np.exp(wide) if log else wide, wide, v.astype(np.float64), log)
    for (result, upstream, out), read in forms(saved, v, np.empty_like(x)):
        cpu.product(result, upstream, out, log=log, logits=False)
        assert (abs(read(out) - want) <= 8 * EPS[real.name] * size + 1e-44).all()


@pytest.mark.parametrize("n", [3, 40, 500])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_types_read_the_logits(n, log, name):
    """The result is rounded once; rows with NaN or infinities are those of float32."""
    rng = np.random.default_rng(n)
    x, v = (rng.normal(size=(37, n)) * 4).astype(DTYPES[name]), rng.normal(size=(37, n)).astype(DTYPES[name])
    x[3, 0], x[5, n - 1], x[7] = np.nan, np.inf, -np.inf
    wide, log_p = x.astype(np.float64), np.empty(x.shape)
    scalar.log_softmax(Problem(wide), log_p)
    with np.errstate(all="ignore"):
        want, size = expected(np.exp(log_p), log_p, v.astype(np.float64), log)
    for (given, upstream, out), read in forms(x, v, np.empty_like(x)):
        cpu.product(given, upstream, out, log=log, logits=True)
        got = read(out).astype(np.float64)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        fine = np.isfinite(want)
        assert (abs(got - want) <= 0.51 * EPS[name] * abs(want) + 1e-5 * size + 6e-8)[fine].all()


@pytest.mark.parametrize("gap", [5.0, 17.0, 40.0])
def test_a_confident_row_keeps_its_digits(gap):
    """The product of p near 1 with its own entry is as small as the others' p, and is not lost."""
    x = np.float32([[0.0, gap, 1.0, -2.0]] * 20)
    v = np.float32([[0.5, 1.5, -0.25, 2.0]] * 20)
    for log in (False, True):
        saved = np.empty_like(x)
        (cpu.log_softmax if log else cpu.softmax)(Problem(x), saved)
        with mp.workprec(300):
            e = [mp.exp(mpf(float(each))) for each in x[0]]
            p = [each / sum(e) for each in e]
            upstream = [mpf(float(each)) for each in v[0]] if not log else [mpf(0), mpf(1), mpf(0), mpf(0)]
            if log:  # as of a loss: v − p·Σv is 1 − p at the target
                exact = upstream[1] - p[1]
            else:
                exact = p[1] * (upstream[1] - sum(a * b for a, b in zip(p, upstream, strict=True)))
            exact = float(exact)
        given = v if not log else np.float32([[0, 1, 0, 0]] * 20)
        for (result, upstream, out), read in forms(saved, given, np.empty_like(x)):
            cpu.product(result, upstream, out, log=log, logits=False)
            assert (abs(read(out)[:, 1] - exact) <= 4 * EPS["float32"] * abs(exact)).all()


def test_an_upstream_gradient_of_one_value_gives_exactly_zero():
    p = np.empty((9, 50), np.float32)
    cpu.softmax(Problem(np.random.default_rng(0).normal(size=p.shape).astype(np.float32)), p)
    for (result, upstream, out), read in forms(p, np.full_like(p, 1.7), np.ones_like(p)):
        cpu.product(result, upstream, out, log=False, logits=False)
        assert (read(out) == 0).all()
