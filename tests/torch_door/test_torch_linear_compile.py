"""The linear losses in compiled code: one graph, dynamic shapes, the same bits, no derivative silently missing."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import softnll.torch as snt
from torch_cases import HARD, SAMPLES, WEIGHT, check_one_graph, compiled
from torch_linear_cases import FEW, FUNCTIONS, layer

pytestmark = pytest.mark.filterwarnings("ignore:.*lru_cache.*:UserWarning")


@pytest.fixture(autouse=True)
def forget():
    """Let no test find what another has compiled."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", FEW)
def test_one_graph_and_the_same_bits(name):
    check_one_graph(*FUNCTIONS[name])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_inductor(monkeypatch):
    monkeypatch.delenv("CI", raising=False)  # with it, Inductor refuses what a test has exported in this process
    body, loss = torch.nn.Linear(6, 5), snt.LinearCrossEntropyLoss(5, 4, bias=True, label_smoothing=0.1, z_loss=0.01)
    x, y = torch.randn(8, 6), torch.randint(0, 4, (8,))
    parameters = (*body.parameters(), *loss.parameters())

    def step(x, y):
        return loss(body(x).relu(), y)

    results = []
    for run in (step, compiled(step, "inductor")):
        value = run(x, y)
        results.append((value.detach(), *torch.autograd.grad(value, parameters)))
    torch.testing.assert_close(*results)


def test_dynamic_shapes():
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    run = torch.compile(
        lambda f, W, y: snt.linear_cross_entropy(f, W, y) + snt.linear_cross_entropy(f, W, y, reduction="none").sum(),
        backend=counter,
        fullgraph=True,
        dynamic=True,
    )
    counts = []
    for rows, width, classes in ((3, 4, 5), (5, 7, 6), (8, 3, 9)):
        f, W = (torch.randn(n, width, requires_grad=True) for n in (rows, classes))
        y = torch.randint(0, classes, (rows,))
        value = run(f, W, y)
        plain = snt.linear_cross_entropy(f, W, y) + snt.linear_cross_entropy(f, W, y, reduction="none").sum()
        torch.testing.assert_close(value, plain)
        torch.testing.assert_close(torch.autograd.grad(value, (f, W)), torch.autograd.grad(plain, (f, W)))
        counts.append(counter.frame_count)
    assert counts[0] == counts[-1], "a new shape was compiled anew"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    f, W, b = layer(dtype)
    loss = compiled(lambda f, W, b: snt.linear_cross_entropy(f, W, HARD, linear_bias=b))(f, W, b)
    assert loss.dtype == torch.float32
    assert all(each.dtype == dtype for each in torch.autograd.grad(loss, (f, W, b), torch.tensor(65536.0)))


def test_what_is_frozen_is_not_made():
    f, W, _ = layer()
    W = W.detach()
    seen = []

    def backend(graph, _):
        seen.extend(node.args for node in graph.graph.nodes if "linear_cross_entropy" in str(node.target))
        return graph

    torch.compile(lambda f: snt.linear_cross_entropy(f, W, HARD), backend=backend, fullgraph=True)(f)
    assert [each[-3:] for each in seen] == [(True, False, False)]


def test_a_graph_is_used_twice():
    f, W, b = layer()
    loss = compiled(lambda f, W, b: snt.linear_cross_entropy(f, W, HARD, linear_bias=b))(f, W, b)
    first = torch.autograd.grad(loss, (f, W, b), retain_graph=True)
    twice = torch.autograd.grad(loss, (f, W, b), torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(twice, tuple(2 * each for each in first))


OPTIONS = (0.1, 0.01, 2.0, 1.5, -100)


def test_operators_are_what_torch_asks_of_them():
    f, W, b = layer()
    tensors = (f, W, b, HARD, WEIGHT, SAMPLES, None, None)
    operator = torch.ops.softnll.linear_cross_entropy.default
    # Without aot_dispatch, which asks for derivatives of the gradients: those are refused.
    some = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (*tensors, *OPTIONS, "none", None, None, None, True, False, False, False)
    torch.library.opcheck(operator, arguments, test_utils=some)
    plain = tuple(None if each is None else each.detach() for each in tensors)
    for wanted in ((True, True, True), (False, True, False)):
        arguments = (*plain, *OPTIONS, "mean", None, None, None, True, *wanted)
        torch.library.opcheck(operator, arguments)
        backward = torch.ops.softnll.linear_cross_entropy_backward.default
        torch.library.opcheck(backward, (torch.ones((), dtype=torch.float64), *arguments))
    one = torch.ones((), dtype=torch.float64)
    torch.library.opcheck(torch.ops.softnll.linear_cross_entropy_scale.default, (one, plain[0], plain[0].half()))


def test_derivatives_that_compiled_code_has_not_are_refused():
    f, W, b = layer()
    operator = torch.ops.softnll.linear_cross_entropy
    arguments = (W.detach(), b.detach(), HARD, None, None, None, None, *OPTIONS, "mean", None, None, None, True)
    loss = operator(f, *arguments, True, False, False)[0]
    (first,) = torch.autograd.grad(loss, f, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(first.square().sum(), f)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"), forward_ad.dual_level():
        operator(forward_ad.make_dual(f.detach(), torch.ones_like(f)), *arguments, False, False, False)
    for head in (W, W.detach()):
        value = compiled(lambda f, head=head: snt.linear_cross_entropy(f, head, HARD))(f)
        (first,) = torch.autograd.grad(value, f, create_graph=True)
        with pytest.raises(RuntimeError, match="does not currently support double backward"):
            torch.autograd.grad(first.square().sum() + f.sum(), f)


def test_transforms_end_the_graph():
    f, W, _ = layer()
    W = W.detach()

    def tangent(f):
        return torch.func.jvp(lambda f: snt.linear_cross_entropy(f, W, HARD), (f,), (torch.ones_like(f),))[1]

    expected = tangent(f.detach())
    torch.testing.assert_close(torch.compile(tangent, backend="eager")(f.detach()), expected)


def test_traces_hold_operators():
    f, W, _ = (each.detach() for each in layer())
    graph = make_fx(lambda f: snt.linear_cross_entropy(f, W, HARD))(f)
    assert "softnll.linear_cross_entropy" in graph.code
    torch.testing.assert_close(graph(2 * f), snt.linear_cross_entropy(2 * f, W, HARD))
    with FakeTensorMode() as mode:
        fake = snt.linear_cross_entropy(mode.from_tensor(f), mode.from_tensor(W), mode.from_tensor(HARD))
    assert fake.shape == ()
    exported = torch.export.export(Headed(W), (f, HARD))
    torch.testing.assert_close(exported.module()(2 * f, HARD), snt.linear_cross_entropy(2 * f, W, HARD))


class Headed(torch.nn.Module):
    """A model of a head alone."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, f, y):
        return snt.linear_cross_entropy(f, self.weight, y)
