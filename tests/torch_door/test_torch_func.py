"""softnll.torch under the transforms of torch.func."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import softnll.torch as snt
from torch_cases import FEW, FUNCTIONS, HARD, SAMPLES, WEIGHT, float64


@pytest.mark.parametrize("name", FEW)
def test_pullbacks_are_those_of_autograd(name):
    function, inputs = FUNCTIONS[name]
    value, pull = vjp(function, *inputs)
    upstream = float64(*value.shape, seed=3)
    leaves = tuple(each.clone().requires_grad_() for each in inputs)
    assert torch.equal(value, function(*leaves))
    for got, expected in zip(pull(upstream), torch.autograd.grad(function(*leaves), leaves, upstream), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", FEW)
def test_tangents_are_those_of_the_pullback(name):
    function, inputs = FUNCTIONS[name]
    tangents = tuple(float64(*each.shape, seed=5) for each in inputs)
    value, tangent = jvp(function, inputs, tangents)
    upstream = float64(*value.shape, seed=6)
    pulled = vjp(function, *inputs)[1](upstream)
    expected = sum((p * t).sum() for p, t in zip(pulled, tangents, strict=True))
    torch.testing.assert_close((tangent * upstream).sum(), expected)


@pytest.mark.parametrize("name", FEW)
def test_jacobians_agree(name):
    function, inputs = FUNCTIONS[name]
    forward, reverse = jacfwd(function)(*inputs), jacrev(function)(*inputs)
    torch.testing.assert_close(forward, reverse)
    torch.testing.assert_close(
        reverse, torch.autograd.functional.jacobian(lambda x: function(x, *inputs[1:]), inputs[0])
    )


@pytest.mark.parametrize(("outer", "inner"), [(jacfwd, jacrev), (jacrev, jacfwd), (jacrev, jacrev)])
@pytest.mark.parametrize("target", [HARD, float64(3, 4, seed=1, positive=True)])
def test_hessians_are_torchs(outer, inner, target):
    x = float64(3, 4)
    got = outer(inner(lambda x: snt.cross_entropy(x, target, WEIGHT, label_smoothing=0.1)))(x)
    expected = hessian(lambda x: F.cross_entropy(x, target, WEIGHT, label_smoothing=0.1))(x)
    torch.testing.assert_close(got, expected)


def test_hessian():
    x = float64(3, 4)
    torch.testing.assert_close(
        hessian(lambda x: snt.cross_entropy(x, HARD))(x), hessian(lambda x: F.cross_entropy(x, HARD))(x)
    )
    third = jacrev(hessian(lambda x: snt.cross_entropy(x, HARD[:1])))(x[:1])
    torch.testing.assert_close(third, jacrev(hessian(lambda x: F.cross_entropy(x, HARD[:1])))(x[:1]))


@pytest.mark.parametrize("name", FEW)
def test_forward_mode_within_forward_mode_is_refused(name):
    """torch's machinery would give 0."""
    function, (x, *others) = FUNCTIONS[name]
    with pytest.raises(NotImplementedError, match="forward mode within forward mode"):
        jacfwd(jacfwd(lambda x: function(x, *others)))(x)


BATCH = 5


def one_by_one(function, in_dims, inputs):
    """Return what vmap should."""
    chosen = [
        [each if at is None else each.select(at, i) for each, at in zip(inputs, in_dims, strict=True)]
        for i in range(BATCH)
    ]
    return torch.stack([function(*each) for each in chosen])


def check_map(function, in_dims, inputs):
    torch.testing.assert_close(vmap(function, in_dims)(*inputs), one_by_one(function, in_dims, inputs), equal_nan=True)


@pytest.mark.parametrize("at", [0, 1, 2, -1])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_maps_of_normalised(name, dim, at):
    x = float64(*[3, 4][: at % 3], BATCH, *[3, 4][at % 3 :])
    function = getattr(snt, name)
    check_map(lambda x: function(x, dim), (at,), (x,))
    check_map(grad(lambda x: function(x, dim).square().sum()), (at,), (x,))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mapped", [(0, 0), (1, None), (None, 0), (-1, 1)])
@pytest.mark.parametrize("kind", ["hard", "soft", "nll"])
def test_maps_of_losses(reduction, mapped, kind):
    """Also of their gradients; a member all of whose rows are ignored has a mean of NaN and a gradient of 0."""

    def placed(tensor, at):
        return tensor[0] if at is None else tensor.movedim(0, at)

    target = torch.stack([(HARD + i) % 4 for i in range(BATCH)])
    target[2] = -100
    if kind == "soft":
        target = float64(BATCH, 3, 4, seed=1, positive=True)
    x, target = placed(float64(BATCH, 3, 4), mapped[0]), placed(target, mapped[1])
    options = {"weight": WEIGHT, "sample_weight": SAMPLES, "reduction": reduction}
    if kind != "nll":
        options |= {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 2.0}
    loss = snt.nll_loss if kind == "nll" else snt.cross_entropy
    check_map(lambda x, y: loss(x, y, **options), mapped, (x, target))
    check_map(lambda x, y: grad(lambda x: loss(x, y, **options).sum())(x), mapped, (x, target))
    mapped_grad = grad(lambda x: vmap(lambda x, y: loss(x, y, **options), mapped)(x, target).nan_to_num().sum())
    single = grad(lambda x: one_by_one(lambda x, y: loss(x, y, **options), mapped, (x, target)).nan_to_num().sum())
    torch.testing.assert_close(mapped_grad(x), single(x))


@pytest.mark.parametrize("name", ["weight", "sample_weight", "temperature"])
def test_maps_over_constants(name):
    x = float64(BATCH, 3, 4)
    shape = (4,) if name == "weight" else (3,)
    given = float64(BATCH, *shape, seed=2, positive=True)
    for at in (None, 0):
        here = x[0] if at is None else x

        def loss(x, each):
            return snt.cross_entropy(x, HARD, **{name: each})

        check_map(loss, (at, 0), (here, given))
        check_map(grad(loss), (at, 0), (here, given))
        if name != "temperature":
            check_map(lambda x, each: snt.nll_loss(x, HARD, **{name: each}), (at, 0), (here, given))


def test_maps_of_maps_and_of_unbatched():
    x, y = float64(BATCH, 2, 4), torch.randint(0, 4, (BATCH, 2))
    twice = vmap(vmap(snt.cross_entropy))(x, y)
    torch.testing.assert_close(twice, F.cross_entropy(x.flatten(0, 1), y.flatten(), reduction="none").reshape(BATCH, 2))


def test_gradients_a_sample_of_a_model():
    model = torch.nn.Linear(6, 4).double()
    parameters = dict(model.named_parameters())
    x, y = float64(BATCH, 6), torch.randint(0, 4, (BATCH,))

    def gradients(loss):
        def one(parameters, x, y):
            return loss(functional_call(model, parameters, (x[None],)), y[None])

        return vmap(grad(one), in_dims=(None, 0, 0))({k: v.detach() for k, v in parameters.items()}, x, y)

    torch.testing.assert_close(gradients(snt.cross_entropy), gradients(F.cross_entropy))


def test_a_target_out_of_range_is_found_under_transforms():
    with pytest.raises(IndexError, match=r"target\[2\] is 9"):
        grad(lambda x: snt.cross_entropy(x, torch.tensor([0, 1, 9])))(float64(3, 4))


@pytest.mark.parametrize("strategy", ["forward-mode", "reverse-mode"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("function", [snt.nll_loss, snt.cross_entropy])
def test_vectorised_jacobians(function, reduction, strategy):
    x = float64(3, 4)

    def loss(x):
        return function(x, torch.tensor([0, 1, -100]), WEIGHT, reduction=reduction)

    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(jacobian(loss, x, vectorize=True, strategy=strategy), jacobian(loss, x))
