"""softnll.torch in compiled code: one graph, dynamic shapes, the same bits, no derivative silently missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import softnll.torch as snt
from torch_cases import FEW, FUNCTIONS, HARD, SAMPLES, WEIGHT, check_one_graph, compiled, float64

pytestmark = pytest.mark.filterwarnings("ignore:.*lru_cache.*:UserWarning")


@pytest.fixture(autouse=True)
def forget():
    """Let no test find what another has compiled."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


NAMES = (*FEW, "logsumexp-all")


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_and_the_same_bits(name):
    check_one_graph(*FUNCTIONS[name])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_inductor(monkeypatch):
    monkeypatch.delenv("CI", raising=False)  # with it, Inductor refuses what a test has exported in this process
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    loss = snt.CrossEntropyLoss(label_smoothing=0.1, z_loss=0.01)
    x, y = torch.randn(8, 6), torch.randint(0, 4, (8,))

    def step(x, y):
        scores = model(x)
        return loss(scores, y) + snt.nll_loss(snt.log_softmax(scores * 2, 1), y) + snt.softmax(scores, 1).square().sum()

    results = []
    for run in (step, compiled(step, "inductor")):
        model.zero_grad()
        value = run(x, y)
        value.backward()
        results.append((value.detach(), *[each.grad.clone() for each in model.parameters()]))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


IN_CI = """
import torch, softnll.torch as snt
x, y = torch.randn(8, 6, requires_grad=True), torch.randint(0, 6, (8,))
f, W = torch.randn(8, 3, requires_grad=True), torch.randn(6, 3)
step = lambda x, f: snt.cross_entropy(x, y) + snt.softmax(x, 1).square().sum() + snt.linear_cross_entropy(f, W, y)
torch._dynamo.config.suppress_errors = False
value = torch.compile(step, fullgraph=True, options={"fx_graph_cache": False})(x, f)
value.backward()
torch.testing.assert_close(value, step(x, f))
"""


def test_inductor_where_ci_is_set():
    """There, Inductor refuses operators that torch's table decomposes."""
    done = subprocess.run(
        [sys.executable, "-c", IN_CI], env=os.environ | {"CI": "true"}, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_dynamic_shapes():
    counter = CompileCounterWithBackend("aot_eager")

    def loss(x, y):
        return snt.cross_entropy(x, y) + snt.logsumexp(x, 1).sum() + snt.softmax(x, 1)[0, 0] + snt.nll_loss(x, y)

    run = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    counts = []
    for rows, classes in ((3, 4), (5, 7), (8, 3)):
        x = torch.randn(rows, classes, requires_grad=True)
        y = torch.randint(0, classes, (rows,))
        value = run(x, y)
        torch.testing.assert_close(value, loss(x, y))
        torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad(loss(x, y), x))
        counts.append(counter.frame_count)
    assert counts[0] == counts[-1], "a new shape was compiled anew"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types(dtype):
    x = float64(3, 4).to(dtype).requires_grad_()
    value = compiled(lambda x: snt.cross_entropy(x, HARD, WEIGHT, sample_weight=SAMPLES))(x)
    assert value.dtype == torch.float32
    assert torch.autograd.grad(value, x)[0].dtype == dtype
    assert compiled(lambda x: snt.softmax(x, 1))(x).dtype == dtype


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "nll_loss", "cross_entropy"])
def test_operators_are_what_torch_asks_of_them(name):
    """Schema, fake, autograd registration and dynamic shapes, by torch's own checks."""
    x = float64(3, 4).requires_grad_()
    options = (0.1, 0.01, 2.0, 1.5, -100, "mean", 1, None)
    arguments = {
        "nll_loss": (x, HARD, WEIGHT, SAMPLES, None, 0.0, 0.0, None, 1.0, -100, "none", 1, None),
        "cross_entropy": (x, HARD, WEIGHT, SAMPLES, None, *options),
    }.get(name, (x, 1))
    operator = getattr(torch.ops.softnll, name).default
    torch.library.opcheck(operator, arguments)
    if name == "cross_entropy":
        given = x.detach().expand(2, 3, 4).transpose(1, 2)
        target = HARD.expand(2, 3)
        torch.library.opcheck(operator, (given, target, None, None, None, *options))
        _, m, r = operator(x.detach(), HARD, WEIGHT, SAMPLES, None, *options)
        backward = (torch.ones((), dtype=torch.float64), m, r, x.detach(), HARD, WEIGHT, SAMPLES, None, *options)
        torch.library.opcheck(torch.ops.softnll.cross_entropy_backward.default, backward)


Q = float64(3, 4, seed=1, positive=True)


def everything(x):
    """Return what each function makes of logits."""
    return (
        snt.softmax(x, 1),
        snt.log_softmax(x, 1),
        snt.logsumexp(x, 1),
        snt.nll_loss(x, HARD),
        snt.cross_entropy(x, HARD),
        snt.cross_entropy(x, Q, reduction="none"),
    )


def jvp_of(function, x, v):
    return torch.func.jvp(function, (x,), (v,))[1]


@torch.compiler.disable  # compiled apart from the level, torch's own unpacking finds nothing, also of torch.softmax
def unpacked(values):
    return [forward_ad.unpack_dual(each).tangent for each in values]


def tangents_of(function, x, v):
    with forward_ad.dual_level():
        return unpacked(function(forward_ad.make_dual(x, v)))


def uncertain(function):
    """Return the function compiled, where graphs may break."""
    return torch.compile(function, backend="aot_eager")


PLACES = {
    "jvp inside": lambda f, x, v: uncertain(lambda x, v: jvp_of(f, x, v))(x, v),
    "jvp outside": lambda f, x, v: jvp_of(uncertain(f), x, v),
    "dual inside": lambda f, x, v: uncertain(lambda x, v: tangents_of(f, x, v))(x, v),
    "dual outside": lambda f, x, v: tangents_of(uncertain(f), x, v),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_tangent_is_lost(place):
    """torch would give an operator's result a tangent of 0, or none; here there is the right one."""
    x, v = float64(3, 4), float64(3, 4, seed=4)
    for got, expected in zip(PLACES[place](everything, x, v), jvp_of(everything, x, v), strict=True):
        assert got is not None
        torch.testing.assert_close(got, expected)
        assert (got != 0).all()


@pytest.mark.parametrize("place", ["jvp inside", "dual inside"])
def test_a_full_graph_of_forward_mode_is_refused(place):
    function, (x,) = FUNCTIONS["hard-plain-mean"]
    inner = {
        "jvp inside": lambda x, v: jvp_of(function, x, v),
        "dual inside": lambda x, v: tangents_of(lambda x: [function(x)], x, v),
    }[place]
    with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
        compiled(inner)(x, x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "nll_loss", "cross_entropy"])
def test_operators_refuse_tangents(name):
    x = float64(3, 4)
    arguments = {
        "nll_loss": (HARD, None, None, None, 0.0, 0.0, None, 1.0, -100, "none", 1, None),
        "cross_entropy": (HARD, None, None, None, 0.0, 0.0, None, 1.0, -100, "mean", 1, None),
    }.get(name, (1,))
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"), forward_ad.dual_level():
        getattr(torch.ops.softnll, name)(forward_ad.make_dual(x, x), *arguments)


def test_transforms_within_compiled_code():
    x = float64(3, 4)

    def loss(x):
        return snt.cross_entropy(x, HARD)

    for transform in (torch.func.grad, torch.func.hessian, torch.func.vmap):
        function = (
            transform(loss) if transform is not torch.func.vmap else transform(lambda x: snt.cross_entropy(x, HARD[0]))
        )
        torch.testing.assert_close(torch.compile(function, backend="aot_eager")(x), function(x))


def test_second_derivatives_of_compiled_code_are_refused_by_torch():
    x = float64(3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(compiled(lambda x: snt.cross_entropy(x, HARD))(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(grad.square().sum(), x)


@pytest.mark.parametrize("name", ["weight", "sample_weight", "temperature"])
def test_constants_refuse_a_gradient(name):
    given = {"weight": WEIGHT, "sample_weight": SAMPLES, "temperature": SAMPLES + 1}[name].clone().requires_grad_()
    x = float64(3, 4).requires_grad_()
    with pytest.raises(Exception, match=f"with respect to {name} is not implemented"):
        compiled(lambda x, each: snt.cross_entropy(x, HARD, **{name: each}))(x, given)


def test_bad_targets_are_found():
    run = compiled(snt.cross_entropy)
    with pytest.raises(IndexError, match=r"target\[1\] is 7"):
        run(float64(3, 4), torch.tensor([0, 7, 1]))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_traces_hold_operators_and_not_the_values_of_the_day(mode):
    def gradient(x):
        return torch.autograd.grad(snt.cross_entropy(x.requires_grad_(), HARD), x)[0]

    for function in (everything, gradient):
        graph = make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=True)(float64(3, 4))
        other = float64(3, 4, seed=9)
        torch.testing.assert_close(graph(other), function(other.clone()))
    with pytest.raises(NotImplementedError, match="cannot be traced"):
        make_fx(torch.func.grad(lambda x: snt.cross_entropy(x, HARD)), tracing_mode=mode, _allow_non_fake_inputs=True)(
            float64(3, 4)
        )


def test_fake_tensors():
    with FakeTensorMode():
        x = torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True)
        loss = snt.cross_entropy(x, torch.zeros(3, dtype=torch.int64), reduction="none")
        assert loss.shape == (3,)
        assert loss.dtype == torch.float32
        loss.sum().backward()
        assert x.grad.dtype == torch.bfloat16


def test_export():
    class Scores(torch.nn.Module):
        def forward(self, x, y):
            return snt.cross_entropy(x, y, reduction="none"), snt.softmax(x, 1)

    x = torch.randn(3, 4)
    program = torch.export.export(Scores(), (x, HARD))
    for got, expected in zip(program.module()(x, HARD), Scores()(x, HARD), strict=True):
        assert torch.equal(got, expected)


def test_importing_and_training_do_not_load_the_compiler():
    code = """
import sys, torch, softnll.torch as snt
before = "torch._dynamo" in sys.modules
x = torch.zeros(2, 3, requires_grad=True)
snt.cross_entropy(x, torch.tensor([0, 1])).backward()
print(before, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("function", [snt.nll_loss, snt.cross_entropy])
def test_a_single_row_with_class_weights_and_its_backward_are_one_graph(function, reduction):
    x, y = float64(4).requires_grad_(), torch.tensor(2)
    check = torch.compile(lambda x: function(x, y, WEIGHT, reduction=reduction), fullgraph=True, backend="aot_eager")
    got, want = check(x), function(x, y, WEIGHT, reduction=reduction)
    assert torch.equal(got, want)
    assert torch.equal(*(torch.autograd.grad(each, x)[0] for each in (got, want)))
