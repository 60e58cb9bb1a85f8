"""fuse under DDP, FSDP2 and a ColwiseParallel head, in two processes: the loss curves of the ordinary models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_processes import spawn

EXAMPLES = Path(__file__).parents[2] / "examples"
FUSED = ("ddp", "ddp tied", "ddp checkpoint", "fsdp", "fsdp accumulated", "fsdp fused after", "fsdp tied")


@pytest.mark.slow
def test_curves(tmp_path):
    """The curves of 20 steps are equal; a head that computes ordinary logits warns once."""
    for each in spawn("training", 2, tmp_path, seconds=150):
        for name, found in each["training"].items():
            assert not isinstance(found, str), (name, found)
            plain, fused, warned = found
            assert fused == pytest.approx(plain, rel=2e-5), name
            assert len(warned) <= 1, (name, warned)
            if name in FUSED:
                assert not warned, (name, warned)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensor_parallel_head", "fsdp_fused"])
def test_example(name):
    """An example runs with two processes, as its docstring says, and its loss falls."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("step")]
    assert len(losses) == 10
    assert losses == sorted(losses, reverse=True)
