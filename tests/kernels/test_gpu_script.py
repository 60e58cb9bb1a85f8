"""The script that a GPU is given runs from end to end, in Triton's interpreter and with a timer that only counts."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import gpu  # noqa: E402 - found there
import gpu_check  # noqa: E402
import gpu_peers  # noqa: E402
import gpu_profile  # noqa: E402


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
    # What compiles functions is torch's: test_compiled_peers_are_compiled says that it is asked to.
    done = run("--interpret", "--out", str(tmp_path), TORCH_COMPILE_DISABLE="1")
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "gpu.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["section"] for line in lines} == {"check", "logits", "linear", "max_bytes", "profile"}
    *checked, told = [line for line in lines if line["section"] == "check"]
    assert told["note"].startswith("0 of 0 cases that are timed later compiled")
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


def test_every_type_of_a_shape_comes_before_the_next_shape():
    """Time may run out; then at least each type has been looked at."""
    chosen = gpu_check.cases(False, gpu.LOGIT_SHAPES, gpu.TIMED)
    assert [case.dtype for case in chosen[:8]] == 2 * list(gpu_check.TYPES)
    compared = [case for case in chosen if case.compared]
    assert {case.shape for case in compared if case.option} == set(gpu_check.WITH_OPTIONS)
    assert len({(case.option, case.dtype) for case in compared}) == 20
    prepared = [case for case in chosen if not case.compared]
    assert {case.shape[1] for case in prepared} == {C for _, C in gpu.LOGIT_SHAPES}
    assert all(case.shape[0] <= 512 for case in prepared)
    assert len(set(chosen)) == len(chosen)


WRONG = gpu_check.Case("", (2, 3), "float8")
RIGHT = gpu_check.Case("", (2, 3), "float64")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_case_that_fails_does_not_stop_the_others(workers):
    prepared = RIGHT._replace(compared=False)
    (_, error, note), (_, right, none), last = gpu_check.outcomes([WRONG, RIGHT, prepared], "cpu", 300, workers)
    assert (error, note) == ("", "KeyError: 'float8'")
    assert right.startswith("loss 0.")
    assert not none
    assert last == (prepared, "", "")


def test_without_time():
    assert list(gpu_check.outcomes([RIGHT], "cpu", -1, 0)) == [(RIGHT, "", "no time left")]
    assert gpu_check._there(Future(), 0) == ("", "no time left")


class Pool:
    """Of processes that die at some case."""

    def __init__(self, *_):
        pass

    def submit(self, function, case, device):
        future = Future()
        future.set_exception(BrokenExecutor()) if case is WRONG else future.set_result(function(case, device))
        return future

    def shutdown(self, **_):
        pass


def test_a_process_that_dies_takes_one_case_along(monkeypatch):
    monkeypatch.setattr(gpu_check, "ProcessPoolExecutor", Pool)
    found = list(gpu_check.outcomes([RIGHT, WRONG, RIGHT, WRONG], "cpu", 300, 2))
    assert [note for _, _, note in found] == ["", "a process died", "", "a process died"]
    assert found[2][1].startswith("loss 0.")


def test_a_group_that_fails_gives_its_memory_back_and_is_told():
    class Device:
        given_back = 0

        def release(self):
            self.given_back += 1

    def lines():
        yield gpu.Line("logits", "", "", "", "ours")
        raise torch.OutOfMemoryError("no memory")

    device = Device()
    first, second = gpu.guarded(lines(), "logits", "float32", "1x2", device)
    assert not first.note
    assert second.note == "OutOfMemoryError: no memory"
    assert device.given_back == 1


def test_compiled_peers_are_compiled(monkeypatch):
    """torch.compile runs a function as it is after eight compilations, unless it is told to begin anew."""
    done = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: done.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda loss, dynamic: done.append(dynamic) or loss)
    gpu_peers.LOGITS["torch.compile"]()
    gpu_peers.LINEAR["torch.compile, unfused"]()
    assert done == ["reset", False, "reset", False]


def test_without_git(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(gpu.subprocess, "run", missing)
    assert gpu.commit() == "unknown"


NCU = """#!/bin/sh
echo '==PROF== Connected to process 7'
echo '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
echo '"0","loss_kernel","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","91.20"'
echo '"0","loss_kernel","gpu__time_duration.sum","ms","1.02"'
echo '"1","gradient_kernel","dram__throughput.avg.pct_of_peak_sustained_elapsed","%","88.10"'
"""


def test_what_nsight_compute_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    tool = tmp_path / "ncu"
    tool.write_text(NCU, encoding="utf-8")
    tool.chmod(0o755)
    assert gpu_profile.throughput(30) == {
        "loss_kernel": "91.20 % of the memory's peak rate, 1.02 ms",
        "gradient_kernel": "88.10 % of the memory's peak rate",
    }
    tool.write_text("#!/bin/sh\necho '==ERROR== ERR_NVGPUCTRPERM - no permission'\n", encoding="utf-8")
    with pytest.raises(gpu_profile.Unavailable, match="ERR_NVGPUCTRPERM"):
        gpu_profile.throughput(30)
    tool.write_text("#!/bin/sh\nexec sleep 5\n", encoding="utf-8")
    with pytest.raises(gpu_profile.Unavailable, match="TimeoutExpired"):
        gpu_profile.throughput(0.1)
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gpu_profile.Unavailable, match="not installed"):
        gpu_profile.throughput(30)
