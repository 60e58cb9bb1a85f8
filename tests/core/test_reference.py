"""The reference backend on tensors: its bounds without float64, what only tensors have, meta and fake tensors."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import oracle
from cases import HARD, LOGITS, MASK, SOFT, hard_rows
from reference_backend import without_float64
from softnll._core import arithmetic
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels import reference

SINGLE = np.dtype(np.float32)
TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
X, Y = torch.tensor(LOGITS), torch.tensor(HARD)
ALL_OPTIONS = CrossEntropy(label_smoothing=0.1, z_loss=0.02, softcap=3.0, temperature=2.5)


@cache
def truth(temperature=1.0):
    """Return the hard rows of float32, targets that visit every class, and their exact values."""
    x = hard_rows(SINGLE)
    y = np.arange(len(x)) % 4
    return x, y, [oracle.row(x[i], int(y[i]), temperature=temperature) for i in range(len(x))]


def gradient(problem, upstream=None):
    """Return the gradient in the logits' type."""
    out = torch.full_like(problem.x, -7.0)
    reference.forward_backward(problem, out, upstream)
    return out


def worst(got, exact):
    """Return the largest error, over all entries, in units in the last place of float32."""
    pairs = (
        (g, t) for got_row, row in zip(got.tolist(), exact, strict=True) for g, t in zip(got_row, row, strict=True)
    )
    return max(oracle.ulps(g, t, SINGLE) for g, t in pairs)


class TestWithoutFloat64:
    """A device whose widest type is float32."""

    def test_the_device_refuses_float64(self):
        with without_float64(), pytest.raises(TypeError, match="no float64"):
            torch.zeros(2) + torch.zeros(2, dtype=torch.float64)

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_bounds(self, temperature):
        x, y, rows = truth(temperature)
        problem = Problem(torch.tensor(x), CrossEntropy(temperature=temperature), torch.tensor(y))
        p, log_p = torch.empty_like(problem.x), torch.empty_like(problem.x)
        with without_float64():
            reference.softmax(problem, p)
            reference.log_softmax(problem, log_p)
            loss, lse = reference.losses(problem), reference.logsumexp(problem)
            grad = gradient(problem)
        bound = 4 if temperature == 1 else 6
        assert worst(p, [row.p for row in rows]) <= bound
        assert worst(log_p, [row.log_p for row in rows]) <= bound
        assert worst(loss[:, None], [[row.loss] for row in rows]) <= bound
        assert worst(grad, [row.grad for row in rows]) <= bound
        assert np.allclose(lse, [float(row.lse) for row in rows], rtol=3e-7, atol=1e-7)
        assert loss.dtype == lse.dtype == torch.float32

    def test_confident_rows_keep_loss_and_gradient(self):
        problem = Problem(torch.tensor([[17.0, 0.0, 0.0], [0.0, 17.0, 0.0]]), y=torch.tensor([0, 1]))
        with without_float64():
            loss, grad = reference.losses(problem), gradient(problem)
        assert loss.tolist() == pytest.approx([8.27987e-8] * 2, rel=1e-5)
        assert grad[0, 0].item() == grad[1, 1].item() == pytest.approx(-8.27987e-8, rel=1e-5)

    @pytest.mark.parametrize("n", [1, 2, 3, 127, 4097, 300_000])
    def test_sums_over_classes_do_not_drift(self, n):
        rng = np.random.default_rng(n)
        for x in (np.zeros((1, n)), rng.normal(size=(1, n)) * 4):
            given = x.astype(SINGLE)
            wide = given[0].astype(np.longdouble)
            lse = np.log(np.exp(wide - wide.max()).sum()) + wide.max()
            problem = Problem(torch.tensor(given), y=torch.tensor([n - 1]))
            with without_float64():
                loss, p = reference.losses(problem), torch.empty(1, n)
                reference.softmax(problem, p)
            assert abs(loss.item() - (lse - wide[-1])) <= 4 * np.spacing(SINGLE.type(max(lse - wide[-1], lse)))
            exact = np.exp(wide - lse)
            assert (np.abs(p[0].numpy() - exact) <= 4 * np.finfo(SINGLE).eps * exact).all()

    def test_totals_do_not_drift(self):
        values = np.random.default_rng(5).random(300_001).astype(SINGLE)
        with without_float64():
            got = reference.total(torch.tensor(values))
        assert got.item() == SINGLE.type(values.sum(dtype=np.longdouble))

    def test_sums_keep_what_each_addition_rounds_away(self):
        with without_float64():
            assert reference.total(torch.tensor([1e8, -1e8, 1.0, 1.0, 0.5])) == 2.5

    def test_every_option_agrees_with_float64(self):
        given = {"w": torch.tensor([1.0, 0.5, 2.0, 0.25]), "s": torch.tensor([0.5, 2.0, 3.0]), "divisor": 3.0}
        for targets in ({"y": Y}, {"q": torch.tensor(SOFT).float()}):
            problem = Problem(X.float(), ALL_OPTIONS, **targets, **given, where=torch.tensor(MASK) | (X > 0))
            with without_float64():
                loss, grad = reference.losses(problem), gradient(problem)
            assert loss.numpy() == pytest.approx(reference.losses(problem).numpy(), rel=1e-6)
            assert grad.numpy() == pytest.approx(gradient(problem).numpy(), rel=1e-5, abs=1e-7)

    def test_infinities_and_nan(self):
        rows = [[math.inf, 0.0, 1.0], [-math.inf] * 3, [-math.inf, 0.0, 1.0], [math.nan, 0.0, 1.0], [3e38, -3e38, 0.0]]
        problem = Problem(torch.tensor(rows), y=torch.tensor([0, 0, 0, 0, 0]))
        with without_float64():
            loss = reference.losses(problem)
        assert loss.tolist() == pytest.approx([0.0, math.nan, math.inf, math.nan, 0.0], nan_ok=True)


class TestWidestType:
    def test_known_device_types(self, monkeypatch):
        assert arithmetic.arithmetic_of(X).dtype == torch.float64
        monkeypatch.setattr(arithmetic, "WITHOUT_FLOAT64", frozenset({"cpu"}))
        assert arithmetic.arithmetic_of(X).dtype == torch.float32

    @pytest.mark.parametrize("has_fp64", [True, False])
    def test_intel_gpus_are_asked(self, monkeypatch, has_fp64):
        xp = arithmetic.namespace(X)
        properties = type("Properties", (), {"has_fp64": has_fp64})
        monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _: properties)
        assert arithmetic._device_has_float64.__wrapped__(xp, torch.device("xpu")) is has_fp64


class TestTensors:
    """What Problems of tensors have and Problems of arrays have not."""

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
    def test_ignored_rows(self, dtype):
        index = 200 if dtype == torch.uint8 else -100
        y = torch.tensor([2, index, 0]).to(dtype)
        x = X.clone()
        x[1] = math.nan
        problem = Problem(x, CrossEntropy(ignore_index=index), y)
        kept = Problem(X[[0, 2]], y=Y[[0, 2]])
        assert reference.losses(problem)[[0, 2]].equal(reference.losses(kept))
        assert reference.losses(problem)[1] == 0
        assert gradient(problem)[[0, 2]].equal(gradient(kept))
        assert gradient(problem)[1].eq(0).all()
        assert reference.pick(problem)[1] == 0

    def test_a_narrow_target_is_not_ignored_by_chance(self):
        problem = Problem(torch.zeros(1, 200), CrossEntropy(ignore_index=-100), torch.tensor([156], dtype=torch.uint8))
        assert reference.losses(problem).item() == pytest.approx(math.log(200))

    def test_targets_out_of_range_are_nan(self):
        problem = Problem(X, y=torch.tensor([4, -1, 0]))
        assert reference.losses(problem).isnan().tolist() == [True, True, False]
        assert gradient(problem).isnan().all(dim=1).tolist() == [True, True, False]
        assert reference.pick(problem).isnan().tolist() == [True, True, False]

    @pytest.mark.parametrize("upstream", [torch.tensor(-3.0), torch.tensor([0.5, -2.0, 0.0]), torch.tensor(2.0).half()])
    def test_upstream_gradients(self, upstream):
        s = torch.tensor([1.0, 2.0, 3.0])
        problem = Problem(X, y=Y, s=s, divisor=2.0)
        want = gradient(problem) * upstream.double().expand(3)[:, None]
        losses, m, r = reference.forward(problem)
        out = torch.empty_like(X)
        assert reference.forward_backward(problem, out, upstream).equal(losses)
        torch.testing.assert_close(out, want, rtol=1e-14, atol=0)
        reference.backward(problem, m, r, out.fill_(7.0), upstream)
        torch.testing.assert_close(out, want, rtol=1e-14, atol=0)
        reference.backward(problem, m, r, out, upstream, filled=True)
        torch.testing.assert_close(out, want, rtol=1e-14, atol=0)

    def test_a_backward_takes_the_rest_it_is_given(self):
        problem, out, other = Problem(X, y=Y), torch.empty_like(X), torch.empty_like(X)
        _, m, r = reference.forward(problem)
        reference.backward(problem, m, r, out)
        reference.backward(problem, m, 2 * r + 1, other)  # as many classes again, on another device
        off = torch.arange(4)[None, :] != Y[:, None]
        torch.testing.assert_close(2 * other[off], out[off])

    def test_an_infinite_upstream_gradient_leaves_absent_rows_at_0(self):
        problem = Problem(X, y=Y, s=torch.tensor([0.0, 1.0, 1.0]))
        assert gradient(problem, torch.tensor(math.inf))[0].eq(0).all()

    @pytest.mark.parametrize("divisor", [2.0, 0.0])
    def test_a_divisor_on_the_device(self, divisor):
        problem = Problem(X, y=Y, divisor=torch.tensor(divisor))
        assert gradient(problem).equal(gradient(Problem(X, y=Y, divisor=divisor)))

    @pytest.mark.parametrize("dtype", TYPES)
    def test_strides_and_the_logits_as_output(self, dtype):
        x = torch.randn(5, 12, generator=torch.Generator().manual_seed(1)).to(dtype)
        y = torch.tensor([0, 5, 2, 1, 3])
        strided = x.t().contiguous().t()[:, ::2]
        want = gradient(Problem(strided.contiguous(), y=y))
        assert gradient(Problem(strided, y=y)).equal(want)
        reference.forward(Problem(strided, y=y), strided)
        assert strided.equal(want)

    def test_weights_of_half_types_are_widened(self):
        given = {"w": torch.tensor([1.0, 0.5, 2.0, 0.25]), "s": torch.tensor([0.5, 2.0, 3.0]), "tau": torch.ones(3) * 3}
        half = {name: value.half() for name, value in given.items()}
        q = torch.tensor(SOFT).half()
        assert gradient(Problem(X, q=q, **half, divisor=3.0)).equal(gradient(Problem(X, q=q, **given, divisor=3.0)))

    def test_soft_targets_of_mass_0_are_not_nothing(self):
        q = torch.tensor([[1.0, -1.0, 0.0, 0.0]])
        problem = Problem(X[:1], q=q)
        exact = oracle.row(LOGITS[0], q[0].tolist())
        assert reference.losses(problem).item() == pytest.approx(float(exact.loss))
        assert gradient(problem)[0].tolist() == pytest.approx([float(each) for each in exact.grad])

    def test_many_rows_go_in_blocks(self, monkeypatch):
        x, y = torch.randn(50, 7), torch.arange(50) % 7
        whole = reference.forward(Problem(x, y=y)), gradient(Problem(x, y=y), torch.arange(50.0))
        monkeypatch.setattr(reference, "_CACHED", 20)
        parts = reference.forward(Problem(x, y=y)), gradient(Problem(x, y=y), torch.arange(50.0))
        assert all(a.equal(b) for a, b in zip(whole[0], parts[0], strict=True))
        assert whole[1].equal(parts[1])

    def test_lift_and_total(self):
        values = torch.tensor([1.0, 0.0, -2.0], dtype=torch.bfloat16)
        reference.lift(values, torch.tensor(math.inf, dtype=torch.float64))
        assert values.tolist() == [math.inf, 0.0, -math.inf]
        assert reference.total(torch.tensor([1.0, 2.5])).equal(torch.tensor(3.5, dtype=torch.float64))

    def test_no_classes_and_no_rows(self):
        problem = Problem(torch.zeros(2, 0), y=torch.tensor([0, -100]))
        assert reference.logsumexp(problem).tolist() == [-math.inf] * 2
        assert reference.losses(problem).tolist() == pytest.approx([math.nan, 0.0], nan_ok=True)
        assert gradient(problem).shape == (2, 0)
        assert gradient(Problem(torch.zeros(0, 3), y=torch.zeros(0, dtype=torch.int64))).shape == (0, 3)


def every_function(problem, shape):
    """Call each function of the backend and check the shapes and types of what comes out."""
    N, x = shape[0], problem.x
    out, upstream = torch.empty_like(x), x.new_ones((N,))
    reference.softmax(problem, out)
    reference.log_softmax(problem, out)
    loss, m, r = reference.forward(problem, out)
    reference.backward(problem, m, r, out, upstream)
    vectors = [loss, m, r, reference.losses(problem), reference.logsumexp(problem), reference.pick(problem)]
    vectors.append(reference.forward_backward(problem, out, upstream.sum()))
    for each in vectors:
        assert each.shape == (N,)
        assert each.dtype == torch.float64
        assert each.device == x.device
    assert reference.total(loss).shape == ()
    reference.lift(out, reference.total(loss))
    assert out.shape == shape


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("where", ["meta", "fake"])
@pytest.mark.parametrize("shape", [(3, 4), (100_000, 30), (0, 4)])
def test_tensors_without_data(dtype, where, shape):
    """Nothing looks at a value: there is none."""

    def problems():
        N, C = shape
        device = "meta" if where == "meta" else "cpu"
        x, y = torch.empty(shape, dtype=dtype, device=device), torch.empty(N, dtype=torch.int32, device=device)
        w, s = torch.empty(C, device=device), torch.empty(N, device=device)
        yield Problem(x, ALL_OPTIONS, y, w=w, s=s, tau=s, divisor=s.sum())
        yield Problem(x, q=x, where=x > 0)

    if where == "meta":
        for problem in problems():
            every_function(problem, shape)
    else:
        with FakeTensorMode():
            for problem in problems():
                every_function(problem, shape)
