"""The script that a GPU is given runs from end to end, in Triton's interpreter and with a timer that only counts."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_script_in_the_interpreter(tmp_path):
    done = run("--interpret", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "gpu.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["section"] for line in lines} == {"check", "logits", "linear", "max_bytes"}
    checked = [line for line in lines if line["section"] == "check"]
    assert len({(line["dtype"], line["what"]) for line in checked}) == 20
    assert not any(line["note"] for line in checked)  # one pass and two have the same bits, and time was enough
    for line in checked:
        loss, gradient = (
            float(each.split()[-1].removesuffix(" ulp")) for each in line["error"].removesuffix(" ulp").split(",")
        )
        capped = 4 * 30 if (line["what"], line["dtype"]) == ("softcap", "float64") else 0  # docs/numerics.md, section 3
        assert max(loss, gradient) < (8 if line["what"] else 4) + capped, line
    missing = [line for line in lines if line["note"].startswith("not available")]
    assert {"Liger", "QuACK", "cut-cross-entropy"} <= {line["library"] for line in missing}
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "times are not times" in text
    assert "three bare products" in text


def test_without_a_gpu_it_says_so():
    done = run(TRITON_INTERPRET="1")
    assert done.returncode != 0
    assert "no CUDA device here" in done.stderr
