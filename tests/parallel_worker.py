"""One rank of a test: run a program of this module and save what it returns.

python parallel_worker.py PROGRAM RANK WORLD FOLDER
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import softnll.torch as snt
from softnll.torch import parallel

sys.path.insert(0, str(Path(__file__).parent))


def table(rank, world):
    """Return the outcomes of all cases, each twice."""
    from parallel_cases import CASES, outcome, sizes_of  # noqa: PLC0415 - its tensors take time

    found = {}
    for name, case in CASES.items():
        given = case, sizes_of(case, world), rank, parallel
        try:
            found[name] = outcome(*given), outcome(*given)
        except Exception as error:  # noqa: BLE001 - the test shows it
            found[name] = repr(error)
    return found


def collectives(rank, world):
    """Return the collectives and bytes of calls, forward and backward."""
    counted = []
    newest = hasattr(dist, "reduce_scatter_single")
    scatter_name = "reduce_scatter_single" if newest else "reduce_scatter_tensor"
    gather, reduce, scatter = dist.all_gather, dist.all_reduce, getattr(dist, scatter_name)

    def all_gather(parts, mine, **options):
        counted.append(("all_gather", mine.numel() * mine.element_size()))
        return gather(parts, mine, **options)

    def all_reduce(tensor, **options):
        counted.append(("all_reduce", tensor.numel() * tensor.element_size()))
        return reduce(tensor, **options)

    def reduce_scatter(part, tensor, **options):
        counted.append(("reduce_scatter", tensor.numel() * tensor.element_size()))
        return scatter(part, tensor, **options)

    dist.all_gather, dist.all_reduce = all_gather, all_reduce
    setattr(dist, scatter_name, reduce_scatter)
    found = {}
    x, y = torch.randn(10, 4, requires_grad=True), torch.arange(10) % (4 * world)
    loss = parallel.cross_entropy(x, y)
    found["logits forward"] = counted[:]
    counted.clear()
    loss.backward()
    found["logits backward"] = counted[:]
    counted.clear()
    features, head = torch.ones(10, 3, dtype=torch.bfloat16, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    loss = parallel.linear_cross_entropy(features, head, y, max_bytes=1 << 16)
    found["linear forward"] = counted[:]
    counted.clear()
    loss.backward()
    found["linear backward"] = counted[:]
    counted.clear()
    own = torch.ones(10 if rank == 0 else 0, 3, dtype=torch.bfloat16, requires_grad=True)
    loss = parallel.linear_cross_entropy(own, head, y, sequence_dim=0)
    found["parts forward"] = counted[:]
    counted.clear()
    loss.backward()
    found["parts backward"] = counted[:]
    dist.all_gather, dist.all_reduce = gather, reduce
    setattr(dist, scatter_name, scatter)
    return found


def errors(rank, world):
    """Return the message of each bad call on this rank."""
    last, y, x = rank == world - 1, torch.zeros(3, dtype=torch.int64), torch.zeros(3, 4)
    head = torch.zeros(4, 2)
    calls = {
        "rows": lambda: parallel.cross_entropy(torch.zeros(4, 4) if last else x, torch.zeros(4 if last else 3).long()),
        "option": lambda: parallel.cross_entropy(x, y, z_loss=0.5 if last else 0.0),
        "reduction": lambda: parallel.cross_entropy(x, y, reduction="sum" if last else "mean"),
        "type": lambda: parallel.cross_entropy(x.double() if last else x, y),
        "targets": lambda: parallel.cross_entropy(x, y + 1 if last else y),
        "bad option": lambda: parallel.cross_entropy(x, y, label_smoothing=2.0 if last else 0.0),
        "not a tensor": lambda: parallel.cross_entropy([1.0] if last else x, y),
        "out of range": lambda: parallel.cross_entropy(x, y + 4 * world),
        "weight": lambda: parallel.cross_entropy(x, y, torch.ones(3) if last else torch.ones(4)),
        "start": lambda: parallel.cross_entropy(x, y, start=4 * rank + last),
        "no classes": lambda: parallel.cross_entropy(x[:, :0], y),
        "width": lambda: parallel.linear_cross_entropy(torch.zeros(3, 3 if last else 2), head, y),
        "function": lambda: (
            parallel.token_stats(torch.zeros(3, 2), head, y)
            if last
            else parallel.linear_cross_entropy(torch.zeros(3, 2), head, y, reduction="none")
        ),
        "log-probabilities": lambda: parallel.nll_loss(x, y + 4 * world),
        "soft log-probabilities": lambda: parallel.nll_loss(x, x if last else y),
        "target shape": lambda: parallel.cross_entropy(x, y[:2]),
        "sequence": lambda: parallel.token_stats(torch.zeros(3, 2), head, y, sequence_dim=1 if last else 0),
        "sequence type": lambda: parallel.linear_cross_entropy(
            torch.zeros(3, 2).double() if last else torch.zeros(3, 2), head, y, sequence_dim=0
        ),
        "sequence length": lambda: parallel.linear_cross_entropy(torch.zeros(3, 2), head, y, sequence_dim=0),
        "sample weight": lambda: parallel.cross_entropy(x, y, sample_weight=torch.ones(2) if last else torch.ones(3)),
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = ("value", str(call()))
        except Exception as error:  # noqa: BLE001 - that is what is tested
            found[name] = (type(error).__name__, str(error))
    found["afterwards"] = ("value", str(parallel.cross_entropy(x, y)))
    starts = parallel.cross_entropy(x + rank, y, start=4 * (world - 1 - rank))
    found["reversed"] = ("value", f"{starts.item():.5f}")
    return found


def sharded(rank, world):
    """Return losses and gradients of DTensors, each beside that of the whole."""
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor  # noqa: PLC0415

    mesh = init_device_mesh("cpu", (world,))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 9, dtype=torch.float64, generator=generator)
    y = torch.tensor([0, 8, 3, -100, 4, 5, 2])
    weight = torch.rand(9, dtype=torch.float64, generator=generator)
    samples = torch.rand(7, dtype=torch.float64, generator=generator)
    features = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    head = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    found = {}

    def compare(name, function, tensor, placement, *rest, **options):
        whole = tensor.clone().requires_grad_()
        expected = function(whole, *rest, **options)
        upstream = torch.linspace(1, 2, max(expected.numel(), 1)).double().reshape(expected.shape)
        expected.backward(upstream)
        mine = distribute_tensor(tensor, mesh, [placement]).requires_grad_()
        loss = function(mine, *rest, **options)
        size = -(-7 // world)
        if loss.shape != expected.shape:  # of this rank's rows
            expected, upstream = (each[rank * size : rank * size + size] for each in (expected, upstream))
        loss.backward(upstream)
        found[name] = [(loss.detach(), expected.detach()), (mine.grad.full_tensor(), whole.grad)]

    for reduction in ("mean", "sum", "none"):
        options = {"reduction": reduction, "z_loss": 0.1, "weight": weight, "sample_weight": samples}
        for at in (0, 1):
            compare(f"shard {at} {reduction}", snt.cross_entropy, x, Shard(at), y, **options)
        compare(f"replicate {reduction}", snt.cross_entropy, x, Replicate(), y, **options)
        compare(
            f"weight {reduction}",
            lambda W, **o: snt.linear_cross_entropy(features, W, y, **o),
            head,
            Shard(0),
            **options,
        )
    for reduction in ("mean", "sum", "none"):
        options = {"reduction": reduction, "weight": weight, "sample_weight": samples}
        for placement in (Shard(0), Shard(1), Replicate()):
            compare(f"nll {placement} {reduction}", snt.nll_loss, x.log_softmax(1), placement, y, **options)
    compare("soft", snt.cross_entropy, x, Shard(1), x.softmax(1), label_smoothing=0.1)
    compare("soft rows", snt.cross_entropy, x, Shard(0), x.softmax(1), label_smoothing=0.1)
    targets = distribute_tensor(y, mesh, [Replicate()])
    loss = snt.cross_entropy(distribute_tensor(x, mesh, [Shard(1)]), targets)
    found["targets"] = [(loss, snt.cross_entropy(x, y))]
    inputs = distribute_tensor(features, mesh, [Replicate()]).requires_grad_()
    plain = features.clone().requires_grad_()
    snt.linear_cross_entropy(inputs, distribute_tensor(head, mesh, [Shard(0)]), y).backward()
    snt.linear_cross_entropy(plain, head, y).backward()
    found["features"] = [(inputs.grad.full_tensor(), plain.grad)]
    try:
        snt.linear_cross_entropy(features, distribute_tensor(head, mesh, [Shard(1)]), y)
    except NotImplementedError as error:
        found["refused"] = str(error)
    assert isinstance(inputs, DTensor)
    return found


def placements(rank, world):
    """Return what functions of DTensors return, for every placement, and of features in parts."""
    from parallel_placements import in_parts, outcomes  # noqa: PLC0415 - it imports the wrappers

    return outcomes(world), in_parts(rank, world)


def training(rank, world):
    """Return the loss curves of models under wrappers."""
    from sharded_training import curves  # noqa: PLC0415 - it imports the wrappers

    return curves(rank, world)


def killed(rank, world):
    """End the last rank in the middle; the others must get an error."""
    x, y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    parallel.cross_entropy(x, y)
    if rank == world - 1:
        os._exit(9)
    try:
        parallel.cross_entropy(x, y)
    except RuntimeError as error:
        return str(error)
    return "no error"


def main():
    program, rank, world, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=dt.timedelta(seconds=20))
    found = {name: globals()[name](rank, world) for name in program.split(",")}
    torch.save(found, folder / f"{rank}.pt")
    if program != "killed":
        dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
