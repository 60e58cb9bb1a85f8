"""Functions of DTensors with every placement, each beside those of the whole tensors; run on each rank of a test."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import softnll.torch as snt
from softnll.torch import parallel


def random(*shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


X = random(4, 5, 3, seed=1)
Y = torch.tensor([[0, 2], [1, -100], [2, 2], [0, 1], [1, 0]])
LAYER = random(5, 2, 4, seed=2), random(7, 4, seed=3), random(7, seed=4)
SCORES = {
    "softmax": snt.softmax,
    "log_softmax": lambda x, dim: snt.log_softmax(x, dim=dim),
    "logsumexp": snt.logsumexp,
    "keepdim": lambda x, dim: snt.logsumexp(x, dim, keepdim=True),
}
OPTIONS = {"label_smoothing": 0.1, "weight": LAYER[2].abs(), "sample_weight": Y.double() + 101}


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def scores(mesh, function, placed):
    """Return pairs: the result and the gradient, as found and as expected."""
    plain = X.clone().requires_grad_()
    expected = function(plain)
    upstream = torch.linspace(-1, 2, expected.numel()).double().reshape(expected.shape)
    expected.backward(upstream)
    mine = distribute_tensor(X, mesh, placed).requires_grad_()
    result = function(mine)
    result.backward(distribute_tensor(upstream, mesh, result.placements))
    kept = result.shape != X.shape or list(result.placements) == placed
    return [(kept, True), (whole(result.detach()), expected.detach()), (whole(mine.grad), plain.grad)]


def infinite(mesh, name, placed):
    """Return pairs: a loss that is infinite in one row, and its gradient, as found and as expected."""
    x, targets = X.clone(), torch.tensor([[0, 2, 1], [1, -100, 4], [2, 2, 0], [3, 1, 0]])
    x[0, 0, 0] = -torch.inf
    plain, mine = x.clone().requires_grad_(), distribute_tensor(x, mesh, placed).requires_grad_()
    results = [getattr(snt, name)(each, targets) for each in (mine, plain)]
    for each in results:
        each.backward()
    return [tuple(each.detach() for each in results), (whole(mine.grad), plain.grad)]


def token_stats(x, head, bias):
    return snt.token_stats(x, head, Y, linear_bias=bias, softcap=3.0)


def losses(x, head, bias):
    return [
        snt.linear_cross_entropy(x, head, Y, linear_bias=bias, reduction=each, **OPTIONS)
        for each in ("mean", "sum", "none")
    ]


def weighted(results, rows):
    """Return a number that depends on each entry of the results; ``rows`` are this rank's, of 5."""
    total = torch.zeros((), dtype=torch.float64)
    for each in results:
        if each.is_floating_point():
            upstream = torch.linspace(1, 2, 10).double().reshape(5, 2)[rows] if each.dim() else torch.tensor(1.5)
            total = total + (each * upstream).sum()
    return total


def layer(mesh, function, placed):
    """Return pairs: results and gradients of a layer, as found and as expected."""
    plain = [each.clone().requires_grad_() for each in LAYER]
    sharded = [distribute_tensor(each, mesh, where).requires_grad_() for each, where in zip(LAYER, placed, strict=True)]
    expected, results = function(*plain), function(*sharded)
    rows = slice(None)
    for i, each in enumerate(placed[0]):
        size = -(-5 // mesh.size(i))
        if each.is_shard() and placed[1] and not placed[1][i].is_shard():  # else the rows of all ranks are gathered
            rows = slice(mesh.get_local_rank(i) * size, (mesh.get_local_rank(i) + 1) * size)
    weighted(expected, slice(None)).backward()
    weighted(results, rows).backward()
    pairs = [(g.detach(), (e[rows] if e.dim() else e).detach()) for g, e in zip(results, expected, strict=True)]
    return pairs + [(whole(each.grad), other.grad) for each, other in zip(sharded, plain, strict=True)]


PARTS = {2: ((4, 1), (0, 5)), 3: ((2, 0, 3), (1, 3, 1)), 4: ((0, 2, 0, 3), (1, 1, 2, 1))}


def in_parts(rank, world):
    """Return, for features in parts along the sequence, results and this rank's gradients as found and as expected."""
    found = {}
    classes = slice(rank, 7 if rank == world - 1 else rank + 1)
    for sizes in PARTS[world]:
        rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        for dtype in (torch.float64, torch.bfloat16):
            for name, more in (("linear_cross_entropy", OPTIONS), ("token_stats", {"softcap": 3.0})):
                plain = [each.clone().to(dtype).requires_grad_() for each in LAYER]
                own = plain[0].detach()[rows].clone().requires_grad_()
                head, bias = (each.detach()[classes].clone().requires_grad_() for each in plain[1:])
                expected = getattr(snt, name)(*plain[:2], Y, linear_bias=plain[2], **more)
                got = getattr(parallel, name)(own, head, Y, linear_bias=bias, sequence_dim=0, **more)
                got, expected = (each if isinstance(each, tuple) else (each,) for each in (got, expected))
                weighted(expected, slice(None)).backward()
                weighted(got, slice(None)).backward()
                grads = [(own.grad, plain[0].grad[rows])]
                grads += [(mine.grad, theirs.grad[classes]) for mine, theirs in ((head, plain[1]), (bias, plain[2]))]
                found[f"{name} {sizes} {dtype}"] = [
                    (each.detach(), other.detach()) for each, other in zip(got, expected, strict=True)
                ] + grads
    return found


def refused(mesh):
    """Return the messages of calls that are refused."""
    n, (features, head, bias) = mesh.ndim, LAYER
    replicas = [Replicate()] * n
    partial = DTensor.from_local(X, mesh, [Partial()] * n)
    sharded, whole_head = distribute_tensor(head, mesh, [Shard(0)] * n), distribute_tensor(head, mesh, replicas)
    rows = distribute_tensor(features, mesh, [Shard(0), *replicas[1:]])
    columns = distribute_tensor(features, mesh, [Shard(2), *replicas[1:]])
    calls = {
        "partial": lambda: snt.softmax(partial, 1),
        "partial loss": lambda: snt.nll_loss(partial, Y),
        "and_stats": lambda: snt.linear_cross_entropy_and_stats(features, sharded, Y),
        "features": lambda: snt.token_stats(columns, whole_head, Y),
        "bias": lambda: snt.token_stats(rows, whole_head, Y, linear_bias=bias.clone().requires_grad_()),
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = f"no error, {type(call()).__name__}"
        except NotImplementedError as error:
            found[name] = str(error)
    return found


def outcomes(world):
    """Return pairs by name, and the messages; four ranks are a mesh of two dimensions."""
    mesh = init_device_mesh("cpu", (2, 2) if world == 4 else (world,))
    replicate = Replicate()
    layouts = [[replicate], [Shard(0)], [Shard(1)], [Shard(2)]]
    layers = [
        ([replicate], [Shard(0)], [Shard(0)]),
        ([replicate], [Shard(0)], [replicate]),
        ([replicate], [replicate], [replicate]),
        ([replicate], None, None),
        ([Shard(0)], [replicate], [replicate]),
        ([Shard(0)], [Shard(0)], [Shard(0)]),
        ([Shard(1)], [Shard(0)], [replicate]),
    ]
    if world == 4:
        layouts = [[Shard(0), Shard(1)], [Shard(2), replicate], [Shard(1), Shard(2)]]
        layers = [([Shard(0), replicate], [replicate, Shard(0)], [replicate, Shard(0)])]
    found = {}
    for placed in layouts:
        for name, function in SCORES.items():
            for dim in (0, 1, -1):
                found[f"{name} {dim} {placed}"] = scores(mesh, lambda x, f=function, d=dim: f(x, d), placed)
        if world != 4:
            for name in ("cross_entropy", "nll_loss"):
                found[f"infinite {name} {placed}"] = infinite(mesh, name, placed)
            found[f"two dims {placed}"] = scores(mesh, lambda x: snt.logsumexp(x, (0, 2)), placed)
    found["dtype"] = scores(mesh, lambda x: snt.softmax(x, 1, dtype=torch.float64), layouts[0])
    for placed in layers:
        for function in (token_stats, losses):
            found[f"{function.__name__} {placed}"] = layer(mesh, function, placed)
    return found | {"refused": refused(mesh)}
