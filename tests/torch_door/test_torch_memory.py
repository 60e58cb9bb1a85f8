"""The memory of the linear losses and their derivatives: gradients and max_bytes, however many chunks there are.

A process of its own says what the operating system gave it, NumPy's and torch's memory together.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
SLACK = 8 * MIB  # buffers of BLAS, and what malloc keeps
CASES = ("loss", "none", "softcap", "module", "soft", "sparse", "log_prob", "statistics")
FEW, TYPES = ("softcap", "statistics"), ("float32", "bfloat16")
PROGRAM = """
import gc, json, sys, torch, softnll.torch as snt
torch.set_num_threads(1)
names, order, dtype, limit = json.loads(sys.argv[1])
N, H, C = 384, 256, 4000  # the head: 3.9 MiB of float32; all logits: 5.9 MiB

def memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

def layer(n):
    torch.manual_seed(0)
    f, W = torch.randn(n, H), torch.randn(C, H) / 16
    return *(each.to(getattr(torch, dtype)).requires_grad_() for each in (f, W)), torch.randint(0, C, (n,))

def loss(name, f, W, y):
    if name in ("log_prob", "statistics"):
        stats = snt.token_stats(f, W, y, max_bytes=limit)
        return stats.log_prob.sum() if name == "log_prob" else (stats.log_prob + stats.entropy + stats.lse).sum()
    if name == "module":
        module = snt.LinearCrossEntropyLoss(H, C, max_bytes=limit, device="meta")
        return torch.func.functional_call(module, {"linear.weight": W}, (f, y))
    options = {"none": {"reduction": "none"}, "softcap": {"softcap": 3.0, "z_loss": 0.1}}.get(name, {})
    if name == "soft":
        y = torch.full((len(y), C), 1 / C, dtype=f.dtype)
    if name == "sparse":
        y = snt.SparseTargets(y[:, None], torch.ones(len(y), 1))
    return snt.linear_cross_entropy(f, W, y, max_bytes=limit, **options).sum()

def run(name, f, W, y):
    if order == 0:
        with torch.no_grad():
            return loss(name, f, W, y)
    first = torch.autograd.grad(loss(name, f, W, y), (f, W), create_graph=order == 2)
    if order == 1:
        return first
    upstream = [torch.ones_like(each) for each in first]
    return torch.autograd.grad(first, (f, W), upstream)

for name in names:
    run(name, *layer(4))  # compiles
    f, W, y = layer(N)
    used = []
    for _ in range(2):  # the first run may have read in again what the system had taken from memory
        gc.collect()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = memory("VmRSS")
        found = run(name, f, W, y)
        used.append(memory("VmHWM") - before)
        del found
    size = W.nbytes + f.nbytes
    held = (0, size, 3 * size)[order]  # of the second order: the gradients, their upstream gradients, the results
    held += W.numel() * 4 if order and dtype != "float32" else 0  # the wider sum
    held += N * C * W.element_size() if name == "soft" else 0  # the targets are inputs
    print(json.dumps([name, min(used), held + limit]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("names", "order", "dtype"),
    [(FEW, 1, "float32")]
    + [pytest.param(CASES, order, dtype, marks=pytest.mark.slow) for order in (0, 1, 2) for dtype in TYPES],
)
def test_the_memory_does_not_grow_with_the_chunks(names, order, dtype):
    """One gradient of the head a chunk would be 100 MiB and more."""
    arguments = json.dumps([names, order, dtype, 3 * MIB])
    command = [sys.executable, "-c", PROGRAM, arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    measured = {name: (used, allowed) for name, used, allowed in map(json.loads, output.splitlines())}
    assert set(measured) == set(names)
    assert all(used <= allowed + SLACK for used, allowed in measured.values()), measured
