"""Losses of logits whose vocabulary is divided among processes: torch's loss_parallel, three all-reduces, ours.

    python benchmarks/parallel.py [--shape 512x32000] [--samples 5] [--out FOLDER]

Two gloo processes on this machine. "three all-reduces" is the loss that Shoeybi et al. (2019), "Megatron-LM", section
3, and its code describe: the maximum, the target's logit and Σ exp are all-reduced, then the loss is log Σ − z_y. Ways
take turns; a time is the median of forward and backward on rank 0. The error is that of the loss of a prediction 17
ahead, in float32, against log1p((C − 1)·exp(−17)).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import loss_parallel

from machine import describe
from page import table_first
from softnll.torch import parallel

RESULTS = Path(__file__).parent / "results"
WORLD = 2
OURS, HEADER = "softnll.torch.parallel", 2048


class ThreeAllReduces(torch.autograd.Function):
    """The vocabulary-parallel loss of Megatron-LM's description, unreduced."""

    @staticmethod
    def forward(ctx, logits, target):
        size, rank = logits.shape[1], dist.get_rank()
        largest = logits.amax(1)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        shifted = logits - largest[:, None]
        local = target - rank * size
        mine = (local >= 0) & (local < size)
        local = torch.where(mine, local, 0)
        picked = torch.where(mine, shifted.gather(1, local[:, None])[:, 0], 0.0)
        dist.all_reduce(picked)
        exponentials = shifted.exp()
        total = exponentials.sum(1)
        dist.all_reduce(total)
        ctx.save_for_backward(exponentials / total[:, None], local, mine)
        return total.log() - picked

    @staticmethod
    def backward(ctx, upstream):
        p, local, mine = ctx.saved_tensors
        p = p.clone()
        p[torch.arange(len(p)), local] -= mine.to(p.dtype)
        return p * upstream[:, None], None


def ways(x, y, mesh):
    """Return each way's forward."""

    def torchs():
        with loss_parallel():
            loss = torch.nn.functional.cross_entropy(DTensor.from_local(x, mesh, [Shard(1)]), y)
            loss.backward()
        return loss

    def by_hand():
        loss = ThreeAllReduces.apply(x, y).mean()
        loss.backward()
        return loss

    def ours():
        loss = parallel.cross_entropy(x, y)
        loss.backward()
        return loss

    return {"torch loss_parallel": torchs, "three all-reduces": by_hand, OURS: ours}


def counted(call, itemsize):
    """Return the collectives of a call and the bytes that a rank puts into them; our header is one byte a number."""
    profile = torch.autograd.profiler.profile(record_shapes=True, use_kineto=False)
    with profile:
        call()
    found = [each for each in profile.function_events if each.name.startswith("gloo:")]
    sizes = [math.prod(each.input_shapes[0] or [1]) for each in found if each.input_shapes]
    return len(found), sum(size if size == HEADER else size * itemsize for size in sizes)


def work(rank, folder, shape, samples):
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", WORLD), rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (WORLD,))
    n, c = shape
    torch.manual_seed(0)
    whole, y = torch.randn(n, c), torch.randint(c, (n,))
    x = whole.chunk(WORLD, 1)[rank].clone().requires_grad_()
    calls, times = ways(x, y, mesh), {}
    for call in calls.values():
        call()
    for _ in range(samples):
        for name, call in calls.items():
            x.grad = None
            dist.barrier()
            start = time.perf_counter()
            call()
            times.setdefault(name, []).append(time.perf_counter() - start)
    peaked = torch.zeros(1, 10)
    peaked[0, 3] = 17.0
    sharp = peaked.chunk(WORLD, 1)[rank].clone().requires_grad_()
    true = math.log1p(9 * math.exp(-17))
    errors = {}
    for name, call in ways(sharp, torch.tensor([3]), mesh).items():
        loss = call()
        loss = loss.full_tensor() if isinstance(loss, DTensor) else loss
        errors[name] = abs(loss.item() - true) / true
    rows = [
        (name, median(times[name]), *counted(call, 8 if name == OURS else 4), errors[name])
        for name, call in calls.items()
    ]
    if rank == 0:
        Path(folder, "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="512x32000", metavar="NxC")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of parallel.md")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = tuple(int(each) for each in options.shape.split("x"))
    if options.rank is not None:
        work(options.rank, options.folder, shape, options.samples)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--shape", options.shape, "--samples", str(options.samples)]
        ranks = [subprocess.Popen([*command, "--rank", str(rank), "--folder", folder]) for rank in range(WORLD)]
        if any(each.wait(timeout=300) for each in ranks):
            raise SystemExit("a rank failed")
        rows = json.loads(Path(folder, "rows.json").read_text(encoding="utf-8"))
    lines = [
        f"# Vocabulary-parallel losses, {WORLD} processes, float32 {options.shape}",
        "",
        describe(),
        "",
        "Forward and backward, reduction mean, one thread a process; made by `benchmarks/parallel.py`.",
        "",
        "| way | ms | collectives | bytes a rank puts in | error of the loss 17 ahead |",
        "|---|---|---|---|---|",
        *(f"| {name} | {1e3 * t:.1f} | {n} | {size} | {error:.1e} |" for name, t, n, size, error in rows),
    ]
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / "parallel.md").write_text(table_first("\n".join(lines)), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
