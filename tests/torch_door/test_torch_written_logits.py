"""Logits that are written to between the loss and its backward: torch's gradient, or an error that says so."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import softnll.torch as snt

VALUES = torch.tensor([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [17.0, 0.0, 0.0]])
TARGETS = {"hard": torch.tensor([0, 2, 0]), "soft": torch.full((3, 3), 1 / 3)}


def _divided(z):
    with torch.no_grad():
        z.div_(0.7)


WRITES = {
    "detach": lambda z: z.detach().mul_(2),
    "no_grad": _divided,
    "data": lambda z: z.data.mul_(2),
    "numpy": lambda z: z.detach().numpy().fill(1.0),
    "argmax masked": lambda z: z.detach().scatter_(1, z.detach().argmax(1, keepdim=True), -torch.inf),
}


def gradient(function, target, write, reduction, upstream, dtype=torch.float32):
    """Return the gradient of the values that the logits were made from."""
    x = VALUES.to(dtype, copy=True).requires_grad_()
    logits = x * 1
    loss = function(logits, target, reduction=reduction)
    write(logits)
    loss.backward(torch.full_like(loss, upstream))
    return x.grad


@pytest.mark.parametrize("upstream", [1.0, 0.25])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("write", WRITES)
def test_the_gradient_is_that_of_the_logits_as_they_were(write, target, reduction, upstream):
    want = gradient(snt.cross_entropy, TARGETS[target], lambda _: None, reduction, upstream)
    got = gradient(snt.cross_entropy, TARGETS[target], WRITES[write], reduction, upstream)
    torch.testing.assert_close(got, want, rtol=3e-7, atol=0)
    torchs = gradient(F.cross_entropy, TARGETS[target], WRITES[write], reduction, upstream)
    torch.testing.assert_close(got, torchs, rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    for reduction in ("mean", "sum"):
        want = gradient(snt.cross_entropy, TARGETS["hard"], lambda _: None, reduction, 8.0, dtype)
        got = gradient(snt.cross_entropy, TARGETS["hard"], WRITES["detach"], reduction, 8.0, dtype)
        torch.testing.assert_close(got, want, rtol=torch.finfo(dtype).eps, atol=2.0**-21)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(snt.cross_entropy, TARGETS["hard"], WRITES["detach"], "none", 1.0, dtype)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_needs_the_logits_again_says_so(reduction):
    x = VALUES.clone().requires_grad_()
    logits = x * 1
    loss = snt.cross_entropy(logits, TARGETS["hard"], reduction=reduction).sum()
    logits.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, x, create_graph=True)
    assert torch.autograd.grad(loss, x, retain_graph=True)[0].isfinite().all()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # the kept gradient was returned
        torch.autograd.grad(loss, x)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_freed_graph_says_so(reduction):
    x = VALUES.clone().requires_grad_()
    loss = snt.cross_entropy(x, TARGETS["hard"], reduction=reduction).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_ignored_rows_have_gradient_0_under_an_infinite_upstream_gradient():
    x = VALUES.clone().requires_grad_()
    logits = x * 1
    loss = snt.cross_entropy(logits, torch.tensor([0, -100, 0]), reduction="none")
    logits.detach().mul_(2)
    loss.backward(torch.tensor([1.0, torch.inf, 1.0]))
    assert (x.grad[1] == 0).all()
    assert x.grad.isfinite().all()
