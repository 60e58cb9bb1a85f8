"""How near the two main kernels come to the memory's rate, by Nsight Compute, where it is installed and may count.

Run as a script, this file is what is profiled: the loss of a language model's logits, and its gradient.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["SHAPE", "Unavailable", "throughput"]

ROOT = Path(__file__).parent.parent
SHAPE = (8192, 128_256)
METRICS = {
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "of the memory's peak rate",
    "gpu__time_duration.sum": "",
}


class Unavailable(Exception):  # noqa: N818 - what is missing is no error of ours
    """Nsight Compute cannot run here; the message says why."""


def throughput(seconds: float) -> dict[str, str]:
    """Return what is known of each kernel."""
    tool = shutil.which("ncu")
    if tool is None:
        raise Unavailable("ncu (Nsight Compute) is not installed")
    command = [tool, "--csv", "--metrics", ",".join(METRICS), "--kernel-name", "regex:^(loss|gradient)_kernel$"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(
            [*command, sys.executable, __file__], env=env, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"ncu: {type(error).__name__}: {error}"[:160]) from error
    found = parsed(done.stdout)
    if not found:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "==ERROR==" in line]
        raise Unavailable(f"ncu: {(said or ['no kernel was profiled'])[0]}"[:160])
    return found


def parsed(text: str) -> dict[str, str]:
    """Return what ncu's table says of each kernel; other lines are its own."""
    found: dict[str, list[str]] = {}
    for line in csv.DictReader(line for line in text.splitlines() if line.startswith('"')):
        what = METRICS.get(line.get("Metric Name", ""))
        if what is not None:
            told = f"{line['Metric Value']} {line['Metric Unit']} {what}".strip()
            found.setdefault(line["Kernel Name"], []).append(told)
    return {kernel: ", ".join(told) for kernel, told in found.items()}


def main() -> None:
    import torch  # noqa: PLC0415 - of whoever is profiled alone

    import softnll.torch as snt  # noqa: PLC0415

    x = torch.randn(SHAPE, device="cuda").bfloat16().requires_grad_()
    loss = snt.cross_entropy(x, torch.zeros(SHAPE[0], dtype=torch.int64, device="cuda"), reduction="none")
    loss.sum().backward()


if __name__ == "__main__":
    main()
