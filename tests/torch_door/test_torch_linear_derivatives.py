"""Derivatives of the linear losses: under autograd to any order, in forward mode, under torch.func."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import softnll.torch as snt
from torch_cases import HARD, SAMPLES, WEIGHT, float64, leaves
from torch_linear_cases import FEW, FUNCTIONS, ONE_BY_ONE, Options, Ran, layer, soft, through_logits


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_derivatives(name):
    function, inputs = FUNCTIONS[name]
    assert torch.autograd.gradcheck(function, leaves(inputs), check_forward_ad=True, check_undefined_grad=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives(name):
    function, inputs = FUNCTIONS[name]
    options = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "fast_mode": True}
    assert torch.autograd.gradgradcheck(function, leaves(inputs), **options)


def test_second_derivatives_entry_by_entry():
    function, inputs = FUNCTIONS["hard-all-mean"]
    assert torch.autograd.gradgradcheck(function, leaves(inputs))


@pytest.mark.parametrize("which", [each for each in itertools.product([False, True], repeat=4) if any(each[:3])])
def test_second_derivatives_of_every_subset(which):
    given = [*(each.detach() for each in layer()), soft()]
    wanted = [each.requires_grad_() for each, needed in zip(given, which, strict=True) if needed]
    f, W, b, q = given
    results = []
    for loss in (
        snt.linear_cross_entropy(f, W, q, linear_bias=b, z_loss=0.1, options=Options(2)),
        through_logits(f, W, q, linear_bias=b, z_loss=0.1),
    ):
        first = torch.autograd.grad(loss, wanted, create_graph=True)
        penalty = sum(each.square().sum() for each in first)
        results.append(torch.autograd.grad(penalty, wanted, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_gradient_penalty_arrives(reduction):
    """A gradient that was only kept from the forward would be a constant here."""
    f, W, b = layer()
    results = []
    for function in (snt.linear_cross_entropy, through_logits):
        loss = function(f, W, HARD, linear_bias=b, reduction=reduction)
        first = torch.autograd.grad(loss.sum(), (f, W, b), create_graph=True)
        assert all(each.requires_grad for each in first)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), (f, W, b))
        assert all((each != 0).any() for each in second)
        results.append((*first, *second))
    torch.testing.assert_close(*results)


def test_a_penalty_does_not_use_up_the_gradients():
    f, W, b = layer()
    loss = snt.linear_cross_entropy(f, W, HARD, linear_bias=b, options=ONE_BY_ONE)
    expected = torch.autograd.grad(through_logits(f, W, HARD, linear_bias=b), (f, W, b))
    first = torch.autograd.grad(loss, (f, W, b), create_graph=True)
    sum(each.square().sum() for each in first).backward()
    for got in (first, torch.autograd.grad(loss, (f, W, b))):
        torch.testing.assert_close(tuple(each.detach() for each in got), expected)


@pytest.mark.parametrize("order", [2, 3])
def test_higher_derivatives(order):
    f, W, b = layer()

    def nth(function):
        value = function(f, W, HARD, linear_bias=b, weight=WEIGHT)
        for _ in range(order):
            grads = torch.autograd.grad(value, (f, W, b), create_graph=True)
            value = sum((each * torch.arange(1.0, 1 + each.numel()).reshape(each.shape)).sum() for each in grads)
        return tuple(each.detach() for each in grads)

    torch.testing.assert_close(nth(snt.linear_cross_entropy), nth(through_logits))


@pytest.mark.parametrize("name", FEW)
def test_batches_of_upstream_gradients(name):
    function, (f, *others) = FUNCTIONS[name]

    def of(f):
        return function(f, *others)

    for derivative, at in (
        (torch.autograd.functional.jacobian, of),
        (torch.autograd.functional.hessian, lambda f: of(f).square().sum()),
    ):
        torch.testing.assert_close(derivative(at, f, vectorize=True), derivative(at, f))


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("graph", [False, True])
def test_a_tangent_is_never_missing(name, graph):
    function, inputs = FUNCTIONS[name]
    tangents = tuple(float64(*each.shape, seed=7) for each in inputs)
    given = leaves(inputs)
    value = function(*given)
    upstream = float64(*value.shape, seed=8)
    pulled = torch.autograd.grad(value, given, upstream)
    with forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(each.clone().requires_grad_(graph), tangent)
            for each, tangent in zip(inputs, tangents, strict=True)
        ]
        tangent = forward_ad.unpack_dual(function(*duals)).tangent
        with torch.no_grad():
            again = forward_ad.unpack_dual(function(*duals)).tangent
    expected = sum((p * t).sum() for p, t in zip(pulled, tangents, strict=True))
    torch.testing.assert_close((tangent * upstream).sum().detach(), expected)
    torch.testing.assert_close((again * upstream).sum(), expected)


@pytest.mark.parametrize("name", FEW)
def test_pullbacks_and_tangents_under_func(name):
    function, inputs = FUNCTIONS[name]
    value, pull = vjp(function, *inputs)
    upstream = float64(*value.shape, seed=3)
    given = leaves(inputs)
    plain = function(*given)
    torch.testing.assert_close(value, plain.detach())
    pulled = pull(upstream)
    torch.testing.assert_close(pulled, torch.autograd.grad(plain, given, upstream))
    tangents = tuple(float64(*each.shape, seed=5) for each in inputs)
    tangent = jvp(function, inputs, tangents)[1]
    torch.testing.assert_close(
        (tangent * upstream).sum(), sum((p * t).sum() for p, t in zip(pulled, tangents, strict=True))
    )


@pytest.mark.parametrize("outer", [jacfwd, jacrev])
@pytest.mark.parametrize("inner", [jacrev, jacfwd])
@pytest.mark.parametrize("target", [HARD, soft()])
def test_hessians(outer, inner, target):
    f, W, b = (each.detach() for each in layer())
    options = {"weight": WEIGHT, "label_smoothing": 0.1}

    def ours(f, W):
        return snt.linear_cross_entropy(f, W, target, linear_bias=b, options=Options(2), **options)

    expected = hessian(lambda f, W: F.cross_entropy(F.linear(f, W, b), target, **options), (0, 1))(f, W)
    if outer is inner is jacfwd:
        with pytest.raises(NotImplementedError, match="forward mode within forward mode"):
            outer(inner(ours, (0, 1)), (0, 1))(f, W)
    else:
        torch.testing.assert_close(outer(inner(ours, (0, 1)), (0, 1))(f, W), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("mapped", [(0, None, None), (1, 0, 0), (None, None, 0), (-1, None, 0)])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_maps(reduction, mapped, kind):
    def placed(tensor, at):
        return tensor[0] if at is None else tensor.movedim(0, at)

    target = torch.stack([(HARD + i) % 4 for i in range(4)]) if kind == "hard" else float64(4, 3, 4, positive=True)
    tensors = (float64(4, 3, 2), float64(4, 4, 2, seed=1), target)
    given = tuple(placed(each, at) for each, at in zip(tensors, mapped, strict=True))

    def loss(f, W, y):
        return snt.linear_cross_entropy(f, W, y, weight=WEIGHT, sample_weight=SAMPLES, reduction=reduction)

    def one_by_one(function):
        chosen = [
            [each if at is None else each.select(at, i) for each, at in zip(given, mapped, strict=True)]
            for i in range(4)
        ]
        return [function(*each) for each in chosen]

    torch.testing.assert_close(vmap(loss, mapped)(*given), torch.stack(one_by_one(loss)))
    gradients = grad(lambda *each: loss(*each).sum(), (0, 1))
    for got, *expected in zip(vmap(gradients, mapped)(*given), *one_by_one(gradients), strict=True):
        torch.testing.assert_close(got, torch.stack(expected))


def test_gradients_a_sample_of_a_model():
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh()).double()
    head = float64(4, 5, seed=2)
    parameters = {name: each.detach() for name, each in model.named_parameters()}
    x, y = float64(4, 6), torch.arange(4)

    def gradients(loss):
        def one(parameters, head, x, y):
            return loss(functional_call(model, parameters, (x[None],)), head, y[None])

        return vmap(grad(one, (0, 1)), in_dims=(None, None, 0, 0))(parameters, head, x, y)

    expected = gradients(lambda f, W, y: F.cross_entropy(F.linear(f, W), y))
    torch.testing.assert_close(gradients(snt.linear_cross_entropy), expected)


@pytest.mark.parametrize("name", ["weight", "sample_weight", "temperature"])
def test_constants_refuse_a_gradient(name):
    """A right gradient or an error, never a silent 0."""
    f, W, _ = layer()
    values = {"weight": WEIGHT, "sample_weight": SAMPLES, "temperature": SAMPLES + 1}
    given = values[name].clone().requires_grad_()

    def loss(each):
        return snt.linear_cross_entropy(f, W, HARD, **{name: each})

    said = pytest.raises(NotImplementedError, match=f"with respect to {name} is not implemented")
    with said:
        loss(given)
    with said:
        grad(loss)(given.detach())
    with said:
        jvp(loss, (given.detach(),), (torch.ones_like(given),))
    with said, forward_ad.dual_level():
        loss(forward_ad.make_dual(given.detach(), torch.ones_like(given)))
    with torch.no_grad():
        assert torch.equal(loss(given), loss(given.detach()).detach())


def test_an_ignored_row_has_no_derivative_of_any_order_whatever_it_holds():
    f, W, b = layer()
    f.data[1] = float("nan")
    target = torch.tensor([2, -100, 1])
    loss = snt.linear_cross_entropy(f, W, target, linear_bias=b)
    first = torch.autograd.grad(loss, (f, W, b), create_graph=True)
    for each in torch.autograd.grad(sum(each.square().sum() for each in first), (f, W, b)):
        assert each.isfinite().all()
    assert jvp(lambda f: snt.linear_cross_entropy(f, W, target), (f.detach(),), (torch.ones_like(f),))[1].isfinite()
    q = soft().requires_grad_()
    loss = snt.linear_cross_entropy(f, W, q, sample_weight=torch.tensor([1.0, 0.0, 1.0]))
    (to_q,) = torch.autograd.grad(loss, q)
    assert (to_q[1] == 0).all()
    assert (to_q[[0, 2]] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_have_all_derivatives(dtype):
    digits = 2.0 ** (-8 if dtype == torch.float16 else -5)
    f, W, b = layer(dtype)
    wide = [each.detach().double().requires_grad_() for each in (f, W, b)]
    results = []
    for function, given in ((snt.linear_cross_entropy, (f, W, b)), (through_logits, wide)):
        first = torch.autograd.grad(function(*given[:2], HARD, linear_bias=given[2]), given, create_graph=True)
        assert all(each.dtype == leaf.dtype for each, leaf in zip(first, given, strict=True))
        second = torch.autograd.grad(sum(each.square().sum() for each in first), given)
        results.append([each.detach().double() for each in (*first, *second)])
    torch.testing.assert_close(*results, rtol=digits, atol=digits)


def test_checkpointing():
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415 - this test alone

    f, W, b = layer()
    results = []
    for run in (lambda function, *given: function(*given), lambda *given: checkpoint(*given, use_reentrant=False)):
        loss = run(lambda f, W: snt.linear_cross_entropy(torch.tanh(f), W, HARD, linear_bias=b), f, W)
        results.append(torch.autograd.grad(loss, (f, W, b)))
    torch.testing.assert_close(*results)


def test_no_logits_are_held_in_second_derivatives():
    """The Hessian's product too goes a few rows at a time, where nobody differentiates that."""
    f, W = float64(64, 3).requires_grad_(), float64(50, 3).requires_grad_()
    loss = snt.linear_cross_entropy(f, W, torch.arange(64) % 50, options=Options(8))
    (to_f,) = torch.autograd.grad(loss, f, create_graph=True)
    with Ran() as ran:
        torch.autograd.grad(to_f.square().sum(), (f, W))
    assert ran.products > 8
    assert max(math.prod(shape) for shape in ran.shapes) <= 8 * 50
