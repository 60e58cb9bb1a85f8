"""One training step of a language model as it is and with its head fused: time, and memory beyond the model.

    OMP_NUM_THREADS=2 python benchmarks/fuse.py [--vocabulary 32000] [--samples 5] [--out DIR]

A Llama of transformers, randomly initialised, float32. Both steps take turns in one process; the peak of the memory is
measured in a process of each one's own, from after a small step, so that gradients are there already.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

import torch
import transformers

import softnll.torch as snt
from classifier import memory, reset_peak
from machine import describe
from page import table_first

RESULTS = Path(__file__).parent / "results"
VOCABULARIES = (32_000, 128_256)
HIDDEN, LAYERS, TOKENS = 256, 2, (4, 512)
HOW = ("as it is", "fused")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", action="append", type=int, help="may be repeated")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of fuse.csv and fuse.md")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    return parser.parse_args()


def step_of(vocabulary, how):
    """Return a function that does one forward and backward of so many tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": LAYERS}
    config = transformers.LlamaConfig(vocab_size=vocabulary, num_attention_heads=4, **sizes)
    model = transformers.LlamaForCausalLM(config)
    if how == "fused":
        snt.fuse(model)

    def step(shape=TOKENS):
        ids = torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(1))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        return loss.item()

    return step


def peak(vocabulary, how) -> int:
    step = step_of(vocabulary, how)
    step((1, 8))
    reset_peak()
    before = memory("VmRSS")
    step()
    return memory("VmHWM") - before


def peak_elsewhere(*arguments) -> int:
    command = [sys.executable, __file__, "--peak", json.dumps(arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    arguments = parse()
    if arguments.peak:
        print(peak(*json.loads(arguments.peak)))
        return
    lines = []
    for vocabulary in arguments.vocabulary or VOCABULARIES:
        steps = {how: step_of(vocabulary, how) for how in HOW}
        taken = {how: [] for how in HOW}
        for step in steps.values():
            step()
        for _ in range(arguments.samples):
            for how, step in steps.items():
                start = time.perf_counter()
                loss = step()
                taken[how].append(time.perf_counter() - start)
        for how in HOW:
            bytes_ = peak_elsewhere(vocabulary, how)
            lines.append((vocabulary, how, median(taken[how]), min(taken[how]), max(taken[how]), bytes_, loss))
            print(*lines[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "fuse.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("vocabulary", "head", "median_s", "min_s", "max_s", "peak_bytes", "loss"))
        writer.writerows(lines)
    page = ["# A model with its head fused, CPU", "", describe("numpy", "numba", "torch", "transformers"), ""]
    page += [
        f"Forward and backward of {TOKENS[0]} x {TOKENS[1]} tokens through a Llama of {LAYERS} layers, {HIDDEN} wide,"
    ]
    page += [f"float32, {torch.get_num_threads()} threads; medians of {arguments.samples}, in turn."]
    page += ["Peak: memory beyond the model and its gradients.", ""]
    page += ["| vocabulary | logits | head | seconds | peak MiB |", "| --- | --- | --- | --- | --- |"]
    for vocabulary, how, seconds, _, _, bytes_, _ in lines:
        logits = TOKENS[0] * TOKENS[1] * vocabulary * 4 / 2**20
        page.append(f"| {vocabulary} | {logits:.0f} MiB | {how} | {seconds:.3g} | {bytes_ / 2**20:.0f} |")
    (arguments.out / "fuse.md").write_text(table_first("\n".join(page)), encoding="utf-8")


if __name__ == "__main__":
    main()
