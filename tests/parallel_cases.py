"""Calls of softnll.torch.parallel, as a table: the ranks of a test run their slices of it, the test the whole."""

from __future__ import annotations

import torch

import softnll.torch as snt

N, H = 6, 5
SIZES = {  # the slices' numbers of classes, by the number of ranks
    2: {"even": (4, 4), "uneven": (5, 3), "empty": (0, 8), "last_empty": (8, 0), "one": (7, 1)},
    3: {"even": (3, 3, 2), "uneven": (1, 5, 2), "empty": (4, 0, 4)},
}
C = 8
LOSSES = ("cross_entropy", "linear_cross_entropy")


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


HARD = torch.tensor([0, 7, 3, -100, 4, 5])
SOFT = random(N, C, seed=7).softmax(1)
WEIGHT = random(C, seed=2).abs() + 0.1
SAMPLES = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.25, 3.0], dtype=torch.float64)
TAUS = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7, 3.0], dtype=torch.float64)
SPARSE = snt.SparseTargets(
    torch.tensor([[0, 7], [1, 1], [2, 5], [3, 4], [6, 0], [7, 2]]), random(N, 2, seed=8).softmax(1)
)
OPTIONS = {
    "plain": {},
    "weight": {"weight": WEIGHT},
    "signed_weight": {"weight": WEIGHT * torch.tensor([-1.0, 1, -1, 1, -1, -1, 1, -1])},
    "zero_weight": {"weight": WEIGHT * torch.tensor([0.0, 1, 1, 0, 1, 1, 1, 1])},
    "sample_weight": {"sample_weight": SAMPLES},
    "label_smoothing": {"label_smoothing": 0.1},
    "z_loss": {"z_loss": 0.05},
    "softcap": {"softcap": 2.0},
    "temperature": {"temperature": 1.5},
    "temperatures": {"temperature": TAUS},
    "check": {"check": True},
}
OPTIONS["all"] = {
    name: value
    for each in list(OPTIONS.values())[:1]
    + [OPTIONS[n] for n in ("weight", "sample_weight", "label_smoothing", "z_loss", "softcap", "temperatures")]
    for name, value in each.items()
}


def _case(name, sizes="uneven", x=None, target=HARD, dtype=torch.float64, spread=1.0, **options):
    x = (random(N, C, seed=1) * spread).to(dtype) if x is None else x
    return {"function": name, "sizes": sizes, "x": x, "target": target, "options": options, "dtype": dtype}


def cases():
    """Yield names and cases."""
    for sizes in ("even", "uneven", "empty", "last_empty", "one"):
        for name in LOSSES:
            yield f"{name}-{sizes}", _case(name, sizes)
            yield f"{name}-{sizes}-soft", _case(name, sizes, target=SOFT, label_smoothing=0.1)
    for name in LOSSES:
        for option, given in OPTIONS.items():
            for reduction in ("mean", "sum", "none") if option in {"plain", "weight", "all"} else ("mean",):
                yield f"{name}-{option}-{reduction}", _case(name, reduction=reduction, **given)
                if option != "check":
                    soft = _case(name, target=SOFT, reduction=reduction, **given)
                    yield f"{name}-soft-{option}-{reduction}", soft
        yield f"{name}-global_soft", _case(name, target=SOFT, label_smoothing=0.1) | {"global": True}
        yield f"{name}-signed_soft", _case(name, target=random(N, C, seed=3), reduction="sum")
        yield f"{name}-ignored", _case(name, target=torch.full((N,), -100))
        yield f"{name}-ignore_index", _case(name, target=HARD.abs() % 8, ignore_index=5)
        yield (
            f"{name}-out_of_range",
            _case(name, target=torch.tensor([0, 8, -1, 3, 2, 1]), check=False, reduction="none"),
        )
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            yield f"{name}-{dtype}", _case(name, dtype=dtype)
    yield "sparse", _case("linear_cross_entropy", target=SPARSE, label_smoothing=0.1)
    gap = torch.zeros(N, C, dtype=torch.float64)
    gap[torch.arange(N), torch.tensor([0, 7, 3, 2, 4, 5])] = torch.tensor(
        [17.0, 30, 60, 300, 600, 100], dtype=torch.float64
    )
    confident = torch.tensor([0, 7, 3, 2, 4, 5])
    yield "confident", _case("cross_entropy", x=gap, target=confident, reduction="none")
    yield "confident32", _case("cross_entropy", x=gap.float().clamp(max=80), target=confident, dtype=torch.float32)
    yield "offset", _case("cross_entropy", x=(random(N, C) + 1e6).float(), dtype=torch.float32)
    hostile = random(N, C)
    hostile[0, 2], hostile[1], hostile[2, 6], hostile[3] = -torch.inf, -torch.inf, torch.inf, torch.nan
    hostile[4, 0], hostile[4, 7], hostile[5, 4] = torch.inf, torch.inf, torch.nan
    yield "hostile", _case("cross_entropy", x=hostile, reduction="none")
    slice_inf = random(N, C)
    slice_inf[:, :5] = -torch.inf
    yield "slice_of_inf", _case("cross_entropy", x=slice_inf, reduction="none")
    yield "places", _case("cross_entropy", x=random(2, C, 3), target=torch.tensor([[0, 7, 2], [5, 1, 3]]))
    yield "unbatched", _case("cross_entropy", x=random(C), target=torch.tensor(6))
    yield "no_rows", _case("cross_entropy", x=random(0, C), target=HARD[:0], reduction="sum")
    yield "tokens", _case("token_stats", softcap=3.0, temperature=0.7)
    yield "tokens_taus", _case("token_stats", "empty", temperature=TAUS)
    for name in ("softmax", "log_softmax", "logsumexp"):
        yield name, _case(name)
        yield f"{name}-empty", _case(name, "empty")


def picked_cases():
    """Yield names and cases of nll_loss."""
    picked = random(N, C, seed=1).log_softmax(1)
    picked[0, 1], picked[1, 7] = -torch.inf, -torch.inf
    for option in ("plain", "weight", "signed_weight", "zero_weight", "sample_weight"):
        for reduction in ("mean", "sum", "none"):
            given = _case("nll_loss", x=picked, reduction=reduction, **OPTIONS[option])
            yield f"nll_loss-{option}-{reduction}", given
    for sizes in ("even", "empty", "last_empty", "one"):
        yield f"nll_loss-{sizes}", _case("nll_loss", sizes, x=picked, weight=WEIGHT)
    yield "nll_loss-ignored", _case("nll_loss", x=picked, target=torch.full((N,), -100))
    yield "nll_loss-places", _case("nll_loss", x=random(2, C, 3), target=torch.tensor([[0, 7, 2], [5, 1, 3]]))
    yield "nll_loss-unbatched", _case("nll_loss", x=random(C), target=torch.tensor(6))
    yield "nll_loss-float16", _case("nll_loss", x=picked.half(), dtype=torch.float16)


CASES = dict(cases()) | dict(picked_cases())


def sizes_of(case, world):
    """Return the slices' sizes: a layout that only two ranks have is another one for more."""
    table = SIZES[world]
    return table.get(case["sizes"], table["uneven"])


def outcome(case, sizes=None, rank=0, group_functions=None, group=None):
    """Return the results and gradients of a case: of a rank's slice, or of the whole (sizes None)."""
    functions = snt if group_functions is None else group_functions
    name, x, target, options = case["function"], case["x"], case["target"], dict(case["options"])
    dim = 1 if x.dim() > 1 else 0
    start, size = (0, C) if sizes is None else (sum(sizes[:rank]), sizes[rank])
    if sizes is not None:
        options["group"] = group
        if "weight" in options and start % 2:  # on some ranks the weights of all classes
            options["weight"] = options["weight"].narrow(0, start, size)
    soft = torch.is_tensor(target) and target.is_floating_point()
    target = target.clone() if torch.is_tensor(target) else target
    if soft:
        target = target if case.get("global") else target.narrow(dim, start, size).contiguous()
        target = target.requires_grad_()
    linear = name in {"linear_cross_entropy", "token_stats"}
    if linear:
        features, head = random(N, H, seed=4).to(case["dtype"]), random(C, H, seed=5).to(case["dtype"])
        bias = random(C, seed=6).to(case["dtype"])
        leaves = [features, head.narrow(0, start, size).clone(), bias.narrow(0, start, size).clone()]
        for each in leaves:
            each.requires_grad_()
        found = getattr(functions, name)(leaves[0], leaves[1], target, linear_bias=leaves[2], **options)
    elif name in {*LOSSES, "nll_loss"}:
        leaves = [x.narrow(dim, start, size).clone().requires_grad_()]
        found = getattr(functions, name)(leaves[0], target, **options)
    else:
        leaves = [x.narrow(dim, start, size).clone().requires_grad_()]
        found = getattr(functions, name)(leaves[0], 1, **options)
    leaves += [target] if soft else []
    results = list(found) if isinstance(found, tuple) else [found]
    upstream = [(random(*r.shape, seed=9) if r.dim() else torch.tensor(1.5)).to(r.dtype) for r in results]
    if name in {"softmax", "log_softmax"}:
        upstream = [random(*x.shape, seed=9).narrow(dim, start, size).to(results[0].dtype)]
    at = [i for i, r in enumerate(results) if r.is_floating_point()]
    grads = torch.autograd.grad([results[i] for i in at], leaves, [upstream[i] for i in at])
    return [r.detach() for r in results], list(grads)


def joined(case, ranks):
    """Return the results and gradients of the whole from those of all ranks."""
    name, dim = case["function"], 1 if case["x"].dim() > 1 else 0
    results, grads = ranks[0]
    if name in {"softmax", "log_softmax"}:
        results = [torch.cat([each[0][0] for each in ranks], dim)]
    joined_grads = []
    linear = name in {"linear_cross_entropy", "token_stats"}
    for i in range(len(grads)):
        parts = [each[1][i] for each in ranks]
        if linear and i == 0:
            joined_grads.append(parts[0])
        elif linear and i < 3:
            joined_grads.append(torch.cat(parts, 0))
        elif case.get("global") and i == len(grads) - 1:
            joined_grads.append(sum(parts))
        else:
            joined_grads.append(torch.cat(parts, dim))
    return results, joined_grads


def same_on_all(case, ranks):
    """Yield what must have the same bits on every rank, one tuple a rank."""
    for results, grads in ranks:
        same = [] if case["function"] in {"softmax", "log_softmax"} else list(results)
        yield (*same, *(grads[:1] if case["function"] in {"linear_cross_entropy", "token_stats"} else ()))
