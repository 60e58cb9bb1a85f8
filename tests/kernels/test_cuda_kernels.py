"""The Triton kernels in Triton's interpreter, at every shape that takes another way through them.

Bounds in units in the last place are claimed of a GPU only; what the interpreter computes is held to nearly the same.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from cases import COMBINATIONS, HARD, LOGITS, SOFT
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cuda import interface as cuda
from tiers import covering
from triton_backend import on_device

IN_BLOCKS = [each | {"parts": parts} for each in COMBINATIONS if each["reduction"] == "mean" for parts in (False, True)]
SHAPES = [(1, 1), (3, 2), (7, 10), (5, 16), (2, 17), (300, 3), (3, 100), (2, 1000), (1, 2049)]


def made(N, C, dtype=np.float32, seed=0, **options):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(N, C)) * 4).astype(dtype)
    y = rng.integers(0, C, N)
    return Problem(x, CrossEntropy(**options), y)


def close(got, expected, dtype, units=4):
    """Entries agree within units in the last place of a float type."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    same = (got == expected) | np.isnan(got)
    finite = np.where(same, 0, expected)
    unit = np.maximum(np.abs(finite) * np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal * 2)
    off = np.where(same, 0, np.abs(np.where(same, 0, got) - finite) / unit)
    assert off.max() <= units


def everything(problem):
    """Return loss, m, r, gradient in one pass, and the gradient from m and r."""
    given = on_device(problem)
    out = torch.empty_like(given.x)
    loss, m, r = cuda.forward(given, out)
    again = torch.empty_like(given.x)
    cuda.backward(given, m, r, again)
    return loss, m, r, out, again


def through_cpu(problem):
    """Return loss and gradient."""
    out = np.empty_like(problem.x)
    return cpu.forward_backward(problem, out), out


@pytest.fixture
def pieces(monkeypatch):
    """Rows of more than 32 classes take several blocks of 16, and several programs where there are few rows."""
    monkeypatch.setattr(cuda, "ON_CHIP", dict.fromkeys((2, 4, 8), 32))
    monkeypatch.setattr(cuda, "BLOCK", dict.fromkeys((2, 4, 8), 16))
    monkeypatch.setattr(cuda, "PROGRAMS", 4)  # the interpreter takes 50 ms a program
    cuda.tile_of.cache_clear()
    yield
    cuda.tile_of.cache_clear()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape, dtype):
    problem = made(*shape, dtype)
    loss, _, _, grad, again = everything(problem)
    expected, wanted = through_cpu(problem)
    close(loss, expected, dtype)
    close(grad, wanted, dtype)
    assert torch.equal(grad, again)
    assert torch.equal(cuda.losses(on_device(problem)), loss)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("classes", [33, 48, 101])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_in_blocks_and_parts(rows, classes, dtype):
    assert (cuda.tile_of(rows, classes, np.dtype(dtype).itemsize).parts > 1) == (rows < 4)
    problem = made(rows, classes, dtype, seed=1)
    problem.x[0] = np.sort(problem.x[0])  # the largest entry comes last: every block has a new one
    loss, _, _, grad, again = everything(problem)
    expected, wanted = through_cpu(problem)
    close(loss, expected, dtype)
    close(grad, wanted, dtype)
    assert torch.equal(grad, again)
    for name in ("softmax", "log_softmax"):
        got, target = torch.empty_like(grad), np.empty_like(problem.x)
        getattr(cuda, name)(on_device(problem), got)
        getattr(cpu, name)(problem, target)
        close(got, target, dtype)
    close(cuda.logsumexp(on_device(problem)), cpu.logsumexp(problem), dtype, units=2)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("place", [0, 20, 39])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_odd_entries_in_any_block(value, place):
    problem = made(2, 40, seed=2)
    problem.x[0, place] = value
    loss, _, _, grad, _ = everything(problem)
    expected, wanted = through_cpu(problem)
    close(loss, expected, np.float32)
    close(grad, wanted, np.float32)


@pytest.mark.usefixtures("pieces")
def test_a_first_block_of_nothing_but_minus_infinity():
    problem = made(2, 40, seed=3)
    problem.x[0, :16] = -np.inf
    problem.x[1] = -np.inf
    problem.y[:] = (39, 0)
    loss, m, r, grad, _ = everything(problem)
    expected, wanted = through_cpu(problem)
    assert loss[0].isfinite()
    assert (m[1], r[1]) == (-torch.inf, -1)
    close(loss, expected, np.float32)
    close(grad, wanted, np.float32)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("options", covering(IN_BLOCKS, 3, dict), ids=lambda each: str(list(each.values()))[:60])
def test_options_in_blocks(options):
    """Each combination of values of three options, for rows in one part and in several."""
    given = {name: value for name, value in options.items() if name not in ("class_weight", "sample_weight", "parts")}
    tau = given.pop("temperature")
    rng = np.random.default_rng(4)
    C = 40 if options["parts"] else 20
    w = None if options["class_weight"] is None else rng.random(C)
    per_row = isinstance(tau, np.ndarray)
    objective = CrossEntropy(**given, temperature=1.0 if per_row else tau)
    x, y = rng.normal(size=(3, C)) * 3, rng.integers(0, C, 3)
    problem = Problem(x, objective, y, None, w, options["sample_weight"], None, tau if per_row else None, 2.5)
    loss, _, _, grad, again = everything(problem)
    expected, wanted = through_cpu(problem)
    np.testing.assert_allclose(loss, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(grad, wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(again, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("stride", "back"), list(product([1, 2], [False, True])))
def test_strides(stride, back):
    wide = torch.randn(6, 40, generator=torch.Generator().manual_seed(5))
    x = wide[::2, ::stride]
    if back:
        x = x.t().contiguous().t()
    y = torch.tensor([0, 1, 2])
    out = torch.empty_like(x)
    loss = cuda.forward_backward(Problem(x, CrossEntropy(), y), out)
    expected = torch.empty_like(x.contiguous())
    assert torch.equal(loss, cuda.forward_backward(Problem(x.contiguous(), CrossEntropy(), y), expected))
    assert torch.equal(out, expected)


@pytest.mark.parametrize("shape", [(3, 10), (2, 200)])
def test_in_place(shape):
    problem = on_device(made(*shape))
    out = torch.empty_like(problem.x)
    expected = cuda.forward_backward(problem, out)
    loss = cuda.forward_backward(problem, problem.x)
    assert torch.equal(loss, expected)
    assert torch.equal(problem.x, out)


def test_a_gradient_that_is_made_is_left_alone():
    problem = on_device(made(3, 10))
    grad = torch.empty_like(problem.x)
    _, m, r = cuda.forward(problem, grad)
    held = torch.full_like(grad, 7.0)
    cuda.backward(problem, m, r, held, torch.tensor(1.0), filled=True)
    assert (held == 7).all()
    cuda.backward(problem, m, r, held, torch.tensor(2.0), filled=True)
    torch.testing.assert_close(held, 2 * grad, rtol=1e-6, atol=0)


def test_soft_targets_of_any_stride():
    q = np.asfortranarray(SOFT)
    problem = Problem(LOGITS, CrossEntropy(), None, q)
    given = replace(on_device(problem), q=torch.from_numpy(SOFT.T.copy()).t())
    out = torch.empty_like(given.x)
    loss = cuda.forward_backward(given, out)
    expected, wanted = through_cpu(problem)
    np.testing.assert_allclose(loss, expected, rtol=1e-14)
    np.testing.assert_allclose(out, wanted, rtol=1e-12, atol=1e-16)


def test_lift():
    values = torch.arange(5000.0)
    kept = values.clone()
    cuda.lift(values, torch.tensor(1.0))
    assert torch.equal(values, kept)
    cuda.lift(values, torch.tensor(0.5))
    assert torch.equal(values, kept / 2)


@pytest.mark.parametrize("N", [0, 1])
def test_no_rows_and_one(N):
    x = torch.zeros(N, 4)
    problem = Problem(x, CrossEntropy(), torch.zeros(N, dtype=torch.int64))
    assert cuda.losses(problem).tolist() == [np.log(4)] * N
    assert cuda.logsumexp(Problem(x)).shape == (N,)
    cuda.softmax(Problem(x), torch.empty_like(x))


def test_kernels_are_launched_where_the_logits_lie(monkeypatch):
    """Triton launches on the current device, whatever the tensors'."""
    seen = []
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: seen.append(x) or nullcontext())
    given = on_device(made(2, 3))
    x, out = given.x, torch.empty_like(given.x)
    _, m, r = cuda.forward(given)
    for call in (
        lambda: cuda.softmax(given, out),
        lambda: cuda.log_softmax(given, out),
        lambda: cuda.logsumexp(given),
        lambda: cuda.losses(given),
        lambda: cuda.forward_backward(given, out),
        lambda: cuda.backward(given, m, r, out),
        lambda: cuda.lift(x, torch.tensor(2.0)),
    ):
        seen.clear()
        call()
        assert seen
        assert all(each is x for each in seen)


def test_tiles_fit():
    """A block holds a power of two, parts cover the row, and none is empty."""
    for N, C, item in product((1, 3, 200, 10_000), (1, 17, 1000, 8193, 50_257, 128_256, 262_144), (2, 4, 8)):
        tile = cuda.tile_of(N, C, item)
        assert tile.block & (tile.block - 1) == 0
        assert tile.parts == 1 or tile.span(C) * (tile.parts - 1) < C <= tile.span(C) * tile.parts
        assert tile.rows * tile.block <= 32_768
        assert HARD.shape == (3,)
