"""Hard targets of every integer type: values and all derivatives are those of int64 targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import softnll.torch as snt
import torch_cases  # noqa: F401 - it imports what torch imports with a warning at its first tangent

SIGNED = (torch.int8, torch.int16, torch.int32)
TYPES = (*SIGNED, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
CLASSES = (3, 127, 128, 129, 156, 157, 255, 256, 257, 32_768, 32_769, 65_436, 65_437, 65_536, 65_537)
WIDE = torch.float64


def linear(x, y):
    """Return the linear loss of logits that are its features, with few features so that many classes fit."""
    weight = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([[1.0, -0.5]], dtype=x.dtype)
    return snt.linear_cross_entropy(x[:, :2], weight, y)


def statistics(x, y):
    weight = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([[1.0, -0.5]], dtype=x.dtype)
    return snt.token_stats(x[:, :2], weight, y).log_prob.sum()


FUNCTIONS = {
    "cross_entropy": snt.cross_entropy,
    "smoothed": lambda x, y: snt.cross_entropy(x, y, label_smoothing=0.1, z_loss=0.1),
    "nll_loss": snt.nll_loss,
    "linear_cross_entropy": linear,
    "token_stats": statistics,
}


def targets(n_classes, dtype):
    """Return targets of this type: the extreme classes that it holds, -100 where it holds that, and its neighbours."""
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    wanted = {0, 1, n_classes - 1, n_classes - 2, n_classes - 100, 156, 65_436, 2**16 - 1, -100}
    held = [each for each in sorted(wanted) if least <= each <= most]
    return [each for each in held if each == -100 or 0 <= each < n_classes]


def derivatives(function, x, y):
    """Return value, gradient, a second derivative and the derivatives of forward mode and torch.func."""
    along = torch.sin(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    leaf = x.clone().requires_grad_()
    value = function(leaf, y)
    (first,) = torch.autograd.grad(value, leaf, create_graph=True)
    found = {"value": value, "gradient": first, "func": torch.func.grad(function)(x, y)}
    found["second"] = torch.autograd.grad((first * along).sum(), leaf)[0] if first.requires_grad else first
    found["forward"] = torch.func.jvp(lambda each: function(each, y), (x,), (along,))[1]
    rows = torch.func.vmap(torch.func.grad(lambda each, t: function(each[None], t[None])))
    found["rows"] = rows(x[1:], y[1:])  # the first row may be ignored: a mean of nothing
    return {name: each.detach() for name, each in found.items()}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_values_and_derivatives_are_those_of_int64(function, dtype):
    for n_classes in CLASSES if function == "nll_loss" else CLASSES[4:9]:
        numbers = targets(n_classes, dtype)
        x = torch.from_numpy(np.random.default_rng(n_classes).normal(size=(len(numbers), n_classes)))
        if function == "nll_loss":
            x = torch.log_softmax(x, 1)
        y = torch.tensor(numbers)
        want = derivatives(FUNCTIONS[function], x, y)
        got = derivatives(FUNCTIONS[function], x, y.to(dtype))
        for name, each in want.items():
            assert torch.equal(got[name], each), (n_classes, name)
            assert not torch.isnan(each).any(), (n_classes, name)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16], ids=str)
def test_a_target_out_of_range_is_refused_in_its_own_number(function, dtype):
    x = torch.zeros(2, 5, dtype=WIDE)
    with pytest.raises(IndexError, match=r"\[1\] is 100; allowed: 0 <= target < 5"):
        FUNCTIONS[function](x, torch.tensor([0, 100], dtype=dtype))
