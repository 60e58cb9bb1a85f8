"""Hooks that are put on a fused head, or on the model around it: values, gradients and calls of an ordinary head."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.hooks import RemovableHandle

import softnll.torch as snt
from softnll.torch._lazy.tensor import LazyLogits

F = nn.functional
MODULES = nn.modules.module


def kept(value):
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def added(layer):
    """Have a hook that runs before the forward add one that runs after it."""

    def add(module, inputs):  # noqa: ARG001 - torch's arguments
        if not module._forward_hooks:
            module.register_forward_hook(lambda *given: given[2] * 2)

    return layer.register_forward_pre_hook(add)


READS_INPUT = {
    "forward_pre": lambda layer, seen: layer.register_forward_pre_hook(lambda *given: seen.append(kept(given[1][0]))),
    "forward_pre changes": lambda layer, _: layer.register_forward_pre_hook(lambda *given: (given[1][0] * 2,)),
    "forward_pre, keywords": lambda layer, _: layer.register_forward_pre_hook(
        lambda *given: ((given[1][0] * 2,), given[2]), with_kwargs=True
    ),
}
READS_OUTPUT = {
    "forward": lambda layer, seen: layer.register_forward_hook(lambda *given: seen.append(kept(given[2]))),
    "forward reads a shape": lambda layer, seen: layer.register_forward_hook(
        lambda *given: seen.append(given[2].shape)
    ),
    "forward changes": lambda layer, _: layer.register_forward_hook(lambda *given: given[2] * 2),
    "forward writes": lambda layer, _: layer.register_forward_hook(lambda *given: given[2].mul_(2)),
    "forward, keywords": lambda layer, _: layer.register_forward_hook(
        lambda *given: given[3] * 2, with_kwargs=True, always_call=True
    ),
    "full_backward": lambda layer, seen: layer.register_full_backward_hook(
        lambda *given: seen.extend([kept(given[1][0]), kept(given[2][0])])
    ),
    "full_backward changes": lambda layer, _: layer.register_full_backward_hook(
        lambda *given: tuple(None if each is None else each * 3 for each in given[1])
    ),
    "full_backward_pre": lambda layer, seen: layer.register_full_backward_pre_hook(
        lambda *given: seen.append(kept(given[1][0]))
    ),
    "full_backward_pre changes": lambda layer, _: layer.register_full_backward_pre_hook(
        lambda *given: (given[1][0] * 3,)
    ),
    "backward": lambda layer, seen: layer.register_backward_hook(lambda *given: seen.append(kept(given[2][0]))),
    "added by another": lambda layer, _: added(layer),
}
GLOBAL = {
    "forward_pre": lambda seen: MODULES.register_module_forward_pre_hook(lambda *given: seen.append(kept(given[1][0]))),
    "forward": lambda seen: MODULES.register_module_forward_hook(lambda *given: seen.append(kept(given[2]))),
    "full_backward": lambda seen: MODULES.register_module_full_backward_hook(
        lambda *given: seen.append(kept(given[2][0]))
    ),
    "full_backward_pre": lambda seen: MODULES.register_module_full_backward_pre_hook(
        lambda *given: seen.append(kept(given[1][0]))
    ),
    "backward": lambda seen: MODULES.register_module_backward_hook(lambda *given: seen.append(kept(given[2][0]))),
}
ON_WEIGHT = {
    "weight's gradient": lambda layer, _: layer.weight.register_hook(lambda gradient: gradient * 2),
    "accumulated": lambda layer, seen: layer.weight.register_post_accumulate_grad_hook(
        lambda weight: seen.append(kept(weight.grad))
    ),
}
REPLACES_WEIGHT = {
    "weight_norm": lambda layer, _: parametrizations.weight_norm(layer),
    "old weight_norm": lambda layer, _: nn.utils.weight_norm(layer),
    "spectral_norm": lambda layer, _: nn.utils.spectral_norm(layer),
    "prune": lambda layer, _: prune.l1_unstructured(layer, "weight", 0.3),
}


def steps(put, at, fused):
    """Return losses, gradients, what hooks have seen, and warnings of two steps, and whether logits were lazy."""
    torch.manual_seed(0)
    model, seen, lazy = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 7)), [], []
    if fused:
        snt.fuse(model, "1")
    x, y = torch.linspace(-1, 1, 30).reshape(5, 6).requires_grad_(), torch.tensor([0, 1, 2, 3, 6])
    numbers = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        hook = put(model if at == "model" else model[1], seen)
        try:
            for _ in range(2):
                logits = model(x)
                lazy.append(isinstance(logits, LazyLogits))
                loss = F.cross_entropy(logits, y)
                loss.backward()
                numbers.append(loss.detach())
        finally:
            if isinstance(hook, RemovableHandle):  # global hooks would stay
                hook.remove()
    numbers += [x.grad, *(each.grad for each in model.parameters()), *seen]
    return numbers, [str(each.message) for each in found if "fuse" in str(each.message)], lazy


def agree(put, at="head"):
    """Check that a fused head has the numbers and hooks of an ordinary one; return its warnings, and whether lazy."""
    (expected, _, _), (found, told, lazy) = steps(put, at, False), steps(put, at, True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    return told, lazy


@pytest.mark.parametrize("name", [*READS_INPUT, *ON_WEIGHT])
def test_hooks_before_the_head_and_on_its_weight(name):
    assert agree((READS_INPUT | ON_WEIGHT)[name]) == ([], [True, True])


@pytest.mark.parametrize("name", [*READS_OUTPUT, *REPLACES_WEIGHT])
def test_hooks_that_need_ordinary_logits(name):
    told, lazy = agree((READS_OUTPUT | REPLACES_WEIGHT)[name])
    assert lazy == [False, False]
    assert len(told) == 1
    assert "so the head computes ordinary logits" in told[0]


@pytest.mark.parametrize("name", [*READS_INPUT, *READS_OUTPUT])
def test_hooks_on_the_model(name):
    told, _ = agree((READS_INPUT | READS_OUTPUT)[name], "model")
    assert len(told) <= 1


@pytest.fixture
def clean():
    """Have torch forget which kind of global hooks there was."""
    yield
    MODULES._global_is_full_backward_hook = None


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", GLOBAL)
def test_global_hooks(name):
    told, lazy = agree(lambda _, seen: GLOBAL[name](seen))
    assert lazy == [name == "forward_pre"] * 2
    assert len(told) == (name != "forward_pre")


def test_a_hook_that_is_removed():
    """A head is fused again when its hook has gone."""
    model = snt.fuse(nn.Sequential(nn.Linear(6, 7)), "0")
    handle = model[0].register_forward_hook(lambda *given: given[2] * 2)
    with pytest.warns(UserWarning, match="hooks read the head's output"):
        assert not isinstance(model(torch.ones(2, 6)), LazyLogits)
    handle.remove()
    assert isinstance(model(torch.ones(2, 6)), LazyLogits)


@pytest.mark.parametrize("how", ["grad_fn", "several"])
def test_hooks_on_the_node_of_the_logits(how):
    """A hook on the autograd node of the logits is called with their gradient, as without fuse."""

    def put(model, seen):
        def watch(module, inputs, logits):  # noqa: ARG001 - torch's arguments
            if how == "grad_fn":
                logits.grad_fn.register_prehook(lambda gradients: seen.append(kept(gradients[0])))
            else:
                torch.autograd.graph.register_multi_grad_hook((logits,), lambda given: seen.append(kept(given[0])))

        model.register_forward_hook(watch)

    told, _ = agree(put, "model")
    assert len(told) == 1


def test_the_node_without_a_hook():
    """A node is there for logits in a graph only, and after a fused loss."""
    model = snt.fuse(nn.Sequential(nn.Linear(6, 7)), "0")
    with torch.no_grad():
        assert model(torch.ones(2, 6)).grad_fn is None
    logits = model(torch.ones(2, 6))
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.grad_fn is not None
    assert logits._ordinary is None
