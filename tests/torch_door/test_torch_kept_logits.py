"""Logits that a forward of rows keeps for its backward, where max_bytes has room for all: three products, not four."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import softnll.torch as snt
from softnll.torch._base import backend
from softnll.torch._base.device_backend import DeviceBackend
from torch_linear_cases import Ran

N, H, C = 24, 8, 50
ALL = 1 << 20  # bytes with room for all logits
BACKENDS = ("cpu", "reference", "reference, zeros")


@pytest.fixture(params=BACKENDS)
def anywhere(request, monkeypatch):
    if request.param != "cpu":
        monkeypatch.setattr(backend, "kind_of", lambda _: "reference")
    if request.param == "reference, zeros":
        monkeypatch.setattr(DeviceBackend, "reads_sizes", lambda *_: False)


def inputs(dtype=torch.float64, ignored=()):
    made = torch.Generator().manual_seed(1)
    f, W, b = (torch.randn(*shape, generator=made, dtype=dtype) for shape in ((N, H), (C, H), (C,)))
    y = torch.randint(0, C, (N,), generator=made)
    y[list(ignored)] = -100
    return *(each.requires_grad_() for each in (f, W, b)), y


def rows(name, f, W, b, y, max_bytes=ALL):
    """Return a loss a row."""
    if name == "loss":
        return snt.linear_cross_entropy(f, W, y, linear_bias=b, reduction="none", z_loss=0.1, max_bytes=max_bytes)
    stats = snt.token_stats(f, W, y, linear_bias=b, max_bytes=max_bytes)
    return stats.log_prob + (stats.entropy + stats.lse if name == "statistics" else 0)


def derivatives(name, given, upstream, max_bytes=ALL):
    f, W, b, y = given
    return torch.autograd.grad(rows(name, f, W, b, y, max_bytes), (f, W, b), upstream)


CASES = pytest.mark.parametrize("name", ["loss", "log_prob", "statistics"])


@CASES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", [(), (0, 5, 23)])
@pytest.mark.parametrize("without", [(), (1, 2, 6, 22)])
@pytest.mark.usefixtures("anywhere")
def test_the_gradients_are_those_of_logits_computed_again(name, dtype, ignored, without):
    """Also where the upstream gradient of further rows is 0, which leaves them out."""
    given = inputs(dtype, ignored)
    upstream = torch.linspace(-1, 1, N, dtype=torch.float64)
    upstream[list(without)] = 0
    upstream = upstream.to(rows(name, *given).dtype)
    found = derivatives(name, given, upstream)
    with saved_tensors_hooks(lambda x: x, lambda x: x):  # as in a checkpoint, which keeps nothing else
        again = derivatives(name, given, upstream)
    for each, other in zip(found, again, strict=True):  # BLAS adds up the last of fewer rows in another order
        tolerance = 8 * torch.finfo(dtype).eps if without else 0
        largest = other.abs().max().item()
        torch.testing.assert_close(each, other, rtol=tolerance, atol=tolerance * largest)


@CASES
def test_the_products(name):
    f, W, b, y = inputs()
    for max_bytes in (ALL, 66_000 if name == "loss" else 600_000):
        with Ran() as ran:
            rows(name, f, W, b, y, max_bytes).sum().backward()
        assert ran.products == 3 if max_bytes == ALL else ran.products > 4
    assert snt.plan(f, W, y, linear_bias=b, reduction="none", max_bytes=ALL).gemms == 3


@CASES
@pytest.mark.usefixtures("anywhere")
def test_a_second_backward(name):
    """It computes the logits again, with another upstream gradient; a recorded one leaves the kept logits alone."""
    f, W, b, y = inputs()
    upstream = torch.linspace(-1, 1, N, dtype=torch.float64)
    value = rows(name, f, W, b, y)
    recorded = torch.autograd.grad(value, (f, W, b), upstream, create_graph=True)
    first = torch.autograd.grad(value, (f, W, b), upstream, retain_graph=True)
    second = torch.autograd.grad(value, (f, W, b), 2 * upstream)
    for a, e, twice in zip(first, recorded, second, strict=True):
        torch.testing.assert_close(a, e.detach(), rtol=1e-13, atol=1e-13)
        assert torch.equal(twice, 2 * a)


@CASES
def test_a_weight_that_is_written_to_is_an_error(name):
    f, W, b, y = inputs()
    value = rows(name, f, W, b, y)
    with torch.no_grad():
        W.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def test_logits_are_freed_where_the_backward_needs_several_chunks():
    """One upstream gradient of 0 makes features be copied, for which a chunk of all rows has no room."""
    rows_, width, classes, max_bytes = 400, 400, 300, 700_000
    f, W = (torch.randn(n, width, requires_grad=True) for n in (rows_, classes))
    y, upstream = torch.arange(rows_) % classes, torch.ones(rows_)
    upstream[0] = 0
    losses = snt.linear_cross_entropy(f, W, y, reduction="none", max_bytes=max_bytes)
    losses.backward(upstream)  # so that nothing is imported or compiled below
    tracemalloc.start()
    losses = snt.linear_cross_entropy(f, W, y, reduction="none", max_bytes=max_bytes)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    losses.backward(upstream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept > 4 * rows_ * classes, "the forward keeps no logits"
    assert peak <= max_bytes
