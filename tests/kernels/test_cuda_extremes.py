"""What lies at the ends of a range on CUDA devices: options, weights, upstream gradients, and what goes in place."""

from __future__ import annotations

import ast
import inspect

import pytest
import torch

import interpreter  # noqa: F401 - mends Triton's
import softnll.torch as snt
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.cuda import interface as cuda
from softnll._kernels.cuda import rows as cuda_rows
from softnll.torch._base import backend

LOGITS = torch.tensor([[3.0, 0.5, -1.0], [0.0, 2.5, 2.0], [1.0, 1.0, -4.0]])
TARGETS = torch.tensor([0, 2, 1])


@pytest.fixture
def cuda_tensors(monkeypatch):
    """Every tensor lies on a device, as far as softnll can tell."""
    monkeypatch.setattr(backend, "kind_of", lambda _: "triton")


def both_ways(function, inputs, monkeypatch):
    """Return a function's value and gradients on the CPU, and on a device."""
    found = []
    for there in (False, True):
        monkeypatch.setattr(backend, "kind_of", lambda _, there=there: "triton" if there else "cpu")
        given = [each.clone().requires_grad_() for each in inputs]
        value = function(*given)
        found.append((value, torch.autograd.grad(value, given)))
    return found


def close(got, expected, units=8):
    """Values and gradients agree within units in the last place of their own types."""
    torch.testing.assert_close(got[0], expected[0], rtol=units * torch.finfo(got[0].dtype).eps, atol=0.0)
    for a, e in zip(got[1], expected[1], strict=True):
        info = torch.finfo(a.dtype)
        torch.testing.assert_close(a, e, rtol=units * info.eps, atol=2 * info.smallest_normal * info.eps)


@pytest.mark.parametrize("tau", [1e-300, 1e-45, 1e-38, 3e37, 1e39, 1e300])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_temperatures_beyond_float32(tau, per_row, dtype, monkeypatch):
    temperature = torch.full((3,), tau, dtype=torch.float64) if per_row else tau

    def loss(x):
        return snt.cross_entropy(x, TARGETS, temperature=temperature, reduction="none").clamp(max=1e30).sum()

    expected, got = both_ways(loss, [LOGITS.to(dtype)], monkeypatch)
    close(got, expected)


@pytest.mark.parametrize("tau", [1e-39, 1e39])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spread_targets_at_temperatures_beyond_float32(tau, dtype, monkeypatch):
    q = torch.nn.functional.one_hot(TARGETS, 3).double()
    temperature = torch.full((3,), tau, dtype=torch.float64)

    def loss(x):
        return snt.cross_entropy(x, q, temperature=temperature, reduction="none").clamp(max=1e30).sum()

    expected, got = both_ways(loss, [LOGITS.to(dtype)], monkeypatch)
    close(got, expected)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("row", [[30.0, 0.0, 0.0], [200.0, -5.0, 0.0], [60.0, 3.0, -20.0]])
def test_weights_beyond_float32(row, soft, monkeypatch):
    y = torch.tensor([[1.0, 0.0, 0.0]]) if soft else torch.tensor([0])

    def loss(x):
        return snt.cross_entropy(x, y, sample_weight=torch.tensor([1e40], dtype=torch.float64), reduction="sum")

    monkeypatch.setattr(backend, "kind_of", lambda _: "cpu")
    x = torch.tensor([row], requires_grad=True)
    (expected,) = torch.autograd.grad(loss(x), x)
    monkeypatch.setattr(backend, "kind_of", lambda _: "triton")
    (got,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0.0)


def test_what_overflows_is_infinite():
    x = torch.tensor([[0.0, -3.0, -40.0, -80.0, -100.0, -500.0]])
    problem = Problem(x, CrossEntropy(), torch.tensor([0]), s=torch.tensor([1e150], dtype=torch.float64))
    grad = torch.empty_like(x)
    cuda.forward_backward(problem, grad)
    assert grad[0].tolist() == [-torch.inf, torch.inf, torch.inf, torch.inf, torch.inf, 0.0]


@pytest.mark.usefixtures("cuda_tensors")
@pytest.mark.parametrize("tau", [0.0, torch.nan, torch.inf])
@pytest.mark.parametrize("compact", [None, False])
def test_rows_that_take_no_part_may_have_any_temperature(tau, compact):
    y, temperature = torch.tensor([0, -100, 1]), torch.tensor([1.0, tau, 1.0])
    f, W = (each.clone().requires_grad_() for each in (LOGITS, LOGITS + 1))
    for smoothing in (0.0, 0.1):
        options = {"temperature": temperature, "label_smoothing": smoothing}
        grads = torch.autograd.grad(snt.cross_entropy(f, y, **options), f)
        grads += torch.autograd.grad(snt.linear_cross_entropy(f, W, y, compact=compact, **options), (f, W))
        assert all(each.isfinite().all() for each in grads)
        assert grads[0][1].tolist() == grads[1][1].tolist() == [0.0, 0.0, 0.0]


def test_weights_of_rows_that_take_no_part_do_not_set_the_unit(monkeypatch):
    y = torch.tensor([0, -100, 1])
    s = torch.tensor([1e-30, 1e300, 1e-30], dtype=torch.float64)
    expected, got = both_ways(lambda x: snt.cross_entropy(x, y, sample_weight=s), [LOGITS], monkeypatch)
    close(got, expected)


@pytest.mark.usefixtures("cuda_tensors")
def test_what_is_no_temperature_makes_its_row_nan():
    temperature = torch.tensor([1.0, 0.0, torch.inf])
    loss = snt.cross_entropy(LOGITS, TARGETS, temperature=temperature, reduction="none")
    assert loss.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("unit", [1e-320, 1e-300, 1e-200, 1e200, 1.5e308])
@pytest.mark.parametrize("name", ["weight", "sample_weight", "both", "soft", "linear", "linear-sparse"])
def test_a_mean_has_no_unit(unit, name, monkeypatch):
    """Weights near the ends of float64's range: no product or sum of them leaves it."""
    w = torch.tensor([1.0, 0.25, 0.5], dtype=torch.float64) * unit
    more = {"weight": {"weight": w}, "sample_weight": {"sample_weight": w}, "soft": {"sample_weight": w}}.get(
        name, {"weight": w, "sample_weight": w}
    )
    x = LOGITS.double()
    if name == "linear-sparse":  # class weights are not in the denominator of soft targets
        more["weight"] = torch.tensor([1.0, 0.25, 0.5], dtype=torch.float64)
        sparse = snt.SparseTargets(torch.tensor([[0, 1], [2, 0], [1, 2]]), torch.full((3, 2), 0.5))
        function, inputs = lambda f, W: snt.linear_cross_entropy(f, W, sparse, **more), (x, x + 1)
    elif name == "linear":
        function, inputs = lambda f, W: snt.linear_cross_entropy(f, W, TARGETS, **more), (x, x + 1)
    else:
        targets = torch.softmax(x + 1, 1) if name == "soft" else TARGETS
        function, inputs = lambda x: snt.cross_entropy(x, targets, **more), (x,)
    expected, got = both_ways(function, inputs, monkeypatch)
    assert got[0].isfinite()
    for a, e in zip((got[0], *got[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4 if unit < 1e-310 else 1e-13, atol=1e-15)  # few digits are left there


@pytest.mark.usefixtures("cuda_tensors")
@pytest.mark.parametrize("upstream", [torch.inf, torch.nan])
@pytest.mark.parametrize("create_graph", [False, True])
def test_rows_that_take_no_part_hear_nothing_of_the_upstream_gradient(upstream, create_graph):
    y = torch.tensor([0, -100, 1])
    for dtype in (torch.float32, torch.float16, torch.float64):
        f, W = (each.to(dtype, copy=True).requires_grad_() for each in (LOGITS, LOGITS + 1))
        for loss, given in ((snt.linear_cross_entropy(f, W, y), (f, W)), (snt.cross_entropy(f, y), (f,))):
            by = torch.full_like(loss, upstream)
            grads = torch.autograd.grad(loss, given, by, create_graph=create_graph)
            assert grads[0][1].tolist() == [0.0, 0.0, 0.0]
            assert not grads[0][0].isfinite().any()


@pytest.mark.parametrize("cap", [1e-35, 1e-5, 3.0, 1e3, 1e6, 1e12, 1e35])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_soft_caps_of_any_size(cap, dtype, monkeypatch):
    """A soft cap far above the logits is none; tanh keeps its digits there."""
    x = torch.cat((LOGITS, LOGITS * 1e-3, LOGITS * 1e2)).to(dtype)

    def loss(x):
        return snt.cross_entropy(x, TARGETS.repeat(3), softcap=cap, reduction="sum")

    expected, got = both_ways(loss, [x], monkeypatch)
    # A rounding of u is an absolute error of the loss, one of x/cap a relative one of the slope.
    wide = {torch.bfloat16: (1200, 4), torch.float32: (4, 4), torch.float64: (1200, 1200)}[dtype]
    close((got[0], ()), (expected[0], ()), wide[0])
    close((expected[0], got[1]), expected, wide[1])


@pytest.mark.parametrize("cap", [1e3, 1e6, 1e12])
def test_the_soft_cap_of_bfloat16_keeps_float32s_digits(cap):
    """At logits of any size, as far below the cap as they may be."""
    x = torch.logspace(-30, 3, 200).bfloat16().repeat_interleave(2).reshape(-1, 2)
    x[:, 1] = -x[:, 1]
    y = torch.zeros(len(x), dtype=torch.int64)
    loss = cuda.losses(Problem(x, CrossEntropy(softcap=cap), y))
    u = cap * torch.tanh(x.double() / cap)
    exact = torch.nn.functional.cross_entropy(u, y, reduction="none")
    assert ((loss - exact).abs() <= 4 * (u[:, 0] + exact) * 2.0**-24).all()


def test_all_is_read_before_any_of_it_is_written_over():
    """dx may be x: without a barrier a warp may store where another has not yet read its row's target."""
    (function,) = ast.parse(inspect.getsource(cuda_rows.write_rows.fn)).body
    calls = [
        (node.lineno, node.func.attr)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    (barrier,) = (line for line, name in calls if name == "debug_barrier")
    loop = next(node.lineno for node in ast.walk(function) if isinstance(node, ast.For))
    assert max(line for line, name in calls if name == "load") < barrier < loop
    assert min(line for line, name in calls if name == "store") > loop


def test_a_program_has_no_more_threads_than_amd_allows(monkeypatch):
    """1024: 16 warps of 64."""
    monkeypatch.setattr(cuda, "WARPS", 16)
    cuda.tile_of.cache_clear()
    most = max(cuda.tile_of(100, classes, 2).warps for classes in (10, 1000, 16_384, 100_000))
    cuda.tile_of.cache_clear()
    assert most == 16
