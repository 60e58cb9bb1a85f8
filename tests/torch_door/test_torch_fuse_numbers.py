"""A fused model's numbers, whatever happens to its head, its logits and their graph: the unfused ones, or an error."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import softnll.torch as snt
from softnll.torch._lazy.tensor import LazyLogits
from softnll.torch.fuse import FusedLinear

F = nn.functional
B, T, H, C = 2, 5, 6, 7


def model(*, fused=True):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Embedding(11, H), nn.Linear(H, C))
    return snt.fuse(made, head="1") if fused else made


TOKENS, TARGETS = torch.arange(B * T).reshape(B, T), torch.arange(B * T).reshape(B, T) % C
BIAS = torch.linspace(-1, 1, C)


def loss_of(parts, targets):
    return sum(
        F.cross_entropy(part.reshape(-1, C), target.reshape(-1), reduction="sum")
        for part, target in zip(parts, targets, strict=True)
    )


PARTS = {
    "chunk": lambda z: loss_of(z.chunk(2, 1), TARGETS.chunk(2, 1)),
    "torch.chunk": lambda z: loss_of(torch.chunk(z, 3, dim=-2), TARGETS.chunk(3, 1)),
    "split": lambda z: loss_of(z.split(2, 1), TARGETS.split(2, 1)),
    "split of sizes": lambda z: loss_of(z.split([1, 4], dim=1), TARGETS.split([1, 4], 1)),
    "torch.split": lambda z: loss_of(torch.split(z, 1), TARGETS.split(1)),
    "unbind": lambda z: loss_of(z.unbind(1), TARGETS.unbind(1)),
    "torch.unbind": lambda z: loss_of(torch.unbind(z), TARGETS.unbind()),
    "iteration": lambda z: loss_of(z, TARGETS),
    "unpacking": lambda z: loss_of([*z], [*TARGETS]),
    "a constant per class": lambda z: loss_of([z + BIAS], [TARGETS]),
    "two constants": lambda z: loss_of([(z + BIAS[None]).add(2 * BIAS)], [TARGETS]),
    "a constant, transposed": lambda z: loss_of([(z.transpose(1, 2) + BIAS[:, None]).transpose(1, 2)], [TARGETS]),
    "a constant, then a scale and a cap": lambda z: loss_of([torch.tanh((z + BIAS) / 3.0) * 3.0], [TARGETS]),
}
NOT_LAZY = {
    "a constant after a scale": lambda z: loss_of([z / 2 + BIAS], [TARGETS]),
    "a number per row": lambda z: loss_of([z + torch.ones(B, T, 1)], [TARGETS]),
    "a learned constant": lambda z: loss_of([z + BIAS.clone().requires_grad_()], [TARGETS]),
    "a wider constant": lambda z: loss_of([(z + BIAS.double()).float()], [TARGETS]),
    "a split of the classes": lambda z: loss_of([torch.cat(z.split([3, 4], -1), -1)], [TARGETS]),
}


def value_and_gradients(function, *, fused):
    made = model(fused=fused)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        value = function(made(TOKENS))
        value.backward()
    said = [str(each.message) for each in seen if "reads the logits" in str(each.message)]
    return (value, *(each.grad for each in made.parameters())), said


@pytest.mark.parametrize("name", PARTS | NOT_LAZY)
def test_parts_and_constants(name):
    function = (PARTS | NOT_LAZY)[name]
    (got, said), (want, _) = (value_and_gradients(function, fused=fused) for fused in (True, False))
    torch.testing.assert_close(got, want)
    assert bool(said) == (name in NOT_LAZY), said


def test_parts_that_are_read_are_the_bits_of_before():
    z, plain = (model(fused=fused)(TOKENS) for fused in (True, False))
    for got, want in zip(z.split(2, 1), plain.split(2, 1), strict=True):
        assert isinstance(got, LazyLogits)
        assert torch.equal(got.detach().clone(), want)
    assert torch.equal(z + BIAS - 0, plain + BIAS)


WRITES = {
    "an optimiser through .data": lambda m: [each.data.add_(-0.1) for each in m.parameters()],
    ".data =": lambda m: setattr(m[1].weight, "data", m[1].weight.data * 2),
    ".data.copy_": lambda m: m[1].weight.data.copy_(torch.ones(C, H)),
    "the bias through .data": lambda m: m[1].bias.data.fill_(9.0),
    "no_grad": lambda m: _under(torch.no_grad(), m),
    "inference mode": lambda m: _under(torch.inference_mode(), m),
    "through NumPy": lambda m: m[1].weight.detach().numpy().fill(1.0),
    "load_state_dict": lambda m: m.load_state_dict({name: each + 1 for name, each in m.state_dict().items()}),
}


def _under(mode, made):
    with mode:
        made[1].weight.mul_(2)


@pytest.mark.filterwarnings("ignore:.*reads the logits")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("then", ["read", "loss", "values"])
def test_a_write_to_the_head_that_no_counter_sees_is_an_error(write, then):
    made = model()
    z = made(TOKENS)
    WRITES[write](made)
    use = {"read": z.exp, "loss": lambda: loss_of([z], [TARGETS]), "values": lambda: z.detach().numpy()}[then]
    with pytest.raises(RuntimeError, match=r"fused head was (written to|given other memory)"):
        use()


@pytest.mark.filterwarnings("ignore:.*reads the logits")
def test_a_write_to_the_features_is_an_error():
    made = model()
    features = torch.randn(B, T, H)
    z = made[1](features)
    features.data.zero_()
    with pytest.raises(RuntimeError, match=r"the features of a fused head was written to, through \.data"):
        z.sum()


def test_a_head_whose_values_are_nan_has_not_changed():
    made = model()
    with torch.no_grad():
        made[1].weight.fill_(torch.nan)
    assert loss_of([made(TOKENS)], [TARGETS]).isnan()


class Doubled(torch.autograd.Function):
    """Twice the input, in place or not."""

    @staticmethod
    def forward(ctx, z, in_place):
        if not in_place:
            return z * 2
        z.mul_(2)
        ctx.mark_dirty(z)
        return z

    @staticmethod
    def backward(_, grad):
        return grad * 2, None


@pytest.mark.filterwarnings("ignore:.*reads the logits")
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("before", [lambda z: z, lambda z: z[:, 1:], lambda z: z.float() / 2])
def test_autograd_functions_of_lazy_logits(in_place, before):
    results = []
    for fused in (True, False):
        made = model(fused=fused)
        z = Doubled.apply(before(made(TOKENS)), in_place)
        value = F.cross_entropy(z.reshape(-1, C), TARGETS[:, : z.shape[1]].reshape(-1)) + (z * z).mean()
        value.backward()
        results.append((value.detach(), *(each.grad for each in made.parameters())))
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore:.*reads the logits")
@pytest.mark.parametrize("ask", ["retain_grad", "register_hook"])
def test_the_gradient_of_logits_whose_slice_has_the_loss(ask):
    results = []
    for fused in (True, False):
        z = model(fused=fused)(TOKENS)
        part = z[:, 1:]  # before the gradient of the whole is asked for
        kept = []
        getattr(z, ask)(*[kept.append] if ask == "register_hook" else [])
        F.cross_entropy(part.reshape(-1, C), TARGETS[:, 1:].reshape(-1)).backward()
        results.append(z.grad if ask == "retain_grad" else kept[0])
    torch.testing.assert_close(*results)


def test_a_plain_layer_that_replaces_the_head_is_fused():
    made = model()
    made[1] = nn.Linear(H, C + 2)
    assert type(made[1]) is FusedLinear
    assert isinstance(made(TOKENS), LazyLogits)
    made = snt.unfuse(made)
    made[1] = nn.Linear(H, C)
    assert type(made[1]) is nn.Linear
    made[1] = nn.Identity()
    assert type(made[1]) is nn.Identity


def test_the_head_itself_is_a_name_of_it():
    plain = model(fused=False)
    made = snt.fuse(plain, head=plain[1])
    assert made is plain
    assert type(made[1]) is FusedLinear
    with pytest.raises(ValueError, match="head is a Linear which the model does not have; allowed: its own layer"):
        snt.fuse(plain, head=nn.Linear(H, C))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripts_and_traces_of_a_fused_model_are_ordinary():
    made = model()
    want = snt.unfuse(copy.deepcopy(made))(TOKENS)
    scripted = torch.jit.script(made)
    assert torch.equal(scripted(TOKENS), want)
    assert scripted[1].weight is made[1].weight or scripted[1].weight.data_ptr() == made[1].weight.data_ptr()
    assert torch.equal(torch.jit.trace(made, (TOKENS,))(TOKENS), want)
    assert type(made[1]) is FusedLinear


@pytest.mark.filterwarnings("ignore:.*reads the logits")
@pytest.mark.parametrize("written", ["whole", "view"])
def test_an_autograd_function_that_writes_to_shared_memory_is_an_error_for_the_others(written):
    z = model()(TOKENS)
    view = z.view(-1, C)
    Doubled.apply(z if written == "whole" else view, True)
    other = view if written == "whole" else z
    with pytest.raises(RuntimeError, match="an autograd function wrote in place to logits of a fused head"):
        F.cross_entropy(other.reshape(-1, C), TARGETS.reshape(-1))


def test_an_argument_that_changes_later_has_its_values_of_the_call():
    with torch.no_grad():
        z = model()(TOKENS)
        constant, rows = torch.zeros(C), torch.arange(B) > 0
        shifted, picked = z + constant, z[rows]
        constant.fill_(1.0)
        rows.logical_not_()
        assert torch.equal(shifted.clone(), z.clone())
        assert torch.equal(picked.clone(), z.clone()[1:])


@pytest.mark.parametrize(
    "write",
    [
        lambda m: m.bias.data[3].add_(1),
        lambda m: m.weight.data[1024:].add_(1),
        lambda m: m.weight.data[:, 1:].add_(1),
        lambda m: m.weight.data[:, -1].add_(1),
    ],
)
def test_the_sample_is_of_all_parts_of_a_tensor(write):
    head = snt.fuse(nn.Linear(8, 2000), "")
    z = head(torch.ones(2, 8))
    write(head)
    with pytest.raises(RuntimeError, match="was written to, through"):
        z.detach().numpy()


def test_a_constant_of_a_half_type_is_not_rounded_into_the_bias():
    torch.manual_seed(0)
    made, x, y = nn.Linear(64, 50).bfloat16(), torch.randn(32, 64).bfloat16(), torch.arange(32)
    constant = (10 * torch.randn(50)).bfloat16()
    exact = F.cross_entropy(x.double() @ made.weight.double().T + made.bias.double() + constant.double(), y)
    got = F.cross_entropy((snt.fuse(made, "")(x) + constant).float(), y)
    assert got.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("cut", [lambda z: z.split(2, dim=5), lambda z: z.unbind(5), lambda z: z.chunk(2, 5)])
def test_a_dimension_that_is_not_there_has_torchs_error(cut):
    with pytest.raises(IndexError, match="Dimension out of range"), pytest.warns(UserWarning, match="reads the logits"):
        cut(model()(TOKENS))
