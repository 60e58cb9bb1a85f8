"""Rows whose class dimension has a stride: what the kernels of planes return is what those of rows return."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_helpers import EPS, LEAST

import oracle
import softnll as sn
from cases import hard_rows
from softnll._core.layout import Layout
from softnll._core.options import CrossEntropy
from softnll._core.planes import Planes, planes_of, restored
from softnll._core.problem import Problem
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cpu import scalar_interface as scalar

SHAPES = [(1, 4, 8), (3, 1, 17), (2, 3, 64), (2, 21, 50), (5, 130, 9), (1, 300, 40), (1, 1100, 33)]


def logits(shape, dtype, seed=0):
    """Return an array (A, C, B) with an odd row in each plane: NaN, +∞, two of them, all −∞, −∞ but for one class."""
    x = (np.random.default_rng(seed).normal(size=shape) * 5).astype(dtype)
    _, n, _ = shape
    for a in range(shape[0]):
        x[a, n // 2, 0] = np.nan
        x[a, 0, 1] = np.inf
        x[a, [0, n - 1], 2] = np.inf
        x[a, :, 3] = -np.inf
        x[a, : n - 1, 4] = -np.inf
    return x


def rows_of(array):
    """Return (A, C, B) as a matrix of rows."""
    return np.ascontiguousarray(array.transpose(0, 2, 1)).reshape(-1, array.shape[1])


def close(got, want, dtype, units=8):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    name = np.dtype(dtype).name
    np.testing.assert_allclose(got, want, rtol=units * EPS[name], atol=LEAST[name], equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_normalised(shape, name, real):
    x = logits(shape, real)
    want = np.empty(rows_of(x).shape, real)
    getattr(scalar, name)(Problem(rows_of(x)), want)
    out = Planes(np.empty_like(x))
    getattr(cpu, name)(Problem(Planes(x)), out)
    close(rows_of(out.array), want, real)
    same = Planes(x.copy())
    getattr(cpu, name)(Problem(same), same)
    np.testing.assert_array_equal(same.array, out.array)
    close(cpu.logsumexp(Problem(Planes(x))), scalar.logsumexp(Problem(rows_of(x))), real)


@pytest.mark.parametrize("shape", [(2, 21, 50), (1, 130, 9)])
def test_every_type(shape, dtype):
    x = logits(shape, dtype)
    for name in ("softmax", "log_softmax"):
        want, out = np.empty(rows_of(x).shape, dtype), Planes(np.empty_like(x))
        getattr(scalar, name)(Problem(rows_of(x)), want)
        getattr(cpu, name)(Problem(Planes(x)), out)
        close(rows_of(out.array), want, dtype, 8 if dtype.itemsize > 2 else 1)


def test_bounds(dtype):
    """NUMERICS §3, as in tests/core/test_bounds.py."""
    x = hard_rows(dtype)
    bound = 4.0 if dtype.itemsize > 2 else 0.51
    p, log_p = sn.softmax(np.ascontiguousarray(x.T), axis=0).T, sn.log_softmax(np.ascontiguousarray(x.T), axis=0).T
    for i in range(0, len(x), 3):
        exact = oracle.row(x[i], i % 4)
        for k in range(4):
            assert oracle.ulps(p[i, k], exact.p[k], dtype, bound) <= bound
            assert oracle.ulps(log_p[i, k], exact.log_p[k], dtype, bound) <= bound


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_same_bits_for_every_number_of_threads(monkeypatch, threads):
    x = np.random.default_rng(3).normal(size=(3, 19, 40, 250)).astype(np.float32)
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    got = sn.softmax(x, axis=1)
    whole = Planes(np.empty((3, 19, 10_000), np.float32))
    for a in range(3):  # in other tiles
        for start in range(0, 10_000, 1111):
            part = np.ascontiguousarray(x[a].reshape(19, -1)[:, start : start + 1111])
            whole.array[a, :, start : start + 1111] = sn.softmax(part, axis=0)
    np.testing.assert_array_equal(got.reshape(whole.array.shape), whole.array)


def test_strides_that_are_planes_and_others():
    x = np.random.default_rng(0).normal(size=(4, 6, 5, 8))
    for view, found in (
        (x, True),
        (x[::2], True),
        (x[:, 1:4], True),
        (x[:, ::-1], True),
        (x[:, :, 1:4], True),
        (x[..., :4], False),
        (x.transpose(0, 1, 3, 2), False),
        (x[:, :, :1, :4], False),
        (x.transpose(0, 3, 1, 2), False),
    ):
        layout = Layout.of(view.shape, 1)
        planes = planes_of(view, layout)
        assert (planes is not None) is found
        if planes is not None:
            np.testing.assert_array_equal(restored(planes, layout), view)
            np.testing.assert_array_equal(planes[np.arange(len(planes))], layout.rows(view))
        for name in ("softmax", "log_softmax"):
            want = getattr(sn, name)(np.ascontiguousarray(np.moveaxis(view, 1, -1)))
            np.testing.assert_allclose(getattr(sn, name)(view, axis=1), np.moveaxis(want, -1, 1), rtol=1e-14)


def test_out_that_is_planes_or_not():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 4)).astype(np.float32)
    want = sn.softmax(x, axis=1)
    for out in (np.empty((4, 5, 4, 4), np.float32)[::2], np.empty((2, 4, 5, 4), np.float32).transpose(0, 2, 1, 3)):
        assert sn.softmax(x, axis=1, out=out) is out
        np.testing.assert_array_equal(out, want)
    memory = np.concatenate([x, x])
    overlapping = memory.reshape(-1)[16 : 16 + x.size].reshape(x.shape)  # begins one class later
    source = memory[:2]
    source[...] = x
    np.testing.assert_array_equal(sn.softmax(source, axis=1, out=overlapping), want)


OPTIONS = {
    "plain": {},
    "z_loss": {"z_loss": 0.02},
    "weights": {"w": 2.0},
    "smoothing": {"label_smoothing": 0.1},
    "soft": {"soft": True},
    "soft, smoothed, weights, z_loss": {"soft": True, "label_smoothing": 0.2, "w": 2.0, "z_loss": 0.02},
    "temperature": {"temperature": 1.7},
    "temperature and z_loss": {"temperature": 0.3, "z_loss": 0.01},
    "temperature and smoothing": {"temperature": 40.0, "label_smoothing": 0.1},
    "temperature and soft": {"temperature": 0.01, "soft": True},
    "soft cap": {"softcap": 4.0},
    "soft cap, temperature, smoothing": {"softcap": 4.0, "temperature": 2.0, "label_smoothing": 0.1},
    "soft cap and soft": {"softcap": 4.0, "soft": True, "z_loss": 0.01},
}


def loss_problem(x, dtype, soft=False, w=None, **options):
    """Return the problem of planes and that of rows: some rows take no part, one target is no class."""
    rng = np.random.default_rng(1)
    N, (_, n, _) = x.shape[0] * x.shape[2], x.shape
    s = rng.uniform(0.1, 2, N)
    s[rng.random(N) < 0.3] = 0
    s[2:6] = 0.0
    y = rng.integers(0, n, N)
    y[s == 0] = -100
    y[6] = n
    q = None
    if soft:
        q = rng.dirichlet(np.ones(n), N).astype(dtype)
        q[:, 0] = 0
    objective = CrossEntropy(**options)
    of = {"objective": objective, "w": None if w is None else rng.uniform(0.1, w, n), "s": s, "divisor": 3.0}
    y = None if soft else y
    planes = None if q is None else Planes(np.ascontiguousarray(q.reshape(x.shape[0], -1, n).transpose(0, 2, 1)))
    return Problem(Planes(x), y=y, q=planes, **of), Problem(rows_of(x), y=y, q=q, **of)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_losses_and_gradients(shape, options, real):
    x = logits(shape, real)
    of_planes, of_rows = loss_problem(x, real, **OPTIONS[options])
    want = np.empty(of_rows.x.shape, real)
    loss, m, r = scalar.losses(of_rows, want)
    spread = of_rows.q is not None or any(
        each in options for each in ("smoothing", "z_loss")
    )  # then the bound is that of the largest term
    size = abs(of_rows.s)[:, None] * (2 / 3 / of_rows.objective.temperature) if spread else 0
    out = Planes(np.empty_like(x))
    got = cpu.forward(of_planes, out)
    for a, b in zip(got, (loss, m, r), strict=True):
        close(a, b, real, 16)
    with np.errstate(all="ignore"):
        wrong = abs(rows_of(out.array) - want) > 8 * EPS[real.name] * (abs(want) + size) + LEAST[real.name]
    assert not wrong.any()
    np.testing.assert_array_equal(np.isnan(rows_of(out.array)), np.isnan(want))
    close(cpu.losses(of_planes), loss, real, 16)
    again = Planes(np.empty_like(x))
    cpu.backward(of_planes, m, r, again)
    np.testing.assert_array_equal(again.array, out.array)
    same = of_planes.with_rows(Planes(x.copy()), of_planes.q)
    cpu.forward_backward(same, same.x)  # in place
    np.testing.assert_array_equal(same.x.array, out.array)


def test_bounds_of_losses(dtype):
    """NUMERICS §3, as in tests/core/test_bounds.py."""
    x = hard_rows(dtype)
    y = np.arange(len(x)) % 4
    bound = 4.0 if dtype.itemsize > 2 else 0.51
    wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    at = np.ascontiguousarray(x.T)
    loss, grad = sn.cross_entropy_and_grad(at, y, axis=0, reduction="none")
    for i in range(0, len(x), 3):
        exact = oracle.row(x[i], i % 4)
        assert oracle.ulps(loss[i], exact.loss, wide, 4.0) <= 4.0
        for k in range(4):
            assert oracle.ulps(grad[k, i], exact.grad[k], dtype, bound) <= bound


@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_of_log_probabilities(soft):
    rng = np.random.default_rng(0)
    log_p = sn.log_softmax(rng.normal(size=(2, 5, 4, 4)), axis=1)
    y = sn.softmax(rng.normal(size=log_p.shape), axis=1) if soft else rng.integers(0, 5, (2, 4, 4))
    rows = np.ascontiguousarray(np.moveaxis(log_p, 1, -1))
    of_rows = np.ascontiguousarray(np.moveaxis(y, 1, -1)) if soft else np.where(rng.random(y.shape) < 0.3, -100, y)
    y = y if soft else of_rows
    for options in ({}, {"class_weight": np.linspace(0, 2, 5)}):
        for reduction in ("none", "mean"):
            got = sn.nll_loss(log_p, y, axis=1, reduction=reduction, **options)
            np.testing.assert_allclose(got, sn.nll_loss(rows, of_rows, reduction=reduction, **options), rtol=1e-14)
    if not soft:
        y = np.where(np.arange(16).reshape(4, 4) == 3, 7, y)
        assert np.isnan(sn.nll_loss(log_p, y, axis=1, check=False, reduction="none")[:, 0, 3]).all()


@pytest.mark.parametrize(
    "options", [{"softcap": 3.0}, {"temperature": 2.0}, {"where": True}, {"label_smoothing": 1e-20}]
)
def test_options_that_planes_do_not_have(options):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 4, 4)).astype(np.float32), rng.integers(0, 5, (2, 4, 4))
    rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    if "where" in options:
        allowed = rng.random(x.shape) < 0.7
        np.put_along_axis(allowed, y[:, None], True, 1)
        options, others = {"where": allowed}, {"where": np.moveaxis(allowed, 1, -1)}
    else:
        others = options
    loss, grad = sn.cross_entropy_and_grad(x, y, axis=1, **options)
    want, d_want = sn.cross_entropy_and_grad(rows, y, axis=-1, **others)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_allclose(grad, np.moveaxis(d_want, -1, 1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_have_the_same_bits_for_every_number_of_threads(monkeypatch, threads, smoothing):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 19, 9000)).astype(np.float32), rng.integers(0, 19, (2, 9000))
    options = {"axis": 1, "reduction": "none", "label_smoothing": smoothing}
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    loss, grad = sn.cross_entropy_and_grad(x, y, **options)
    for start in range(0, 9000, 1111):  # in other tiles
        here = slice(start, start + 1111)
        part, d_part = sn.cross_entropy_and_grad(x[:, :, here], y[:, here], **options)
        np.testing.assert_array_equal(part, loss[:, here])
        np.testing.assert_array_equal(d_part, grad[:, :, here])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_of_odd_strides_and_single_rows(dtype):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 6, 5, 8)).astype(dtype)
    views = (x[::2], x[:, 1:4], x[:, ::-1], x[:, :, 1:4], x[..., :4], x.transpose(0, 3, 1, 2), x[..., :1, :1])
    for view in views:
        y = rng.integers(0, view.shape[1], view.shape[:1] + view.shape[2:])
        for options in ({}, {"label_smoothing": 0.1, "class_weight": np.linspace(0.5, 2, view.shape[1])}):
            rows = np.ascontiguousarray(np.moveaxis(view, 1, -1))
            loss, grad = sn.cross_entropy_and_grad(view, y, axis=1, **options)
            want, d_want = sn.cross_entropy_and_grad(rows, y, **options)
            np.testing.assert_allclose(loss, want, rtol=4 * np.finfo(dtype).eps)
            np.testing.assert_allclose(grad, np.moveaxis(d_want, -1, 1), rtol=0, atol=2 * np.finfo(dtype).eps)


def products(x, v, logits):
    """Return the products of both Jacobians, of planes in whatever memory they are."""
    found = []
    for log in (False, True):
        saved, out = x, Planes(np.empty(x.array.shape, x.dtype))
        if not logits:
            saved = x.empty_like()
            (cpu.log_softmax if log else cpu.softmax)(Problem(x), saved)
        cpu.product(saved, v, out, log=log, logits=logits)
        found.append(out.array)
    return found


@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.slow), 19, pytest.param(700, marks=pytest.mark.slow)])
def test_products_and_gradients_in_any_memory(n, dtype):
    """Offset, every other image, some of the classes, classes backwards, and part of a plane: the same bits."""
    rng = np.random.default_rng(n)
    whole, up = rng.normal(size=(2, 4, 2 * n + 1, 3, 29)).astype(dtype)
    x, v = whole[::2, :0:-2, 1:], up[::2, n:0:-1, 1:]
    layout = Layout.of(x.shape, 1)
    here, packed = planes_of(x, layout), Planes(np.ascontiguousarray(x).reshape(2, n, -1))
    logits = dtype.itemsize == 2
    got = products(here, planes_of(v, layout), logits)
    want = products(packed, Planes(np.ascontiguousarray(v).reshape(2, n, -1)), logits)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    y = rng.integers(0, n, (2, 2, 29))
    for options in ({}, {"label_smoothing": 0.1}):
        loss, grad = sn.cross_entropy_and_grad(x, y, axis=1, reduction="none", **options)
        loss_2, grad_2 = sn.cross_entropy_and_grad(np.ascontiguousarray(x), y, axis=1, reduction="none", **options)
        np.testing.assert_array_equal(loss, loss_2)
        np.testing.assert_array_equal(grad, grad_2)
        rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        expected, d = sn.cross_entropy_and_grad(rows, y, reduction="none", **options)
        close(loss, expected, expected.dtype)
        size = 8 if dtype.itemsize > 2 else 1
        eps = EPS[dtype.name]
        np.testing.assert_allclose(
            np.moveaxis(grad, 1, -1).astype(float), d.astype(float), rtol=size * eps, atol=eps * (logits or 1)
        )


@pytest.mark.parametrize("threads", ["1", "5"])
def test_products_and_losses_are_the_same_bits_for_every_number_of_threads(monkeypatch, threads):
    """Ranges of other sizes begin elsewhere in a plane, so that rows are in other tiles."""
    rng = np.random.default_rng(4)
    x, v = rng.normal(size=(2, 3, 19, 5_555)).astype(np.float32)
    y = rng.integers(0, 19, (3, 5_555))
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    got = products(Planes(x), Planes(v), logits=False)
    loss, grad = sn.cross_entropy_and_grad(x, y, axis=1, reduction="none", label_smoothing=0.1)
    for first in range(0, 5_555, 1111):
        here = np.s_[:, :, first : first + 1111]
        parts = products(Planes(np.ascontiguousarray(x[here])), Planes(np.ascontiguousarray(v[here])), logits=False)
        for whole, part in zip(got, parts, strict=True):
            np.testing.assert_array_equal(whole[here], part)
        there = np.s_[:, first : first + 1111]
        alone = sn.cross_entropy_and_grad(x[here].copy(), y[there], axis=1, reduction="none", label_smoothing=0.1)
        np.testing.assert_array_equal(loss[there], alone[0])
        np.testing.assert_array_equal(grad[here], alone[1])


@pytest.mark.parametrize("pixels", [1, 7, 8, 15, 16, 17, 63, 64, 65])
def test_few_pixels(pixels, real):
    rng = np.random.default_rng(pixels)
    x, y = rng.normal(size=(3, 5, pixels)).astype(real), rng.integers(0, 5, (3, pixels))
    rows = rows_of(x)
    for name in ("softmax", "log_softmax"):
        close(rows_of(getattr(sn, name)(x, axis=1)), getattr(sn, name)(rows), real)
    close(sn.logsumexp(x, axis=1).reshape(-1), sn.logsumexp(rows), real)
    loss, grad = sn.cross_entropy_and_grad(x, y, axis=1, ignore_index=2)
    want, d_want = sn.cross_entropy_and_grad(rows, y.reshape(-1), ignore_index=2)
    close(loss, want, real)
    close(rows_of(grad), d_want, real)
