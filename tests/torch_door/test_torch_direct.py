"""The direct path of the loss of plain CPU tensors: the bits of the general path, and only plain tensors."""

import pytest
import torch

import softnll.torch as snt
from softnll.torch._base.arguments import LossSettings
from softnll.torch._losses import direct
from softnll.torch._losses import plain as plain_calls

OPTIONS = [
    {},
    {"weight": torch.tensor([0.5, 2.0, 0.0, 1.0])},
    {"reduction": "none"},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"z_loss": 1e-2, "softcap": 20.0},
    {"temperature": 2, "ignore_index": 3},
    {"check": True, "weight": torch.tensor([1.0, 2.0, 3.0, 4.0]), "reduction": "none"},
    {"soft": True},
    {"soft": True, "weight": torch.tensor([0.5, 2.0, 0.0, 1.0]), "label_smoothing": 0.1},
    {"soft": True, "reduction": "none", "softcap": 20.0},
    {"softcap": 5.0, "temperature": 0.5, "label_smoothing": 0.1, "ignore_index": 3},
    {"label_smoothing": 1e-40},
]


def plain(dtype=torch.float32, n=9):
    torch.manual_seed(0)
    x = (3 * torch.randn(n, 4)).to(dtype)
    x[0] = torch.tensor([40.0, 0.0, 0.0, 1.0])
    y = torch.randint(0, 4, (n,))
    y[0], y[1], y[2] = 0, 3, -100
    return x, y


def apart(x):
    """Return the same logits with gaps between the rows, which are left to the general path."""
    return torch.nn.functional.pad(x, (0, 1))[:, :-1]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: "-".join(each) or "none")
@pytest.mark.parametrize("factor", [1.0, 0.3, 7.0, 0.0, float("inf")])
def test_the_same_bits_as_the_general_path(monkeypatch, dtype, options, factor):
    x, y = plain(dtype)
    if options.get("ignore_index") == 3:
        y[2] = 1
    options = {k: v.to(dtype) if k == "weight" else v for k, v in options.items()}
    if options.pop("soft", False):
        y = torch.rand(9, 4).to(dtype)

    def run():
        leaf = x.clone().requires_grad_()
        loss = snt.cross_entropy(leaf, y, **options)
        loss.backward(torch.full_like(loss, factor))
        with torch.no_grad():
            again = snt.cross_entropy(leaf, y, **options)
        return loss.detach(), again, leaf.grad

    calls = []
    of = direct.cross_entropy
    monkeypatch.setattr(direct, "cross_entropy", lambda *given: calls.append(1) or of(*given))
    taken = run()
    assert len(calls) == 2
    monkeypatch.setattr(plain_calls, "loss_form", lambda *_: None)
    turned = y.is_floating_point() or {"label_smoothing", "temperature"} & options.keys()  # into planes otherwise
    tolerance = 4 * torch.finfo(dtype).eps if turned else 0
    for one, other in zip(taken, run(), strict=True):
        largest = other.abs().nan_to_num(0, 0, 0).max().item()
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * largest, equal_nan=True)


@pytest.mark.parametrize(("n", "n_classes"), [(1, 10), (3, 5), (257, 7), (40, 170), (1, 1)])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: "-".join(each) or "none")
def test_targets_and_weights_of_any_strides(n, n_classes, options):
    torch.manual_seed(n)
    x, y = torch.randn(n, n_classes, dtype=torch.float64), torch.randint(0, n_classes, (2 * n,))[::2]
    options = dict(options)
    if "weight" in options:
        options["weight"] = torch.rand(2 * n_classes, dtype=torch.float64)[::2]
    if options.pop("soft", False):
        y = torch.rand(n, n_classes, dtype=torch.float64)
    ones = {"softcap", "z_loss", "temperature", "check"} & set(options)
    for targets in (y, y[:1].expand_as(y)) if y.dim() == 1 else (y,):
        leaf = x.clone().requires_grad_()
        loss = snt.cross_entropy(leaf, targets, **options)
        loss.sum().backward()
        if ones:
            expected = snt.cross_entropy(apart(x), targets, **options)
        else:
            expected = torch.nn.functional.cross_entropy(x, targets, **options)
        torch.testing.assert_close(loss, expected, rtol=1e-13, atol=1e-15, equal_nan=True)
        other = x.clone().requires_grad_()
        snt.cross_entropy(apart(other), targets, **options).sum().backward()
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-13, atol=1e-16, equal_nan=True)


LAYOUTS = {
    "planes": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "sequences": lambda x: x.flatten(2).mT.contiguous().mT,
    "volumes": lambda x: x.unflatten(2, (1, -1)),
}
OF_IMAGES = {  # with the kernels that compute them
    "plain": {},
    "weights": {"weight": torch.tensor([0.5, 2.0, 0.0, 1.0])},
    "rows": {"reduction": "none", "z_loss": 1e-2},
    "smoothed": {"label_smoothing": 0.1, "reduction": "sum"},
    "temperature": {"temperature": 2.0},
    "soft cap": {"softcap": 5.0},
    "soft": {},
}


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", OF_IMAGES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_sequences(layout, options, dtype):
    """A row of a tensor is the same row of ``(N, C)``, whatever the memory; the gradient has the logits' strides."""
    torch.manual_seed(3)
    x, of = LAYOUTS[layout]((3 * torch.randn(2, 4, 6, 3)).to(dtype)), dict(OF_IMAGES[options])
    x[(0, slice(None), *(0,) * (x.dim() - 2))] = torch.tensor([60.0, 0.0, 0.0, 1.0], dtype=dtype)
    y = torch.randint(0, 4, (2, *x.shape[2:]))
    y[1, 0], soft = -100, torch.empty_like(x).copy_(x.flip(1).softmax(1))
    if "weight" in of:
        of["weight"] = of["weight"].to(dtype)

    def run(x, y, upstream):
        leaf = torch.empty_like(x).copy_(x).requires_grad_()
        loss = snt.cross_entropy(leaf, y, **of)
        loss.backward(upstream[: loss.numel()].view(loss.shape))
        return loss.detach(), leaf.grad

    def rows(x):
        return x.movedim(1, -1).reshape(-1, 4)

    upstreams = torch.ones(36), torch.linspace(0.5, 1, 36)
    found = [run(x, soft if options == "soft" else y, each) for each in upstreams]
    for (loss, gradient), upstream in zip(found, upstreams, strict=True):
        assert gradient.stride() == x.stride()
        assert loss.shape == (y.shape if options == "rows" else ())
        expected, of_rows = run(rows(x), rows(soft) if options == "soft" else y.flatten(), upstream)
        torch.testing.assert_close(loss.flatten(), expected.flatten(), rtol=1e-6, atol=1e-9)
        tolerance = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(rows(gradient), of_rows, rtol=tolerance, atol=tolerance * of_rows.abs().max().item())


@pytest.mark.parametrize("options", [each for each in OF_IMAGES if each != "soft cap"])  # planes have none in one call
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_computed_in_one_call(layout, options, monkeypatch):
    x, of = LAYOUTS[layout](torch.randn(2, 4, 6, 3)).requires_grad_(), OF_IMAGES[options]
    y = torch.empty_like(x).copy_(x.detach().softmax(1)) if options == "soft" else torch.ones(2, *x.shape[2:]).long()
    monkeypatch.setattr(direct, "compute", None)
    for logits in (x, x.detach()):
        loss = snt.cross_entropy(logits, y, **of)
        if loss.requires_grad:
            loss.sum().backward()
    for function in (snt.softmax, snt.log_softmax):
        function(x, 1).backward(torch.rand(x.shape))
        function(x.detach(), 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_further_derivatives_of_images(layout):
    x = LAYOUTS[layout](torch.randn(2, 4, 6, 3, dtype=torch.float64)).requires_grad_()
    y = torch.randint(0, 4, (2, *x.shape[2:]))
    for name, of in (("cross_entropy", y), ("softmax", 1), ("log_softmax", 1)):
        found = []
        for library, logits in ((snt, x), (torch.nn.functional, x.detach().contiguous().requires_grad_())):
            (first,) = torch.autograd.grad(getattr(library, name)(logits, of).sum().square(), logits, create_graph=True)
            found.append((first, *torch.autograd.grad(first.square().sum(), logits)))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("n_classes", [4, 200])
def test_a_class_of_weight_0_is_computed_in_the_call(n_classes):
    """Its rows contribute 0, as ignored ones do, also where they hold NaN."""
    x, y, w = torch.randn(9, n_classes), torch.arange(9) % 4, torch.ones(n_classes)
    w[1], x[1, 2] = 0, torch.nan
    settings = LossSettings.of(0.0, 0.0, None, 1.0, -100, "mean", 1, None)
    found = direct.in_one_call(x, y, w, settings, plain_calls.loss_form(x, y, w), written=True)
    assert found.without_part
    taking = w[y] > 0
    torch.testing.assert_close(found.value, torch.nn.functional.cross_entropy(x[taking], y[taking]))
    assert (found.gradient[~taking] == 0).all()


def test_an_index_beyond_64_bits_with_sign():
    x, y = plain()
    y[2] = 0
    assert torch.equal(snt.cross_entropy(x, y, ignore_index=2**63), snt.cross_entropy(x, y))


def test_each_kind_of_call_is_made_once(monkeypatch):
    """No case that a call serves goes on to the general path."""
    x, y = plain()
    x = x.requires_grad_()
    monkeypatch.setattr(direct, "compute", None)
    for options in ({}, {"weight": torch.rand(4)}, {"reduction": "none"}, {"label_smoothing": 0.1}, {"z_loss": 0.1}):
        for logits in (x, x.detach()) if options else (x, x.detach(), x.bfloat16()):
            loss = snt.cross_entropy(logits, y, **_of_type(options, logits.dtype))
            if loss.requires_grad:
                loss.sum().backward()
    snt.cross_entropy(x, x.detach().softmax(1)).backward()
    for function in (snt.softmax, snt.log_softmax):
        function(x, 1).backward(torch.rand(9, 4))
        function(x.detach().bfloat16(), 1)


def _of_type(options, dtype):
    return {k: v.to(dtype) if k == "weight" else v for k, v in options.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: "-".join(each) or "none")
def test_each_backward_has_the_same_bits(options):
    x, y = plain(torch.float64)
    options = {k: v.double() if k == "weight" else v for k, v in options.items()}
    if options.get("ignore_index") == 3:
        y[2] = 1
    if options.pop("soft", False):
        y = torch.rand(9, 4).double()
    leaf = x.requires_grad_()
    loss = snt.cross_entropy(leaf, y, **options)
    given = [torch.autograd.grad(loss, leaf, torch.ones_like(loss), retain_graph=True)[0] for _ in range(3)]
    assert torch.equal(given[0], given[1])
    assert torch.equal(given[0], given[2])


def test_rows_have_upstream_gradients_of_their_own():
    x, y = plain()
    for factors in (torch.linspace(-1, 1, 9), torch.linspace(-3, 3, 9), torch.ones(9)):
        leaf, wide = x.clone().requires_grad_(), x.double().requires_grad_()
        snt.cross_entropy(leaf, y, reduction="none").backward(factors)
        snt.cross_entropy(wide, y, reduction="none").backward(factors.double())
        torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=3e-7, atol=0)


def test_further_derivatives_and_backwards():
    x, y = plain(torch.float64)
    leaf = x.clone().requires_grad_()
    loss = snt.cross_entropy(leaf, y)
    (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf)
    general = x.clone().requires_grad_()
    (one,) = torch.autograd.grad(snt.cross_entropy(apart(general), y), general, create_graph=True)
    (two,) = torch.autograd.grad(one.square().sum(), general)
    torch.testing.assert_close(first, one, rtol=1e-15, atol=0)
    torch.testing.assert_close(second, two, rtol=1e-14, atol=1e-18)
    again = snt.cross_entropy(leaf, y)
    kept = torch.autograd.grad(again, leaf, retain_graph=True)[0]
    assert torch.equal(kept, torch.autograd.grad(again, leaf)[0])


def test_logits_that_are_written_to_after_the_loss():
    x, y = plain()
    for factor in (1.0, 0.5, 3.0):
        leaf = x.clone().requires_grad_()
        hidden = leaf * 1
        loss = snt.cross_entropy(hidden, y)
        with torch.no_grad():
            hidden.zero_()
        (factor * loss).backward()
        kept = x.clone().requires_grad_()
        (factor * snt.cross_entropy(kept, y)).backward()
        torch.testing.assert_close(leaf.grad, kept.grad, rtol=2e-7, atol=0)


def test_errors_are_those_of_the_general_path(monkeypatch):
    x, y = plain()
    bad = torch.full_like(y, 4)
    cases = [((x, bad), {}), ((x, y), {"label_smoothing": 2.0}), ((x, y), {"check": True, "weight": -torch.ones(4)})]
    told = []
    for form in (plain_calls.loss_form, lambda *_: None):
        monkeypatch.setattr(plain_calls, "loss_form", form)
        for given, options in cases:
            with pytest.raises((ValueError, IndexError, RuntimeError)) as raised:
                snt.cross_entropy(*given, **options)
            told.append((raised.type, str(raised.value)))
    assert told[:3] == told[3:]


class Own(torch.Tensor):
    pass


def not_plain():
    x, y = plain()
    yield "integers", (x.int(), y, None)
    yield "int32 targets", (x, y.int(), None)
    yield "soft targets of another type", (x, x.double().softmax(1), None)
    yield "soft targets of another shape", (x, x.softmax(1)[:, :3], None)
    yield "soft targets with a gradient", (x, x.softmax(1).requires_grad_(), None)
    yield "soft targets and an index to ignore", (x, x.softmax(1), None, 1.0, 2)
    yield "transposed", (x.t().contiguous().t(), y, None)
    yield "few rows side by side", (x.view(3, 3, 4).transpose(1, 2).contiguous(), y.view(3, 3), None)
    yield "gaps between planes", (torch.zeros(2, 4, 10)[:, :, :9], y.repeat(2).view(2, 9), None)
    yield "soft targets with other strides", (x.view(1, 9, 4).mT, x.view(1, 9, 4).mT.contiguous(), None)
    yield "one row", (x[0], y[0], None)
    yield "another number of targets", (x, y[:5], None)
    yield "no classes", (x[:, :0], y, None)
    yield "a subclass", (x.as_subclass(Own), y, None)
    yield "meta", (x.to("meta"), y.to("meta"), None)
    yield "sparse", (x.to_sparse(), y, None)
    yield "nested", (torch.nested.nested_tensor([x, x], layout=torch.jagged), y, None)
    yield "negated", (torch._neg_view(x), y, None)
    yield "weights with a gradient", (x, y, torch.ones(4, requires_grad=True))
    yield "weights of another type", (x, y, torch.ones(4, dtype=torch.float64))
    yield "weights of another shape", (x, y, torch.ones(3))
    yield "no tensor", (x.numpy(), y, None)


@pytest.mark.filterwarnings("ignore:.*prototype")
@pytest.mark.parametrize("given", [pytest.param(each, id=name) for name, each in not_plain()])
def test_what_is_not_plain(given):
    assert not plain_calls.loss_form(*given)


@pytest.mark.filterwarnings("ignore:.*jit.trace.* is deprecated:DeprecationWarning")
def test_what_surrounds_a_call():
    x, y = plain()
    assert plain_calls.loss_form(x, y, None)
    assert plain_calls.loss_form(x, y, torch.ones(4), 2, -100, None)
    assert plain_calls.loss_form(x, x.softmax(1), torch.ones(4))
    assert not plain_calls.loss_form(x, y, None, torch.tensor(2.0))
    assert not plain_calls.loss_form(x, y, None, 1.0, -100, None, torch.ones(9))
    with torch._subclasses.FakeTensorMode():
        assert not plain_calls.loss_form(x, y, None)
    with torch.autograd.forward_ad.dual_level():
        assert not plain_calls.loss_form(x, y, None)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: each, lambda each: each):
        assert not plain_calls.loss_form(x, y, None)
    seen = []
    torch.func.vmap(lambda x: seen.append(plain_calls.loss_form(x, y, None)) or x)(x[None])
    torch.jit.trace(lambda x: (seen.append(plain_calls.loss_form(x, y, None)), x * 1)[1], x, check_trace=False)
    assert seen == [None, None]


@pytest.mark.parametrize("function", [torch.nn.functional.cross_entropy, snt.cross_entropy], ids=["torch", "softnll"])
@pytest.mark.parametrize("grad", [True, False])
def test_a_tensor_kept_beyond_a_transform(function, grad):
    """It has no memory of its own; torch's functions take it."""
    kept, W = [], torch.zeros(3, 4, requires_grad=grad)
    torch.func.grad(lambda x: (kept.append(x + W), x.sum())[1])(torch.arange(12.0).reshape(3, 4))
    loss = function(kept[0], torch.tensor([0, 3, 1]))
    torch.testing.assert_close(loss, torch.tensor((3.4402 + 0.4402 + 2.4402) / 3), rtol=1e-4, atol=0)
    torch.testing.assert_close(snt.softmax(kept[0], -1), torch.softmax(kept[0], -1))
    layer = torch.eye(4), torch.tensor([0, 3, 1])
    torch.testing.assert_close(snt.linear_cross_entropy(kept[0], *layer), loss)
    if grad:
        loss.backward()
        assert W.grad[1, 3] < -0.1
