"""The example of docs/parallel.md, with two worker processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_two_processes():
    path = Path(__file__).parents[2] / "examples" / "dask_classifier.py"
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False, timeout=220)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("140000 rows on 2 workers: ")
    assert float(last.removeprefix("accuracy ")) > 0.6
