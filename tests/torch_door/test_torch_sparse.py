"""Soft targets of a few classes a row: the same as with all their zeros, never as large."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import torch

import softnll.torch as snt
from torch_cases import OPTIONS, float64
from torch_linear_cases import INDICES, Options, layer, through_logits


def dense(indices, q, classes=4):
    return torch.zeros(*q.shape[:-1], classes, dtype=q.dtype).scatter_add(-1, indices.long(), q)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_as_dense_targets(name, rows, reduction):
    f, W, b = layer()
    q = float64(3, 2, seed=1, positive=True).requires_grad_()
    options = OPTIONS[name] | {"linear_bias": b, "reduction": reduction}
    got = snt.linear_cross_entropy(f, W, snt.SparseTargets(INDICES.int(), q), options=Options(rows), **options)
    expected = through_logits(f, W, dense(INDICES, q), **options)
    torch.testing.assert_close(got, expected)
    upstream = float64(*got.shape, seed=3)
    inputs = (f, W, b, q)
    results = [torch.autograd.grad(each, inputs, upstream, create_graph=True) for each in (got, expected)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*[torch.autograd.grad(sum(g.square().sum() for g in each), inputs) for each in results])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_leading_dimensions_and_types(dtype):
    f, W = float64(2, 3, 5).to(dtype).requires_grad_(), float64(7, 5).to(dtype).requires_grad_()
    best = float64(2, 3, 7, seed=2).softmax(-1).topk(3)
    q = best.values.to(dtype).requires_grad_()
    loss = snt.linear_cross_entropy(f, W, snt.SparseTargets(best.indices, q), reduction="none")
    assert loss.shape == (2, 3)
    full = dense(best.indices, q.detach().double(), 7)
    expected = through_logits(f.reshape(6, 5), W, full.reshape(6, 7), reduction="none")
    torch.testing.assert_close(loss.double().flatten(), expected, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(loss.sum(), (f, W, q))
    assert [each.dtype for each in grads] == [dtype] * 3
    assert grads[2].shape == q.shape


def test_rows_of_weight_0_may_hold_anything():
    f, W, _ = layer()
    f.data[1] = float("nan")
    q = float64(3, 2, positive=True).requires_grad_()
    loss = snt.linear_cross_entropy(f, W, snt.SparseTargets(INDICES, q), sample_weight=torch.tensor([1.0, 0.0, 2.0]))
    grads = torch.autograd.grad(loss, (f, W, q))
    assert all(each.isfinite().all() for each in grads)
    assert (grads[0][1] == 0).all()
    assert (grads[2][1] == 0).all()


def test_memory():
    N, H, C = 2000, 16, 4000
    f, W = (float64(n, H).float().requires_grad_() for n in (N, C))
    target = snt.SparseTargets(torch.arange(2 * N).reshape(N, 2) % C, torch.full((N, 2), 0.5))
    snt.linear_cross_entropy(f[:2], W, snt.SparseTargets(*(each[:2] for each in target))).backward()  # compiles
    plan = snt.plan(f, W, target, max_bytes=6 << 20)
    gc.collect()  # what finalisers of earlier tests ask for is not ours
    tracemalloc.start()
    snt.linear_cross_entropy(f, W, target, max_bytes=6 << 20).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= plan.working_bytes <= 6 << 20
    assert plan.gemms == 3


def test_errors():
    f, W, _ = layer()
    q = float64(3, 2, positive=True)
    cases = [
        ((INDICES + 1, q), IndexError, r"target.indices\[0, 1\] is 4; allowed: 0 <= class < 4"),
        ((INDICES[:2], q), RuntimeError, r"target.indices has shape \(2, 2\), target.probabilities \(3, 2\); allowed"),
        ((INDICES[:, :0], q[:, :0]), ValueError, "with K >= 1"),
        ((INDICES.double(), q), TypeError, r"target.indices has dtype torch.float64; allowed: integers"),
        ((INDICES, INDICES), TypeError, r"target.probabilities has dtype torch.int64"),
        (([[0, 1]], q), TypeError, r"target.indices is a list"),
    ]
    for given, error, message in cases:
        with pytest.raises(error, match=message):
            snt.linear_cross_entropy(f, W, snt.SparseTargets(*given))
    with pytest.raises(ValueError, match=r"target\[0\] sums to"):
        snt.linear_cross_entropy(f, W, snt.SparseTargets(INDICES, q), check=True)
    with pytest.raises(TypeError, match="target is a SparseTargets; allowed: a tensor of integers"):
        snt.token_stats(f, W, snt.SparseTargets(INDICES, q))
