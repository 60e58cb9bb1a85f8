"""What the tests of softnll.torch share: every function with every option, as functions of float64 tensors."""

from __future__ import annotations

import warnings

import torch

import softnll.torch as snt

with warnings.catch_warnings():  # torch's own, on the first use of forward mode
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp

ROWS, CLASSES = 3, 4


def float64(*shape, seed=0, positive=False):
    """Return random numbers."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, dtype=torch.float64, generator=generator)
    return values.abs() + 0.1 if positive else values


HARD = torch.tensor([2, 0, 3])
WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.25], dtype=torch.float64)
SAMPLES = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
EACH = {
    "plain": {},
    "weight": {"weight": WEIGHT},
    "sample_weight": {"sample_weight": SAMPLES},
    "label_smoothing": {"label_smoothing": 0.1},
    "z_loss": {"z_loss": 0.05},
    "softcap": {"softcap": 2.0},
    "temperature": {"temperature": 1.5},
    "temperatures": {"temperature": torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)},
}
OPTIONS = EACH | {"all": {name: value for each in EACH.values() for name, value in each.items()}}
REDUCTIONS = ("mean", "sum", "none")


def losses():
    """Yield names, functions and inputs of every loss, once with each option and once with all."""
    x, q = float64(ROWS, CLASSES), float64(ROWS, CLASSES, seed=1, positive=True)  # of any mass
    for name, options in OPTIONS.items():
        for reduction in REDUCTIONS if name in {"plain", "weight", "sample_weight", "all"} else ("mean",):
            given = options | {"reduction": reduction}
            yield f"hard-{name}-{reduction}", lambda x, o=given: snt.cross_entropy(x, HARD, **o), (x,)
            yield f"soft-{name}-{reduction}", lambda x, q, o=given: snt.cross_entropy(x, q, **o), (x, q)
    for reduction in REDUCTIONS:
        given = {"reduction": reduction, "ignore_index": 2}
        yield f"ignored-{reduction}", lambda x, o=given: snt.cross_entropy(x, HARD, **o), (x,)
        weighted = given | {"weight": WEIGHT, "sample_weight": SAMPLES}
        yield f"nll-{reduction}", lambda x, o=weighted: snt.nll_loss(x, HARD, **o), (x,)
    places = HARD.reshape(1, 3).expand(2, 3)
    yield "places", lambda x: snt.cross_entropy(x, places), (float64(2, CLASSES, 3),)
    yield "unbatched", lambda x: snt.cross_entropy(x, HARD[0]), (float64(CLASSES),)
    yield "unbatched-soft", snt.cross_entropy, (float64(CLASSES), float64(CLASSES, seed=1, positive=True))


def functions():
    """Yield names, functions and inputs of everything."""
    x = float64(ROWS, CLASSES)
    for dim in (0, 1):
        yield f"softmax-{dim}", lambda x, d=dim: snt.softmax(x, d), (x,)
        yield f"log_softmax-{dim}", lambda x, d=dim: snt.log_softmax(x, d), (x,)
        yield f"logsumexp-{dim}", lambda x, d=dim: snt.logsumexp(x, d), (x,)
    yield "logsumexp-all", lambda x: snt.logsumexp(x, (0, 1)), (x,)
    yield from losses()


FUNCTIONS = {name: (function, inputs) for name, function, inputs in functions()}
FEW = (
    "softmax-1",
    "log_softmax-0",
    "logsumexp-1",
    "nll-mean",
    "nll-none",
    "hard-plain-mean",
    "hard-all-none",
    "soft-plain-none",
    "soft-all-mean",
    "ignored-mean",
    "places",
    "unbatched",
)


def leaves(inputs):
    return tuple(each.clone().requires_grad_() for each in inputs)


def compiled(function, backend="aot_eager", **options):
    return torch.compile(function, backend=backend, fullgraph=True, **options)


def check_one_graph(function, inputs):
    """Compiled in one graph, a function has the same bits, and gradients of the same layout."""
    results = []
    for run in (function, compiled(function)):
        given = leaves(inputs)
        value = run(*given)
        upstream = float64(*value.shape, seed=2)
        results.append((value.detach(), *torch.autograd.grad(value, given, upstream)))
    (value, *grads), (expected, *expected_grads) = results
    assert torch.equal(value, expected)
    for got, wanted in zip(grads, expected_grads, strict=True):
        assert got.stride() == wanted.stride()
        torch.testing.assert_close(got, wanted, rtol=1e-14, atol=1e-15)
