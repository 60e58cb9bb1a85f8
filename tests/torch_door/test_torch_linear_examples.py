"""Gradients of each example of a batch, ``vmap(grad(linear_cross_entropy))``, of one layer: no call an example."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, hessian, vmap

import softnll.torch as snt
from softnll.torch._base import backend
from torch_cases import EACH, REDUCTIONS, WEIGHT, float64
from torch_linear_cases import CLASSES, WIDTH, Options, Ran

EXAMPLES, ROWS = 5, 3
OF_LAYER = {name: each for name, each in EACH.items() if name not in {"sample_weight", "temperature"}}


def given(kind):
    """Return features, weight, bias and targets of the examples."""
    f, W, b = float64(EXAMPLES, ROWS, WIDTH), float64(CLASSES, WIDTH, seed=1), float64(CLASSES, seed=2)
    y = torch.arange(EXAMPLES * ROWS).reshape(EXAMPLES, ROWS) % CLASSES
    soft = float64(EXAMPLES, ROWS, CLASSES, seed=3, positive=True)
    return f, W, b, {"hard": y, "soft": soft, "sparse": float64(EXAMPLES, ROWS, 2, seed=3, positive=True)}[kind]


def check(loss, f, W, b, target, names=(0, 1, 2)):
    """Compare the examples' gradients with those of one example after the other."""
    gradients = grad(loss, names)
    got = vmap(gradients, (0, None, None, 0))(f, W, b, target)
    one_by_one = [gradients(f[i], W, b, target[i]) for i in range(len(f))]
    for a, *e in zip(got, *one_by_one, strict=True):
        torch.testing.assert_close(a, torch.stack(e))


@pytest.mark.parametrize("rows", [None, 1, 2, 4])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["hard", "soft", "sparse"])
def test_chunks_that_cut_examples(kind, reduction, rows):
    f, W, b, target = given(kind)
    indices = torch.tensor([[0, 3], [2, 1], [3, 3]])

    def loss(f, W, b, y):
        y = snt.SparseTargets(indices, y) if kind == "sparse" else y
        value = snt.linear_cross_entropy(f, W, y, linear_bias=b, options=Options(rows), reduction=reduction)
        return (value * (1 + f.sum())).sum()

    check(loss, f, W, b, target)
    check(loss, f, W, b, target, (1,))


@pytest.mark.parametrize("name", OF_LAYER)
def test_options(name):
    f, W, b, y = given("hard")
    y = torch.where(y == 2, -100, y)
    y[1] = -100  # the mean of nothing
    f[1] = torch.nan

    def loss(f, W, b, y):
        return snt.linear_cross_entropy(f, W, y, linear_bias=b, **OF_LAYER[name])

    check(loss, f, W, b, y)


def test_a_row_an_example():
    f, W, b, y = (each[:, 0] if i in (0, 3) else each for i, each in enumerate(given("hard")))

    def loss(f, W, b, y):
        return snt.linear_cross_entropy(f, W, y, linear_bias=b, weight=WEIGHT)

    check(loss, f, W, b, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types(dtype):
    f, W, _, y = (each.to(dtype) if each.is_floating_point() else each for each in given("hard"))
    gradients = vmap(grad(snt.linear_cross_entropy, (0, 1)), (0, None, 0))
    for got, expected in zip(gradients(f, W, y), gradients(f.double(), W.double(), y), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_on_other_devices(dtype, monkeypatch):
    """By the reference; a float16 gradient of the logits would underflow for small upstream gradients."""
    f, W, _, y = (each.to(dtype) if each.is_floating_point() else each for each in given("hard"))
    gradients = vmap(grad(lambda f, W, y: 1e-6 * snt.linear_cross_entropy(f, W, y), 1), (0, None, 0))
    expected = gradients(f.double(), W.double(), y)
    monkeypatch.setattr(backend, "kind_of", lambda _: "reference")
    got = gradients(f, W, y)
    assert (got - expected).abs().max() <= (1e-19 if dtype == torch.float64 else 6e-8)


def test_derivatives_of_the_examples_gradients():
    f, W, b, y = given("hard")

    def penalty(W):
        each = vmap(grad(lambda W, f, y: snt.linear_cross_entropy(f, W, y, linear_bias=b)), (None, 0, 0))(W, f, y)
        return each.square().sum()

    def through_logits(W):
        def loss(W, f, y):
            return torch.nn.functional.cross_entropy(torch.nn.functional.linear(f, W, b), y)

        return vmap(grad(loss), (None, 0, 0))(W, f, y).square().sum()

    torch.testing.assert_close(grad(penalty)(W), grad(through_logits)(W))
    V = W.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(penalty(V), V)[0], grad(through_logits)(W))
    torch.testing.assert_close(
        vmap(hessian(lambda f, y: snt.linear_cross_entropy(f, W, y)))(f, y),
        vmap(hessian(lambda f, y: torch.nn.functional.cross_entropy(f @ W.t(), y)))(f, y),
    )


def test_the_examples_share_the_products():
    n = 40
    f, W, y = torch.randn(n, 8), torch.randn(30, 8), torch.arange(n) % 30
    gradients = vmap(grad(lambda W, f, y: snt.linear_cross_entropy(f, W, y)), (None, 0, 0))
    with Ran() as ran:
        gradients(W, f, y)
    assert ran.products <= 4, "a product an example"
