"""Derivatives of softnll.torch under autograd: of first and higher order, in every combination, in forward mode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import forward_ad

import softnll.torch as snt
from torch_cases import FEW, FUNCTIONS, HARD, SAMPLES, WEIGHT, float64, leaves


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_derivatives(name):
    function, inputs = FUNCTIONS[name]
    assert torch.autograd.gradcheck(function, leaves(inputs), check_forward_ad=True, check_undefined_grad=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives(name):
    function, inputs = FUNCTIONS[name]
    projected = name not in FEW  # along random directions; else one entry at a time
    options = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "fast_mode": projected}
    assert torch.autograd.gradgradcheck(function, leaves(inputs), **options)


@pytest.mark.parametrize("name", FEW)
def test_batches_of_upstream_gradients(name):
    """torch.autograd.functional's vectorised Jacobians: a vmap of before torch.func."""
    function, (x, *others) = FUNCTIONS[name]

    def of(x):
        return function(x, *others)

    for derivative in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian):
        at = of if derivative is torch.autograd.functional.jacobian else lambda x: of(x).square().sum()
        torch.testing.assert_close(derivative(at, x, vectorize=True), derivative(at, x))


def nth(function, x, order):
    """Return the n-th derivative along ones."""
    value = function(x).sum()
    for _ in range(order):
        (grad,) = torch.autograd.grad(value, x, create_graph=True)
        value = (grad * torch.arange(1.0, 1 + x.numel()).reshape(x.shape)).sum()
    return grad.detach()


@pytest.mark.parametrize("order", [2, 3, 4])
def test_higher_derivatives_are_torchs(order):
    x = float64(3, 4).requires_grad_()
    pairs = [
        (lambda x: snt.softmax(x, 1).square(), lambda x: F.softmax(x, 1).square()),
        (lambda x: snt.log_softmax(x, 0).square(), lambda x: F.log_softmax(x, 0).square()),
        (lambda x: snt.logsumexp(x, 1), lambda x: torch.logsumexp(x, 1)),
        (lambda x: snt.cross_entropy(x, HARD, WEIGHT), lambda x: F.cross_entropy(x, HARD, WEIGHT)),
        (lambda x: snt.nll_loss(x.exp(), HARD), lambda x: F.nll_loss(x.exp(), HARD)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(nth(ours, x, order), nth(theirs, x, order))


def test_tied_rows_have_second_derivatives():
    x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    for ours, theirs in ((snt.cross_entropy, F.cross_entropy),):
        torch.testing.assert_close(
            nth(lambda x, f=ours: f(x, HARD[:2]), x, 3), nth(lambda x, f=theirs: f(x, HARD[:2]), x, 3)
        )


def upstreams():
    """Yield upstream gradients of three rows in every layout."""
    g = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    yield g
    yield g.flip(0)
    yield torch.stack([g, g], 1)[:, 0]  # strided
    yield torch.tensor(3.0, dtype=torch.float64).expand(3)  # of stride 0
    yield torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize("upstream", list(upstreams()))
@pytest.mark.parametrize("soft", [False, True])
def test_upstream_gradients_a_row(upstream, soft):
    x, q = float64(3, 4).requires_grad_(), float64(3, 4, seed=1, positive=True)
    target = q if soft else HARD
    for ours, theirs in ((snt.cross_entropy, F.cross_entropy), *([] if soft else [(snt.nll_loss, F.nll_loss)])):
        got = torch.autograd.grad(ours(x, target, reduction="none"), x, upstream)
        torch.testing.assert_close(got, torch.autograd.grad(theirs(x, target, reduction="none"), x, upstream))


@pytest.mark.parametrize("upstream", [1.0, 0.0, -1.0, 3.7, 65536.0, 1e-30, 1e200, -1e-200, float("inf"), float("nan")])
def test_upstream_gradients_of_a_mean(upstream):
    x = float64(3, 4).requires_grad_()
    upstream = torch.tensor(upstream, dtype=torch.float64)
    (unit,) = torch.autograd.grad(snt.cross_entropy(x, HARD), x)
    (got,) = torch.autograd.grad(snt.cross_entropy(x, HARD), x, upstream)
    expected = unit * upstream
    assert torch.allclose(got, expected, rtol=1e-15, atol=0, equal_nan=True)


def test_a_row_without_weight_has_no_gradient_whatever_comes_from_above():
    x = float64(3, 4).requires_grad_()
    loss = snt.cross_entropy(x, HARD, sample_weight=SAMPLES, reduction="none")
    (grad,) = torch.autograd.grad(loss, x, torch.full((3,), float("inf"), dtype=torch.float64))
    assert (grad[1] == 0).all()


@pytest.mark.parametrize("name", FEW)
def test_a_graph_is_used_twice(name):
    function, inputs = FUNCTIONS[name]
    given = leaves(inputs)
    value = function(*given)
    first, second = torch.ones_like(value), float64(*value.shape, seed=4)
    a = torch.autograd.grad(value, given, first, retain_graph=True)
    b = torch.autograd.grad(value, given, second, retain_graph=True)
    again = torch.autograd.grad(value, given, first)
    fresh = torch.autograd.grad(function(*given), given, second)
    assert all(torch.equal(p, q) for p, q in zip(a, again, strict=True))
    assert all(torch.equal(p, q) for p, q in zip(b, fresh, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, given, first)


@pytest.mark.parametrize("which", list(itertools.product([False, True], repeat=2)))
def test_every_combination_of_requires_grad(which):
    x, q = (
        each.clone().requires_grad_(needed)
        for each, needed in zip((float64(3, 4), float64(3, 4, positive=True)), which, strict=True)
    )
    loss = snt.cross_entropy(x, q)
    assert loss.requires_grad == any(which)
    reference = F.cross_entropy(x, q)
    wanted = [each for each in (x, q) if each.requires_grad]
    if wanted:
        got, expected = torch.autograd.grad(loss, wanted), torch.autograd.grad(reference, wanted)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["weight", "sample_weight", "temperature"])
@pytest.mark.parametrize("logits_too", [False, True])
def test_constants_refuse_a_gradient(name, logits_too):
    """A right gradient or an error, never a silent 0."""
    x = float64(3, 4).requires_grad_(logits_too)
    values = {"weight": WEIGHT, "sample_weight": SAMPLES, "temperature": SAMPLES + 1}
    given = values[name].clone().requires_grad_()
    tangent = torch.ones_like(given)

    def loss(each):
        return snt.cross_entropy(x, HARD, **{name: each})

    said = pytest.raises(NotImplementedError, match=f"with respect to {name} is not implemented")
    with said:
        loss(given)
    with said:
        torch.func.grad(loss)(given.detach())
    with said:
        torch.func.jvp(loss, (given.detach(),), (tangent,))
    with said, forward_ad.dual_level():
        loss(forward_ad.make_dual(given.detach(), tangent))
    with torch.no_grad():
        assert torch.equal(loss(given), loss(given.detach()).detach())
    if name != "temperature":
        with said:
            snt.nll_loss(x, HARD, **{name: given})
        with said:
            torch.func.jvp(lambda each: snt.nll_loss(x, HARD, **{name: each}), (given.detach(),), (tangent,))


def test_a_single_temperature_refuses_a_gradient():
    with pytest.raises(NotImplementedError, match="temperature is not implemented"):
        snt.cross_entropy(float64(3, 4), HARD, temperature=torch.tensor(2.0, requires_grad=True))


def test_a_gradient_penalty_arrives():
    """A gradient that was only kept from the forward would be a constant here."""
    x = float64(3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(snt.cross_entropy(x, HARD), x, create_graph=True)
    assert grad.requires_grad
    (penalty,) = torch.autograd.grad(grad.square().sum(), x)
    (reference,) = torch.autograd.grad(F.cross_entropy(x, HARD), x, create_graph=True)
    torch.testing.assert_close(penalty, torch.autograd.grad(reference.square().sum(), x)[0])
    assert (penalty != 0).all()


def test_an_ignored_row_has_no_second_derivative_whatever_it_holds():
    x = float64(3, 4)
    x[1] = float("nan")
    target = torch.tensor([2, -100, 1])
    x.requires_grad_()
    (grad,) = torch.autograd.grad(snt.cross_entropy(x, target), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert (second[1] == 0).all()
    assert (second[[0, 2]] != 0).all()
    tangent = torch.func.jvp(lambda x: snt.cross_entropy(x, target), (x.detach(),), (torch.ones(3, 4).double(),))[1]
    assert tangent.isfinite()


def test_soft_targets_of_zero_at_impossible_classes():
    """0·(−∞) is 0, and the derivative with respect to that 0 is what it is."""
    x = torch.tensor([[1.0, -np.inf, 0.0]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    loss = snt.cross_entropy(x, q)
    to_x, to_q = torch.autograd.grad(loss, (x, q))
    assert loss.isfinite()
    assert to_x.isfinite().all()
    assert to_q[0, 1] == np.inf
    assert to_q[0, [0, 2]].isfinite().all()


def test_rows_without_mass_still_tell_their_targets():
    x, q = float64(2, 3), torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (to_q,) = torch.autograd.grad(snt.cross_entropy(x, q, reduction="sum"), q)
    torch.testing.assert_close(to_q, -F.log_softmax(x, 1))


@pytest.mark.parametrize("name", FEW)
def test_a_tangent_is_never_missing(name):
    """Forward mode, with a graph and without: what reverse mode says, never None and never 0."""
    function, inputs = FUNCTIONS[name]
    tangents = tuple(float64(*each.shape, seed=7) for each in inputs)
    value = function(*leaves(inputs))
    upstream = float64(*value.shape, seed=8)
    given = leaves(inputs)
    pulled = torch.autograd.grad(function(*given), given, upstream)
    expected = sum((p * t).sum() for p, t in zip(pulled, tangents, strict=True))
    for graph in (False, True):
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(each.clone().requires_grad_(graph), tangent)
                for each, tangent in zip(inputs, tangents, strict=True)
            ]
            tangent = forward_ad.unpack_dual(function(*duals)).tangent
            assert tangent is not None
            torch.testing.assert_close((tangent * upstream).sum(), expected, check_dtype=False)
            if graph and name.startswith(("softmax", "hard", "soft", "places")):  # of which the tangent depends on x
                (second,) = torch.autograd.grad((tangent * upstream).sum(), duals[0], retain_graph=True)
                assert (second != 0).any()
            with torch.no_grad():
                again = forward_ad.unpack_dual(function(*duals)).tangent
                assert again is not None
                torch.testing.assert_close((again * upstream).sum(), expected.detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_have_all_derivatives(dtype):
    x = (float64(3, 4) * 2).to(dtype)
    v = float64(3, 4, seed=2).to(dtype)
    digits = 2.0 ** (-8 if dtype == torch.float16 else -5)
    for ours, theirs in (
        (lambda x: snt.softmax(x, 1), lambda x: F.softmax(x, 1)),
        (lambda x: snt.log_softmax(x, 1), lambda x: F.log_softmax(x, 1)),
        (lambda x: snt.logsumexp(x, 1), lambda x: torch.logsumexp(x, 1)),
        (lambda x: snt.cross_entropy(x, HARD), lambda x: F.cross_entropy(x, HARD)),
        (lambda x: snt.nll_loss(x, HARD), lambda x: F.nll_loss(x, HARD)),
    ):
        value, tangent = torch.func.jvp(ours, (x,), (v,))
        _, wide = torch.func.jvp(theirs, (x.double(),), (v.double(),))
        assert tangent.dtype == value.dtype
        torch.testing.assert_close(tangent.double(), wide, rtol=digits, atol=digits)
        given = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(ours(given).square().sum(), given, create_graph=True)
        (second,) = torch.autograd.grad(grad.sum() + grad.square().sum(), given)
        at = x.double().requires_grad_()
        (reference,) = torch.autograd.grad(theirs(at).square().sum(), at, create_graph=True)
        assert grad.dtype == second.dtype == dtype
        torch.testing.assert_close(grad.double(), reference, rtol=digits, atol=digits)
        (exact,) = torch.autograd.grad(reference.sum() + reference.square().sum(), at)
        torch.testing.assert_close(second.double(), exact, rtol=2 * digits, atol=2 * digits)


def test_a_change_of_the_logits_before_the_backward_of_logsumexp_is_noticed():
    x = float64(3, 4).requires_grad_()
    z = x * 1
    loss = snt.logsumexp(z, 1).sum()
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_nothing_of_the_logits_size_is_saved_but_the_logits():
    x = torch.randn(1000, 1000, requires_grad=True)
    target = torch.randint(0, 1000, (1000,))
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = snt.cross_entropy(x, target)
    assert {each.data_ptr() for each in kept if each.numel() >= x.numel()} == {x.data_ptr()}
    notes = loss.grad_fn.kept
    assert notes.problem.x is None
    assert notes.problem.q is None


def test_checkpointing_lets_go_of_the_logits():
    """What a forward keeps goes through saved tensors, so that hooks may replace it."""
    x = float64(3, 4).requires_grad_()
    y = x * 2
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        loss = snt.cross_entropy(y, HARD)
    expected = torch.autograd.grad(F.cross_entropy(x * 2, HARD), x)
    torch.testing.assert_close(torch.autograd.grad(loss, x), expected)


FACTORS = (1.0, 0.5, -0.25, 0.3, -0.7, 3.0, 65536.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", FACTORS)
def test_gradients_that_wait_for_their_upstream_gradient(factor, dtype):
    torch.manual_seed(0)
    x = (torch.randn(40, 30, dtype=torch.float64) * 4).to(dtype).requires_grad_()
    y = torch.arange(40) % 30
    y[3] = -100
    with torch.no_grad():
        x[3, 5] = torch.nan  # of a row that takes no part
    loss = snt.cross_entropy(x, y)
    loss.backward(torch.tensor(factor, dtype=loss.dtype), retain_graph=True)
    first, x.grad = x.grad, None
    kept = first.clone()
    loss.backward(torch.tensor(factor, dtype=loss.dtype))  # made anew
    assert torch.equal(first, kept)
    unit = torch.finfo(dtype).eps * x.grad.abs() + torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    assert ((first - x.grad).abs() <= 4 * unit).all()
    assert (first[3] == 0).all()
    if dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(first, x.grad)  # rounded once


def test_an_upstream_gradient_that_lifts_subnormal_gradients():
    x = torch.tensor([[90.0, 0.0, -1.0]], requires_grad=True)
    (snt.cross_entropy(x, torch.tensor([0]), reduction="sum") * 2.0**40).backward()
    truth = x.detach().double().requires_grad_()
    (snt.cross_entropy(truth, torch.tensor([0]), reduction="sum") * 2.0**40).backward()
    torch.testing.assert_close(x.grad.double(), truth.grad, rtol=5e-7, atol=0)


@pytest.mark.parametrize("lowest", [-3.0, -90.0])
def test_upstream_gradients_of_rows_above_one(lowest):
    x = float64(2, 3, 4, 4).float()
    x[0, 1, 0, 0] = lowest - 6
    x.requires_grad_()
    y, upstream = torch.arange(32).reshape(2, 4, 4) % 3, 2.0 ** torch.arange(-8.0, 24.0).reshape(2, 4, 4).flip(0)
    y[0, 0, 0] = 0
    snt.cross_entropy(x, y, reduction="none").backward(upstream)
    truth = x.detach().double().requires_grad_()
    snt.cross_entropy(truth, y, reduction="none").backward(upstream.double())
    torch.testing.assert_close(x.grad.double(), truth.grad, rtol=1e-6, atol=0)


def test_gradients_are_not_kept_where_saved_tensors_go_elsewhere():
    x, y = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
    assert snt.cross_entropy(x, y).grad_fn.gradient is not None
    assert snt.cross_entropy(x, y, reduction="none").grad_fn.gradient is not None
    assert snt.cross_entropy(x.half(), y, reduction="none").grad_fn.gradient is None
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: packed.append(each) or each, lambda each: each):
        loss = snt.cross_entropy(x, y)
    assert loss.grad_fn.gradient is None
    assert packed
    loss.backward()
    torch.testing.assert_close(x.grad, torch.autograd.grad(snt.cross_entropy(x, y), x)[0])
