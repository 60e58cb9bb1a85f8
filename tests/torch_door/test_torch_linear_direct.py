"""linear_cross_entropy of plain CPU tensors with few logits takes a short path: its values, and whom it serves."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import softnll.torch as snt
from softnll.torch import SparseTargets
from softnll.torch._linear import direct

OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "ignored": {"ignore_index": 1},
    "weights": {"weight": torch.tensor([0.5, 0.0, 2.0, 1.0])},
    "weights of soft targets": {"weight": torch.tensor([0.5, 0.0, 2.0, 1.0]), "soft": True, "label_smoothing": 0.1},
    "soft": {"soft": True, "check": True},
    "smoothed": {"label_smoothing": 0.1},
    "all": {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 3.0, "temperature": 2.0, "check": True},
}


def given(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, dtype=dtype, generator=generator, requires_grad=True)
    W = Parameter(torch.randn(4, 5, dtype=dtype, generator=generator))
    return x, W, torch.tensor([0, 3, 1, 1, 2, 0]), torch.randn(4, dtype=dtype, generator=generator, requires_grad=True)


def of(options, y, dtype):
    """Return targets and options, those of a type that is the logits'."""
    options = {name: value.to(dtype) if name == "weight" else value for name, value in options.items()}
    if options.pop("soft", False):
        return torch.nn.functional.one_hot(y, 4).to(dtype) * 0.75 + 0.0625, options
    return y, options


def derivatives(x, W, y, b, options):
    """Return the loss, its gradients, and second derivatives."""
    loss = snt.linear_cross_entropy(x, W, y, linear_bias=b, **options)
    total = (loss * torch.arange(1.0, loss.numel() + 1, dtype=x.dtype).view_as(loss)).sum()
    gradients = torch.autograd.grad(total, (x, W, b), create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in gradients), (x, W, b))
    with torch.no_grad():
        plain = snt.linear_cross_entropy(x, W, y, linear_bias=b, **options)
    return loss, *gradients, *second, plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPTIONS)
def test_values_are_those_of_the_general_path(name, dtype, monkeypatch):
    x, W, y, b = given(dtype)
    y, options = of(OPTIONS[name], y, dtype)
    assert direct.serves(x, W, y, b, options.get("weight"), 1.0, options.get("ignore_index"))
    short = derivatives(x, W, y, b, options)
    monkeypatch.setattr(direct, "serves", lambda *_: False)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-13
    for one, other in zip(short, derivatives(x, W, y, b, options), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("factor", [1.0, 0.3, float("inf")])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_each_backward_is_that_of_the_general_path(reduction, factor, monkeypatch):
    """The first, a second, and one of several upstream gradients at once."""
    x, W, y, b = given()
    y[1] = -100

    def gradients():
        loss = snt.linear_cross_entropy(x, W, y, linear_bias=b, reduction=reduction)
        upstream = torch.full_like(loss, factor)
        yield from torch.autograd.grad(loss, (x, W, b), upstream, retain_graph=True)
        yield from torch.autograd.grad(loss, (W,), upstream, retain_graph=True)
        several = torch.stack([upstream, 2 * upstream])
        yield from torch.autograd.grad(loss, (x, W, b), several, is_grads_batched=True)

    short = list(gradients())
    monkeypatch.setattr(direct, "serves", lambda *_: False)
    for one, other in zip(short, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-14, equal_nan=True)


def not_served():
    x, W, y, b = given()
    q, rest = torch.ones(6, 4).double() / 4, (None, 1.0, None)
    yield "an index to ignore and soft targets", (x, W, q, b, None, 1.0, 2)
    yield "temperatures", (x, W, y, b, None, torch.ones(6), None)
    yield "class weights of another type", (x, W, y, b, torch.ones(4), 1.0, None)
    yield "class weights of another shape", (x, W, y, b, torch.ones(5).double(), 1.0, None)
    yield "half types", (x.half(), W.half(), y, b.half(), *rest)
    yield "two types", (x, W.float(), y, b, *rest)
    yield "a bias of another type", (x, W, y, b.float(), *rest)
    yield "a bias of another shape", (x, W, y, b[:3], *rest)
    yield "sparse targets", (x, W, SparseTargets(y[:, None], torch.ones(6, 1).double()), b, *rest)
    yield "soft targets of another type", (x, W, q.float(), b, *rest)
    yield "soft targets with a gradient", (x, W, q.requires_grad_(), b, *rest)
    yield "another width", (x, W[:, :4], y, b, *rest)
    yield "more dimensions", (x[None], W, y[None], b, *rest)
    yield "no rows", (x[:0], W, y[:0], b, *rest)
    yield "meta", (x.to("meta"), W.to("meta"), y.to("meta"), None, *rest)
    yield "many logits", (x.new_zeros(400, 5), x.new_zeros(200, 5), y.new_zeros(400), None, *rest)


@pytest.mark.parametrize("arguments", [pytest.param(each, id=name) for name, each in not_served()])
def test_what_is_not_served(arguments):
    assert not direct.serves(*arguments)


@pytest.mark.parametrize(
    "options", [{"max_bytes": 1 << 20}, {"compact": False}, {"sample_weight": torch.ones(6).double()}], ids=str
)
def test_options_of_chunks_take_the_general_path(options, monkeypatch):
    x, W, y, b = given()
    monkeypatch.setattr(direct, "linear_cross_entropy", lambda *_: pytest.fail("served"))
    snt.linear_cross_entropy(x, W, y, linear_bias=b, **options)


WITHOUT_PART = {
    "an ignored row": ({}, -100),
    "a class of weight 0": ({"weight": torch.tensor([1.0, 1.0, 0.0, 1.0]).double()}, 2),
    "no upstream gradient": ({"reduction": "none"}, 1),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e308])
@pytest.mark.parametrize("name", WITHOUT_PART)
def test_features_of_a_row_that_takes_no_part_do_not_reach_the_head(name, value):
    """0·NaN is NaN: such a row takes no part in the products."""
    x, W, y, _ = given()
    with torch.no_grad():
        x[2] = value
    options, y[2] = WITHOUT_PART[name]
    upstream = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]).double()
    loss = snt.linear_cross_entropy(x, W, y, **options)
    loss.backward(upstream if loss.dim() else None)
    gradients = W.grad, x.grad
    x.grad = W.grad = None
    with torch.no_grad():
        x[2] = 0.5
    loss = snt.linear_cross_entropy(x, W, y, **options)
    loss.backward(upstream if loss.dim() else None)
    for one, other in zip(gradients, (W.grad, x.grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)


def test_autocast_and_errors_are_those_of_the_general_path(monkeypatch):
    x, W, y, _ = given(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert not direct.serves(x, W, y, None, None, 1.0, None)
    told = []
    for serves in (direct.serves, lambda *_: False):
        monkeypatch.setattr(direct, "serves", serves)
        cases = [(y, {"label_smoothing": 2.0}), (y, {"reduction": "nope"}), (y, {"z_loss": "a"})]
        cases += [(y, {"temperature": 0.0}), (torch.full_like(y, 4), {}), (2 * torch.ones(6, 4) / 4, {"check": True})]
        for target, options in cases:
            with pytest.raises((ValueError, TypeError, IndexError)) as raised:
                snt.linear_cross_entropy(x, W, target, **options)
            told.append((raised.type, str(raised.value)))
    assert told[:6] == told[6:]


def test_soft_targets_take_no_ignore_index():
    x, W, y, _ = given()
    soft = torch.nn.functional.one_hot(y, 4).to(x.dtype)
    assert not direct.serves(x, W, soft, None, None, 1.0, -100)
    with pytest.raises(ValueError, match="ignore_index is -100; allowed: None with soft targets"):
        snt.linear_cross_entropy(x, W, soft, ignore_index=-100)


@pytest.mark.parametrize("grad", [True, False])
def test_logits_are_computed_once_where_no_single_call_takes_them(grad, monkeypatch):
    """Spread targets of more than 256 rows of few classes."""
    x, W, y, b = given(torch.float32)
    calls, linear = [], direct.linear
    monkeypatch.setattr(direct, "linear", lambda *given: calls.append(1) or linear(*given))
    rows = x.detach().repeat(100, 1).requires_grad_(grad)
    loss = snt.linear_cross_entropy(rows, W.detach(), y.repeat(100), linear_bias=b.detach(), label_smoothing=0.1)
    assert len(calls) == 1
    assert loss.requires_grad == grad
