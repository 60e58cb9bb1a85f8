"""softnll.torch beside torch itself: signatures, values, shapes and types, and what differs on purpose."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

import softnll as sn
import softnll.torch as snt
from cases import LOSSES, SCORES, TRUE

HALVES = (torch.float16, torch.bfloat16)
SHAPES = [((4,), ()), ((3, 4), (3,)), ((2, 4, 5), (2, 5)), ((2, 4, 3, 2), (2, 3, 2)), ((2, 4, 1, 3, 2), (2, 1, 3, 2))]


def positional(function):
    """Return names, kinds and defaults of what may be given by position."""
    parameters = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in parameters if each.kind != each.KEYWORD_ONLY]


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "nll_loss", "cross_entropy"])
def test_signatures_are_torchs(name):
    assert positional(getattr(snt, name)) == positional(getattr(F, name))


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_constructors_are_torchs(name):
    assert positional(getattr(snt, name)) == positional(getattr(torch.nn, name))


def test_logsumexp_has_the_parameters_that_torch_documents():
    assert list(inspect.signature(snt.logsumexp).parameters) == ["input", "dim", "keepdim"]


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
@pytest.mark.parametrize("parameter", ["size_average", "reduce"])
def test_parameters_of_before_say_what_has_replaced_them(name, parameter):
    with pytest.raises(TypeError, match="reduction="):
        getattr(snt, name)(torch.zeros(1, 2), torch.tensor([0]), **{parameter: True})
    with pytest.raises(TypeError, match="reduction="):
        {"nll_loss": snt.NLLLoss, "cross_entropy": snt.CrossEntropyLoss}[name](**{parameter: False})


@pytest.mark.parametrize("shape", [each[0] for each in SHAPES])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_normalised(name, shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    for dim in range(-len(shape), len(shape)):
        torch.testing.assert_close(getattr(snt, name)(x, dim), getattr(F, name)(x, dim))
    assert getattr(snt, name)(x.half(), 0, dtype=torch.float64).dtype == torch.float64
    assert getattr(snt, name)(x, 0, 3, torch.float16).dtype == torch.float16
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        torch.testing.assert_close(getattr(snt, name)(x), getattr(F, name)(x, 0 if x.dim() in {1, 3} else 1))


def test_the_warning_of_an_implied_dimension_points_at_the_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        snt.softmax(torch.zeros(2, 2))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_normalised_scalar(name):
    x = torch.tensor(3.0, requires_grad=True)
    value = getattr(snt, name)(x, 0)
    assert value.shape == ()
    assert value.item() == getattr(F, name)(x, 0).item()
    value.backward()
    assert x.grad.item() == 0


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, -1, (0,), (1, 2), (0, -1), (2, 0, 1)])
def test_logsumexp(dim, keepdim):
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(snt.logsumexp(x, dim, keepdim), torch.logsumexp(x, dim, keepdim))


def test_logsumexp_of_little():
    assert snt.logsumexp(torch.tensor(3.0), 0).item() == 3
    assert snt.logsumexp(torch.tensor(3.0), 0, keepdim=True).shape == ()
    empty = torch.zeros(2, 0, requires_grad=True)
    value = snt.logsumexp(empty, 1)
    assert value.tolist() == [-np.inf, -np.inf]
    value.sum().backward()
    assert empty.grad.shape == (2, 0)
    assert snt.logsumexp(torch.zeros(0, 3), 1).shape == (0,)
    assert snt.logsumexp(torch.zeros(2, 3), ()).shape == ()
    with pytest.raises(ValueError, match="each dimension once"):
        snt.logsumexp(torch.zeros(2, 2), (0, -2))


@pytest.mark.parametrize(("shape", "rows"), SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["hard", "ignored", "soft"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy(shape, rows, reduction, weighted, kind, label_smoothing):
    torch.manual_seed(1)
    x = torch.randn(shape, dtype=torch.float64)
    y = torch.randint(0, 4, rows)
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    if kind == "soft":
        y = torch.rand(shape, dtype=torch.float64)  # of any mass
    elif kind == "ignored":
        options["ignore_index"] = 2
    if weighted:
        options["weight"] = torch.rand(4, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    value, expected = snt.cross_entropy(ours, y, **options), F.cross_entropy(theirs, y, **options)
    torch.testing.assert_close(value, expected, equal_nan=True)
    assert torch.equal(snt.cross_entropy(x, y, **options).nan_to_num(), value.detach().nan_to_num())  # no graph
    value.sum().backward()
    expected.sum().backward()
    if not expected.isnan().any():
        torch.testing.assert_close(ours.grad, theirs.grad)
    else:
        assert (ours.grad == 0).all()
    if kind != "soft" and not label_smoothing:
        log_p = F.log_softmax(x, 1 if x.dim() > 1 else 0)
        torch.testing.assert_close(
            snt.nll_loss(log_p, y, **without(options, "label_smoothing")), value.detach(), equal_nan=True
        )


def without(options, name):
    return {key: value for key, value in options.items() if key != name}


def test_modules():
    x, y, w = torch.randn(3, 4), torch.tensor([0, 3, 1]), torch.rand(4)
    s = torch.rand(3)
    for options in itertools.product([w, None], [1, -100], ["mean", "sum", "none"]):
        weight, ignore_index, reduction = options
        ours = snt.CrossEntropyLoss(weight, None, ignore_index, None, reduction, 0.1)
        theirs = torch.nn.CrossEntropyLoss(weight, None, ignore_index, None, reduction, 0.1)
        torch.testing.assert_close(ours(x, y), theirs(x, y))
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        ours = snt.NLLLoss(weight, None, ignore_index, None, reduction)
        theirs = torch.nn.NLLLoss(weight, None, ignore_index, None, reduction)
        torch.testing.assert_close(ours(x, y), theirs(x, y))
    extras = {"z_loss": 0.1, "softcap": 2.0, "temperature": 3.0, "check": True}
    assert torch.equal(
        snt.CrossEntropyLoss(**extras)(x, y, sample_weight=s), snt.cross_entropy(x, y, sample_weight=s, **extras)
    )
    assert torch.equal(snt.NLLLoss()(x, y, sample_weight=s), snt.nll_loss(x, y, sample_weight=s))


def test_modules_move_their_weights():
    module = snt.CrossEntropyLoss(torch.rand(4)).double()
    assert module.weight.dtype == torch.float64
    assert repr(module) == repr(torch.nn.CrossEntropyLoss())


@pytest.mark.parametrize(
    "name", [each for each in ("CrossEntropyLoss", "NLLLoss", "LinearCrossEntropyLoss") if hasattr(torch.nn, each)]
)
def test_modules_are_torchs(name):
    """Frameworks decide by the type of the loss whether a model's outputs are logits."""
    sizes = (2, 4) if name.startswith("Linear") else ()
    ours, theirs = (getattr(each, name)(*sizes, weight=torch.rand(4)) for each in (snt, torch.nn))
    assert isinstance(ours, type(theirs))
    assert isinstance(ours, torch.nn.modules.loss._WeightedLoss)
    assert repr(ours) == repr(theirs)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    theirs.load_state_dict(ours.state_dict())
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):  # noqa: S301 - our own
        assert type(again) is type(ours)
        assert repr(again) == repr(ours)
        assert torch.equal(again.weight, ours.weight)


def test_modules_show_further_options():
    assert repr(snt.CrossEntropyLoss(z_loss=0.1, check=True)) == "CrossEntropyLoss(z_loss=0.1, check=True)"
    assert "options=None, softcap=3.0\n" in repr(snt.LinearCrossEntropyLoss(2, 4, softcap=3.0))


def test_worked_numbers():
    x = torch.tensor(SCORES, requires_grad=True)
    loss = snt.cross_entropy(x, torch.tensor(TRUE), reduction="none")
    assert np.allclose(loss.detach(), LOSSES, atol=5e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_same_bits_as_on_arrays(dtype):
    torch.manual_seed(3)
    x = (torch.randn(50, 7) * 4).to(dtype)
    y = torch.randint(0, 7, (50,))
    array = x.view(torch.int16).numpy().view("bfloat16") if dtype == torch.bfloat16 else x.numpy()
    loss, grad = sn.cross_entropy_and_grad(array, y.numpy())
    x.requires_grad_()
    value = snt.cross_entropy(x, y)
    value.backward()
    assert value.item() == loss
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert x.grad.dtype == dtype
    assert np.array_equal(x.grad.double().numpy(), grad.astype(np.float64))
    assert np.array_equal(snt.softmax(x, 1).detach().double().numpy(), sn.softmax(array).astype(np.float64))


@pytest.mark.parametrize("dtype", HALVES)
def test_half_types_lose_nothing(dtype):
    """torch's loss of such a row is 0; ours is that of the same numbers in float64."""
    x = torch.tensor([[7.0, 0.0, 0.0], [0.5, 0.25, 0.0]], dtype=dtype)
    y = torch.tensor([0, 1])
    wide = F.cross_entropy(x.double(), y, reduction="none")
    assert torch.allclose(snt.cross_entropy(x, y, reduction="none").double(), wide, rtol=1e-6, atol=0)
    log_p = snt.log_softmax(x, 1)
    assert torch.allclose(log_p.double(), F.log_softmax(x.double(), 1), rtol=2.0**-7, atol=0)


def test_confident_rows_keep_loss_and_gradient():
    x = torch.tensor([[17.0, 0.0, 0.0]], requires_grad=True)
    y = torch.tensor([0])
    exact = torch.log1p(2 * torch.exp(torch.tensor(-17.0, dtype=torch.float64)))
    for loss in (snt.cross_entropy(x, y), snt.nll_loss(snt.log_softmax(x, 1), y)):
        assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
        (grad,) = torch.autograd.grad(loss, x)
        assert grad[0, 0].item() == pytest.approx(-exact.item(), rel=1e-6)
        assert abs(grad.sum().item()) < 1e-13
    assert F.cross_entropy(x, y).item() == 0  # what this is about


def test_ignored_rows_may_hold_anything():
    x = torch.tensor([[1.0, 2.0], [np.nan, np.inf]], requires_grad=True)
    y = torch.tensor([0, -100])
    for loss in (snt.cross_entropy(x, y), snt.nll_loss(x, y)):
        (grad,) = torch.autograd.grad(loss, x)
        assert loss.isfinite()
        assert (grad[1] == 0).all()
        assert (grad[0] != 0).any()


def test_nothing_to_average():
    x = torch.randn(2, 3, requires_grad=True)
    for target in (torch.full((2,), -100), torch.full((2, 3), 0.5)):
        loss = snt.cross_entropy(x, target, sample_weight=torch.zeros(2))
        assert loss.isnan()
        assert (torch.autograd.grad(loss, x)[0] == 0).all()
    loss = snt.nll_loss(x, torch.full((2,), -100))
    assert loss.isnan()
    assert (torch.autograd.grad(loss, x)[0] == 0).all()


def test_extras_are_those_of_numpy():
    rng = np.random.default_rng(5)
    x, y, s, tau = rng.normal(size=(6, 4)), rng.integers(0, 4, 6), rng.random(6), 0.5 + rng.random(6)
    options = {"label_smoothing": 0.1, "z_loss": 0.02, "softcap": 3.0}
    expected, grad = sn.cross_entropy_and_grad(x, y, sample_weight=s, temperature=tau, **options)
    given = torch.tensor(x, requires_grad=True)
    value = snt.cross_entropy(
        given, torch.tensor(y), sample_weight=torch.tensor(s), temperature=torch.tensor(tau), **options
    )
    value.backward()
    assert value.item() == expected
    assert np.array_equal(given.grad.numpy(), grad)
    one = snt.cross_entropy(given, torch.tensor(y), temperature=torch.tensor(2.0))
    assert one.item() == pytest.approx(snt.cross_entropy(given, torch.tensor(y), temperature=2.0).item(), rel=1e-15)
