"""Fused models under torch.compile: the layers below the head are compiled, the loss is that of the features."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import softnll.torch as snt
from softnll.torch._lazy import compiled as whole_graphs
from softnll.torch._lazy.tensor import LazyLogits

F = nn.functional
C = 50
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own, which it hides


class LanguageModel(nn.Module):
    """Features, logits and their loss, as in transformers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer, self.lm_head = nn.Embedding(C, 8), nn.Linear(8, 8), nn.Linear(8, C, bias=False)
        self.autocast = False

    def body(self, ids):
        return torch.relu(self.layer(self.embedding(ids)))

    def forward(self, ids, labels=None):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.lm_head(self.body(ids))
        if labels is None:
            return logits
        shifted = logits.float()[..., :-1, :].contiguous().view(-1, C)
        return F.cross_entropy(shifted, labels[..., 1:].reshape(-1)), logits


class Graphs:
    """A backend that runs graphs as they are, and notes the functions in them."""

    def __init__(self):
        self.targets = []

    def __call__(self, graph, _):
        self.targets.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward


@pytest.fixture(autouse=True)
def again():
    """Have torch.compile forget, and each warning be new."""
    torch._dynamo.reset()
    whole_graphs._warned.clear()
    yield
    torch._dynamo.reset()


def batches(n):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, C, (2, 5 + i // 2 % 3), generator=generator) for i in range(n)]


def curve(model, step, n=2):
    """Return the losses of n steps, and the parameters after them."""
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for ids in batches(n):
        optimiser.zero_grad()
        loss = step(ids)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return [torch.stack(losses).float(), *(each.detach() for each in model.parameters())]


def computed(logits):
    return not isinstance(logits, LazyLogits) or logits._ordinary is not None


@pytest.mark.parametrize(("autocast", "n"), [(False, 2), (True, 6), (False, 6)])
def test_steps_of_a_compiled_model(autocast, n):
    """Losses and parameters are those of the model as it is; no logits are computed; the layers are compiled."""
    plain, model, graphs, seen = LanguageModel(), snt.fuse(LanguageModel()), Graphs(), []
    plain.autocast = model.autocast = autocast
    run = torch.compile(model, backend=graphs)

    def step(ids):
        loss, logits = run(ids, ids)
        seen.append(computed(logits))
        return loss

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*fuse.*")
        found = curve(model, step, n)
    bound = 2e-2 if autocast else 1e-5
    torch.testing.assert_close(found, curve(plain, lambda ids: plain(ids, ids)[0], n), rtol=bound, atol=bound / 10)
    assert seen == [False] * n
    assert any("relu" in target for targets in graphs.targets for target in targets)


@pytest.mark.parametrize("what", ["model", "body"])
def test_a_loss_outside(what):
    """The logits that a compiled model returns are lazy, and so are those of a head above compiled layers."""
    plain, model = LanguageModel(), snt.fuse(LanguageModel())
    if what == "model":
        run = torch.compile(model, backend="aot_eager")
    else:
        model.body, run = torch.compile(model.body, backend="aot_eager"), model

    def step(ids):
        logits = run(ids)
        loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten())
        assert not computed(logits)
        return loss

    found = curve(model, step)
    expected = curve(plain, lambda ids: F.cross_entropy(plain(ids).flatten(0, 1), ids.flatten()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_whole_graph():
    """With fullgraph=True the logits are ordinary, and one warning says so."""
    plain, model = LanguageModel(), snt.fuse(LanguageModel())
    run, ids = torch.compile(model, backend="aot_eager", fullgraph=True), batches(1)[0]
    with pytest.warns(UserWarning, match=f"with fullgraph=True the head computes ordinary logits: N . {C} of them"):
        loss, logits = run(ids, ids)
    torch.testing.assert_close(loss, plain(ids, ids)[0])
    assert type(logits) is torch.Tensor
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*fuse.*")
        run(ids, ids)


@pytest.mark.parametrize("how", ["no_grad", "export", "strict export"])
def test_graphs_without_gradients_are_whole(how):
    """In evaluation and in an exported program the head is a part of the graph, and nothing is warned of."""
    model, ids = snt.fuse(LanguageModel()), batches(1)[0]
    expected = LanguageModel()(ids)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*fuse.*")
        if how == "no_grad":
            with torch.no_grad():
                found = torch.compile(model, backend="aot_eager", fullgraph=True)(ids)
        else:
            found = torch.export.export(model, (ids,), strict=how == "strict export").module()(ids)
    assert type(found) is torch.Tensor
    torch.testing.assert_close(found, expected)


def test_hooks_on_a_compiled_head():
    """A hook that reads the output has ordinary logits, with one warning."""
    model, ids = snt.fuse(LanguageModel()), batches(1)[0]
    model.lm_head.register_forward_hook(lambda *given: given[2] * 2)
    with pytest.warns(UserWarning, match="hooks read the head's output") as told:
        logits = torch.compile(model, backend="aot_eager")(ids)
    assert len(told) == 1
    torch.testing.assert_close(logits, 2 * LanguageModel()(ids))
