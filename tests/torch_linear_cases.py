"""What the tests of softnll.torch's linear losses share: a small layer, and the loss with every option."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

import softnll.torch as snt
from torch_cases import HARD, OPTIONS, REDUCTIONS, ROWS, float64

WIDTH, CLASSES = 2, 4
INDICES = torch.tensor([[0, 3], [2, 1], [3, 3]])  # of sparse targets; a class may come twice


class Options:
    """As torch.nn.LinearCrossEntropyOptions, which torch has from 2.13."""

    def __init__(self, batch_chunk_size=None, chunking_method="auto", acc_dtype=None):
        self.batch_chunk_size, self.chunking_method, self.acc_dtype = batch_chunk_size, chunking_method, acc_dtype


class Ran(TorchDispatchMode):
    """Record what torch's operations make, and how many matrix products there are."""

    def __init__(self):
        super().__init__()
        self.shapes, self.products = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.products += function._schema.name in {"aten::mm", "aten::addmm_", "aten::addmm"}
        viewed = {"aten::detach", "aten::lift_fresh", "aten::t", "aten::alias", "aten::view"}
        if isinstance(result, torch.Tensor) and function._schema.name not in viewed:
            self.shapes.append(tuple(result.shape))
        return result


ONE_BY_ONE = Options(1)


def layer(dtype=torch.float64, requires_grad=True):
    """Return features, weight and bias."""
    shapes = ((ROWS, WIDTH), (CLASSES, WIDTH), (CLASSES,))
    return tuple(
        float64(*shape, seed=i).to(dtype).requires_grad_(requires_grad) for i, shape in enumerate(shapes, start=5)
    )


def soft():
    """Return soft targets of any mass."""
    return float64(ROWS, CLASSES, seed=1, positive=True)


def cases():
    """Yield names, functions and inputs of the loss, once with each option and once with all."""
    given = layer(requires_grad=False)
    for name, options in OPTIONS.items():
        for reduction in REDUCTIONS if name in {"plain", "all"} else ("mean",):
            more = options | {"reduction": reduction, "options": Options(2)}

            def hard(f, W, b, o=more):
                return snt.linear_cross_entropy(f, W, HARD, linear_bias=b, **o)

            def with_soft(f, W, b, q, o=more):
                return snt.linear_cross_entropy(f, W, q, linear_bias=b, **o)

            yield f"hard-{name}-{reduction}", hard, given
            if name in {"plain", "z_loss", "all"}:
                yield f"soft-{name}-{reduction}", with_soft, (*given, soft())
    for reduction in REDUCTIONS:
        yield (
            f"ignored-{reduction}",
            lambda f, W, b, r=reduction: snt.linear_cross_entropy(
                f, W, HARD, linear_bias=b, ignore_index=2, reduction=r
            ),
            given,
        )
    for reduction in ("mean", "none"):
        every = OPTIONS["all"] | {"reduction": reduction, "options": Options(2)}

        def sparse(f, W, b, q, o=every):
            return snt.linear_cross_entropy(f, W, snt.SparseTargets(INDICES, q), linear_bias=b, **o)

        yield f"sparse-{reduction}", sparse, (*given, float64(ROWS, 2, seed=1, positive=True))
    yield "without bias", lambda f, W: snt.linear_cross_entropy(f, W, HARD), given[:2]
    yield "one row", lambda f, W: snt.linear_cross_entropy(f, W, HARD[0]), (given[0][0], given[1])
    yield (
        "leading",
        lambda f, W: snt.linear_cross_entropy(f, W, HARD.reshape(3, 1, 1).expand(3, 2, 1), reduction="none"),
        (float64(3, 2, 1, WIDTH), given[1]),
    )


FUNCTIONS = {name: (function, inputs) for name, function, inputs in cases()}
FEW = (
    "hard-plain-mean",
    "hard-all-none",
    "soft-plain-none",
    "soft-all-mean",
    "ignored-mean",
    "sparse-mean",
    "sparse-none",
    "without bias",
    "leading",
)


def through_logits(f, W, target, *, linear_bias=None, reduction="mean", sample_weight=None, **options):
    """Return the loss as torch has it, with float64 logits."""
    f, W, b = (None if each is None else each.double() for each in (f, W, linear_bias))
    z = F.linear(f, W, b)
    softcap, temperature = options.pop("softcap", None), options.pop("temperature", 1.0)
    z_loss = options.pop("z_loss", 0.0)
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    z = z / (temperature.unsqueeze(-1) if isinstance(temperature, torch.Tensor) else temperature)
    rows = F.cross_entropy(z, target, reduction="none", **options)
    weight, smoothing = options.get("weight"), options.get("label_smoothing", 0.0)
    ignored = target == options.get("ignore_index", -100) if not target.is_floating_point() else None
    q = F.one_hot(target.clamp(0), z.shape[1]).double() if ignored is not None else target.double()
    t = ((1 - smoothing) * q + smoothing / z.shape[1]) * (1.0 if weight is None else weight)
    s = torch.ones(len(z), dtype=torch.float64) if sample_weight is None else sample_weight.double()
    if ignored is not None:
        s = torch.where(ignored, 0.0, s)
    rows = s * (rows + z_loss * t.sum(1) * torch.logsumexp(z, 1).square())
    if reduction == "none":
        return rows
    D = (s * (weight[target.clamp(0)] if weight is not None and ignored is not None else 1.0)).sum()
    return rows.sum() if reduction == "sum" else rows.sum() / D
