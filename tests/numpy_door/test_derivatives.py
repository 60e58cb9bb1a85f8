"""Gradients, Jacobian, products and Hessian: against finite differences, the definition, and each other."""

from __future__ import annotations

import numpy as np
import pytest

import cases
import oracle
import softnll as sn

OPTIONS = [
    {},
    {"label_smoothing": 0.2, "class_weight": [1.0, 0.5, 2.0, 0.25]},
    {"z_loss": 0.05, "temperature": 2.0},
    {"softcap": 3.0, "temperature": [0.5, 1.0, 3.0], "z_loss": 0.02},
    {"sample_weight": [0.5, 2.0, 1.0], "reduction": "sum", "softcap": 2.0},
    {"where": cases.MASK, "label_smoothing": 0.1, "softcap": 4.0, "z_loss": 0.1},
]
EVERY = [
    pytest.param(options, kind, marks=[pytest.mark.needs("masks")] if "where" in options else [])
    for options in OPTIONS
    for kind in ("hard", "soft")
]


def targets(kind, options):
    if kind == "hard":
        return cases.HARD
    return cases.MASKED_SOFT if "where" in options else cases.SOFT


def slope(function, x, h=1e-3):
    """Return the derivative of a function of one number, by central differences of fourth order."""
    return (8 * (function(x + h) - function(x - h)) - (function(x + 2 * h) - function(x - 2 * h))) / (12 * h)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("options", "kind"), EVERY)
def test_gradient_against_finite_differences(options, kind):
    y = targets(kind, options)
    _, grad = sn.cross_entropy_and_grad(cases.LOGITS, y, **options)
    for v in np.random.default_rng(0).normal(size=(4, 3, 4)):
        along = slope(lambda h, v=v: sn.cross_entropy(cases.LOGITS + h * v, y, **options), 0.0)
        assert along == pytest.approx((grad * v).sum(), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize(("options", "kind"), EVERY)
def test_hessian_against_finite_differences_of_the_gradient(options, kind):
    y = targets(kind, options)
    for v in np.random.default_rng(1).normal(size=(4, 3, 4)):
        along = slope(lambda h, v=v: sn.cross_entropy_and_grad(cases.LOGITS + h * v, y, **options)[1], 0.0)
        got = sn.cross_entropy_hvp(cases.LOGITS, y, v, **options)
        assert np.allclose(got, along, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("options", "kind"), EVERY)
def test_hessian_is_symmetric(options, kind):
    y = targets(kind, options)
    u, v = np.random.default_rng(2).normal(size=(2, 3, 4))
    left = (u * sn.cross_entropy_hvp(cases.LOGITS, y, v, **options)).sum()
    assert left == pytest.approx((v * sn.cross_entropy_hvp(cases.LOGITS, y, u, **options)).sum(), rel=1e-13)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_jacobian_is_the_definition(axis):
    x = np.random.default_rng(3).normal(size=(3, 4)) * 4
    p = np.moveaxis(sn.softmax(x, axis=axis), axis, -1)
    want = np.einsum("ni,ij->nij", p, np.eye(p.shape[-1])) - p[:, :, None] * p[:, None, :]
    got = sn.softmax_jacobian(x, axis=axis)
    assert got.shape == want.shape
    assert np.allclose(got, want, rtol=1e-13, atol=1e-16)
    v = np.random.default_rng(4).normal(size=x.shape)
    moved = np.einsum("nij,nj->ni", got, np.moveaxis(v, axis, -1))
    for product in (sn.softmax_vjp, sn.softmax_jvp):
        assert np.allclose(np.moveaxis(product(x, v, axis=axis), axis, -1), moved, rtol=1e-12, atol=1e-15)
    along = slope(lambda h: sn.softmax(x + h * v, axis=axis), 0.0)
    assert np.allclose(sn.softmax_jvp(x, v, axis=axis), along, rtol=1e-8, atol=1e-10)


def test_hessian_without_options_is_the_jacobian():
    v = np.random.default_rng(5).normal(size=(3, 4))
    got = sn.cross_entropy_hvp(cases.LOGITS, cases.HARD, v, reduction="sum")
    assert (got == sn.softmax_jvp(cases.LOGITS, v)).all()


def test_confident_rows_keep_their_derivatives():
    """p(1 − p) of a prediction 40 ahead is 8·10⁻¹⁸, not 0."""
    x = np.array([[40.0, 0.0, -3.0]])
    exact = oracle.row(x[0])
    with oracle.mp.workprec(oracle.PRECISION):
        diagonal = [p * (1 - p) for p in exact.p]
        largest = -exact.p[0] * (exact.p[1] * (1 - 5) + exact.p[2] * (-2 - 5))  # of v = (5, 1, −2)
    got = sn.softmax_jacobian(x)[0].diagonal()
    assert max(oracle.ulps(g, t, np.float64) for g, t in zip(got, diagonal, strict=True)) <= 6
    product = sn.softmax_vjp(x, [[5.0, 1.0, -2.0]])
    assert oracle.ulps(product[0, 0], largest, np.float64) <= 6
    assert product[0].sum() == pytest.approx(0, abs=1e-32)


def test_types_and_rows_that_take_no_part(dtype):
    x = cases.LOGITS.astype(dtype)
    v = np.ones((3, 4))
    for got in (sn.softmax_vjp(x, v), sn.cross_entropy_hvp(x, [0, -100, 1], v), sn.softmax_jacobian(x)):
        assert got.dtype == dtype
    x[1] = np.nan
    got = sn.cross_entropy_hvp(x, [0, -100, 1], v * np.arange(4))
    assert (got[1] == 0).all()
    assert np.isfinite(got).all()
    assert (sn.cross_entropy_hvp(np.zeros((1, 2)), [-100], np.ones((1, 2))) == 0).all()


def test_many_rows_go_through_in_blocks():
    x, v = np.random.default_rng(6).normal(size=(2, 3000, 50))
    got = sn.softmax_vjp(x, v)
    assert (got[1234] == sn.softmax_vjp(x[1234], v[1234])).all()
    assert sn.softmax_jacobian(x[:300])[299].tolist() == sn.softmax_jacobian(x[299]).tolist()
