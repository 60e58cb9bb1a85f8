"""softmax and log_softmax of plain CPU tensors, which take a short path: its values, and whom it serves."""

from __future__ import annotations

import pytest
import torch

import softnll.torch as snt
from softnll.torch._base import views
from softnll.torch._losses import plain

FUNCTIONS = {"softmax": snt.softmax, "log_softmax": snt.log_softmax}
SHAPES = [(1, 3), (128, 10), (5,), (2, 3, 170), (64, 1000)]


def steps(function, x, upstream):
    """Return the values, the gradient, and second derivatives through both arguments of the product."""
    leaf, v = x.clone().requires_grad_(), upstream.clone().requires_grad_()
    value = function(leaf, -1)
    (gradient,) = torch.autograd.grad(value, leaf, upstream, retain_graph=True)
    (product,) = torch.autograd.grad(value, leaf, v, create_graph=True)
    second = torch.autograd.grad(product.square().sum(), (leaf, v))
    with torch.no_grad():
        plain = function(x, x.dim() - 1)
    return value.detach(), gradient, *second, plain


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_the_general_path(name, shape, dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = 5 * torch.randn(shape, dtype=dtype, generator=generator)
    x.view(-1)[0] = 60  # confident
    upstream = torch.randn(shape, dtype=dtype, generator=generator)
    assert plain.normalised_form(x, -1, None)
    short = steps(FUNCTIONS[name], x, upstream)
    monkeypatch.setattr(plain, "normalised_form", lambda *_: None)
    for one, other in zip(short, steps(FUNCTIONS[name], x, upstream), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dim", [0, 1, 2, 3, -3])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_dimension(name, channels_last, dim, dtype):
    x = 5 * torch.randn(2, 3, 5, 9, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0] = 60  # confident
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    leaf = torch.empty_like(x).copy_(x).requires_grad_()
    value = FUNCTIONS[name](leaf, dim)
    value.backward(upstream)
    rows = x.movedim(dim, -1).contiguous().requires_grad_()
    of_rows = FUNCTIONS[name](rows, -1)
    of_rows.backward(upstream.movedim(dim, -1))
    assert value.stride() == leaf.grad.stride() == x.stride()
    eps = torch.finfo(dtype).eps
    for one, other in ((value, of_rows), (leaf.grad, rows.grad)):
        torch.testing.assert_close(one, other.movedim(-1, dim), rtol=2 * eps, atol=2 * eps * other.abs().max().item())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_results_have_torchs_strides_and_may_be_written_to(dtype, channels_last):
    """They are in NumPy's memory, whose pages are large."""
    x = torch.randn(17, 4, 256, 256).to(
        dtype, memory_format=(torch.preserve_format, torch.channels_last)[channels_last]
    )
    leaf = torch.empty_like(x).copy_(x).requires_grad_()
    value = snt.softmax(leaf, 1)
    value.add_(0)
    snt.cross_entropy(leaf, torch.zeros(17, 256, 256, dtype=torch.int64)).backward()
    assert value.stride() == leaf.grad.stride() == x.stride()
    assert leaf.grad.mul_(2).abs().sum() > 0
    with torch.no_grad():
        small = views.empty_like(x[:1])
    assert small.stride() == x[:1].stride()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_upstream_gradients_of_any_strides_and_in_batches(name):
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    value = FUNCTIONS[name](x, 1)
    for upstream in (torch.ones(()).double().expand(4, 6), torch.randn(6, 4, dtype=torch.float64).t()):
        want = torch.autograd.grad(getattr(torch, name)(x, 1), x, upstream)[0]
        torch.testing.assert_close(torch.autograd.grad(value, x, upstream, retain_graph=True)[0], want)
    batch = torch.randn(3, 4, 6, dtype=torch.float64)
    (together,) = torch.autograd.grad(value, x, batch, is_grads_batched=True, retain_graph=True)
    for one, upstream in zip(together, batch, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(value, x, upstream, retain_graph=True)[0])
    with torch.no_grad():
        value.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def not_plain():
    x = torch.zeros(3, 4)
    yield "no dimension named", (x, None, None)
    yield "another dimension", (x, 0, None)
    yield "a dimension out of range", (x, 2, None)
    yield "another type", (x, 1, torch.float64)
    yield "integers", (x.int(), 1, None)
    yield "a number", (torch.tensor(1.0), -1, None)
    yield "no entries", (x[:0], 1, None)
    yield "strides", (x.t(), 1, None)
    yield "gaps between rows", (torch.zeros(3, 8)[:, :4], 1, None)
    yield "a parameter", (torch.nn.Parameter(x), 1, None)
    yield "meta", (x.to("meta"), 1, None)
    yield "no tensor", (x.numpy(), 1, None)


@pytest.mark.parametrize("given", [pytest.param(each, id=name) for name, each in not_plain()])
def test_what_is_not_plain(given):
    assert not plain.normalised_form(*given)


def test_what_surrounds_a_call():
    x = torch.zeros(3, 4)
    assert plain.normalised_form(x, 1, None)
    with torch._subclasses.FakeTensorMode():
        assert not plain.normalised_form(x, 1, None)
    with torch.autograd.forward_ad.dual_level():
        assert not plain.normalised_form(x, 1, None)
    seen = []
    torch.func.vmap(lambda x: seen.append(plain.normalised_form(x, 0, None)) or x)(x)
    assert seen == [None]
