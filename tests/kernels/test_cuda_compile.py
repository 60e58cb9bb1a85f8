"""The Triton kernels compile ahead of time for devices that are not here, and their registers suffice."""

from __future__ import annotations

import ast
import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "benchmarks" / "results" / "gpu-compile.csv"
REGISTERS = 65_536  # of a multiprocessor
PUT_ASIDE = 24  # bytes that ptxas stores and loads again around a loop, with registers to spare


def compiled(folder, *arguments):
    """Compile some of the kernels and return the table's lines."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = ROOT / "benchmarks" / "gpu_compile.py"
    command = [sys.executable, script, *arguments, "--out", folder]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with (folder / "gpu-compile.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_option_compiles_for_each_device(tmp_path):
    lines = compiled(tmp_path, "--only", "loss + gradient", "--dtype", "bfloat16", "--shape", "8192x1000")
    assert {line["target"] for line in lines} == {"sm_80", "sm_90", "gfx942"}
    assert len({(line["target"], line["options"]) for line in lines}) == 3 * 8
    for line in lines:
        assert int(line["spilled_bytes"] or 0) <= (PUT_ASIDE if line["options"] else 0), line


def test_the_committed_table():
    """Every call, type and target is there; where nothing special is asked, nothing spills."""
    with TABLE.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for name, count in {"target": 3, "call": 6, "dtype": 4, "options": 8}.items():
        assert len({line[name] for line in lines}) == count
    for line in lines:
        if line["target"] == "sm_90":
            assert int(line["registers"]) * 32 * int(line["warps"]) <= REGISTERS
            assert int(line["shared_bytes"]) <= 48 << 10
        assert int(line["spilled_bytes"] or 0) <= (PUT_ASIDE if line["options"] else 0), line


@pytest.mark.parametrize("name", ["row_parts", "rows", "elementary"])
def test_older_tritons_compile_it(name):
    """Up to 3.6 at least a function may not return None, and an assignment has one target; newer ones do more."""
    tree = ast.parse((ROOT / "src" / "softnll" / "_kernels" / "cuda" / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None:
            given = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            assert not any(isinstance(each, ast.Constant) and each.value is None for each in given), node.lineno
        if isinstance(node, ast.Assign):
            assert len(node.targets) == 1, node.lineno
            values = node.value.elts if isinstance(node.value, ast.Tuple) else []
            assert not any(isinstance(each, ast.Constant) and each.value is None for each in values), node.lineno
