"""token_stats: what torch makes of the logits, without them; derivatives, types, memory, compiled."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.func import grad, hessian, jvp, vmap

import softnll.torch as snt
from softnll.torch._base import backend
from softnll.torch._base.device_backend import DeviceBackend
from torch_cases import HARD, float64
from torch_linear_cases import Ran, layer

OPTIONS = {
    "plain": {},
    "softcap": {"softcap": 2.0},
    "temperature": {"temperature": 1.5},
    "all": {"softcap": 2.0, "temperature": torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), "ignore_index": 3},
}


def reference(f, W, y, *, linear_bias=None, softcap=None, temperature=1.0, ignore_index=-100):
    """Return the stats from logits."""
    z = F.linear(*(None if each is None else each.double() for each in (f, W, linear_bias)))
    u = z if softcap is None else softcap * torch.tanh(z / softcap)
    u = u / (temperature.unsqueeze(-1) if isinstance(temperature, torch.Tensor) else temperature)
    log_p = torch.log_softmax(u, -1)
    taken = y != ignore_index
    log_prob = log_p.gather(-1, torch.where(taken, y, 0).unsqueeze(-1)).squeeze(-1)
    values = (log_prob, -(log_p * log_p.exp()).sum(-1), torch.logsumexp(u, -1))
    return *(torch.where(taken, each, 0.0) for each in values), torch.where(taken, z.argmax(-1), -1)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("max_bytes", [None, 591_000])
def test_values_and_gradients(name, max_bytes):
    f, W, b = layer()
    got = snt.token_stats(f, W, HARD, linear_bias=b, max_bytes=max_bytes, **OPTIONS[name])
    assert isinstance(got, snt.TokenStats)
    expected = reference(f, W, HARD, linear_bias=b, **OPTIONS[name])
    torch.testing.assert_close((got.log_prob, got.entropy, got.lse, got.argmax), expected)
    assert not got.argmax.requires_grad
    upstream = [float64(3, seed=i) for i in range(3)]
    for picked in ((0, 1, 2), (0,), (1,), (2,)):
        results = [
            torch.autograd.grad([each[i] for i in picked], (f, W, b), [upstream[i] for i in picked], retain_graph=True)
            for each in ((got.log_prob, got.entropy, got.lse), expected)
        ]
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("compact", ["rows left out", "zeros"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_on_other_devices(name, dtype, compact, monkeypatch):
    """By the reference, which makes half products as devices do; a float16 gradient of the logits is scaled."""
    f, W, b = (each.detach().to(dtype).requires_grad_() for each in layer())
    upstream = [1e-6 * float64(3, seed=i) for i in range(3)]  # subnormal in float16
    expected = torch.autograd.grad(reference(f, W, HARD, linear_bias=b, **OPTIONS[name])[:3], (f, W, b), upstream)
    monkeypatch.setattr(backend, "kind_of", lambda _: "reference")
    if compact == "zeros":
        monkeypatch.setattr(DeviceBackend, "reads_sizes", lambda *_: False)
    got = torch.autograd.grad(
        floats(f, W, b, **OPTIONS[name]), (f, W, b), [each.to(floats(f, W, b)[0].dtype) for each in upstream]
    )
    for a, e in zip(got, expected, strict=True):
        digits = 1e-13 if dtype == torch.float64 else 2e-3
        assert (a - e).abs().max() <= digits * e.abs().max() + (0 if dtype == torch.float64 else 6e-8)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_confident_token_still_learns(name):
    """The gradient at a target whose float32 probability is 1 is the exact one, not 0."""
    f, W = torch.tensor([[40.0]]), torch.tensor([[1.0], [0.0], [0.0]], requires_grad=True)
    y, options = torch.tensor([0]), {key: each for key, each in OPTIONS[name].items() if key == "softcap"}
    options = dict.fromkeys(options, 30.0)
    got = snt.token_stats(f, W, y, **options)
    to_W = torch.autograd.grad((got.log_prob + 0.5 * got.entropy).sum(), W)[0]
    V = W.detach().double().requires_grad_()
    z = (f.double() @ V.T).squeeze(0)
    u = z if not options else 30.0 * torch.tanh(z / 30.0)
    gaps = u - u[0]
    rest = torch.exp(gaps[1:]).sum()
    log_prob = -torch.log1p(rest)
    entropy = torch.log1p(rest) - (torch.exp(gaps[1:]) * gaps[1:]).sum() / (1 + rest)
    expected = torch.autograd.grad(log_prob + 0.5 * entropy, V)[0]
    assert (to_W != 0).all()
    torch.testing.assert_close(to_W.double(), expected, rtol=1e-6, atol=0)


def floats(f, W, b, **options):
    stats = snt.token_stats(f, W, HARD, linear_bias=b, **options)
    return stats.log_prob, stats.entropy, stats.lse


@pytest.mark.parametrize("name", OPTIONS)
def test_derivatives(name):
    given = layer()

    def function(*each):
        return floats(*each, **OPTIONS[name])

    assert torch.autograd.gradcheck(function, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True, check_fwd_over_rev=True)


def test_func():
    f, W, b = (each.detach() for each in layer())

    def policy(f):
        stats = snt.token_stats(f, W, HARD, linear_bias=b)
        return (stats.log_prob * stats.entropy + stats.lse).sum()

    def through_logits(f):
        log_prob, entropy, lse, _ = reference(f, W, HARD, linear_bias=b)
        return (log_prob * entropy + lse).sum()

    for transform in (grad, hessian, lambda each: lambda f: jvp(each, (f,), (torch.ones_like(f),))):
        torch.testing.assert_close(transform(policy)(f), transform(through_logits)(f))
    batch = torch.stack([f, 2 * f])
    torch.testing.assert_close(vmap(grad(policy))(batch), vmap(grad(through_logits))(batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_and_shapes(dtype):
    f, W = float64(2, 5, 3).to(dtype).requires_grad_(), float64(7, 3).to(dtype).requires_grad_()
    y = torch.arange(10).reshape(2, 5) % 7
    stats = snt.token_stats(f, W, y)
    for each, expected in zip((stats.log_prob, stats.entropy, stats.lse), reference(f, W, y), strict=False):
        assert each.shape == (2, 5)
        assert each.dtype == torch.float32
        torch.testing.assert_close(each.double(), expected, rtol=1e-6, atol=1e-6)
    assert stats.argmax.dtype == torch.int64
    assert all(each.dtype == dtype for each in torch.autograd.grad(stats.log_prob.sum(), (f, W)))


def test_a_confident_token():
    """log p, and the entropy, of what a float32 probability rounds to 1."""
    f, W = torch.tensor([[20.0]]), torch.tensor([[1.0], [0.0], [0.0]])
    stats = snt.token_stats(f, W, torch.tensor([0]))
    expected = reference(f, W, torch.tensor([0]))
    assert stats.log_prob.item() == pytest.approx(expected[0].item(), rel=1e-6)
    assert stats.log_prob.item() != 0
    assert stats.entropy.item() == pytest.approx(expected[1].item(), rel=1e-6)


def test_impossible_classes_and_ignored_rows():
    f, W = torch.tensor([[1.0], [float("nan")]]), torch.tensor([[1.0], [2.0], [0.0]], requires_grad=True)
    b = torch.tensor([0.0, -float("inf"), 0.0])
    stats = snt.token_stats(f, W, torch.tensor([0, -100]), linear_bias=b)
    p = torch.sigmoid(torch.tensor(1.0))
    assert stats.log_prob[0].item() == pytest.approx(p.log().item())
    assert stats.entropy[0].item() == pytest.approx((-p * p.log() - (1 - p) * (1 - p).log()).item())
    assert [each[1].item() for each in stats] == [0, 0, -1, 0]
    (to_W,) = torch.autograd.grad(stats.log_prob.sum(), W)
    assert to_W[[0, 2]].isfinite().all()
    assert snt.token_stats(f[1:], W, torch.tensor([0])).entropy.isnan().all()


def test_one_pass_and_its_memory():
    N, H, C = 2000, 16, 4000
    f, W, y = float64(N, H).float(), float64(C, H).float(), torch.arange(N)
    snt.token_stats(f[:2], W, y[:2])  # compiles
    gc.collect()  # what finalisers of earlier tests ask for is not ours
    tracemalloc.start()
    with Ran() as ran:
        snt.token_stats(f, W, y, max_bytes=4 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 4 << 20
    chunks = [shape for shape in ran.shapes if shape[1:] == (C,)]
    assert ran.products > 1
    assert max(shape[0] for shape in chunks) * C * 4 <= 4 << 20
    assert sum(shape[0] for shape in chunks[:1]) * ran.products >= N


def test_compiled():
    torch._dynamo.reset()
    f, W, b = layer()

    def policy(f, W, b):
        stats = snt.token_stats(f, W, HARD, linear_bias=b, softcap=3.0)
        return (stats.log_prob * stats.argmax + stats.entropy).sum()

    run = torch.compile(policy, backend="aot_eager", fullgraph=True)
    results = [(value, *torch.autograd.grad(value, (f, W, b))) for value in (policy(f, W, b), run(f, W, b))]
    torch.testing.assert_close(*results)
    tensors = (f.detach(), W.detach(), b.detach(), HARD, None, None, None, None)
    arguments = (*tensors, 0.0, 0.0, 2.0, 1.0, -100, "none", None, None, None, None)
    torch.library.opcheck(torch.ops.softnll.token_stats.default, arguments)


def test_errors():
    f, W, _ = layer()
    with pytest.raises(IndexError, match=r"target\[2\] is 4; allowed: 0 <= target < 4"):
        snt.token_stats(f, W, torch.tensor([0, 1, 4]))
    assert snt.token_stats(f, W, torch.tensor([0, 1, 4]), check=False).log_prob[2].isnan()
    with pytest.raises(TypeError, match=r"target has dtype torch\.float64; allowed: integers"):
        snt.token_stats(f, W, float64(3, 4))
    with pytest.raises(NotImplementedError, match="with respect to temperature is not implemented"):
        snt.token_stats(f, W, HARD, temperature=torch.ones(3, requires_grad=True))
