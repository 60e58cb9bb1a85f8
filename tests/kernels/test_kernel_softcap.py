"""The soft cap in vectors: its values and slopes against mpmath, losses and gradients against the plain scalar."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
import pytest
from kernel_helpers import INF, LENGTHS, NAN, distributions
from kernel_helpers import agree as agree_within

import softnll as sn
from cases import DTYPES
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.cpu import capped, execute


def agree(problem):
    """Compare with the scalar kernels; float64 itself rounds u = c·tanh to c/τ times its digits (docs/numerics.md)."""
    cap = problem.objective.softcap / problem.objective.temperature if problem.x.dtype == np.float64 else 0
    return agree_within(problem, 6 + 4 * cap)


@pytest.fixture
def vectors(monkeypatch):
    """Fail where the vector kernels leave a problem to the scalar."""
    if not capped.serves(Problem(np.zeros((1, 3)), CrossEntropy(softcap=1.0, temperature=2.0))):
        pytest.skip("this CPU does not multiply and add in one instruction: temperatures go to the scalar kernels")
    monkeypatch.setattr(execute, "_in_blocks", None)


def made(n_rows, n, dtype, seed=0, scale=20.0, **options):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n_rows, n)) * scale).astype(dtype)
    return Problem(x, CrossEntropy(**{"softcap": 30.0} | options), rng.integers(0, n, n_rows))


@pytest.mark.parametrize("cap", [1e-300, 1e-5, 1.0, 30.0, 1e6, 1.7e308])
def test_value_and_slope(cap):
    """tanh within 6 units in the last place, whatever the size, and its slope until it is a subnormal number."""
    ratios = np.concatenate([np.logspace(-320, 300, 200), np.linspace(0.1, 0.15, 30), np.linspace(1, 400, 200)])
    with np.errstate(over="ignore"):
        x = np.concatenate([ratios, -ratios, [0.0, INF, -INF]]) * cap
    x = np.ascontiguousarray(x[None])
    u, slope = np.empty_like(x), np.empty_like(x)
    within, without = capped.caps(x.dtype, keeps=False)
    within(x, cap, u, None)
    without(x, cap, np.ones_like(x), None, slope)
    with mpmath.workprec(2400):
        for got, by, each in zip(u[0], slope[0], x[0], strict=True):
            z = mpmath.mpf(float(each)) / mpmath.mpf(cap)
            exact, exact_slope = mpmath.mpf(cap) * mpmath.tanh(z), 1 / mpmath.cosh(z) ** 2
            assert abs(got - exact) <= 6 * np.spacing(abs(float(exact)))
            # exp(−2|z|): a rounding of z is an error of the exponent.
            allowed = (4 + 2 * min(abs(z), 400)) * 2.0**-52 * float(exact_slope) + 5e-324
            assert abs(by - exact_slope) <= allowed


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("n", LENGTHS)
def test_every_length(n, dtype):
    agree(made(9, n, DTYPES[dtype], n))
    agree(made(5, n, DTYPES[dtype], n, softcap=3.0, temperature=2.0, z_loss=1e-2))


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_kind_of_target(dtype):
    rng = np.random.default_rng(3)
    for n in (3, 40, 161, 1001):
        hard = made(17, n, DTYPES[dtype], n)
        weights = {"w": rng.random(n) + 0.5, "s": np.where(np.arange(17) % 5 == 0, 0, rng.random(17)), "divisor": 7.0}
        tau = np.linspace(0.5, 3, 17)
        q = distributions(rng, 17, n, np.float32)
        smooth = CrossEntropy(softcap=30.0, label_smoothing=0.1)
        for problem in (
            Problem(hard.x, hard.objective, hard.y, **weights),
            Problem(hard.x, hard.objective, hard.y, tau=tau),
            Problem(hard.x, smooth, hard.y, **weights),
            Problem(hard.x, hard.objective, None, q, **weights),
            Problem(hard.x, smooth, None, q, tau=tau),
        ):
            agree(problem)
        where = rng.random((17, n)) < 0.7
        where[np.arange(17), hard.y] = True
        agree(Problem(hard.x, hard.objective, hard.y, where=where))


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("entry", [NAN, INF, -INF])
def test_nan_and_infinity_in_every_lane(entry, dtype):
    for n in (5, 37, 200):
        problem = made(n, n, DTYPES[dtype])
        problem.x[np.arange(n), np.arange(n)] = entry
        loss, grad, *_ = agree(problem)
        assert np.isnan(loss).all() == np.isnan(entry)
        if entry in (INF, -INF):  # bounded by the cap, and flat there
            assert (grad[np.arange(n), np.arange(n)] == 0).all()


def test_rows_that_take_no_part_may_hold_anything(dtype):
    problem = made(4, 50, dtype)
    problem.x[1] = NAN
    loss, grad, *_ = agree(replace(problem, s=np.array([1.0, 0, 1, 1])))
    assert loss[1] == 0
    assert (grad[1] == 0).all()
    where = np.ones((4, 50), bool)
    where[:, 7] = False
    problem.x[:, 7] = NAN
    problem.y[:] = 3
    grad = agree(replace(problem, s=np.array([1.0, 0, 1, 1]), where=where))[1]
    assert (grad[:, 7] == 0).all()


def test_any_layout(dtype):
    x = (np.random.default_rng(0).normal(size=(40, 600)) * 20).astype(dtype)
    y = np.arange(10)
    for part in (x[::4, ::2], x[::4, ::-1], x[:10, 300:], np.asfortranarray(x[:10]), x[::4]):
        kept = part.copy()
        want = sn.cross_entropy_and_grad(np.ascontiguousarray(part), y, softcap=30.0)
        got = sn.cross_entropy_and_grad(part, y, softcap=30.0)
        assert (np.asarray(part) == kept).all()  # the logits are the caller's
        assert got[0] == want[0]
        assert (got[1] == want[1]).all()
        out = np.zeros((20, 2 * part.shape[1]), dtype)[::2, ::2]
        sn.cross_entropy_and_grad(part, y, softcap=30.0, out=out)
        assert (out == want[1]).all()
        given = part.copy()
        sn.cross_entropy_and_grad(given, y, softcap=30.0, out=given)
        assert (given == want[1]).all()


def test_a_row_does_not_depend_on_the_others(dtype):
    for n in (10, 1000, 40_000):
        x = (np.random.default_rng(n).normal(size=(70, n)) * 20).astype(dtype)
        y = np.arange(70) % n
        loss, grad = sn.cross_entropy_and_grad(x, y, softcap=30.0, reduction="none")
        for i in (0, 33, 69):
            one, by = sn.cross_entropy_and_grad(x[i : i + 1], y[i : i + 1], softcap=30.0, reduction="none")
            assert one[0] == loss[i]
            assert (by[0] == grad[i]).all()


def test_a_cap_without_a_reciprocal():
    x = np.array([[1.0, -1, 0]])
    assert sn.cross_entropy(x, [0], softcap=1e-310) == pytest.approx(np.log(3))
