"""Soft targets of both signs: torch's own numbers, in every mode of derivation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import softnll.torch as snt
import torch_cases  # noqa: F401 - it imports what torch imports with a warning at its first tangent

X = torch.tensor([[1.0, 2.0, 0.5, -1.0], [3.0, 1.0, 4.0, 1.0], [0.5, 0.0, 0.0, 2.0]], dtype=torch.float64)
T = torch.tensor([[0.5, -0.5, 0.25, -0.25], [0.0, 0.0, 0.0, 0.0], [0.75, 0.5, 0.0, -0.25]], dtype=torch.float64)
ALONG = torch.tensor([[0.3, -1.0, 0.2, 0.7], [1.0, 0.0, -1.0, 2.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)


def ours(x, t=T):
    return snt.cross_entropy(x, t, reduction="sum")


def torchs(x, t=T):
    return F.cross_entropy(x, t, reduction="sum")


def linear(x, t=T):
    return snt.linear_cross_entropy(x, torch.eye(4, dtype=x.dtype), t, reduction="sum", check=False)


def sparse(x, t=T):
    indices = torch.arange(4).expand(3, 4)
    targets = snt.SparseTargets(indices, t)
    return snt.linear_cross_entropy(x, torch.eye(4, dtype=x.dtype), targets, reduction="sum", check=False)


def second(function):
    def of(x):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
        return torch.autograd.grad((first * ALONG).sum(), leaf)[0]

    return of


MODES = {
    "value": lambda f: f(X),
    "gradient": lambda f: torch.autograd.grad(f(leaf := X.clone().requires_grad_()), leaf)[0],
    "of the targets": lambda f: torch.autograd.grad(f(X, leaf := T.clone().requires_grad_()), leaf)[0],
    "second": lambda f: second(f)(X),
    "forward": lambda f: torch.func.jvp(f, (X,), (ALONG,))[1],
    "torch.func": lambda f: torch.func.grad(f)(X),
    "rows": lambda f: torch.func.vmap(torch.func.grad(lambda x, t: f(x[None], t[None])))(X, T),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", [ours, linear, sparse])
def test_every_mode_is_torchs(function, mode):
    if function is sparse and mode == "rows":
        function = linear  # its indices are those of three rows
    torch.testing.assert_close(MODES[mode](function), MODES[mode](torchs), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("entry", [torch.nan, torch.inf])
def test_nothing_stays_nothing_whatever_its_logits(entry):
    x = X.clone()
    x[1, 0] = entry
    for derivative in (torch.func.grad(ours), second(ours)):
        value = derivative(x)
        assert torch.isfinite(value).all()
        assert (value[1] == 0).all()
    assert torch.isfinite(torch.func.jvp(ours, (x,), (ALONG,))[1])


def test_a_fused_models_own_loss():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 4)).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    want = F.cross_entropy(model(x), T, reduction="sum")
    want.backward()
    grads = [each.grad.clone() for each in model.parameters()]
    model.zero_grad()
    snt.fuse(model, head="1")
    got = F.cross_entropy(model(x), T, reduction="sum")
    got.backward()
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    for each, grad in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(each.grad, grad, rtol=1e-11, atol=1e-13)
