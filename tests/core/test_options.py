"""The options against the definition: pairs of values on every backend, and (slow) every combination on three."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from allpairspy import AllPairs

import cases
import oracle
import softnll as sn
from backends import LACKS

IGNORED = np.array([cases.HARD[0], -100, cases.HARD[2]])
TARGETS = {"hard": cases.HARD, "ignored": IGNORED, "soft": cases.SOFT}
SHAPES = [
    {"label_smoothing": e, "z_loss": z, "softcap": c} for e in (0.0, 0.1) for z in (0.0, 0.02) for c in (None, 3.0)
]


@cache
def exact(index, targets, masked):
    """Return the exact loss and gradient of a combination."""
    options = cases.COMBINATIONS[index]
    y = TARGETS[targets] if not (masked and targets == "soft") else cases.MASKED_SOFT
    losses, grads, counts = [], [], []
    for n in range(3):
        s = 1.0 if options["sample_weight"] is None else options["sample_weight"][n]
        w = options["class_weight"]
        tau = options["temperature"]
        if targets == "ignored" and y[n] == -100:
            s = 0.0
        counts.append(s if targets == "soft" or w is None else s * w[y[n]] if s else 0.0)
        row = oracle.row(
            cases.LOGITS[n],
            0 if s == 0 and targets != "soft" else y[n],
            class_weight=w,
            scale=s,
            label_smoothing=options["label_smoothing"],
            z_loss=options["z_loss"],
            softcap=options["softcap"],
            temperature=tau if np.ndim(tau) == 0 else tau[n],
            where=cases.MASK[n] if masked else None,
            precision=120,
        )
        losses.append(float(row.loss))
        grads.append([float(each) for each in row.grad])
    losses, grads, D = np.array(losses), np.array(grads), sum(counts)
    if options["reduction"] == "mean":
        return (losses.sum() / D, grads / D) if D else (np.nan, np.zeros_like(grads))
    return (losses.sum() if options["reduction"] == "sum" else losses), grads


def pairs(masks):
    """Return combinations in which each pair of values of two options occurs; ``masks``: also with a mask."""
    numbers = {name: range(len(values)) for name, values in cases.OPTIONS.items()}
    table = {**numbers, "targets": list(TARGETS), "masked": [False, True] if masks else [False]}
    for values in AllPairs([list(each) for each in table.values()]):
        given = dict(zip(table, values, strict=True))
        index = int(np.ravel_multi_index([given[name] for name in numbers], [len(each) for each in numbers.values()]))
        yield index, given["targets"], given["masked"]


def test_each_pair_of_values(backend, request):
    interpreted = getattr(backend, "interpreted", False)
    has_masks = request.node.callspec.params["backend"] not in LACKS["masks"]
    for index, targets, masked in pairs(has_masks):
        check_combination(index, targets, masked, layer=not interpreted)


def test_the_pairs_are_all_there():
    found = set()
    for index, targets, masked in pairs(masks=True):
        values = [*np.unravel_index(index, [len(each) for each in cases.OPTIONS.values()]), targets, masked]
        found |= {(i, values[i], j, values[j]) for i in range(len(values)) for j in range(i)}
    sizes = [*(len(each) for each in cases.OPTIONS.values()), len(TARGETS), 2]
    assert len(found) == sum(a * b for i, a in enumerate(sizes) for b in sizes[:i])


@pytest.mark.slow
@pytest.mark.needs("every combination")
@pytest.mark.parametrize(
    "masked", [pytest.param(False, id="all"), pytest.param(True, id="where", marks=pytest.mark.needs("masks"))]
)
@pytest.mark.parametrize("targets", list(TARGETS))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(str(value) for value in shape.values()))
@pytest.mark.usefixtures("backend")
def test_every_combination(shape, targets, masked):
    for index, options in enumerate(cases.COMBINATIONS):
        if all(options[name] == value for name, value in shape.items()):
            check_combination(index, targets, masked, layer=True)


def check_combination(index, targets, masked, *, layer):
    options = dict(cases.COMBINATIONS[index])
    y = cases.MASKED_SOFT if masked and targets == "soft" else TARGETS[targets]
    if masked:
        options["where"] = cases.MASK
    loss, grad = exact(index, targets, masked)
    logits = cases.LOGITS.copy()
    assert np.allclose(sn.cross_entropy(logits, y, **options), loss, rtol=1e-14, atol=1e-15, equal_nan=True)
    got, dx = sn.cross_entropy_and_grad(logits, y, **options)
    assert np.allclose(got, loss, rtol=1e-14, atol=1e-15, equal_nan=True)
    assert np.allclose(dx, grad, rtol=1e-13, atol=1e-15)
    assert (logits == cases.LOGITS).all()
    narrow, dx = sn.cross_entropy_and_grad(logits.astype(np.float32), y, **options)
    assert np.allclose(narrow, loss, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert np.allclose(dx, grad, rtol=1e-5, atol=1e-6)
    if masked or not layer:  # devices have a layer of their own: tests/test_cuda_front.py
        return
    # The same through a linear layer that makes these logits, two rows at a time.
    features = np.linalg.solve(np.eye(4) + 0.25, (logits - 0.5).T).T
    weight, bias = np.eye(4) + 0.25, np.full(4, 0.5)
    got, grads = sn.linear_cross_entropy_and_grad(features, weight, y, bias=bias, **options)
    assert np.allclose(got, loss, rtol=1e-12, atol=1e-13, equal_nan=True)
    assert np.allclose(grads.features, grad @ weight, rtol=1e-11, atol=1e-13)
    assert np.allclose(grads.weight, grad.T @ features, rtol=1e-11, atol=1e-13)
    assert np.allclose(grads.bias, grad.sum(axis=0), rtol=1e-11, atol=1e-13)
    alone = sn.linear_cross_entropy(features, weight, y, bias=bias, **options)
    assert np.allclose(alone, loss, rtol=1e-12, atol=1e-13, equal_nan=True)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "y", [cases.HARD, IGNORED, pytest.param(cases.SOFT, marks=pytest.mark.needs("soft targets of nll_loss"))]
)
def test_nll_loss_is_the_cross_entropy_of_log_softmax(y):
    log_p = sn.log_softmax(cases.LOGITS)
    for w in cases.OPTIONS["class_weight"]:
        for s in cases.OPTIONS["sample_weight"]:
            for reduction in ("mean", "sum", "none"):
                options = {"class_weight": w, "sample_weight": s, "reduction": reduction}
                assert np.allclose(sn.nll_loss(log_p, y, **options), sn.cross_entropy(cases.LOGITS, y, **options))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
def test_classes_on_any_axis(axis, dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5, 2)).astype(dtype)
    moved = np.moveaxis(logits, axis, -1)
    y = rng.integers(moved.shape[-1], size=moved.shape[:-1])
    q = sn.softmax(rng.normal(size=moved.shape))
    for here, there in ((y, y), (np.moveaxis(q, -1, axis), q)):
        loss, grad = sn.cross_entropy_and_grad(logits, here, axis=axis, reduction="none")
        flat_loss, flat = sn.cross_entropy_and_grad(moved.copy(), there, reduction="none")
        assert loss.shape == moved.shape[:-1]
        if here is y:
            assert (loss == flat_loss).all()
            assert (np.moveaxis(grad, axis, -1) == flat).all()
        else:  # a sum over classes of planes has its own order: equal but for the rounding of the largest term
            eps = np.finfo(loss.dtype).eps
            np.testing.assert_allclose(loss, flat_loss, rtol=2 * eps)
            np.testing.assert_allclose(np.moveaxis(grad, axis, -1), flat, rtol=0, atol=eps)
    assert (np.moveaxis(sn.softmax(logits, axis=axis), axis, -1) == sn.softmax(moved)).all()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("axis", [None, (0, 2), (-1, 1), (0, 1, 2), (), 1])
def test_several_class_axes(axis):
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    e = np.exp(x)
    total = e.sum(axis=axis, keepdims=True)
    assert np.allclose(sn.softmax(x, axis=axis), e / total, rtol=1e-14)
    assert np.allclose(sn.log_softmax(x, axis=axis), np.log(e / total), rtol=1e-13, atol=1e-15)
    assert np.allclose(sn.logsumexp(x, axis=axis), np.log(total).reshape(e.sum(axis=axis).shape), rtol=1e-14)
    assert sn.logsumexp(x, axis=axis, keepdims=True).shape == total.shape
