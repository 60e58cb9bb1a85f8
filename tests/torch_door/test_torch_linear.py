"""linear_cross_entropy on tensors: values and gradients, whatever the chunks and types; never the N × C logits."""

from __future__ import annotations

import gc
import inspect
import itertools
import pickle
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import softnll as sn
import softnll.torch as snt
from softnll._core.plan import Plan
from torch_cases import HARD, OPTIONS, REDUCTIONS, SAMPLES, WEIGHT, float64
from torch_linear_cases import Options, Ran, layer, soft, through_logits

EXTRAS = ("sample_weight", "z_loss", "softcap", "temperature", "max_bytes", "compact", "check")


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch < 2.13")
def test_the_signature_is_torchs():
    ours = dict(inspect.signature(snt.linear_cross_entropy).parameters)
    extras = [ours.pop(name) for name in EXTRAS]
    theirs = inspect.signature(F.linear_cross_entropy).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]
    assert all(p.kind is p.KEYWORD_ONLY for p in extras)
    names = list(inspect.signature(snt.plan).parameters)
    assert names == list(inspect.signature(snt.linear_cross_entropy).parameters)


@pytest.mark.parametrize("rows", [None, 1, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_gradients_are_those_through_logits(name, kind, reduction, rows):
    f, W, b = layer()
    target = HARD if kind == "hard" else soft().requires_grad_()
    options = OPTIONS[name] | {"linear_bias": b, "reduction": reduction}
    got = snt.linear_cross_entropy(f, W, target, options=Options(rows), **options)
    expected = through_logits(f, W, target, **options)
    torch.testing.assert_close(got, expected)
    inputs = [each for each in (f, W, b, target) if each.requires_grad]
    upstream = float64(*got.shape, seed=3)
    for a, e in zip(
        torch.autograd.grad(got, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(a, e)


def large(N=300, H=20, C=50, dtype=torch.float64):
    shapes = ((N, H), (C, H), (C,))
    f, W, b = (float64(*shape, seed=i).to(dtype).requires_grad_() for i, shape in enumerate(shapes))
    y = torch.randint(0, C, (N,), generator=torch.Generator().manual_seed(0))
    y[::7] = -100
    return f, W, b, y


@pytest.mark.parametrize("compact", [None, False])
@pytest.mark.parametrize("max_bytes", [None, 110_000, 200_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_chunks_give_the_same(dtype, max_bytes, compact):
    f, W, b, y = large(dtype=dtype)
    if max_bytes:
        assert snt.plan(f, W, y, linear_bias=b, max_bytes=max_bytes, compact=compact).chunks > 1
    got = snt.linear_cross_entropy(f, W, y, linear_bias=b, max_bytes=max_bytes, compact=compact)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = through_logits(f, W, y, linear_bias=b)
    digits = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert got.item() == pytest.approx(expected.item(), rel=min(digits, 1e-6))
    for a, e in zip(
        torch.autograd.grad(got, (f, W, b)), torch.autograd.grad(expected, (f, W, b)), strict=True
    ):  # the second ones are rounded to the inputs' type too, once
        assert a.dtype == dtype
        assert (a.double() - e.double()).abs().max() <= digits * e.double().abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_weights_gradient_is_summed_wide(dtype):
    """4096 times the same small term: a sum in a half type stops at 256 or 2048 of them."""
    f, W = torch.ones(4096, 1, dtype=dtype), torch.zeros(2, 1, dtype=dtype, requires_grad=True)
    y = torch.zeros(4096, dtype=torch.int64)
    loss = snt.linear_cross_entropy(f, W, y, reduction="sum", max_bytes=400_000)
    assert snt.plan(f, W, y, reduction="sum", max_bytes=330_000).chunks > 1
    (grad,) = torch.autograd.grad(loss, W)
    assert grad.flatten().tolist() == [-2048.0, 2048.0]


def test_float16_gradients_are_lifted_before_they_are_rounded():
    """As a gradient scaler expects: 1e-9 is 0 in float16, 65536 times that is not."""
    f = torch.zeros(1, 2, dtype=torch.float16, requires_grad=True)
    W = torch.full((2, 2), 1e-3, dtype=torch.float16, requires_grad=True)
    W.data[0] *= -1
    loss = snt.linear_cross_entropy(f, W, torch.tensor([0]), sample_weight=torch.tensor([2.0**-15]), reduction="sum")
    grads = torch.autograd.grad(loss, (f, W), torch.tensor(65536.0))
    assert grads[0].dtype == torch.float16
    assert grads[0].flatten().tolist() == pytest.approx([2e-3, 2e-3], rel=1e-2)


def test_mixed_types():
    f, W, b = (each.detach() for each in layer())
    types = ((torch.bfloat16, torch.float32, torch.float32), (torch.float32, torch.float64, torch.float16))
    for kinds in types:
        inputs = [each.to(kind).requires_grad_() for each, kind in zip((f, W, b), kinds, strict=True)]
        loss = snt.linear_cross_entropy(*inputs[:2], HARD, linear_bias=inputs[2])
        expected = through_logits(*inputs[:2], HARD, linear_bias=inputs[2])
        torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
        for a, e in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
            assert a.dtype == e.dtype
            torch.testing.assert_close(a, e, rtol=1e-2, atol=1e-6)


def test_autocast_changes_nothing():
    f, W, b = layer(torch.float32)
    plain = snt.linear_cross_entropy(f, W, HARD, linear_bias=b)
    with torch.autocast("cpu", torch.bfloat16):
        loss = snt.linear_cross_entropy(f, W, HARD, linear_bias=b)
        (grad,) = torch.autograd.grad(loss, W, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), W)
    assert torch.equal(loss, plain)
    (grad,) = torch.autograd.grad(plain, W, create_graph=True)
    assert torch.equal(second, torch.autograd.grad(grad.square().sum(), W)[0])


def test_leading_dimensions_and_strides():
    f, W, b = (each.detach() for each in layer())
    f = float64(24, 2)
    y = torch.arange(24) % 4
    expected = snt.linear_cross_entropy(f, W, y, linear_bias=b, reduction="none")
    wide = torch.zeros(24, 4, dtype=torch.float64)
    wide[:, ::2] = f
    for given in (f.reshape(2, 3, 4, 2), wide[:, ::2].reshape(4, 6, 2), f.t().contiguous().t(), f.reshape(4, 6, 2)):
        for weight in (W, W.t().contiguous().t(), W.repeat_interleave(2, 0)[::2]):
            x, w = given.detach().requires_grad_(), weight.detach().requires_grad_()
            lead = x.shape[:-1]
            loss = snt.linear_cross_entropy(x, w, y.reshape(lead), linear_bias=b, reduction="none")
            assert loss.shape == lead
            torch.testing.assert_close(loss.flatten(), expected)
            mean = snt.linear_cross_entropy(x, w, y.reshape(lead), linear_bias=b)
            reference = F.cross_entropy(F.linear(x, w, b).reshape(24, 4), y)
            for a, e in zip(torch.autograd.grad(mean, (x, w)), torch.autograd.grad(reference, (x, w)), strict=True):
                torch.testing.assert_close(a, e)
    swapped = float64(6, 4, 2).transpose(0, 1)
    torch.testing.assert_close(
        snt.linear_cross_entropy(swapped, W, y.reshape(4, 6)), F.cross_entropy((swapped @ W.T).reshape(24, 4), y)
    )


@pytest.mark.parametrize("which", list(itertools.product([False, True], repeat=3)))
def test_every_subset_of_requires_grad(which):
    """What is frozen gets no gradient, no memory for one and no product."""
    f, W, b, y = large()
    for each, needed in zip((f, W, b), which, strict=True):
        each.requires_grad_(needed)
    with Ran() as ran:
        loss = snt.linear_cross_entropy(f, W, y, linear_bias=b)
    assert loss.requires_grad == any(which)
    assert ran.products == 1 + which[0] + which[1] == snt.plan(f, W, y, linear_bias=b).gemms
    if any(which):
        with Ran() as again:
            loss.backward()
        assert again.products == 0
        assert (tuple(W.shape) in ran.shapes + again.shapes) == which[1]
        expected = through_logits(f, W, y, linear_bias=b)
        wanted = [each for each in (f, W, b) if each.requires_grad]
        for each, e in zip(wanted, torch.autograd.grad(expected, wanted), strict=True):
            torch.testing.assert_close(each.grad, e)
    assert [each.grad is None for each in (f, W, b)] == [not each for each in which]


def test_without_grad_mode_nothing_is_made_ahead():
    f, W, b, y = large()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, Ran() as ran:
            loss = snt.linear_cross_entropy(f, W, y, linear_bias=b)
        assert ran.products == 1
        assert not loss.requires_grad
        assert torch.equal(loss, snt.linear_cross_entropy(f, W, y, linear_bias=b).detach())


def test_weighted_sums_stay_in_three_products():
    f, W, _, y = large()
    with Ran() as ran:
        weights = torch.rand(len(f), generator=torch.Generator().manual_seed(3))
        snt.linear_cross_entropy(f, W, y, sample_weight=weights, reduction="sum").backward()
    assert ran.products == 3
    f.grad = W.grad = None
    with Ran() as ran:  # the logits are few and kept
        (snt.linear_cross_entropy(f, W, y, reduction="none") * weights).sum().backward()
    assert ran.products == 3 == snt.plan(f, W, y, reduction="none").gemms
    assert snt.plan(f, W, y, reduction="none", max_bytes=100_000).gemms == 4


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_graph_is_used_twice(reduction, dtype):
    """Also for another upstream gradient, by parts, and after the caller has changed what it was given."""
    f, W, b, y = large(dtype=dtype)

    def loss():
        return snt.linear_cross_entropy(f, W, y, linear_bias=b, reduction=reduction)

    value = loss()
    first, second = torch.ones_like(value), torch.full_like(value, -0.25)
    fresh = [torch.autograd.grad(loss(), (f, W, b), each) for each in (first, second)]
    a = torch.autograd.grad(value, (f, W, b), first, retain_graph=True)
    for got, expected in zip(a, fresh[0], strict=True):
        assert torch.equal(got, expected)
        got.fill_(7.0)
    c = torch.autograd.grad(value, (f, W, b), second, retain_graph=True)
    for got, expected in zip(c, fresh[1], strict=True):
        torch.testing.assert_close(got, expected)
    value = loss()
    (part,) = torch.autograd.grad(value, W, second, retain_graph=True)
    rest = torch.autograd.grad(value, (f, b), second, retain_graph=True)
    again = torch.autograd.grad(value, (f, W, b), first)
    for got, expected in zip((rest[0], part, rest[1]), fresh[1], strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(again, fresh[0], strict=True):
        torch.testing.assert_close(got, expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, (f, W, b), first)


def test_accumulated_gradients_are_nobody_elses():
    f, W, b, y = large()
    loss = snt.linear_cross_entropy(f, W, y, linear_bias=b)
    loss.backward(retain_graph=True)
    once = W.grad.clone()
    loss.backward()
    torch.testing.assert_close(W.grad, 2 * once)


def test_after_a_step_the_graph_gives_the_gradient_of_before_or_an_error():
    f, W, b, y = large()
    general = {"linear_bias": b, "compact": True}
    expected = torch.autograd.grad(snt.linear_cross_entropy(f, W, y, **general), (f, W, b))
    loss = snt.linear_cross_entropy(f, W, y, **general)
    direct = snt.linear_cross_entropy(f, W, y, linear_bias=b)
    with torch.no_grad():
        W.add_(1.0)
    for got, e in zip(torch.autograd.grad(loss, (f, W, b), retain_graph=True), expected, strict=True):
        assert torch.equal(got, e)
    for each in (loss, direct):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(each, (f, W, b))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("compact", [None, True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rows_that_take_no_part_may_hold_anything(reduction, compact, dtype):
    f, W, b, y = large(dtype=dtype)
    spoilt = f.detach().clone()
    spoilt[::7] = float("nan")
    spoilt.requires_grad_()
    options = {"linear_bias": b, "reduction": reduction, "compact": compact, "max_bytes": 200_000}
    results = []
    for given in (f, spoilt):
        loss = snt.linear_cross_entropy(given, W, y, **options)
        upstream = torch.full_like(loss, 3.0)
        if reduction == "none":
            upstream[::7] = float("inf")
        results.append((loss, *torch.autograd.grad(loss, (given, W, b), upstream)))
    for a, e in zip(*results, strict=True):
        assert torch.equal(a, e)
    assert (results[1][1][::7] == 0).all()
    assert results[1][2].isfinite().all()


def test_ignored_rows_are_not_multiplied():
    f, W, _, y = large()
    y[10:] = -100
    with Ran() as ran:
        snt.linear_cross_entropy(f, W, y)
    assert [shape for shape in ran.shapes if shape[1:] == (50,)] == [(8, 50)]  # rows 0 and 7 are ignored as well
    assert snt.plan(f, W, y).rows == 8


@pytest.mark.parametrize("compact", [None, False])
def test_all_rows_ignored(compact):
    f, W, b, y = large()
    y[:] = -100
    loss = snt.linear_cross_entropy(f, W, y, linear_bias=b, compact=compact)
    assert loss.isnan()
    assert all((each == 0).all() for each in torch.autograd.grad(loss, (f, W, b)))
    total = snt.linear_cross_entropy(f, W, y, linear_bias=b, reduction="sum")
    assert total == 0


def test_upstream_gradients_that_are_not_finite():
    f, W, b, y = large()
    loss = snt.linear_cross_entropy(f, W, y, linear_bias=b)
    grads = torch.autograd.grad(loss, (f, W), torch.tensor(float("inf"), dtype=torch.float64))
    assert (grads[0][::7] == 0).all()
    assert not grads[0][1:7].isfinite().any()


def test_no_rows_and_no_features():
    W = torch.zeros(4, 3, requires_grad=True)
    f = torch.zeros(0, 3, requires_grad=True)
    for reduction, check in (("mean", torch.isnan), ("sum", lambda x: x == 0)):
        loss = snt.linear_cross_entropy(f, W, torch.zeros(0, dtype=torch.int64), reduction=reduction)
        assert check(loss)
        to_f, to_W = torch.autograd.grad(loss, (f, W), create_graph=True)
        assert to_f.shape == (0, 3)
        assert (to_W == 0).all()
        assert all((each == 0).all() for each in torch.autograd.grad(to_W.sum(), (f, W)))
    b = torch.zeros(4, requires_grad=True)
    loss = snt.linear_cross_entropy(torch.zeros(2, 0), torch.zeros(4, 0), torch.tensor([0, 1]), linear_bias=b)
    loss.backward()
    assert b.grad.tolist() == [-0.25, -0.25, 0.25, 0.25]


def test_the_numbers_are_those_of_the_numpy_function():
    f, W, b, y = large()
    arrays = [each.detach().numpy() for each in (f, W, b)]
    loss, gradients = sn.linear_cross_entropy_and_grad(*arrays[:2], y.numpy(), bias=arrays[2])
    ours = snt.linear_cross_entropy(f, W, y, linear_bias=b)
    assert ours.item() == pytest.approx(loss, rel=1e-14)
    for a, e in zip(torch.autograd.grad(ours, (f, W, b)), gradients, strict=True):
        np.testing.assert_allclose(a.numpy(), e, rtol=1e-10, atol=1e-14)


def test_a_confident_row_still_learns():
    f = torch.tensor([[17.0]], requires_grad=True)
    loss = snt.linear_cross_entropy(f, torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(8.2799e-08, rel=1e-4)
    assert f.grad.item() == pytest.approx(-8.2799e-08, rel=1e-4)


def test_inputs_are_never_written_to():
    f, W, b, y = large()
    before = [each.clone() for each in (f, W, b, y)]
    loss = snt.linear_cross_entropy(f, W, y, linear_bias=b)
    torch.autograd.grad(loss, (f, W, b), torch.tensor(2.0, dtype=torch.float64))
    assert all(torch.equal(a, e) for a, e in zip((f, W, b, y), before, strict=True))


@pytest.mark.parametrize("soft_targets", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_bytes", [None, 4 << 20])
def test_working_memory_stays_within_the_plan(dtype, max_bytes, soft_targets):
    """What is worked in is NumPy's memory, which Python can trace; gradients are torch's."""
    N, H, C = 3000, 64, 4000
    f, W = (float64(n, H).to(dtype).requires_grad_() for n in (N, C))
    y = torch.arange(N) % C
    target = torch.eye(C).to(dtype)[y[:N]] if soft_targets else y
    snt.linear_cross_entropy(f[:2], W, target[:2], max_bytes=4 << 20).backward()  # compiles
    plan = snt.plan(f, W, target, max_bytes=max_bytes)
    assert plan.working_bytes <= (max_bytes or 32 << 20)
    gc.collect()  # what finalisers of earlier tests ask for is not ours
    tracemalloc.start()
    loss = snt.linear_cross_entropy(f, W, target, max_bytes=max_bytes)
    loss.backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= plan.working_bytes + plan.accumulator_bytes
    assert peak >= plan.working_bytes / 4, "the test sees no buffer at all"
    assert plan.accumulator_bytes == (4 * C * H if dtype == torch.bfloat16 else 0)
    assert plan.gradient_bytes == (N + C) * H * dtype.itemsize


def test_the_process_stays_within_the_plan():
    """What the operating system says, torch's memory and all: 8 192 × 16 384 logits would be 512 MiB."""
    program = """
import resource, torch, softnll.torch as snt
torch.set_num_threads(1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
f, W = torch.randn(8192, 64, requires_grad=True), torch.randn(16384, 64, requires_grad=True)
y = torch.arange(8192)
snt.linear_cross_entropy(f[:64], W, y[:64]).backward()
f.grad = W.grad = None
plan = snt.plan(f, W, y)
before = peak()
snt.linear_cross_entropy(f, W, y).backward()
print(peak() - before, plan.peak_bytes)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    used, planned = map(int, result.stdout.split())
    assert planned < 64 << 20
    assert used <= planned + (16 << 20), "16 MiB are allowed for BLAS's own buffers"


def test_a_plan_prints_and_says_what_happens():
    f, W, b, y = large()
    plan = snt.plan(f, W, y, linear_bias=b, max_bytes=200_000)
    assert isinstance(plan, Plan)
    assert "GEMMs" in str(plan)
    with Ran() as ran:
        snt.linear_cross_entropy(f, W, y, linear_bias=b, max_bytes=200_000).backward()
    assert ran.products == plan.gemms * plan.chunks
    assert max((shape[0] for shape in ran.shapes if shape[1:] == (50,)), default=0) == plan.rows
    with torch.no_grad():
        assert snt.plan(f, W, y).gemms == 1


def test_a_plan_says_what_other_limits_give():
    f, W, y = torch.zeros(4096, 64, requires_grad=True), torch.zeros(32_000, 64), torch.zeros(4096, dtype=torch.int64)
    for options in ({}, {"max_bytes": 40 << 20}, {"reduction": "none"}, {"max_bytes": 1 << 40}):
        plan = snt.plan(f, W, y, **options)
        assert all(other == snt.plan(f, W, y, **options | {"max_bytes": limit}) for limit, other in plan.others)
        assert all(other.working_bytes <= limit for limit, other in plan.others)
        assert (plan.chunks == 1) or plan.others[-1][1].chunks == 1
        least, _ = plan.others[-1] if plan.chunks > 1 else (plan.working_bytes, plan)
        assert snt.plan(f, W, y, max_bytes=least - (2 << 20)).chunks > 1
    assert "max_bytes=503 << 20: 4096 rows a chunk, 1 chunk, 3 GEMMs" in str(
        snt.plan(f.detach().requires_grad_(), W.requires_grad_(), y)
    )
    assert snt.plan(f[:1], W[:9], y[:1], max_bytes=80_000).others == ()


def test_options_become_the_plan():
    f, W, b, y = large()
    y = y.clamp(0)
    assert snt.plan(f, W, y, options=Options()) == snt.plan(f, W, y)
    assert snt.plan(f, W, y, options=Options(100, None)).rows == 100
    assert snt.plan(f, W, y, options=Options(10_000)).rows == 300
    for method, rows in (("aspect_ratio", 100), ("aspect_ratio:2", 60), ("aspect_ratio:1000", 1)):
        assert snt.plan(f, W, y, options=Options(None, method)).rows == rows
    expected = snt.linear_cross_entropy(f, W, y, linear_bias=b)
    got = snt.linear_cross_entropy(f, W, y, linear_bias=b, options=Options(7))
    torch.testing.assert_close(got, expected)
    with pytest.raises(ValueError, match=r"batch_chunk_size is 5 and options.chunking_method"):
        snt.linear_cross_entropy(f, W, y, options=Options(5, "aspect_ratio"))
    with pytest.raises(TypeError, match="options is a int"):
        snt.linear_cross_entropy(f, W, y, options=3)
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        theirs = torch.nn.LinearCrossEntropyOptions
        assert snt.plan(f, W, y, options=theirs()) == snt.plan(f, W, y)
        for given in (theirs(batch_chunk_size=100), theirs(chunking_method="aspect_ratio:4")):
            adjusted = given._adjust(300, 20, 50, torch.float64, torch.device("cpu"))
            rows, chunks = adjusted.batch_chunk_size, -(-300 // adjusted.batch_chunk_size)
            assert snt.plan(f, W, y, options=given).chunks == chunks
            assert snt.plan(f, W, y, options=given).rows <= rows


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch < 2.13")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_values_are_torchs_own(reduction):
    f, W, b, y = large()
    soft_targets = float64(300, 50, positive=True)
    weight = float64(50, positive=True)
    for target, more in ((y, {"ignore_index": -100}), (y.clamp(0), {"label_smoothing": 0.1}), (soft_targets, {})):
        options = {"linear_bias": b, "weight": weight, "reduction": reduction} | more
        functions = (snt.linear_cross_entropy, F.linear_cross_entropy)
        torch.testing.assert_close(*(function(f, W, target, **options) for function in functions))


def test_bad_input_says_what_where_and_what_is_allowed():
    f, W, b = layer(torch.float32)
    cases = [
        ((f, W, torch.tensor([0, 1, 4])), {}, IndexError, r"target\[2\] is 4; allowed: 0 <= target < 4"),
        ((f[None], W, torch.tensor([[0, 1, -3]])), {}, IndexError, r"target\[0, 2\] is -3"),
        ((f, W[:, :1], HARD), {}, RuntimeError, r"input has shape \(3, 2\), linear_weight \(4, 1\); allowed"),
        ((f, W[0], HARD), {}, ValueError, r"linear_weight \(2,\)"),
        ((f, W, HARD), {"linear_bias": b[:2]}, RuntimeError, r"linear_bias has shape \(2,\); allowed: \(4,\)"),
        ((f, W, HARD), {"weight": torch.ones(3)}, RuntimeError, r"weight has shape \(3,\); allowed: \(4,\)"),
        ((f, W, HARD), {"weight": -torch.ones(4), "check": True}, ValueError, r"weight\[0\] is -1.0; allowed"),
        ((f, W, HARD), {"sample_weight": torch.ones(4)}, ValueError, r"sample_weight has shape \(4,\)"),
        ((f, W, HARD), {"temperature": -torch.ones(3)}, ValueError, r"temperature\[0\] is -1.0"),
        ((f, W, HARD), {"reduction": "avg"}, ValueError, "reduction is 'avg'; allowed: 'mean', 'sum', 'none'"),
        ((f, W, HARD), {"label_smoothing": 1.5}, RuntimeError, "label_smoothing is 1.5"),
        ((f, W, HARD), {"max_bytes": 1000}, ValueError, "max_bytes is 1000; allowed: at least"),
        ((f, W, HARD), {"max_bytes": 1e9}, TypeError, "max_bytes is 1000000000.0; allowed: an integer"),
        ((f, W, HARD), {"compact": 1}, TypeError, "compact is 1; allowed: True, False or None"),
        ((f, W, HARD[:2]), {}, ValueError, r"target has shape \(2,\)"),
        ((f, W, HARD.float()), {}, TypeError, "hard target"),
        ((f, W, soft()), {"ignore_index": -100}, RuntimeError, "ignore_index is -100; allowed: None with soft"),
        ((f, W, soft()), {"check": True}, ValueError, r"target\[0\] sums to"),
        ((f.long(), W, HARD), {}, TypeError, "input has dtype torch.int64; allowed: torch.float32"),
        ((f, W.to(torch.complex64), HARD), {}, TypeError, "linear_weight has dtype torch.complex64"),
        ((f, W[:0], HARD), {}, ValueError, "no classes"),
        ((f.tolist(), W, HARD), {}, TypeError, "input is a list; allowed: a tensor"),
        ((f, W, [0, 1, 2]), {}, TypeError, "target is a list"),
        ((f, W.to("meta"), HARD), {}, RuntimeError, "linear_weight is on meta, input on cpu; allowed: one device"),
    ]
    for arguments, options, error, message in cases:
        for function in (snt.linear_cross_entropy, snt.plan):
            with pytest.raises(error, match=message):
                function(*arguments, **options)
    assert snt.linear_cross_entropy(f, W, torch.tensor([0, 1, 4]), check=False).isnan()


def test_subclasses_see_the_call():
    seen = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

    f, W, _ = layer(torch.float32, requires_grad=False)
    options = {"weight": WEIGHT, "sample_weight": SAMPLES, "z_loss": 0.1}
    loss = snt.linear_cross_entropy(f.as_subclass(Logged), W, HARD, **options)
    assert seen[0] is snt.linear_cross_entropy
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), snt.linear_cross_entropy(f, W, HARD, **options))


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyLoss"), reason="torch < 2.13")
def test_the_module_is_torchs():
    ours, theirs = (each.LinearCrossEntropyLoss for each in (snt, torch.nn))
    parameters = list(inspect.signature(ours).parameters.values())
    expected = inspect.signature(theirs).parameters
    assert [(p.name, p.kind, p.default) for p in parameters[: len(expected)]] == [
        (p.name, p.kind, p.default) for p in expected.values()
    ]
    options = {"bias": True, "weight": torch.rand(4), "label_smoothing": 0.1, "reduction": "sum", "ignore_index": 1}
    a, b = ours(2, 4, **options), theirs(2, 4, **options)
    a.load_state_dict(b.state_dict())
    x = torch.randn(3, 2)
    torch.testing.assert_close(a(x, HARD), b(x, HARD))


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyLoss"), reason="torch < 2.13")
@pytest.mark.parametrize(
    "options", [{}, {"out_features": (2, 3), "bias": True}, {"weight": torch.ones(4), "reduction": "sum"}]
)
def test_the_module_prints_and_pickles_as_torchs(options):
    ours, theirs = snt.LinearCrossEntropyLoss(2, 4, **options), torch.nn.LinearCrossEntropyLoss(2, 4, **options)
    assert isinstance(ours, torch.nn.LinearCrossEntropyLoss)
    assert repr(ours) == repr(theirs)
    assert {name: each.shape for name, each in ours.state_dict().items()} == {
        name: each.shape for name, each in theirs.state_dict().items()
    }
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301 - our own
    x, y = torch.randn(3, 2), torch.zeros(3, *options.get("out_features", ()), dtype=torch.int64)
    assert repr(again) == repr(ours)
    torch.testing.assert_close(again(x, y), ours(x, y))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"weight": torch.ones(3)}, r"weight has shape \(3,\); allowed: \(4,\)"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5; allowed: 0 <= label_smoothing <= 1"),
        ({"label_smoothing": float("nan")}, "label_smoothing is nan; allowed"),
    ],
)
@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_the_module_checks_what_torchs_checks(option, message, error):
    with pytest.raises(error, match=message):
        snt.LinearCrossEntropyLoss(2, 4, **option)


def test_rows_without_an_upstream_gradient_take_no_part_in_the_products():
    f, W, _ = layer()
    spoilt = f.detach().clone()
    spoilt[1] = float("nan")
    spoilt.requires_grad_()
    upstream = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    grads = torch.autograd.grad(snt.linear_cross_entropy(spoilt, W, HARD, reduction="none"), (spoilt, W), upstream)
    assert all(each.isfinite().all() for each in grads)


def test_a_subclass_of_the_module_has_the_defaults():
    class Mine(snt.LinearCrossEntropyLoss):
        def __init__(self):
            super().__init__(2, 4, softcap=3.0)

    loss = Mine()
    assert (loss.softcap, loss.z_loss, loss.compact) == (3.0, 0.0, None)
    assert loss(torch.randn(3, 2), HARD).shape == ()


def test_a_misspelt_option_of_the_plan():
    with pytest.raises(TypeError, match="unexpected keyword argument 'label_smothing'"):
        snt.plan(*layer()[:2], HARD, label_smothing=0.1)


def test_the_module_takes_the_extras():
    loss = snt.LinearCrossEntropyLoss(2, 4, bias=True, z_loss=0.1, softcap=3.0, temperature=2.0, max_bytes=1 << 20)
    f = torch.randn(3, 2)
    weights = torch.rand(3)
    options = {"linear_bias": loss.linear.bias, "z_loss": 0.1, "softcap": 3.0, "temperature": 2.0}
    expected = snt.linear_cross_entropy(f, loss.linear.weight, HARD, sample_weight=weights, **options)
    assert torch.equal(loss(f, HARD, sample_weight=weights), expected)
    with pytest.raises(TypeError, match="unexpected keyword argument 'zloss'"):
        snt.LinearCrossEntropyLoss(2, 4, zloss=0.1)


def test_another_thread_gives_the_same_bits():
    f, W, b, y = large()
    expected = torch.autograd.grad(snt.linear_cross_entropy(f, W, y, linear_bias=b), (f, W, b))
    results = []
    thread = threading.Thread(
        target=lambda: results.append(torch.autograd.grad(snt.linear_cross_entropy(f, W, y, linear_bias=b), (f, W, b)))
    )
    thread.start()
    thread.join()
    assert all(torch.equal(a, e) for a, e in zip(results[0], expected, strict=True))
