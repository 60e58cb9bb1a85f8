"""Linear losses of several positions: a weight of more than two dimensions, as torch's function and module take it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import softnll.torch as snt
from torch_cases import float64

N, C, H = 5, 4, 3
PLACES = [(2,), (2, 3), (1,)]


def inputs(places, *, soft=False):
    """Return features, weight, bias and targets of one layer a position."""
    f, W, b = float64(N, H), float64(C, *places, H, seed=1), float64(C, *places, seed=2)
    if soft:
        return f, W, b, torch.softmax(float64(N, C, *places, seed=3), 1)
    y = torch.randint(0, C, (N, *places), generator=torch.Generator().manual_seed(4))
    y[0] = -100
    return f, W, b, y


def reference(f, W, y, *, linear_bias=None, **options):
    """Return torch's loss of the logits of all positions."""
    z = torch.einsum("nh,c...h->nc...", f, W)
    return F.cross_entropy(z if linear_bias is None else z + linear_bias, y, **options)


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_values_and_gradients_are_torchs(places, soft, reduction, weighted):
    f, W, b, y = inputs(places, soft=soft)
    options = {"reduction": reduction, "label_smoothing": 0.1 if weighted else 0.0}
    if weighted:
        options["weight"] = torch.tensor([1.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    results = []
    for function in (snt.linear_cross_entropy, reference):
        leaves = [each.clone().requires_grad_() for each in (f, W, b)]
        loss = function(*leaves[:2], y, linear_bias=leaves[2], **options)
        results.append((loss, *torch.autograd.grad(loss, leaves, float64(*loss.shape, seed=5))))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("options", [{}, {"sample_weight": float64(N, 2, positive=True)}, {"max_bytes": 80_000}])
def test_our_options_apply_to_each_position(options):
    f, W, b, y = inputs((2,))
    given = {"z_loss": 0.1, "softcap": 3.0, "temperature": 1.5, **options}
    logits = torch.einsum("nh,cdh->ncd", f, W) + b[None]
    expected = snt.cross_entropy(logits, y, **{k: v for k, v in given.items() if k != "max_bytes"})
    torch.testing.assert_close(snt.linear_cross_entropy(f, W, y, linear_bias=b, **given), expected)


def test_the_module_is_torchs():
    if not hasattr(torch.nn, "LinearCrossEntropyLoss"):
        pytest.skip("this torch has no LinearCrossEntropyLoss to compare with")
    options = {"out_features": (2, 3), "bias": True, "dtype": torch.float64}
    ours, theirs = snt.LinearCrossEntropyLoss(H, C, **options), torch.nn.LinearCrossEntropyLoss(H, C, **options)
    theirs.load_state_dict(ours.state_dict())
    assert (ours.num_classes, ours.out_features) == (theirs.num_classes, theirs.out_features)
    f, _, _, y = inputs((2, 3))
    torch.testing.assert_close(ours(f, y), theirs(f, y))


def test_mean_of_nothing():
    f, W, _, y = inputs((2,))
    W.requires_grad_()
    loss = snt.linear_cross_entropy(f, W, torch.full_like(y, -100))
    assert loss.isnan()
    assert torch.equal(torch.autograd.grad(loss, W)[0], torch.zeros_like(W))


def test_weights_at_the_end_of_their_range():
    f, W, _, y = inputs((2,))
    s = torch.full((N, 2), 1e308, dtype=torch.float64)
    torch.testing.assert_close(snt.linear_cross_entropy(f, W, y, sample_weight=s), snt.linear_cross_entropy(f, W, y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": float64(2, N, H)}, r"input has shape \(2, 5, 3\); allowed with linear_weight \(4, 2, 3\): \(N, 3\)"),
        ({"target": torch.zeros(N, dtype=torch.int64)}, r"target has shape \(5,\); allowed: \(5, 2\)"),
        ({"linear_bias": float64(C)}, r"linear_bias has shape \(4,\); allowed: \(4, 2\)"),
        ({"sample_weight": torch.ones(N)}, r"sample_weight has shape \(5,\); allowed: \(5, 2\)"),
        ({"reduction": "avg"}, "reduction is 'avg'"),
        ({"linear_bias": [1.0]}, "linear_bias is a list; allowed: a tensor"),
        ({"linear_weight": float64(C, 0, H), "linear_bias": None}, "allowed: at least one position"),
        ({"target": snt.SparseTargets(torch.zeros(N, 1), torch.ones(N, 1))}, "target is SparseTargets"),
    ],
)
def test_bad_input(change, message):
    f, W, b, y = inputs((2,))
    given = {"input": f, "linear_weight": W, "target": y, "linear_bias": b} | change
    with pytest.raises((RuntimeError, TypeError), match=message):
        snt.linear_cross_entropy(**given)
