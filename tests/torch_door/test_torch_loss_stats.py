"""linear_cross_entropy_and_stats: the numbers of the separate calls, from one pass over the logits."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch.func import grad, vmap

import softnll.torch as snt
from softnll.torch._base import backend
from torch_cases import HARD, OPTIONS, REDUCTIONS, float64
from torch_linear_cases import CLASSES, INDICES, Options, Ran, layer, soft


def separate(f, W, b, target, options):
    """Return loss, z-loss, accuracy, argmax and lse from a call each."""

    def loss(**more):
        return snt.linear_cross_entropy(f, W, target, linear_bias=b, **options | more)

    hard, classes = target, target
    if isinstance(target, snt.SparseTargets):
        hard = classes = target.indices.gather(1, target.probabilities.argmax(1, keepdim=True))[:, 0]
    elif target.is_floating_point():
        hard = classes = target.argmax(1)
    ignored = options.get("ignore_index", -100) if hard is target else -100
    chosen = {name: options[name] for name in ("softcap", "temperature") if name in options}
    stats = snt.token_stats(f, W, hard, linear_bias=b, ignore_index=ignored, **chosen)
    takes_part = classes != ignored
    if "sample_weight" in options:
        takes_part &= options["sample_weight"] != 0
    argmax, lse = torch.where(takes_part, stats.argmax, -1), torch.where(takes_part, stats.lse, 0.0)
    correct = (argmax == classes)[takes_part].float().mean()
    return loss(), loss() - loss(z_loss=0.0), correct, argmax, lse


@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["hard", "soft", "sparse"])
@pytest.mark.parametrize("name", [*OPTIONS, "ignored"])
def test_the_numbers_of_separate_calls(name, kind, reduction, rows):
    f, W, b = layer()
    hard = torch.tensor([1, 3, 2])
    target = {"hard": hard, "soft": soft(), "sparse": snt.SparseTargets(INDICES, float64(3, 2, positive=True))}[kind]
    options = {} if name == "ignored" else dict(OPTIONS[name])
    if name == "ignored":
        options = {"ignore_index": 3, "z_loss": 0.1} if kind == "hard" else {"sample_weight": torch.tensor([0.0, 1, 2])}
    options |= {"reduction": reduction, "options": Options(rows)}
    got = snt.linear_cross_entropy_and_stats(f, W, target, linear_bias=b, **options)
    assert isinstance(got, snt.LossStats)
    expected = separate(f, W, b, target, options)
    torch.testing.assert_close(tuple(each.detach() for each in got), tuple(each.detach() for each in expected))
    assert [each.requires_grad for each in got] == [True, False, False, False, False]
    upstream = float64(*got.loss.shape, seed=3)
    gradients = [torch.autograd.grad(each, (f, W, b), upstream, create_graph=True) for each in (got.loss, expected[0])]
    torch.testing.assert_close(*gradients)
    second = [torch.autograd.grad(sum(g.square().sum() for g in each), (f, W, b)) for each in gradients]
    torch.testing.assert_close(*second)
    with torch.no_grad():
        torch.testing.assert_close(
            snt.linear_cross_entropy_and_stats(f, W, target, linear_bias=b, **options),
            tuple(each.detach() for each in got),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_and_shapes(dtype):
    f, W = float64(2, 5, 3).to(dtype).requires_grad_(), float64(7, 3).to(dtype).requires_grad_()
    y = torch.arange(10).reshape(2, 5) % 7
    got = snt.linear_cross_entropy_and_stats(f, W, y, z_loss=0.1)
    assert [each.dtype for each in got] == [torch.float32] * 3 + [torch.int64, torch.float32]
    assert [each.shape for each in got] == [()] * 3 + [(2, 5)] * 2
    expected = torch.autograd.grad(snt.linear_cross_entropy(f, W, y, z_loss=0.1), (f, W))
    torch.testing.assert_close(torch.autograd.grad(got.loss, (f, W)), expected)


def test_on_other_devices(monkeypatch):
    f, W, b = layer()
    options = {"linear_bias": b, "z_loss": 0.1, "softcap": 3.0, "options": Options(2)}
    results = []
    for kind in ("cpu", "reference"):
        monkeypatch.setattr(backend, "kind_of", lambda _, kind=kind: kind)
        stats = snt.linear_cross_entropy_and_stats(f, W, HARD, **options)
        results.append((*stats, *torch.autograd.grad(stats.loss, (f, W, b))))
    torch.testing.assert_close(*results)


def test_no_product_for_the_statistics():
    f, W, y = torch.randn(300, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True), torch.arange(300) % 50
    runs = []
    for function in (snt.linear_cross_entropy, snt.linear_cross_entropy_and_stats):
        with Ran() as ran:
            function(f, W, y, options=Options(100))
        runs.append(ran.products)
    assert runs[0] == runs[1] == 9


def test_nothing_to_average():
    f, W, b = layer()
    got = snt.linear_cross_entropy_and_stats(f, W, torch.full((3,), -100), linear_bias=b, z_loss=0.1)
    assert all(math.isnan(each.item()) for each in (got.loss, got.z_part, got.accuracy))
    assert got.argmax.tolist() == [-1] * 3
    assert got.lse.tolist() == [0.0] * 3


def test_transforms():
    f, W, b = (each.detach() for each in layer())

    def loss(f):
        stats = snt.linear_cross_entropy_and_stats(f, W, HARD, linear_bias=b)
        return stats.loss, stats.argmax

    got, argmax = grad(loss, has_aux=True)(f)
    torch.testing.assert_close(got, grad(lambda f: snt.linear_cross_entropy(f, W, HARD, linear_bias=b))(f))
    assert torch.equal(argmax, (f @ W.t() + b).argmax(1))
    with pytest.raises(NotImplementedError, match="use token_stats under vmap"):
        vmap(loss)(torch.stack([f, f]))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's, of what crosses the break
def test_compiled_code_breaks_its_graph():
    torch._dynamo.reset()
    f, W, b = layer()
    run = torch.compile(
        lambda f: snt.linear_cross_entropy_and_stats(f, W, HARD, linear_bias=b).loss * 2, backend="eager"
    )
    torch.testing.assert_close(run(f), 2 * snt.linear_cross_entropy(f, W, HARD, linear_bias=b))


def test_the_signature_and_bad_input():
    names = list(inspect.signature(snt.linear_cross_entropy_and_stats).parameters)
    assert names == list(inspect.signature(snt.linear_cross_entropy).parameters)
    f, W, _ = layer()
    with pytest.raises(IndexError, match=r"target\[2\] is 4; allowed: 0 <= target < 4"):
        snt.linear_cross_entropy_and_stats(f, W, torch.tensor([0, 1, CLASSES]))
    with pytest.raises(ValueError, match=r"linear_weight has shape \(4, 1, 2\); allowed: \(C, H\)"):
        snt.linear_cross_entropy_and_stats(f, W[:, None], HARD[:, None])
