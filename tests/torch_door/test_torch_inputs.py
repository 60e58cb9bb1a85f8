"""What softnll.torch is given: layouts, types, subclasses, hooks, threads, processes; and what bad input raises."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import softnll.torch as snt
from torch_cases import HARD, WEIGHT, float64

FUNCTIONS = {
    "softmax": lambda x: snt.softmax(x, 1),
    "log_softmax": lambda x: snt.log_softmax(x, 1),
    "logsumexp": lambda x: snt.logsumexp(x, 1),
    "nll_loss": lambda x: snt.nll_loss(x, torch.arange(len(x)) % x.shape[1]),
    "cross_entropy": lambda x: snt.cross_entropy(x, torch.arange(len(x)) % x.shape[1], reduction="none"),
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def layouts():
    """Return logits of the same values in every layout."""
    x = float64(6, 4)
    wide = torch.zeros(12, 9, dtype=torch.float64)
    wide[::2, 1::2] = x
    return {
        "transposed": x.t().contiguous().t(),
        "sliced": wide[::2, 1::2],
        "offset": torch.cat([torch.zeros(1, dtype=torch.float64), x.flatten()])[1:].reshape(6, 4),
        "negated": torch.view_as_complex(torch.stack([torch.zeros_like(x), -x], -1)).conj().imag,
    }


@pytest.mark.parametrize("name", layouts())
def test_layouts(function, name):
    given, plain = layouts()[name].requires_grad_(), float64(6, 4).requires_grad_()
    value, expected = function(given), function(plain)
    assert torch.equal(value, expected)
    upstream = float64(*value.shape, seed=3)
    (grad,), (wanted,) = torch.autograd.grad(value, given, upstream), torch.autograd.grad(expected, plain, upstream)
    assert torch.equal(grad, wanted)


def test_inference_mode(function):
    with torch.inference_mode():
        value = function(float64(6, 4))
        assert value.is_inference()
    assert torch.equal(value, function(float64(6, 4)))


def test_expanded_logits(function):
    row = float64(1, 4).requires_grad_()
    value = function(row.expand(6, 4))
    assert torch.equal(value, function(row.detach().repeat(6, 1)))
    value.sum().backward()
    assert row.grad.shape == (1, 4)
    assert torch.equal(function(float64(6, 1).expand(6, 4)), function(float64(6, 1).repeat(1, 4)))


def test_channels_last():
    x = float64(2, 4, 3, 5)
    target = torch.randint(0, 4, (2, 3, 5))
    plain, last = x.clone().requires_grad_(), x.to(memory_format=torch.channels_last).requires_grad_()
    for function in (lambda z: snt.cross_entropy(z, target), lambda z: snt.softmax(z, 1).square().sum()):
        grads = [torch.autograd.grad(function(each), each)[0] for each in (plain, last)]
        torch.testing.assert_close(*grads, rtol=1e-14, atol=1e-16)
        assert grads[0].is_contiguous()
        assert grads[1].is_contiguous(memory_format=torch.channels_last)
    assert snt.softmax(last, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2), (2, 3, 0)])
def test_no_rows(shape):
    x = torch.zeros(shape, requires_grad=True)
    target = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64)
    assert snt.softmax(x, 1).shape == shape
    assert snt.log_softmax(x, 1).shape == shape
    for loss in (snt.cross_entropy, snt.nll_loss):
        mean, total, each = (loss(x, target, reduction=name) for name in ("mean", "sum", "none"))
        assert mean.isnan()
        assert total.item() == 0
        assert each.shape == target.shape
        (mean + total + each.sum()).backward()
        assert x.grad.shape == shape


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_targets_of_any_integer_type(dtype):
    x = float64(3, 4).requires_grad_()
    for loss in (snt.cross_entropy, snt.nll_loss):
        value = loss(x, HARD.to(dtype), WEIGHT)
        assert torch.equal(value, loss(x, HARD, WEIGHT))
        assert torch.equal(*(torch.autograd.grad(loss(x, y, WEIGHT), x)[0] for y in (HARD, HARD.to(dtype))))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64])
def test_integer_logits_become_the_default_type(dtype):
    x = torch.tensor([[100, 3, 5]]).to(dtype)
    assert snt.softmax(x, 1).dtype == torch.float32
    assert torch.equal(snt.softmax(x, 1), snt.softmax(x.float(), 1))
    assert snt.cross_entropy(x, torch.tensor([0])).dtype == torch.float32


def test_the_logits_are_never_written_to(function):
    x = float64(6, 4)
    before = x.clone()
    given = x.requires_grad_()
    value = function(given)
    (grad,) = torch.autograd.grad(value.sum(), given, create_graph=True)
    if grad.requires_grad:
        torch.autograd.grad(grad.sum(), given)
    assert torch.equal(x.detach(), before)
    assert x._version == 0
    assert value.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast(dtype):
    """Losses are float32 in any case; what is in a half type stays in it, as torch has it on the CPU."""
    x = float64(3, 4).to(dtype).requires_grad_()
    model = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = snt.cross_entropy(x, HARD)
        assert snt.softmax(x, 1).dtype == F.softmax(x, 1).dtype
        assert snt.log_softmax(x, 1).dtype == F.log_softmax(x, 1).dtype
        assert snt.logsumexp(x, 1).dtype == torch.logsumexp(x, 1).dtype
        trained = snt.cross_entropy(model(x.float()), HARD)
    assert torch.equal(loss, snt.cross_entropy(x, HARD))
    loss.backward()
    assert x.grad.dtype == dtype
    trained.backward()
    assert model.weight.grad.dtype == torch.float32


class Tagged(torch.Tensor):
    """A subclass that is no more than its type."""


class Logging(torch.Tensor):
    """A subclass that sees what is called."""

    called = ()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.called = (*cls.called, function)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_subclasses(function):
    x = float64(6, 4)
    value = function(x.as_subclass(Tagged))
    assert type(value) is Tagged
    assert torch.equal(value.as_subclass(torch.Tensor), function(x))
    parameter = torch.nn.Parameter(x)
    assert type(function(parameter)) is torch.Tensor


def test_subclasses_see_our_functions():
    Logging.called = ()
    snt.cross_entropy(float64(3, 4).as_subclass(Logging), HARD, z_loss=0.1)
    assert Logging.called[0] is snt.cross_entropy
    snt.cross_entropy(float64(3, 4), HARD, sample_weight=torch.ones(3).as_subclass(Logging))
    assert Logging.called.count(snt.cross_entropy) == 2


def test_hooks():
    x = float64(3, 4).requires_grad_()
    z = x * 1
    seen = []
    z.register_hook(lambda grad: seen.append(grad) or grad * 2)
    module = snt.CrossEntropyLoss()
    module.register_forward_hook(lambda *_: seen.append("forward"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    module(z, HARD).backward()
    assert seen[0] == "forward"
    assert "backward" in seen
    torch.testing.assert_close(x.grad, 2 * torch.autograd.grad(F.cross_entropy(x, HARD), x)[0])


def big():
    torch.manual_seed(0)
    x = (torch.randn(3000, 300) * 3).requires_grad_()
    y = torch.randint(0, 300, (3000,))
    loss = snt.cross_entropy(x, y, label_smoothing=0.0)
    loss.backward()
    p = snt.softmax(x.detach(), 1)
    return [each.detach().numpy().tobytes() for each in (loss, x.grad, p, snt.log_softmax(x.detach(), 1))]


def test_the_same_bits_wherever_it_runs():
    """In a worker thread, with one thread, in deterministic mode, in another process with other threads."""
    expected = big()
    found = []
    worker = threading.Thread(target=lambda: found.append(big()))
    worker.start()
    worker.join()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        found.append(big())
        torch.use_deterministic_algorithms(True)
        found.append(big())
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    assert all(each == expected for each in found)
    assert len(found) == 3


def test_the_same_bits_in_a_forked_process():
    """Also after the parent has used threads, which the child has not; torch's own (OMP) would hang in it."""
    code = """
import os, sys, hashlib
sys.path[:0] = ["tests", "tests/torch_door"]
import torch
from test_torch_inputs import big
digest = lambda: hashlib.sha256(b"".join(big())).digest()
here = digest()
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, digest())
    os._exit(0)
os.waitpid(child, 0)
print(os.read(read, 32) == here, here.hex())
"""
    results = set()
    for threads in ("1", "3"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]},
        )
        results.add(done.stdout)
    assert len(results) == 1
    assert results.pop().startswith("True")


class Rows(torch.utils.data.Dataset):
    """Losses made where the data are loaded."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return snt.cross_entropy(float64(3, 4, seed=i), HARD)


def test_workers_of_a_data_loader():
    loader = torch.utils.data.DataLoader(Rows(), batch_size=4, num_workers=1, multiprocessing_context="fork")
    (values,) = list(loader)
    assert torch.equal(values, torch.stack([Rows()[i] for i in range(4)]))


X, Y = torch.randn(3, 4), torch.tensor([0, 2, 1])
BAD = {
    "target out of range": (
        IndexError,
        r"target\[1\] is 9; allowed: 0 <= target < 4",
        lambda f: f(X, torch.tensor([0, 9, 1])),
    ),
    "target below": (IndexError, r"target\[2\] is -1", lambda f: f(X, torch.tensor([0, 2, -1]))),
    "target at a place": (
        IndexError,
        r"target\[1, 2\] is 4",
        lambda f: f(torch.randn(2, 4, 3), torch.tensor([[0, 1, 2], [3, 3, 4]])),
    ),
    "batch": (ValueError, r"target has shape \(2,\).*allowed", lambda f: f(X, Y[:2])),
    "places": (RuntimeError, r"target has shape \(3, 5\)", lambda f: f(torch.randn(3, 4, 6), torch.zeros(3, 5).long())),
    "float targets": (RuntimeError, r"target.* (torch.)?float32; allowed: integers", lambda f: f(X, Y.float())),
    "bool targets": (RuntimeError, r"target has dtype bool", lambda f: f(X, Y.bool())),
    "integers of the input's shape": (
        RuntimeError,
        r"target has shape \(3, 4\)",
        lambda f: f(X, torch.zeros(3, 4).long()),
    ),
    "weight's length": (RuntimeError, r"weight has shape \(3,\); allowed: \(4,\)", lambda f: f(X, Y, torch.ones(3))),
    "weight's type": (RuntimeError, "weight has dtype bool", lambda f: f(X, Y, torch.ones(4).bool())),
    "sample weights": (ValueError, r"sample_weight has shape \(4,\)", lambda f: f(X, Y, sample_weight=torch.ones(4))),
    "reduction": (ValueError, "reduction is 'avg'", lambda f: f(X, Y, reduction="avg")),
    "ignore_index": (TypeError, "ignore_index is 1.5", lambda f: f(X, Y, ignore_index=1.5)),
    "no dimension": (RuntimeError, "input has no dimensions", lambda f: f(torch.tensor(1.0), torch.tensor(0))),
    "an array": (TypeError, "input is a ndarray; allowed: a tensor", lambda f: f(X.numpy(), Y)),
    "a list": (TypeError, "target is a list", lambda f: f(X, [0, 1, 2])),
    "weights of a list": (TypeError, "sample_weight is a list", lambda f: f(X, Y, sample_weight=[1, 1, 1])),
    "complex": (RuntimeError, "input has dtype torch.complex64", lambda f: f(X.cfloat(), Y)),
    "bool": (TypeError, "input has dtype torch.bool", lambda f: f(X.bool(), Y)),
    "float8": (RuntimeError, "input has dtype torch.float8", lambda f: f(X.to(torch.float8_e5m2), Y)),
    "no classes": (IndexError, "has no classes", lambda f: f(torch.zeros(3, 0), Y)),
    "device": (ValueError, "target is on cpu, input on meta; allowed: one device", lambda f: f(X.to("meta"), Y)),
    "another device": (RuntimeError, "target is on meta, input on cpu", lambda f: f(X, Y.to("meta"))),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("loss", [snt.cross_entropy, snt.nll_loss])
def test_bad_input_of_losses(loss, name, grad):
    error, message, call = BAD[name]
    with torch.set_grad_enabled(grad), pytest.raises(error, match=message):
        call(loss)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (RuntimeError, r"label_smoothing is 2\.0; allowed", {"label_smoothing": 2.0}),
        (ValueError, "z_loss is -1", {"z_loss": -1.0}),
        (ValueError, "softcap is 0", {"softcap": 0.0}),
        (ValueError, "temperature is nan", {"temperature": float("nan")}),
        (ValueError, r"temperature\[1\] is 0", {"temperature": torch.tensor([1.0, 0.0, 1.0])}),
        (ValueError, r"temperature has shape \(2,\)", {"temperature": torch.ones(2)}),
        (ValueError, "temperature is on meta", {"temperature": torch.ones(3, device="meta")}),
    ],
)
def test_bad_options(error, message, options):
    with pytest.raises(error, match=message):
        snt.cross_entropy(X, Y, **options)


def test_what_soft_targets_may_not():
    with pytest.raises(RuntimeError, match="ignore_index is 1; allowed: >= 0 only with hard targets"):
        snt.cross_entropy(X, torch.softmax(X, 1), ignore_index=1)
    with pytest.raises(ValueError, match=r"target\[0\] sums to"):
        snt.cross_entropy(X, torch.ones(3, 4), check=True)
    assert snt.cross_entropy(X, -torch.ones(3, 4)).isfinite()
    with pytest.raises(RuntimeError, match=r"target has dtype torch\.float32; allowed: integers"):
        snt.nll_loss(X, torch.softmax(X, 1))


def test_unchecked_targets_are_nan():
    x = X.clone().requires_grad_()
    loss = snt.cross_entropy(x, torch.tensor([0, 7, 1]), check=False, reduction="none")
    assert loss.isnan().tolist() == [False, True, False]
    loss.sum().backward()
    assert x.grad.isnan().all(1).tolist() == [False, True, False]


@pytest.mark.parametrize("function", [snt.softmax, snt.log_softmax, snt.logsumexp])
def test_bad_input_of_normalised(function):
    with pytest.raises(IndexError, match="dim is 2; allowed: from -2 to 1"):
        function(X, 2)
    with pytest.raises(TypeError, match="input is a list"):
        function([1.0], 0)
    with pytest.raises(TypeError, match=r"input has dtype torch\.bool"):
        function(X.bool(), 0)


class TORCH:
    """torch's functions under softnll's names."""

    softmax, log_softmax, logsumexp = F.softmax, F.log_softmax, torch.logsumexp
    cross_entropy, nll_loss = F.cross_entropy, F.nll_loss


EMPTY = [(0, 3), (2, 0), (0, 0), (0,), (0, 3, 4), (2, 3, 0)]


def of_both(ours, torchs):
    """Return the results of two functions, each an error if it raises one."""
    found = []
    for function in (ours, torchs):
        try:
            found.append(function())
        except (IndexError, RuntimeError, ValueError) as error:
            found.append(error)
    return found


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_inputs_without_rows_or_classes_are_torchs(shape):
    x, dim = torch.zeros(shape), min(1, len(shape) - 1)
    rows = torch.zeros([size for at, size in enumerate(shape) if at != dim], dtype=torch.int64)
    calls = [lambda m, each=each, at=at: getattr(m, each)(x, at) for each in ("softmax", "log_softmax", "logsumexp")
             for at in range(len(shape))]  # fmt: skip
    for reduction in ("mean", "sum", "none"):
        for target in (rows, rows - 100, x):
            calls.append(lambda m, y=target, r=reduction: m.cross_entropy(x, y, reduction=r))
            if target is not x:
                calls.append(lambda m, y=target, r=reduction: m.nll_loss(x, y, reduction=r))
    for call in calls:
        got, want = of_both(lambda c=call: c(snt), lambda c=call: c(TORCH))
        if isinstance(want, torch.Tensor):
            torch.testing.assert_close(got, want, equal_nan=True)
        else:
            assert isinstance(got, Exception)


@pytest.mark.parametrize("temperature", [[2.0, 3.0], (2.0, 3.0)])
def test_a_list_of_temperatures_is_refused(temperature):
    for function in (snt.cross_entropy, lambda x, y, **o: snt.linear_cross_entropy(x, torch.eye(3), y, **o)):
        with pytest.raises(
            TypeError, match=r"temperature is a (list|tuple); allowed: a number, or a tensor of one a row"
        ):
            function(torch.zeros(2, 3), torch.tensor([0, 1]), temperature=temperature)


def test_bfloat16_without_its_package_says_what_to_install():
    code = """
import sys
sys.modules["ml_dtypes"] = None
import torch, softnll.torch as snt
print(snt.softmax(torch.zeros(2), 0)[0].item())
try:
    snt.logsumexp(torch.zeros(2, dtype=torch.bfloat16), 0)
except ImportError as error:
    print("softnll[torch]" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.5", "True"]


def test_without_torch_the_package_says_what_to_install():
    code = """
import sys
sys.modules["torch"] = None
try:
    import softnll.torch
except ImportError as error:
    print("softnll[torch]" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_large_upstream_of_half_types_does_not_overflow_before_it_is_rounded():
    """A scaled loss, as mixed precision has it: the scale meets the gradient in float32."""
    x = torch.tensor([[12.0, 0.0]], dtype=torch.float16, requires_grad=True)
    (snt.cross_entropy(x, torch.tensor([0])) * 65536).backward()
    exact = 65536 / (1 + np.exp(12.0))
    assert x.grad[0, 1].item() == pytest.approx(exact, rel=1e-3)
