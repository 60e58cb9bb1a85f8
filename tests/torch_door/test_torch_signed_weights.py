"""Class and sample weights of either sign and NaN: torch's own numbers, unless check=True."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import softnll.torch as snt
import torch_cases  # noqa: F401 - it imports what torch imports with a warning at its first tangent
from softnll.torch._base import backend

X = torch.tensor([[1.0, 2.0, 0.5, -1.0], [3.0, 1.0, 4.0, 1.0], [0.5, 0.0, 0.0, 2.0]], dtype=torch.float64)
TARGETS = {
    "hard": torch.tensor([1, 0, 3]),
    "ignored": torch.tensor([1, -100, 3]),
    "soft": torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.25, 0.75, 0.0], [0.25] * 4], dtype=torch.float64),
}
WEIGHTS = {
    "negative": torch.tensor([-1.0, -2.0, -0.5, -3.0]),
    "both signs": torch.tensor([-1.0, 2.0, -0.5, 3.0]),
    "sum below 0": torch.tensor([-1.0, 2.0, -0.5, -3.0]),
    "NaN": torch.tensor([1.0, 2.0, 3.0, torch.nan]),
}
ADVANTAGES = torch.tensor([1.5, -2.0, -0.25], dtype=torch.float64)


@pytest.fixture(params=["cpu", "reference"])
def device(request, monkeypatch):
    """The kernels of the CPU, and the reference of other devices."""
    if request.param != "cpu":
        monkeypatch.setattr(backend, "kind_of", lambda _: request.param)


def value_and_gradient(function, x=X):
    leaf = x.clone().requires_grad_()
    value = function(leaf)
    return value, *torch.autograd.grad(value.sum(), leaf)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_class_weights_are_computed_with_as_torch_does(weight, target, reduction, smoothing):
    w, y = WEIGHTS[weight].double(), TARGETS[target]
    options = {"weight": w, "reduction": reduction, "label_smoothing": smoothing}
    want = value_and_gradient(lambda x: F.cross_entropy(x, y, **options))
    for function in (snt.cross_entropy, lambda x, y, **o: snt.linear_cross_entropy(x, torch.eye(4).double(), y, **o)):
        got = value_and_gradient(lambda x, f=function: f(x, y, **options))
        torch.testing.assert_close(got[0], want[0], rtol=1e-12, atol=1e-14, equal_nan=True)
        if weight != "NaN":
            torch.testing.assert_close(got[1], want[1], rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("target", TARGETS)
def test_sample_weights_of_either_sign(target):
    y = TARGETS[target]

    def right(x):
        return (F.cross_entropy(x, y, reduction="none") * ADVANTAGES).sum()

    def layer(x, **options):
        return snt.linear_cross_entropy(x, torch.eye(4).double(), y, sample_weight=ADVANTAGES, **options)

    want = value_and_gradient(right)
    for function in (lambda x, **o: snt.cross_entropy(x, y, sample_weight=ADVANTAGES, **o), layer):
        got = value_and_gradient(lambda x, f=function: f(x, reduction="sum"))
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
        D = ADVANTAGES[y != -100].sum() if target == "ignored" else ADVANTAGES.sum()
        got = value_and_gradient(lambda x, f=function: f(x, reduction="mean"))
        torch.testing.assert_close(got, tuple(each / D for each in want), rtol=1e-12, atol=1e-14)
    (second,) = torch.autograd.functional.hvp(right, X, X)[1:]
    ours = torch.autograd.functional.hvp(
        lambda x: snt.cross_entropy(x, y, sample_weight=ADVANTAGES, reduction="sum"), X, X
    )
    torch.testing.assert_close(ours[1], second, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", ["weight", "sample_weight"])
@pytest.mark.parametrize("bad", [-1.0, torch.nan, torch.inf])
def test_check_true_refuses_them(name, bad):
    weights = torch.ones(4 if name == "weight" else 3, dtype=torch.float64)
    weights[1] = bad
    with pytest.raises(ValueError, match=rf"{name}\[1\] is {bad}; allowed: finite numbers >= 0"):
        snt.cross_entropy(X, TARGETS["hard"], check=True, **{name: weights})
    with pytest.raises(ValueError, match=rf"{name}\[1\] is {bad}; allowed: finite numbers >= 0"):
        snt.linear_cross_entropy(X, torch.eye(4).double(), TARGETS["hard"], check=True, **{name: weights})


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("check", [None, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("way", ["weight 0", "ignored"])
def test_what_a_row_without_part_holds_is_not_looked_at(way, reduction, check):
    x, y, s, tau = X.clone(), TARGETS["hard"].clone(), torch.ones(3).double(), torch.ones(3).double()
    expected = (x[[0, 2]], y[[0, 2]])
    x[1] = torch.nan
    tau[1] = -torch.inf
    if way == "weight 0":
        s[1], y[1] = 0.0, 77
    else:
        s[1], y[1] = torch.nan, -100
    options = {"reduction": reduction, "sample_weight": s, "temperature": tau, "check": check}
    want = value_and_gradient(lambda x: snt.cross_entropy(x, expected[1], reduction=reduction), expected[0])
    eye = torch.eye(4).double()
    for function in (snt.cross_entropy, lambda x, y, **o: snt.linear_cross_entropy(x, eye, y, **o)):
        if function is not snt.cross_entropy:
            x[1] = 7.0  # features of all rows are multiplied by a head that has no NaN
        value, gradient = value_and_gradient(lambda x, f=function: f(x, y, **options), x)
        value = value[[0, 2]] if reduction == "none" else value
        torch.testing.assert_close((value, gradient[[0, 2]]), want, rtol=1e-12, atol=1e-14)
        assert (gradient[1] == 0).all()


@pytest.mark.usefixtures("device")
def test_soft_targets_of_a_row_without_part_are_not_looked_at():
    q = TARGETS["soft"].clone()
    q[1] = torch.nan
    s = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    value, gradient = value_and_gradient(lambda x: snt.cross_entropy(x, q, sample_weight=s, check=True))
    assert value.isfinite()
    assert (gradient[1] == 0).all()


NEGATIVE = torch.tensor([-1.0, -2.0, 0.5, -0.7], dtype=torch.float64)  # the mean's denominator is below 0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("linear", [False, True])
def test_derivatives_of_a_mean_whose_denominator_is_negative(linear):
    y, W = TARGETS["hard"], torch.eye(4).double()

    def ours(x, weight=NEGATIVE):
        return snt.linear_cross_entropy(x, W, y, weight=weight) if linear else snt.cross_entropy(x, y, weight)

    def torchs(x, weight=NEGATIVE):
        return F.cross_entropy(x, y, weight)

    for derivative in (
        lambda f: torch.autograd.functional.hvp(f, X, X)[1],
        lambda f: torch.func.jvp(f, (X,), (X.flip(1),))[1],
        lambda f: torch.func.vmap(f)(torch.stack([X, X * 2])),
        lambda f: torch.func.vmap(torch.func.grad(f))(torch.stack([X, X * 2])),
    ):
        torch.testing.assert_close(derivative(ours), derivative(torchs), rtol=1e-12, atol=1e-14)


def test_statistics_beside_a_loss_of_negative_weights():
    y, W = TARGETS["hard"], torch.eye(4).double()
    found = snt.linear_cross_entropy_and_stats(X, W, y, weight=NEGATIVE, z_loss=0.1)
    want = snt.linear_cross_entropy(X, W, y, weight=NEGATIVE, z_loss=0.1) - F.cross_entropy(X, y, NEGATIVE)
    torch.testing.assert_close(found.z_part, want, rtol=1e-12, atol=1e-14)
    of_one = snt.linear_cross_entropy_and_stats(X, W, X.argmax(1), weight=torch.tensor([1.0, 0, 1, 1]).double())
    assert of_one.accuracy == 1  # the row of weight 0 takes no part


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_measure_whose_mass_cancels_counts_in_every_mode():
    x, y = torch.tensor([[1.0, 3.0]], dtype=torch.float64), torch.tensor([0])
    w = torch.tensor([1.0, -3.0], dtype=torch.float64)

    def loss(module, x):  # t = (0.75, -0.75)
        return module.cross_entropy(x, y, w, label_smoothing=0.5, reduction="sum")

    along = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    value, pushed = torch.func.jvp(lambda x: loss(snt, x), (x,), (along,))
    assert value.item() == pytest.approx(1.5)
    assert pushed.item() == pytest.approx(-0.75)
    assert torch.jit.trace(lambda x: loss(snt, x), (x,))(x).item() == pytest.approx(1.5)


@pytest.mark.usefixtures("device")
def test_the_weight_of_an_ignored_class_may_be_nan():
    y, w = torch.tensor([0, 2, 3]), torch.tensor([torch.nan, 1, 1, 1], dtype=torch.float64)
    want = value_and_gradient(lambda x: F.cross_entropy(x, y, w, ignore_index=0))
    got = value_and_gradient(lambda x: snt.cross_entropy(x, y, w, ignore_index=0))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_an_infinite_upstream_gradient_of_an_ignored_row_stays_there():
    W = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4).requires_grad_()
    f = X.clone().requires_grad_()
    loss = snt.linear_cross_entropy(f, W, torch.tensor([-100, 1, 2]), reduction="none")
    upstream = torch.tensor([torch.inf, 1.0, 2.0], dtype=torch.float64)
    (first,) = torch.autograd.grad(loss, f, upstream, create_graph=True)
    assert torch.autograd.grad(first[1:].sin().sum(), W)[0].isfinite().all()


@pytest.mark.parametrize("other", [1.0, 0.5, 2.0])
def test_an_upstream_gradient_of_0_gives_0_also_in_a_row_of_nan(other):
    x = torch.tensor([[torch.nan, 1, 2], [0.0, 1, 2]], requires_grad=True)
    snt.cross_entropy(x, torch.tensor([0, 1]), reduction="none").backward(torch.tensor([0.0, other]))
    assert (x.grad[0] == 0).all()
    assert x.grad[1].isfinite().all()
