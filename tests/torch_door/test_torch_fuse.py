"""Fused heads: what stays without logits, what has them made, and that either way nothing changes but the memory."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import softnll.torch as snt
from softnll.torch._lazy.tensor import LazyLogits
from softnll.torch.fuse import FusedLinear

F = nn.functional
B, T, H, C = 2, 5, 6, 7

KEPT = {
    "itself": lambda z: z,
    "view": lambda z: z.view(-1, C),
    "view of a tuple": lambda z: z.view((B * T, C)),
    "view apart": lambda z: z.view(B, 1, T, C),
    "reshape": lambda z: z.reshape(B * T, -1),
    "torch.reshape": lambda z: torch.reshape(z, (-1, C)),
    "flatten": lambda z: z.flatten(0, 1),
    "torch.flatten": lambda z: torch.flatten(z, end_dim=1),
    "shift": lambda z: z[..., :-1, :].contiguous().view(-1, C),
    "shift without dots": lambda z: z[:, :-1],
    "one row": lambda z: z[1, 2],
    "last": lambda z: z[:, -1, :],
    "a new dimension": lambda z: z[None, :, 1:],
    "rows by mask": lambda z: z[torch.arange(B * T).reshape(B, T) % 3 > 0],
    "rows by number": lambda z: z[:, torch.tensor([0, 3, 3])],
    "rows by number, an integer before": lambda z: z[1, torch.tensor([[0, 3, 3]])],
    "transpose": lambda z: z.transpose(1, 2),
    "torch.transpose": lambda z: torch.transpose(z, -1, 0),
    "permute": lambda z: z.permute(0, 2, 1),
    "permute of a tuple": lambda z: z.permute((2, 0, 1)),
    "transpose, slice": lambda z: z.transpose(1, 2)[:, :, 1:],
    "unsqueeze": lambda z: z.unsqueeze(1),
    "squeeze": lambda z: z[:1].squeeze(0),
    "float": lambda z: z.float(),
    "to a type": lambda z: z.to(torch.float32),
    "to a device and type": lambda z: z.to("cpu", torch.float32, copy=True),
    "to another's": lambda z: z.to(torch.zeros(1)),
    "type": lambda z: z.type(torch.float32),
    "cpu": lambda z: z.cpu(),
    "detach": lambda z: z.detach(),
    "scaled": lambda z: z * 0.25,
    "scaled from the left": lambda z: 3 * z,
    "divided": lambda z: z / 2,
    "torch.div, torch.mul": lambda z: torch.mul(torch.div(z, 3.0), 2.0),
    "capped": lambda z: torch.tanh(z / 3.0) * 3.0,
    "capped, method": lambda z: z.div(3.0).tanh().mul(2.0),
    "capped, shifted": lambda z: (torch.tanh(z / 3.0) * 3.0).float()[..., :-1, :].reshape(-1, C),
}
MADE = {
    "a view that splits classes": lambda z: z.view(-1, 1),
    "a slice of classes": lambda z: z[..., :3],
    "classes by number": lambda z: z[:, :, torch.tensor([0, 1])],
    "every second class": lambda z: z[..., ::2],
    "two tensors": lambda z: z[torch.tensor([0, 1]), torch.tensor([0, 1])],
    "a list": lambda z: z[[0, 1]],
    "negative scale": lambda z: z * -1.0,
    "scale 0": lambda z: z * 0,
    "a tensor's scale": lambda z: z * torch.tensor(2.0),
    "capped twice": lambda z: torch.tanh(torch.tanh(z)),
    "float64": lambda z: z.double(),
    "a sum": lambda z: z + 1,
    "argmax": lambda z: z.argmax(-1),
    "log_softmax": lambda z: F.log_softmax(z, dim=-1),
    "our softmax": lambda z: snt.softmax(z, dim=-1),
    "cat": lambda z: torch.cat([z, z]),
    "rounded": lambda z: z.div(2, rounding_mode="floor"),
    "in einsum": lambda z: torch.einsum("btc,c->bt", z, torch.ones(C)),
    "iterated": lambda z: torch.stack(list(z)),
    "clone": lambda z: z.clone(),
    "in place": lambda z: z.clone().mul_(2),
}


def head(dtype=torch.float32, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(H, C, bias=bias).to(dtype)


def inputs(dtype=torch.float32, seed=1):
    torch.manual_seed(seed)
    return torch.randn(B, T, H, dtype=dtype, requires_grad=True)


def pair(dtype=torch.float32, bias=True):
    """Return an ordinary and a fused head with the same weights."""
    ordinary = head(dtype, bias)
    return ordinary, snt.fuse(copy.deepcopy(ordinary), head="")


def made(logits):
    """Whether the logits have been made."""
    return not isinstance(logits, LazyLogits) or logits._ordinary is not None


def grads(layer, x):
    found = [x.grad, *(each.grad for each in layer.parameters())]
    x.grad = None
    for each in layer.parameters():
        each.grad = None
    return found


def close(ours, theirs, dtype=torch.float32):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-12 if dtype == torch.float64 else 2e-5, atol=1e-6)


@pytest.fixture(autouse=True)
def quiet():
    """Notes are tested where they are the point."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*reads the logits of a fused head.*")
        yield


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_logits_unmade(name):
    ordinary, fused = pair()
    x, change = inputs(), KEPT[name]
    theirs, base = change(ordinary(x)), fused(x)
    ours = change(base)
    assert isinstance(ours, LazyLogits)
    assert not made(ours)
    assert not made(base)
    assert (ours.shape, ours.dtype, ours.requires_grad) == (theirs.shape, theirs.dtype, theirs.requires_grad)
    assert torch.equal(ours.ordinary(), theirs)
    assert ours.ordinary().requires_grad == theirs.requires_grad


@pytest.mark.parametrize("name", KEPT)
def test_the_loss_of_what_is_kept(name):
    ordinary, fused = pair()
    x, change = inputs(), KEPT[name]
    theirs, ours = change(ordinary(x)), change(fused(x))
    if theirs.dim() > 1 and theirs.shape[1] != C:  # classes belong in dimension 1
        at = list(theirs.shape).index(C)
        order = [0, at, *(i for i in range(1, theirs.dim()) if i != at)] if at else [1, 0, *range(2, theirs.dim())]
        theirs, ours = theirs.permute(order), ours.permute(order)
    y = torch.randint(0, C, theirs.shape[:1] + theirs.shape[2:] if theirs.dim() > 1 else ())
    expected, loss = F.cross_entropy(theirs, y), F.cross_entropy(ours, y)
    assert not made(ours)
    torch.testing.assert_close(loss, expected)
    assert loss.requires_grad == expected.requires_grad
    if loss.requires_grad:
        expected.backward()
        wanted = grads(ordinary, x)
        loss.backward()
        close(grads(fused, x), wanted)


@pytest.mark.parametrize("name", MADE)
def test_what_has_logits_made(name):
    ordinary, fused = pair()
    x, change = inputs(), MADE[name]
    theirs, logits = change(ordinary(x)), fused(x)
    ours = change(logits)
    assert not isinstance(ours, LazyLogits)
    assert torch.equal(ours, theirs)
    if theirs.requires_grad:
        theirs.square().sum().backward()
        wanted = grads(ordinary, x)
        ours.square().sum().backward()
        for a, b in zip(grads(fused, x), wanted, strict=True):
            assert torch.equal(a, b)


LOSSES = {
    "F": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "weight": lambda z, y: F.cross_entropy(z, y, torch.arange(1.0, C + 1, dtype=z.dtype)),
    "smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
    "ignore_index": lambda z, y: F.cross_entropy(z, y, ignore_index=3),
    "sum": lambda z, y: F.cross_entropy(z, y, reduction="sum") / 17,
    "none": lambda z, y: (F.cross_entropy(z, y, reduction="none") * torch.arange(len(y))).sum(),
    "soft": lambda z, y: F.cross_entropy(z, F.one_hot(y, C).to(z.dtype) * 0.9 + 0.1 / C),
    "size_average": lambda z, y: F.cross_entropy(z, y, size_average=False),
    "ours": lambda z, y: snt.cross_entropy(z, y, z_loss=1e-3, sample_weight=torch.arange(1.0, len(y) + 1)),
    "our temperature": lambda z, y: snt.cross_entropy(z * 2, y, temperature=3.0),
    "our temperatures": lambda z, y: snt.cross_entropy(z * 2, y, temperature=torch.arange(1.0, len(y) + 1)),
    "our cap": lambda z, y: snt.cross_entropy(z, y, softcap=2.0),
    "our module": snt.CrossEntropyLoss(softcap=2.0, label_smoothing=0.1),
}


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, bias, dtype):
    ordinary, fused = pair(dtype, bias)
    x, loss_of = inputs(dtype), LOSSES[name]
    y = torch.tensor([0, 1, 2, 3, 4, 5, 6, 3, 2, 0])
    logits = fused(x).view(-1, C)
    loss = loss_of(logits, y)
    assert not made(logits)
    loss.backward()
    got = grads(fused, x)
    expected = loss_of(ordinary(x).view(-1, C), y)
    expected.backward()
    wanted = grads(ordinary, x)
    if dtype == torch.bfloat16:  # torch rounds logits, loss and gradients on the way
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected.float(), rtol=0.02, atol=0.02)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0.1, atol=0.03)
    else:
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        close(got, wanted, dtype)


def test_two_caps_are_not_one():
    ordinary, fused = pair()
    x, y = inputs(), torch.arange(B * T) % C
    ours = snt.cross_entropy((torch.tanh(fused(x) / 2) * 2).view(-1, C), y, softcap=3.0)
    theirs = snt.cross_entropy((torch.tanh(ordinary(x) / 2) * 2).view(-1, C), y, softcap=3.0)
    torch.testing.assert_close(ours, theirs)


def test_classes_in_the_wrong_place_are_torchs_matter():
    ordinary, fused = pair()
    with pytest.raises(RuntimeError) as theirs:
        F.cross_entropy(ordinary(inputs()), torch.zeros(B, T, dtype=torch.int64))
    with pytest.raises(RuntimeError) as ours:
        F.cross_entropy(fused(inputs()), torch.zeros(B, T, dtype=torch.int64))
    assert str(ours.value) == str(theirs.value)


def test_a_loss_of_logits_that_were_read_is_exact_as_well():
    fused = snt.fuse(head(bias=False), head="")
    with torch.no_grad():
        fused.weight.zero_()
        fused.weight[0, 0] = 17
    logits = fused(torch.eye(H)[:1])
    assert logits.argmax() == 0
    loss = F.cross_entropy(logits, torch.tensor([0]))
    assert 0 < loss.item() < 1e-6


def test_the_note_comes_once_and_says_what():
    fused = snt.fuse(head(), head="")
    with pytest.warns(UserWarning, match="argmax reads the logits of a fused head: all 2 . 5 . 7 are computed"):
        fused(inputs()).argmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused(inputs()).argmax(-1)
        with torch.no_grad():
            fused(inputs()).amax(-1)
    with pytest.warns(UserWarning, match=r"^amax reads"):
        fused(inputs()).amax(-1)
    with pytest.warns(UserWarning, match=r"^mT reads"):
        _ = fused(inputs()).mT


def test_evaluation_makes_no_logits_either():
    ordinary, fused = pair()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            logits = fused(inputs()).view(-1, C)
            loss = F.cross_entropy(logits, torch.arange(B * T) % C)
            assert not made(logits)
            assert torch.equal(logits[3:].ordinary(), ordinary(inputs()).view(-1, C)[3:])
        torch.testing.assert_close(loss, F.cross_entropy(ordinary(inputs()).view(-1, C), torch.arange(B * T) % C))
        assert not loss.requires_grad


def test_the_gradient_mode_of_the_call_holds():
    fused = snt.fuse(head(), head="")
    with torch.no_grad():
        off = fused(inputs())
    assert not off.requires_grad
    assert not F.cross_entropy(off.view(-1, C), torch.zeros(B * T, dtype=torch.int64)).requires_grad
    assert not (off + 1).requires_grad
    on = fused(inputs())
    with torch.no_grad():
        assert not F.cross_entropy(on.view(-1, C), torch.zeros(B * T, dtype=torch.int64)).requires_grad
        sliced = on[:, 1:]
        on.argmax(-1)
    assert on.sum().requires_grad  # made while gradients were off, but called while they were on
    assert not sliced.requires_grad
    assert not F.cross_entropy(sliced.reshape(-1, C), torch.zeros(8, dtype=torch.int64)).requires_grad


def test_the_autocast_of_the_call_holds():
    ordinary, fused = pair()
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            theirs, ours = ordinary(inputs()), fused(inputs())
        assert ours.dtype == theirs.dtype == dtype
        assert torch.equal(ours.ordinary(), theirs)
        loss = F.cross_entropy(ours.float().view(-1, C), torch.arange(B * T) % C)
        torch.testing.assert_close(
            loss, F.cross_entropy(theirs.float().view(-1, C), torch.arange(B * T) % C), rtol=0.02, atol=0.02
        )
    with torch.autocast("cpu", torch.bfloat16):
        later = fused(inputs()).dtype, snt.fuse(head(torch.float64), head="")(inputs(torch.float64)).dtype
    assert later == (torch.bfloat16, torch.float64)
    before = fused(inputs())
    with torch.autocast("cpu", torch.bfloat16):
        assert before.ordinary().dtype == torch.float32


CHANGES = {
    "the optimiser's step": (
        lambda layer, _: torch.optim.SGD(layer.parameters(), 0.1).step(),
        "weight of a fused head was written to",
    ),
    "data": (
        lambda layer, _: setattr(layer.weight, "data", layer.weight.data.clone()),
        "weight .* was given other memory",
    ),
    "half": (lambda layer, _: layer.half(), "weight .* was given other memory"),
    "frozen": (lambda layer, _: layer.weight.requires_grad_(False), "weight .* had requires_grad set to False"),
    "bias": (lambda layer, _: layer.bias.mul_(2), "bias .* was written to"),
    "features": (lambda _, x: x.add_(1), "features .* was written to"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_logits_of_before_a_change_are_refused(name):
    change, message = CHANGES[name]
    layer, x = snt.fuse(head(), head=""), inputs().detach()
    early, late = layer(x), layer(x)
    kept = early.ordinary().clone()
    F.cross_entropy(layer(x).view(-1, C), torch.arange(B * T) % C).backward()
    with torch.no_grad():
        change(layer, x)
    with pytest.raises(RuntimeError, match=message):
        late.argmax(-1)
    with pytest.raises(RuntimeError, match=message):
        F.cross_entropy(late.view(-1, C), torch.arange(B * T) % C)
    assert torch.equal(early.detach(), kept)


def test_a_replaced_weight_is_another_matter():
    ordinary, fused = pair()
    theirs, ours = ordinary(inputs()), fused(inputs())
    fused.weight = nn.Parameter(torch.zeros(C, H))
    assert torch.equal(ours.ordinary(), theirs)


def test_writing_in_place_is_seen_by_views_and_not_by_copies():
    ordinary, fused = pair()
    results = []
    for layer in (ordinary, fused):
        x = inputs()
        z = layer(x)
        view, copied, capped = z[:, 1:], z.to(torch.float32, copy=True), z * 2.0
        z[:, 2] = 5.0
        z.mul_(3)
        z /= 2
        total = F.cross_entropy(view.reshape(-1, C), torch.zeros(8, dtype=torch.int64)) + view.sum() + z.sum()
        (total + copied.sum() + capped.sum()).backward()
        results.append(([each.detach().clone() for each in (z, view, copied, capped)], grads(layer, x)))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(a, b)
    close(results[1][1], results[0][1])


def test_out_and_requires_grad():
    fused = snt.fuse(head(), head="")
    with torch.no_grad():
        z, w = fused(inputs()), fused(inputs())
    torch.add(w, 1, out=z)
    assert torch.equal(z + 0, w + 1)
    w.requires_grad_()
    (w * torch.tensor(2.0)).sum().backward()
    assert torch.equal(w.grad, torch.full((B, T, C), 2.0))


def test_retain_grad_and_hooks_on_logits():
    ordinary, fused = pair()
    for layer in (ordinary, fused):
        z = layer(inputs())
        z.retain_grad()
        seen = []
        z.register_hook(seen.append)
        F.cross_entropy(z.view(-1, C), torch.arange(B * T) % C).backward()
        layer.seen = z.grad, seen[0]
    close(fused.seen, ordinary.seen)


def test_the_gradient_of_logits_that_were_never_made_is_refused():
    fused = snt.fuse(head(), head="")
    x, y = inputs(), torch.arange(B * T) % C
    logits = fused(x)
    loss = F.cross_entropy(logits.view(-1, C), y)
    for ask in (
        logits.retain_grad,
        lambda: logits.register_hook(print),
        lambda: torch.autograd.grad(loss, logits, allow_unused=True),
    ):
        with pytest.raises(RuntimeError, match="the gradient of the logits is not"):
            ask()
    with torch.no_grad():
        again = fused(x)
        F.cross_entropy(again.view(-1, C), y)
    (grad,) = torch.autograd.grad(fused(x).sum(), x)
    torch.testing.assert_close(grad, fused.weight.sum(0).expand_as(grad))


class Doubled(torch.autograd.Function):
    """What torch functions never see: numbers pass from C++."""

    @staticmethod
    def forward(ctx, z):  # noqa: ARG004
        return z * 2

    @staticmethod
    def backward(ctx, grad):  # noqa: ARG004
        return grad * 2


class Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):  # noqa: ARG004
        return z

    @staticmethod
    def backward(ctx, grad):  # noqa: ARG004
        return grad * 3


THROUGH = {
    "a custom function": lambda layer, x: Doubled.apply(layer(x)).view(-1, C),
    "a custom function of a slice": lambda layer, x: Doubled.apply((torch.tanh(layer(x) / 2) * 2)[:, 1:]).view(-1, C),
    "an identity": lambda layer, x: Same.apply(layer(x)).view(-1, C),
    "a checkpoint": lambda layer, x: checkpoint(layer, x, use_reentrant=False).view(-1, C),
    "a reentrant checkpoint": lambda layer, x: checkpoint(layer, x, use_reentrant=True).view(-1, C),
    "an operator": lambda layer, x: torch.ops.aten.mul(layer(x), 2.0).view(-1, C),
    "made, then kept": lambda layer, x: (layer(x) + 1).view(-1, C),
}


@pytest.mark.parametrize("name", THROUGH)
def test_gradients_through(name):
    ordinary, fused = pair()
    found = []
    for layer in (ordinary, fused):
        x = inputs()
        logits = THROUGH[name](layer, x)
        loss = F.cross_entropy(logits, torch.arange(len(logits)) % C)
        loss.backward()
        found.append((loss.detach(), *grads(layer, x)))
    close(found[1], found[0])


def test_a_checkpoint_around_head_and_loss():
    ordinary, fused = pair()
    found = []
    for layer in (ordinary, fused):
        for reentrant in (True, False):
            x = inputs()

            def whole(x, layer=layer):
                return F.cross_entropy(layer(x).view(-1, C), torch.arange(B * T) % C)

            loss = checkpoint(whole, x, use_reentrant=reentrant)
            loss.backward()
            found.append((loss.detach(), *grads(layer, x)))
    close(found[2], found[0])
    close(found[3], found[1])


def test_backward_of_the_lazy_tensor_itself():
    ordinary, fused = pair()
    for layer in (ordinary, fused):
        x = inputs()
        torch.autograd.backward([layer(x)], [torch.ones(B, T, C)])
        layer.found = grads(layer, x)
    close(fused.found, ordinary.found)


def test_second_derivatives():
    ordinary, fused = pair(torch.float64)
    found = []
    for layer in (ordinary, fused):
        x = inputs(torch.float64)
        loss = F.cross_entropy(layer(x).view(-1, C), torch.arange(B * T) % C)
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        slope.square().sum().backward()
        found.append(grads(layer, x))
    close(found[1], found[0], torch.float64)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own decompositions
def test_transforms_and_tracing_have_an_ordinary_head():
    ordinary, fused = pair()
    x, y = inputs().detach(), torch.arange(B * T) % C

    def loss(layer):
        return lambda x: F.cross_entropy(layer(x).view(-1, C), y)

    close([torch.func.grad(loss(fused))(x)], [torch.func.grad(loss(ordinary))(x)])
    close([torch.func.jvp(loss(fused), (x,), (x,))[1]], [torch.func.jvp(loss(ordinary), (x,), (x,))[1]])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        tangent = torch.autograd.forward_ad.unpack_dual(loss(fused)(dual)).tangent
    close([tangent], [torch.func.jvp(loss(ordinary), (x,), (x,))[1]])
    values = torch.func.functional_call(ordinary, {"weight": torch.ones(C, H)}, x)
    with pytest.warns(UserWarning, match="weight is a Tensor, not a plain"):
        assert torch.equal(torch.func.functional_call(fused, {"weight": torch.ones(C, H)}, x), values)
    assert torch.equal(torch.jit.trace(fused, x)(x), ordinary(x))


def test_vmap_over_logits_that_are_captured():
    ordinary, fused = pair()
    expected = torch.vmap(lambda z, k: z * k)(ordinary(inputs()), torch.arange(1.0, B + 1))
    z = fused(inputs())
    assert torch.equal(torch.vmap(lambda z, k: z * k)(z.ordinary(), torch.arange(1.0, B + 1)), expected)
    assert torch.equal(torch.vmap(lambda k: z[0] * k)(torch.ones(2))[0], ordinary(inputs())[0])


def test_logits_that_transforms_capture():
    ordinary, fused = pair()
    y = torch.arange(B * T) % C
    for loss in (
        lambda z, t: (z * t).sum(),
        lambda z, t: F.cross_entropy(z.view(-1, C), y) * t.sum(),
        lambda z, t: (F.cross_entropy(z.view(-1, C), y, reduction="none") * t.sum()).sum(),
    ):
        theirs, ours = ordinary(inputs()), fused(inputs())
        point = torch.tensor([2.0])
        expected = torch.func.grad(lambda t, z=theirs, loss=loss: loss(z, t))(point)
        for _ in range(2):
            close([torch.func.grad(lambda t, z=ours, loss=loss: loss(z, t))(point)], [expected])
        assert torch.equal(ours.sum(), theirs.sum())  # nothing of the transform is left


def test_logits_that_outlive_inference_mode():
    ordinary, fused = pair()
    with torch.inference_mode():
        theirs, ours = ordinary(inputs()), fused(inputs())
    assert torch.equal(ours + 0, theirs + 0)
    with torch.inference_mode():
        ours = fused(inputs())
    loss = F.cross_entropy(ours.view(-1, C), torch.arange(B * T) % C)
    assert not loss.requires_grad


CHAIN = ("rows", "view", "transpose", "permute", "unsqueeze", "scale", "tanh", "detach", "add", "float")


def link(rng, z):
    """Return a random operation for logits of some shape."""
    n, axis = z.dim(), list(z.shape).index(C)
    kind = rng.choice(CHAIN)
    if kind == "rows":
        index = [slice(int(rng.integers(size)), None) if i != axis else slice(None) for i, size in enumerate(z.shape)]
        at = int(rng.integers(n))
        if at != axis:
            choices = (0, -1, None, torch.zeros(3, dtype=torch.int64), torch.arange(z.shape[at]) % 2 == 0)
            index[at] = choices[rng.integers(len(choices))]
            if index[at] is None:
                index.insert(at + 1, slice(None))
        return lambda t: t[tuple(index)]
    if kind == "view" and axis == n - 1:
        return lambda t: t.reshape(-1, 1, C)
    one, new, order = int(rng.integers(n)), int(rng.integers(-n - 1, n + 1)), rng.permutation(n).tolist()
    return {
        "transpose": lambda t: t.transpose(one, -1),
        "permute": lambda t: t.permute(order),
        "unsqueeze": lambda t: t.unsqueeze(new),
        "scale": lambda t: t * 1.5 / 0.7,
        "tanh": torch.tanh,
        "detach": lambda t: t.detach(),
        "add": lambda t: t + 1,
    }.get(kind, lambda t: t.float())


@pytest.mark.parametrize("seed", range(40))
def test_chains_of_operations(seed):
    rng = np.random.default_rng(seed)
    for trial in range(10):
        ordinary, fused = pair(bias=bool(trial % 2))
        x, other = inputs(seed=trial), inputs(seed=trial)
        theirs, ours = ordinary(x), fused(other)
        for _ in range(int(rng.integers(6))):
            step = link(rng, theirs)
            theirs, ours = step(theirs), step(ours)
            assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype)
        at = list(theirs.shape).index(C)
        front = 1 if theirs.dim() > 1 else 0
        theirs, ours = theirs.transpose(front, at), ours.transpose(front, at)
        y = torch.zeros(theirs.shape[:front] + theirs.shape[front + 1 :], dtype=torch.int64)
        expected = F.cross_entropy(theirs, y, label_smoothing=0.1, reduction="sum")
        loss = F.cross_entropy(ours, y, label_smoothing=0.1, reduction="sum")
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
        assert loss.requires_grad == expected.requires_grad
        if loss.requires_grad:
            loss.backward()
            expected.backward()
            close(grads(fused, other), grads(ordinary, x))
        assert torch.equal(ours + 0, theirs + 0)


def test_compiled_models_are_right():
    ordinary, fused = pair()
    y = torch.arange(B * T) % C
    torch._dynamo.reset()
    whole = torch.compile(lambda x: F.cross_entropy(fused(x).view(-1, C), y), fullgraph=True, backend="aot_eager")
    x = inputs()
    with pytest.warns(UserWarning, match="with fullgraph=True the head computes ordinary logits"):
        whole(x).backward()
    got = grads(fused, x)
    F.cross_entropy(ordinary(x).view(-1, C), y).backward()
    close(got, grads(ordinary, x))
    model = torch.compile(fused, backend="aot_eager")
    F.cross_entropy(model(x).view(-1, C), y).backward()
    close(grads(fused, x), got)
    loss = torch.compile(lambda z: F.cross_entropy(z.view(-1, C), y), backend="aot_eager")
    loss(fused(x)).backward()
    close(grads(fused, x), got)


def test_unserved_heads_keep_ordinary_logits_and_say_so_once():
    class Other(nn.Linear):
        pass

    with pytest.warns(UserWarning, match="the head is a Other, not a plain"):
        assert type(snt.fuse(nn.Sequential(Other(H, C)), "0")[0]) is Other
    with pytest.warns(UserWarning, match="the head is a Bilinear"):
        snt.fuse(nn.Bilinear(H, H, C), "")
    layer = snt.fuse(head(), "")
    layer.weight._fsdp_flattened = True
    with pytest.warns(UserWarning, match="weight is sharded"):
        assert type(layer(inputs())) is torch.Tensor


@pytest.mark.parametrize("kind", ["forward", "backward", "backward_pre", "replaced", "global"])
def test_hooks_that_read_the_output_have_it(kind):
    layer = snt.fuse(head(), "")
    seen = []
    remove = None
    if kind == "forward":
        layer.register_forward_hook(lambda *given: seen.append(given[2]))
    elif kind == "backward":
        layer.register_full_backward_hook(lambda *given: seen.append(given[2][0]))
    elif kind == "backward_pre":
        layer.register_full_backward_pre_hook(lambda *given: seen.append(given[1][0]))
    elif kind == "replaced":
        plain = layer.forward
        layer.forward = lambda x: seen.append(plain(x)) or seen[-1]
    else:
        remove = nn.modules.module.register_module_forward_hook(lambda *given: seen.append(given[2]))
    try:
        with pytest.warns(UserWarning, match="hooks read the head's output"):
            z = layer(inputs())
        F.cross_entropy(z.view(-1, C), torch.arange(B * T) % C).backward()
        layer(inputs())  # and says nothing more
    finally:
        if remove:
            remove.remove()
    assert type(seen[0]) is torch.Tensor


def test_heads_of_other_tensors():
    class Mine(torch.Tensor):
        pass

    layer = snt.fuse(head(), "")
    with pytest.warns(UserWarning, match="input is a Mine"):
        layer(inputs().detach().as_subclass(Mine))
    assert type(layer(torch.zeros(0, H))) is torch.Tensor
    for wrong in (torch.zeros(2, H + 1), torch.zeros(2, H, dtype=torch.float64), torch.tensor(1.0)):
        with pytest.raises(RuntimeError) as theirs:
            head()(wrong)
        with pytest.raises(RuntimeError) as ours:
            layer(wrong)
        assert str(ours.value) == str(theirs.value)


def test_one_row_of_features():
    ordinary, fused = pair()
    x = inputs()[0, 0].detach()
    z = fused(x)
    torch.testing.assert_close(F.cross_entropy(z, torch.tensor(3)), F.cross_entropy(ordinary(x), torch.tensor(3)))
    assert not made(z)


def test_saving_copying_and_undoing():
    model = snt.fuse(nn.Sequential(nn.Linear(H, H), head()), "1")
    assert isinstance(model[1], FusedLinear)
    assert snt.fuse(model, "1") is model
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    with torch.serialization.safe_globals([]):
        again = torch.load(file, weights_only=False)
    for each in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert isinstance(each(inputs()), LazyLogits)
        assert torch.equal(each(inputs()).ordinary(), model(inputs()).ordinary())
    plain = snt.unfuse(model)
    assert plain is model
    assert type(model[1]) is nn.Linear
    assert type(model(inputs())) is torch.Tensor
    assert "_notes" not in vars(model[1])


def test_copies_of_lazy_logits():
    ordinary, fused = pair()
    with torch.no_grad():
        z, expected = fused(inputs()), ordinary(inputs())
    for each in (copy.deepcopy(z), copy.copy(z), pickle.loads(pickle.dumps(z)), z.clone()):  # noqa: S301
        assert torch.equal(torch.as_tensor(each) + 0, expected)
    assert np.array_equal(np.asarray(z), expected.numpy())
    assert np.array_equal(z.numpy(), expected.numpy())
    assert z.tolist() == expected.tolist()
    assert "not computed yet" in repr(fused(inputs()))
    assert repr(z) == repr(expected)


def test_bad_heads():
    with pytest.raises(TypeError, match=r"model is a str; allowed: a torch\.nn\.Module"):
        snt.fuse("gpt2")
    with pytest.raises(
        ValueError, match=r"head is 'lm_head', which this Sequential does not have; .*'1' \(7 outputs\)"
    ):
        snt.fuse(nn.Sequential(nn.Linear(H, H), head()))


def test_errors_of_the_loss_are_ours():
    fused = snt.fuse(head(), "")
    with pytest.raises(IndexError, match=r"target\[1\] is 9; allowed: 0 <= target < 7"):
        F.cross_entropy(fused(inputs()).view(-1, C), torch.tensor([0, 9] * 5))


def test_fifty_steps_of_a_classifier():
    curves = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 11))
        if fused:
            snt.fuse(model, "2")
        optimiser = torch.optim.AdamW(model.parameters(), 0.01)
        x = torch.randn(64, 8)
        y = torch.randint(0, 11, (64,))
        curve = []
        for _ in range(50):
            optimiser.zero_grad()
            loss = nn.CrossEntropyLoss()(model(x), y)
            loss.backward()
            optimiser.step()
            curve.append(loss.item())
        curves.append(curve)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    assert curves[1][-1] < curves[1][0] / 2
