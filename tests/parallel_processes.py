"""Start the ranks of a test as processes and return what they have saved."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

WORKER = Path(__file__).with_name("parallel_worker.py")


def found_by(world, folder):
    """Return what each rank has saved, in rank order; None for a rank that saved nothing."""
    files = [folder / f"{rank}.pt" for rank in range(world)]
    return [torch.load(each, weights_only=False) if each.exists() else None for each in files]


def spawn(programs, world, folder, seconds=300):
    """Return what each rank's programs returned, in rank order; None for a rank that saved nothing."""
    (folder / "store").unlink(missing_ok=True)  # of an attempt that failed
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), programs, str(rank), str(world), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(world)
    ]
    try:
        texts = [each.communicate(timeout=seconds)[0].decode() for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    found = found_by(world, folder)
    if "killed" not in programs:
        assert all(each is not None for each in found), "\n".join(texts)
    return found
