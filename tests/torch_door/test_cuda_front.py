"""softnll.torch's way to CUDA devices, with the CPU's tensors taken for theirs and Triton's interpreter for the GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import interpreter  # noqa: F401 - mends Triton's
import softnll.torch as snt
import torch_linear_cases
from softnll.torch._base import backend
from torch_cases import FUNCTIONS, HARD, SAMPLES, check_one_graph, float64, leaves

LAYERS = torch_linear_cases.FUNCTIONS
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def cuda(monkeypatch):
    """Every tensor lies on a device, as far as softnll can tell."""
    monkeypatch.setattr(backend, "kind_of", lambda _: "triton")
    return backend


class NoWaiting(TorchDispatchMode):
    """Raise where the processor would wait for the device to learn a value."""

    WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::masked_select")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name in self.WAITING:
            raise AssertionError(f"{function._schema.name} waits for the device")
        return function(*args, **(kwargs or {}))


def value_and_gradients(function, inputs):
    """Return a value and its gradients, for an upstream gradient that is not 1."""
    given = leaves(inputs)
    value = function(*given)
    return value, torch.autograd.grad(value, given, float64(*value.shape, seed=2).to(value.dtype))


@pytest.mark.parametrize("name", [*FUNCTIONS, *(f"linear-{name}" for name in LAYERS)])
def test_values_and_gradients_are_those_of_the_cpu(name, monkeypatch):
    function, inputs = LAYERS[name.removeprefix("linear-")] if name.startswith("linear-") else FUNCTIONS[name]
    expected, wanted = value_and_gradients(function, inputs)
    monkeypatch.setattr(backend, "kind_of", lambda _: "triton")
    got, grads = value_and_gradients(function, inputs)
    assert got.dtype == expected.dtype
    assert got.stride() == expected.stride()
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-14)
    for a, e in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", ["hard-all-mean", "soft-plain-none", "nll-mean", "softmax-0", "places"])
def test_second_derivatives(name):
    function, inputs = FUNCTIONS[name]
    assert torch.autograd.gradgradcheck(function, leaves(inputs), fast_mode=True)  # along random directions


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_waits_and_is_made_again_where_upstream_is_not_1(dtype):
    x = (float64(5, 40) * 4).to(dtype).requires_grad_()
    y = torch.tensor([0, 39, -100, 7, 3])
    grads = []
    for reduction in ("mean", "none"):
        loss = snt.cross_entropy(x, y, reduction=reduction)
        total = loss if reduction == "mean" else loss.double().sum() / 4
        grads.append(torch.autograd.grad(total, x)[0])
    assert torch.equal(*grads)
    (lifted,) = torch.autograd.grad(snt.cross_entropy(x, y), x, torch.tensor(3.0))
    exact = torch.autograd.grad(snt.cross_entropy(x.double(), y), x, torch.tensor(3.0, dtype=torch.float64))[0]
    torch.testing.assert_close(lifted.double(), exact.double(), rtol=float(torch.finfo(dtype).eps), atol=1e-7)


@pytest.mark.usefixtures("cuda")
def test_a_second_backward_makes_its_own_gradient():
    x = float64(3, 4).requires_grad_()
    loss = snt.cross_entropy(x, HARD)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(loss, x, torch.tensor(2.0, dtype=torch.float64))[0]
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, 2 * kept)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("compact", [False, None])
def test_nobody_waits_for_the_device(compact, monkeypatch):
    x, f, W = (float64(*shape, seed=i).requires_grad_() for i, shape in enumerate(((3, 4), (3, 2), (4, 2))))
    y = torch.tensor([2, -100, 3])
    if compact is None:  # as while a graph is captured
        for module in ("checks", "device_backend"):
            monkeypatch.setattr(f"softnll.torch._base.{module}.capturing", lambda: True)
    with NoWaiting():
        for options in ({}, {"sample_weight": SAMPLES}, {"reduction": "sum", "z_loss": 0.1}):
            snt.cross_entropy(x, y, **options).backward()
            snt.linear_cross_entropy(f, W, y, compact=compact, **options).backward()
        snt.softmax(x, 1).sum().backward()
        snt.nll_loss(x, y).backward()
    with pytest.raises((AssertionError, RuntimeError), match="waits"), NoWaiting():  # the test can fail
        snt.cross_entropy(x, y, check=True)


@pytest.mark.usefixtures("cuda")
def test_targets_out_of_range():
    x = float64(3, 4).requires_grad_()
    y = torch.tensor([0, 4, -1])
    loss = snt.cross_entropy(x, y, reduction="none")
    assert loss.isnan().tolist() == [False, True, True]
    (grad,) = torch.autograd.grad(loss.sum(), x)
    assert grad.isnan().any(1).tolist() == [False, True, True]
    with pytest.raises(IndexError, match=r"target\[1\] is 4; allowed: 0 <= target < 4 classes, or ignore_index=-100"):
        snt.cross_entropy(x, y, check=True)
    with pytest.raises(IndexError, match=r"target\[1\] is 4"):
        snt.linear_cross_entropy(float64(3, 2), float64(4, 2), y, check=True)


@pytest.mark.usefixtures("cuda")
def test_check_under_capture_says_why_not(monkeypatch):
    monkeypatch.setattr("softnll.torch._base.checks.capturing", lambda: True)
    with pytest.raises(RuntimeError, match="check=True waits for the device"):
        snt.cross_entropy(float64(3, 4), HARD, check=True)


@pytest.mark.usefixtures("cuda")
def test_checked_values():
    x = float64(2, 3)
    q = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.5, 0.5]], dtype=torch.float64)
    snt.cross_entropy(x, q)
    with pytest.raises(ValueError, match=r"sum of target\[1\] is 1.5; allowed: 1 within"):
        snt.cross_entropy(x, q, check=True)
    with pytest.raises(ValueError, match=r"target\[0\] is -0.5; allowed: soft target >= 0"):
        snt.cross_entropy(x, torch.tensor([[-0.5, 1.0, 0.5], [0, 0, 1]]), check=True)
    with pytest.raises(ValueError, match=r"weight\[1\] is -1.0; allowed: finite numbers >= 0"):
        snt.cross_entropy(x, HARD[1:].clamp(max=2), torch.tensor([1.0, -1.0, 1.0]), check=True)
    with pytest.raises(ValueError, match=r"temperature\[0\] is 0.0; allowed: finite numbers > 0"):
        snt.cross_entropy(x, HARD[1:].clamp(max=2), temperature=torch.tensor([0.0, 1.0]), check=True)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        (torch.zeros(2, dtype=torch.int64), ValueError, r"target has shape \(2,\)"),
        (torch.zeros(3), TypeError, "hard target have dtype torch.float32|hard targets"),
        (torch.zeros(3, dtype=torch.bool), TypeError, "dtype torch.bool"),
        (torch.zeros(3, 5), ValueError, r"target has shape \(3, 5\)"),
    ],
)
def test_bad_targets(target, kind, message):
    with pytest.raises(kind, match=message):
        snt.cross_entropy(float64(3, 4), target)


@pytest.mark.usefixtures("cuda")
def test_rows_that_take_no_part_may_hold_anything():
    x = float64(3, 4)
    x[1] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    f = float64(3, 2)
    f[1] = torch.nan
    y = torch.tensor([2, -100, 3])
    x.requires_grad_()
    f.requires_grad_()
    W = float64(4, 2, seed=3).requires_grad_()
    for loss in (snt.cross_entropy(x, y), *(snt.linear_cross_entropy(f, W, y, compact=c) for c in (None, False))):
        loss.backward()
        assert loss.isfinite()
    assert torch.equal(x.grad[1], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(f.grad[1], torch.zeros(2, dtype=torch.float64))
    assert W.grad.isfinite().all()


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_bytes", [None, 110_000])
def test_chunks_of_a_linear_layer_give_the_same(dtype, max_bytes):
    f, W, b = (float64(*shape, seed=i).to(dtype) for i, shape in enumerate(((300, 20), (50, 20), (50,))))
    y = torch.arange(300) % 50
    y[::7] = -100
    inputs = tuple(each.requires_grad_() for each in (f, W, b))
    if max_bytes:
        assert snt.plan(f, W, y, linear_bias=b, max_bytes=max_bytes).chunks > 1
    got = snt.linear_cross_entropy(f, W, y, linear_bias=b, max_bytes=max_bytes)
    grads = torch.autograd.grad(got, inputs)
    z = (f.double() @ W.double().t()) + b.double()
    expected = torch.nn.functional.cross_entropy(z, y)
    digits = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    assert got.item() == pytest.approx(expected.item(), rel=digits)
    for a, e in zip(grads, torch.autograd.grad(expected, inputs), strict=True):
        assert a.dtype == dtype
        assert (a.double() - e.double()).abs().max() <= 2 * digits * e.double().abs().max()


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "temperature": 1.5}])
def test_token_stats_are_those_of_the_cpu(options, monkeypatch):
    f, W, b = (float64(*shape, seed=i) for i, shape in enumerate(((5, 2), (4, 2), (4,))))
    y = torch.tensor([0, 3, -100, 1, 2])
    expected = snt.token_stats(f, W, y, linear_bias=b, **options)
    monkeypatch.setattr(backend, "kind_of", lambda _: "triton")
    got = snt.token_stats(f, W, y, linear_bias=b, **options)
    for a, e in zip(got, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-13, atol=1e-14)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", ["hard-all-mean", "softmax-1", "linear-hard-plain-mean"])
def test_compiled_in_one_graph(name):
    function, inputs = LAYERS[name.removeprefix("linear-")] if name.startswith("linear-") else FUNCTIONS[name]
    check_one_graph(function, inputs)


def test_one_device_for_all():
    with pytest.raises(RuntimeError, match=r"allowed: (cpu, cuda|one device)"):
        snt.cross_entropy(float64(3, 4), HARD.to("meta"))


BARE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "scipy", "ml_dtypes", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import torch
import softnll.torch as snt
assert "triton" not in sys.modules
from softnll.torch._base import backend
backend.kind_of = lambda _: "triton"
x = torch.tensor([[17.0, 0.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
loss = snt.cross_entropy(x, torch.tensor([0]))
loss.backward()
W = torch.ones(4, 3, requires_grad=True)
snt.linear_cross_entropy(x.detach().float(), W, torch.tensor([0])).backward()
snt.token_stats(x.detach().float(), W, torch.tensor([0]))
snt.softmax(x, 1)
print(float(loss), "numba" in sys.modules, "scipy" in sys.modules)
"""


def test_needs_neither_numba_nor_scipy():
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8.279874702566303e-08", "False", "False"] or done.stdout.startswith("8.2798")
