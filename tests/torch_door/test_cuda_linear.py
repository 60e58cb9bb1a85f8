"""linear_cross_entropy on CUDA devices: what float16 keeps, what autocast leaves alone, which products it asks for."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import interpreter  # noqa: F401 - mends Triton's
import softnll.torch as snt
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.cuda import interface as kernels
from softnll.torch._base import backend
from softnll.torch._base import matmul as cuda_products
from softnll.torch._base.float16_scale import scale_of
from torch_cases import float64
from triton_backend import coarse

CASES = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "weighted": {"weight": torch.linspace(0.1, 20, 400, dtype=torch.float64)},
    "sample weights": {"reduction": "sum", "sample_weight": torch.full((256,), 1 / (8192 * 40), dtype=torch.float64)},
    "temperature": {"temperature": 1e3},
    "temperatures": {"temperature": torch.linspace(1, 1e4, 256)},
    "z_loss": {"z_loss": 1e-2},
    "softcap": {"softcap": 5.0, "z_loss": 1e-4},
    "smoothing": {"label_smoothing": 0.1},
    "ignored": {"ignore_index": 1},
    "none": {"reduction": "none"},
}
PAIRS = [(name, kind) for name in CASES for kind in ("hard", "soft", "sparse") if kind == "hard" or name != "ignored"]


@pytest.fixture
def cuda(monkeypatch):
    """Every tensor lies on a device, as far as softnll can tell; few programs, as the interpreter takes 50 ms each."""
    monkeypatch.setattr(backend, "kind_of", lambda _: "triton")
    monkeypatch.setattr(kernels, "tile_of", coarse)


def layer(dtype, rows=256, width=8, classes=400):
    """Return features, weight, bias and targets."""
    f, W, b = (
        float64(*shape, seed=i).to(dtype) for i, shape in enumerate(((rows, width), (classes, width), (classes,)))
    )
    return f, W, b, torch.arange(rows) * 7 % classes


def off(got, exact):
    """Return the error of a tensor, relative to its size."""
    return ((got.double() - exact).norm() / exact.norm()).item()


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(("name", "targets"), PAIRS)
@pytest.mark.parametrize("held", [True, False])
def test_float16_keeps_what_a_gradient_scaler_lifts(name, targets, held, monkeypatch):
    """Each entry of p − t is divided by the number of rows before the scaler multiplies it."""
    f, W, b, y = layer(torch.float16)
    if targets == "soft":
        y = torch.softmax(float64(256, 400, seed=9), 1) * 3
    if targets == "sparse":
        y = snt.SparseTargets(torch.stack((y, (y + 1) % 400), 1), torch.full((256, 2), 0.5))
    monkeypatch.setattr("softnll.torch._linear.autograd.immediate", lambda: held)  # made in the forward, or later
    inputs = [each.requires_grad_() for each in (f, W, b)]
    options = CASES[name] | {"max_bytes": 400_000 if targets == "hard" else None}
    loss = snt.linear_cross_entropy(f, W, y, linear_bias=b, **options)
    upstream = torch.full_like(loss, 65536.0) / (256 if name == "none" else 1)
    grads = torch.autograd.grad(loss, inputs, upstream)
    monkeypatch.setattr(backend, "kind_of", lambda _: "cpu")
    wide = [each.detach().double().requires_grad_() for each in inputs]
    loss = snt.linear_cross_entropy(*wide[:2], y, linear_bias=wide[2], **CASES[name])
    for got, exact in zip(grads, torch.autograd.grad(loss, wide, upstream.double()), strict=True):
        assert got.dtype == torch.float16
        if exact.abs().max() < 65504:
            assert off(got, exact) < 3e-3  # logits are rounded to float16, as are the results


@pytest.mark.usefixtures("cuda")
def test_float16_with_soft_targets_of_hardly_any_mass(monkeypatch):
    """Smoothing gives each row a mass of its own."""
    f, W, _, _ = layer(torch.float16, 16, 4, 40)
    q = torch.full((16, 40), 1e-6)
    found = []
    for there in (False, True):
        monkeypatch.setattr(backend, "kind_of", lambda _, there=there: "triton" if there else "cpu")
        inputs = [each.clone().requires_grad_() for each in (f, W)]
        loss = snt.linear_cross_entropy(*inputs, q, label_smoothing=0.1, reduction="sum")
        found.append(torch.autograd.grad(loss, inputs))
    for exact, got in zip(*found, strict=True):
        assert off(got, exact.double()) < 3e-3


def test_sparse_targets_are_not_taken_for_the_class_that_stands_for_them(monkeypatch):
    options = {"weight": torch.tensor([0.0, 1.0, 1.0])}
    sparse = snt.SparseTargets(torch.tensor([[1, 2], [2, 1], [1, 2]]), torch.full((3, 2), 0.5))
    f, W = float64(3, 2), float64(3, 2, seed=1)
    expected = snt.linear_cross_entropy(f, W, sparse, **options)
    monkeypatch.setattr(backend, "kind_of", lambda _: "triton")
    torch.testing.assert_close(snt.linear_cross_entropy(f, W, sparse, **options), expected)


@pytest.mark.usefixtures("cuda")
def test_an_upstream_gradient_of_a_sum_is_one_number_for_all_rows():
    """Expanded, it has a stride of 0."""
    f, W = float64(3, 2).requires_grad_(), float64(4, 2, seed=1)
    loss = snt.linear_cross_entropy(f, W, torch.softmax(float64(3, 4, seed=2), 1), reduction="none")
    one = torch.arange(100.0, dtype=torch.float64)[7:8]
    (got,) = torch.autograd.grad(loss, f, one.expand(3), retain_graph=True)
    (expected,) = torch.autograd.grad(loss, f, torch.full((3,), 7.0, dtype=torch.float64))
    assert torch.equal(got, expected)


def test_the_lift_is_the_largest_power_of_two_that_nothing_leaves_the_range_for():
    W = torch.empty(3, 1)
    y = torch.tensor([0, 1])
    for options, divisor, bound in (
        ({}, 1.0, 1.0),
        ({}, 4096.0, 1 / 4096),
        ({"temperature": 1e-2}, 1.0, 100.0),
        ({"softcap": 30.0, "z_loss": 1.0}, 1.0, 2 * 31.1 + 1),
    ):
        lift = scale_of(Problem(None, CrossEntropy(**options), y, divisor=divisor), None, None, W).item()
        assert 2**14 <= bound * lift < 2**15.01
    problem = Problem(None, CrossEntropy(), y, s=torch.tensor([torch.nan, 4.0]))
    assert scale_of(problem, torch.tensor([torch.inf, 2.0]), None, W) == 2**11
    assert scale_of(problem, torch.tensor(0.0), None, W) == 1
    nothing = Problem(None, CrossEntropy(), y, divisor=torch.tensor(0.0, dtype=torch.float64))
    assert scale_of(nothing, None, None, W) == 1


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("max_bytes", [None, 110_000])
@pytest.mark.parametrize("held", [True, False])
def test_autocast_changes_nothing(max_bytes, held, monkeypatch):
    monkeypatch.setattr("softnll.torch._linear.autograd.immediate", lambda: held)
    f, W, b, y = layer(torch.float32, 300, 20, 50)
    y[::7] = -100
    found = []
    for enabled in (False, True):
        for head in (torch.float32, torch.bfloat16):  # of another type: products that are narrowed
            inputs = [each.requires_grad_() for each in (f.clone(), W.to(head), b.to(head))]
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = snt.linear_cross_entropy(*inputs[:2], y, linear_bias=inputs[2], max_bytes=max_bytes)
                found.append((loss, *torch.autograd.grad(loss, inputs)))
    half = len(found) // 2
    for plain, cast in zip(found[:half], found[half:], strict=True):
        assert all(torch.equal(a, e) for a, e in zip(plain, cast, strict=True))


class Asked(TorchDispatchMode):
    """Record which products are asked for, and make none."""

    def __init__(self):
        super().__init__()
        self.names, self.others = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "mm" in function._schema.name:
            self.names.append(str(function))
            return (kwargs or {}).get("out", args[0])
        self.others.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("widens", "adds", "names"),
    [
        (True, True, ["aten.mm.dtype_out", "aten.addmm.dtype_out"]),  # torch 2.10 and later
        (True, False, ["aten.mm.dtype_out", "aten.mm.dtype_out"]),  # 2.8 and 2.9 refuse to add to float32
        (False, False, ["aten.mm.out", "aten.addmm_.default"]),
    ],
)
def test_products_of_half_types_are_asked_of_torch_as_it_has_them(widens, adds, names, monkeypatch):
    monkeypatch.setattr(cuda_products, "_WIDENS", widens)
    monkeypatch.setattr(cuda_products, "_ADDS", adds)
    with FakeTensorMode(), Asked() as asked:
        a, b = (torch.empty(4, 4, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        out = torch.empty(4, 4, device="cuda")
        cuda_products.multiply(a, b, out)
        cuda_products.multiply(a, b, out, add=True)
    assert asked.names == names


def test_a_product_is_added_to_what_has_fewer_digits(monkeypatch):
    monkeypatch.setattr(cuda_products, "_ADDS", True)
    with FakeTensorMode(), Asked() as asked:
        a, b = torch.empty(4, 4, device="cuda"), torch.empty(4, 4, device="cuda")
        cuda_products.multiply(a, b, torch.empty(4, 4, dtype=torch.bfloat16, device="cuda"), add=True)
    assert asked.names == ["aten.mm.out"]
    assert "aten.add_.Tensor" in asked.others


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("to", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_products_of_every_type(dtype, to, add):
    a, b = float64(5, 3).to(dtype), float64(3, 4, seed=1).to(dtype)
    out = torch.ones(5, 4, dtype=to)
    cuda_products.multiply(a, b, out, add=add)
    exact = a.double() @ b.double() + add
    assert off(out, exact) < 2 * max(torch.finfo(to).eps, 1e-7 if dtype == torch.float32 or to != dtype else 1)
