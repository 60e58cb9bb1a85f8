"""Every device is served: by the reference on tensors of the CPU in another's place, on meta and on fake tensors."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import softnll.torch as snt
import torch_cases
import torch_linear_cases
from reference_backend import without_float64
from softnll.torch._base import backend
from torch_cases import HARD, float64, leaves

CASES = torch_cases.FUNCTIONS | {f"linear-{name}": case for name, case in torch_linear_cases.FUNCTIONS.items()}
SECOND = [*torch_cases.FEW, *(f"linear-{name}" for name in torch_linear_cases.FEW), "tokens"]


def token_entropy(f, W):
    """Return a scalar of the statistics of tokens."""
    stats = snt.token_stats(f, W, HARD)
    return (stats.entropy + stats.log_prob * stats.lse).sum()


CASES["tokens"] = (token_entropy, torch_linear_cases.FUNCTIONS["without bias"][1])


@pytest.fixture
def reference(monkeypatch):
    """Every tensor lies on a device that neither the compiled kernels nor Triton's serve."""
    monkeypatch.setattr(backend, "kind_of", lambda _: "reference")


def value_and_gradients(function, inputs):
    """Return a value and its gradients, for an upstream gradient that is not 1."""
    given = leaves(inputs)
    value = function(*given)
    return value, *torch.autograd.grad(value, given, float64(*value.shape, seed=2).to(value.dtype))


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_cpu(name, monkeypatch):
    function, inputs = CASES[name]
    expected = value_and_gradients(function, inputs)
    monkeypatch.setattr(backend, "kind_of", lambda _: "reference")
    got = value_and_gradients(function, inputs)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    assert [each.stride() for each in got] == [each.stride() for each in expected]


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(name):
    function, inputs = CASES[name]
    assert torch.autograd.gradgradcheck(function, leaves(inputs), fast_mode=True)  # along random directions


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("name", ["hard-all-mean", "soft-plain-none", "softmax-1", "linear-hard-all-mean"])
def test_forward_mode(name):
    function, inputs = CASES[name]
    assert torch.autograd.gradcheck(function, leaves(inputs), check_forward_ad=True, check_batched_grad=True)


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_confident_rows_keep_their_gradient(dtype):
    x = torch.tensor([[17.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = snt.cross_entropy(x, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(8.279874e-08, rel=1e-6)
    assert x.grad[0, 0].item() == pytest.approx(-8.279874e-08, rel=2.0**-8, abs=2.0**-25 * (dtype == torch.float16))


def chain(x, y, f, W):
    """Return a loss of logits and one of a layer, and their gradients, as training computes them."""
    logits, layer = x.clone().requires_grad_(), [each.clone().requires_grad_() for each in (f, W)]
    total = snt.cross_entropy(logits, y, z_loss=0.01) + snt.linear_cross_entropy(*layer, y, softcap=5.0)
    total = total + snt.token_stats(*layer, y).entropy.mean() + snt.log_softmax(logits, 1).exp().sum()
    return total, *torch.autograd.grad(total, (logits, *layer))


@pytest.mark.usefixtures("reference")
def test_nothing_is_float64_on_a_device_without_it():
    x, f, W = (float64(*shape, seed=i).float() for i, shape in enumerate(((3, 4), (3, 2), (4, 2))))
    y = torch.tensor([2, -100, 3])
    expected = chain(x, y, f, W)
    with without_float64():
        got = chain(x, y, f, W)
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-7)
    assert all(each.dtype == torch.float32 for each in got)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", ["meta", "fake"])
def test_shapes_and_types_without_memory(dtype, place):
    x, f, W = (float64(*shape).to(dtype) for shape in ((3, 4), (3, 2), (4, 2)))
    y = torch.tensor([2, 0, 3])
    expected = chain(x, y, f, W)
    if place == "meta":
        got = chain(*(each.to("meta") for each in (x, y, f, W)))
    else:
        with FakeTensorMode() as mode:
            got = chain(*(mode.from_tensor(each) for each in (x, y, f, W)))
    assert [(each.shape, each.dtype) for each in got] == [(each.shape, each.dtype) for each in expected]


def test_every_option_on_meta():
    x, s, tau = torch.empty(2, 4, 3, device="meta"), torch.empty(2, 3, device="meta"), torch.empty(2, 3, device="meta")
    y = torch.empty(2, 3, dtype=torch.int32, device="meta")
    options = {"sample_weight": s, "label_smoothing": 0.1, "z_loss": 0.1, "softcap": 3.0, "temperature": tau}
    weight = torch.empty(4, device="meta")
    for target in (y, torch.empty_like(x)):
        rows = snt.cross_entropy(x, target, weight, reduction="none", **options)
        assert (rows.shape, rows.device.type) == ((2, 3), "meta")
        assert snt.cross_entropy(x, target, weight, check=True, **options).shape == ()
    assert snt.nll_loss(x, y, weight, reduction="none").shape == (2, 3)
    assert snt.logsumexp(x, (0, 1)).shape == (3,)


@pytest.mark.usefixtures("reference")
def test_a_fused_head():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 4, -100])
    loss = torch.nn.functional.cross_entropy(model(x), y)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    fused = snt.fuse(model, head="2")
    got = torch.autograd.grad(torch.nn.functional.cross_entropy(fused(x), y), list(model.parameters()))
    torch.testing.assert_close(got, expected)
